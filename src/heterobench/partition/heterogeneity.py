"""How uneven a partition is: pure functions, most of them of label counts, int [clients, classes].

A client's label distribution is p, that of all clients' examples together is q. A client without examples has
no p: its distances are 0 and its number of classes is 0, and `summary` leaves it out of every mean over
clients. Labels are the true ones throughout, whatever clients observe.
"""

from __future__ import annotations

import numpy as np

from heterobench.partition.partition import Partition


def label_counts(partition: Partition, labels: np.ndarray, classes: int) -> np.ndarray:
    """int64 [clients, classes]: examples of each class that each client holds, all three parts together."""
    counts = np.zeros(partition.clients * classes, np.int64)
    for part in partition.parts:
        counts += np.bincount(part.owner * classes + labels[part.indices], minlength=len(counts))
    return counts.reshape(partition.clients, classes)


def distributions(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(p [clients, classes], q [classes]); all zeros where there is no example."""
    sizes = counts.sum(1, keepdims=True)
    return counts / np.maximum(sizes, 1), counts.sum(0) / max(sizes.sum(), 1)


def total_variation(counts: np.ndarray) -> np.ndarray:
    """[clients], in [0, 1): sum_k |p_k - q_k| / 2, the share of examples that would have to change class."""
    p, q = distributions(counts)
    return np.where(counts.any(1), np.abs(p - q).sum(1) / 2, 0.0)


def jensen_shannon(counts: np.ndarray) -> np.ndarray:
    """[clients], in bits, in [0, 1]: the divergence H((p + q) / 2) - (H(p) + H(q)) / 2, not its square root.

    Source: Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37(1), 1991.
    """
    p, q = distributions(counts)
    bits = (_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2) / np.log(2)
    return np.where(counts.any(1), np.maximum(bits, 0.0), 0.0)  # rounding may fall below zero


def effective_classes(counts: np.ndarray) -> np.ndarray:
    """[clients], from 1 to the number of classes: exp(H(p)), as many equal classes as have the entropy of p.

    Source: Hill, "Diversity and evenness: a unifying notation and its consequences", Ecology 54(2), 1973.
    """
    p, _ = distributions(counts)
    return np.where(counts.any(1), np.exp(_entropy(p)), 0.0)


def gini(sizes: np.ndarray) -> float:
    """Gini coefficient of client sizes, in [0, 1 - 1/n]: mean |x_i - x_j| / (2 mean x); 0 if all are 0."""
    x = np.sort(np.asarray(sizes, float))
    n, total = len(x), x.sum()
    return float(np.arange(1 - n, n, 2) @ x / (n * total)) if total else 0.0


def client_mean(partition: Partition, values: np.ndarray) -> np.ndarray:
    """[clients]: mean of values [n] over a client's examples, all three parts together."""
    total = sum(np.bincount(part.owner, values[part.indices], partition.clients) for part in partition.parts)
    return total / np.maximum(partition.sizes, 1)


BLOCK = 2**21  # inputs' numbers held at once as float64: 16 MB


def feature_distance(partition: Partition, inputs: np.ndarray) -> np.ndarray:
    """[clients], from 0: how far a client's mean input lies from the mean of all, in standard deviations.

    d_i = sqrt(mean_j ((m_ij - m_j) / s_j)^2) over the features j (pixels, samples, columns) of `inputs` [n, ...]; m_ij
    is the mean of client i's examples, m_j and s_j are mean and (population) standard deviation of all clients'.
    Constant features are left out. What each feature is scaled and shifted by has no say, so d is the same before and
    after normalisation; clients' transformations are not in it.

    With n_i examples of n at client i, sum_i (n_i / n) d_i^2 in [0, 1] is the mean over features of the share of
    variance that lies between clients (the squared correlation ratio). By chance alone, E[d_i^2] is
    (n - n_i) / (n_i (n - 1)).

    Two passes over the data; memory does not grow with the number of clients.
    """
    inputs = inputs.reshape(len(inputs), -1)
    features, sizes = inputs.shape[1], partition.sizes
    examples = np.concatenate([part.indices for part in partition.parts])
    owner = np.concatenate([part.owner for part in partition.parts])
    examples = examples[np.argsort(owner, kind="stable")]
    ends = np.cumsum(sizes)
    many = max(BLOCK // features, 1)

    # moments of the distance to one example, as sums of squares of large numbers would cancel
    centre = inputs[examples[0]].astype(np.float64) if len(examples) else np.zeros(features)
    total, squares = np.zeros(features), np.zeros(features)
    for first in range(0, len(examples), many):
        block = inputs[np.sort(examples[first : first + many])] - centre
        total += block.sum(0)
        squares += np.einsum("ij,ij->j", block, block)
    mean = total / max(len(examples), 1)
    variance = squares / max(len(examples), 1) - mean**2
    varies = variance > 1e-12 * squares.max(initial=1) / max(len(examples), 1)
    weight = np.divide(1, variance, out=np.zeros(features), where=varies) / max(varies.sum(), 1)

    distance = np.zeros(partition.clients)
    for low in range(0, partition.clients, many):
        high = min(low + many, partition.clients)
        sums = np.zeros((high - low, features))
        begin, end = ends[low] - sizes[low], ends[high - 1]
        for first in range(begin, end, many):
            last = min(first + many, end)
            holder = np.searchsorted(ends, np.arange(first, last), side="right") - low
            starts = np.flatnonzero(np.diff(holder, prepend=-1))
            sums[holder[starts]] += np.add.reduceat(inputs[examples[first:last]] - centre, starts, axis=0)
        own = sizes[low:high, None]
        distance[low:high] = np.sqrt((((sums / np.maximum(own, 1) - mean) ** 2) * (own > 0)) @ weight)
    return distance


def stage_counts(partition: Partition, labels: np.ndarray, classes: int) -> np.ndarray:
    """int64 [clients, stages, classes]: examples of each class that each client holds in each stage of a stream."""
    stage, stages = partition.details["stage"], partition.stages
    counts = np.zeros(partition.clients * stages * classes, np.int64)
    for part in partition.parts:
        place = (part.owner * stages + stage[part.indices]) * classes + labels[part.indices]
        counts += np.bincount(place, minlength=len(counts))
    return counts.reshape(partition.clients, stages, classes)


def measure(
    counts: np.ndarray,
    partition: Partition | None = None,
    labels: np.ndarray | None = None,
    inputs: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Everything measured per client, each [clients].

    With `partition` and `labels` [n], where a change made them: also label_noise, the share of examples whose observed
    label is not the true one, and labelled_share, the share of examples whose label the client knows. With `inputs`
    [n, ...] besides: also feature_distance.
    """
    measured = {
        "examples": counts.sum(1),
        "label_total_variation": total_variation(counts),
        "label_jensen_shannon": jensen_shannon(counts),
        "effective_classes": effective_classes(counts),
    }
    if partition is not None:
        if "observed" in partition.details:
            measured["label_noise"] = client_mean(partition, partition.details["observed"] != labels)
        if "labelled" in partition.details:
            measured["labelled_share"] = client_mean(partition, partition.details["labelled"])
        if inputs is not None:
            measured["feature_distance"] = feature_distance(partition, inputs)
    return measured


MEASURES = (
    "examples",
    "label_total_variation",
    "label_jensen_shannon",
    "effective_classes",
    "label_noise",
    "labelled_share",
    "feature_distance",
)


def summary(measured: dict[str, np.ndarray]) -> dict[str, float]:
    """The whole partition in single numbers; means run over clients with examples, each counted once."""
    sizes = measured["examples"]
    held = sizes > 0
    mean = {name: float(measured[name][held].mean()) if held.any() else 0.0 for name in measured}
    return {
        "examples_min": int(sizes.min()),
        "examples_median": float(np.median(sizes)),
        "examples_max": int(sizes.max()),
        "empty_clients": int((~held).sum()),
        "size_gini": gini(sizes),
    } | {f"{name}_mean": mean[name] for name in MEASURES[1:] if name in measured}


def _entropy(p: np.ndarray) -> np.ndarray:
    from scipy.special import xlogy  # only where partitions are measured: training reads them without scipy

    return -xlogy(p, p).sum(-1)
