"""How uneven a partition is: pure functions of label counts, int [clients, classes].

A client's label distribution is p, that of all clients' examples together is q. A client without examples has
no p: its distances are 0 and its number of classes is 0, and `summary` leaves it out of every mean over
clients.
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


def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Everything measured per client, each [clients]."""
    return {
        "examples": counts.sum(1),
        "label_total_variation": total_variation(counts),
        "label_jensen_shannon": jensen_shannon(counts),
        "effective_classes": effective_classes(counts),
    }


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
        "label_total_variation_mean": mean["label_total_variation"],
        "label_jensen_shannon_mean": mean["label_jensen_shannon"],
        "effective_classes_mean": mean["effective_classes"],
    }


def _entropy(p: np.ndarray) -> np.ndarray:
    from scipy.special import xlogy  # only where partitions are measured: training reads them without scipy

    return -xlogy(p, p).sum(-1)
