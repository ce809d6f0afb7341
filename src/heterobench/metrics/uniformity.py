"""How evenly a score or a loss is shared by clients: what `clients.spread` does not say.

`values` and `losses` are float [clients], finite (leave clients without examples out first), `weights` float
[clients], at least zero, of any positive sum. A model that is equally bad for all is perfectly even: show the mean
beside every number of this module. Over seeds, compute the number in each seed and then average.
"""

from __future__ import annotations

import math

import numpy as np


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name}: shape {values.shape}, must be [clients] with at least one")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: must be finite; leave clients without examples out")
    return values


def _checked_scores(values: np.ndarray) -> np.ndarray:
    values = _checked(values, "values")
    if values.min() < 0:
        raise ValueError(f"values: lowest {values.min()}, must be at least 0")
    return values


def _shares(weights: np.ndarray | None, clients: int) -> np.ndarray:
    """`weights` [clients] divided by their sum; equal shares where there are none."""
    if weights is None:
        return np.full(clients, 1 / clients)
    weights = _checked(weights, "weights")
    if len(weights) != clients or weights.min() < 0 or weights.sum() <= 0:
        raise ValueError(f"weights: must be {clients} numbers of at least 0 with a positive sum")
    return weights / weights.sum()


def _number(percent: float, clients: int) -> int:
    if not 0 < percent <= 100:
        raise ValueError(f"percent: {percent}, must lie in (0, 100]")
    return max(1, math.ceil(percent * clients / 100))


def worst_share(values: np.ndarray, percent: float = 10) -> float:
    """Mean of the lowest max(1, ceil(percent K / 100)) of K values (rounded up; q-FFL, arXiv 1905.10497)."""
    values = _checked(values, "values")
    return float(np.sort(values)[: _number(percent, len(values))].mean())


def best_share(values: np.ndarray, percent: float = 10) -> float:
    """Mean of the highest max(1, ceil(percent K / 100)) of K values."""
    values = _checked(values, "values")
    return float(np.sort(values)[-_number(percent, len(values)) :].mean())


def coefficient_of_variation(values: np.ndarray) -> float:
    """Population standard deviation over the mean of values >= 0; 0 where all are zero."""
    values = _checked_scores(values)
    return float(values.std() / values.mean()) if values.any() else 0.0


def gini(values: np.ndarray) -> float:
    """Gini index of values >= 0: sum_ij |a_i - a_j| / (2 K^2 mean), in [0, 1 - 1/K]; 0: all equal (zeros too)."""
    values = np.sort(_checked_scores(values))
    if not values.any():
        return 0.0
    k = len(values)
    # in ascending order the sum of |a_i - a_j| over all pairs is 2 sum_i (2 i - K + 1) a_i, i = 0..K-1
    return float(((2 * np.arange(k) - k + 1) * values).sum() / (k * values.sum()))


def jain(values: np.ndarray) -> float:
    """Jain's index of values >= 0: (sum a)^2 / (K sum a^2), in [1/K, 1]; 1: all equal (zeros too)."""
    values = _checked_scores(values)
    return float(values.sum() ** 2 / (len(values) * (values**2).sum())) if values.any() else 1.0


def divergence_from_uniform(values: np.ndarray) -> float:
    """KL divergence, in nats, of values >= 0 divided by their sum from equal shares; ln K less the entropy.

    In [0, ln K]; 0: all equal (zeros too). One of the notions of uniformity of q-FFL (arXiv 1905.10497, section 3).
    """
    values = _checked_scores(values)
    if not values.any():
        return 0.0
    shares = values[values > 0] / values.sum()
    return float((shares * np.log(shares * len(values))).sum())


def cosine_to_uniform(values: np.ndarray) -> float:
    """Cosine of the angle between values >= 0 and the vector of ones: the root of `jain`."""
    return math.sqrt(jain(values))


def binomial_floor(accuracies: np.ndarray, sizes: np.ndarray) -> float:
    """Standard deviation over clients that chance alone puts into accuracies: sqrt(mean a (1 - a) / n).

    `accuracies` [clients] in [0, 1] from `sizes` [clients] test examples each.
    """
    accuracies, sizes = _checked_scores(accuracies), _checked(sizes, "sizes")
    if accuracies.max() > 1:
        raise ValueError(f"values: highest {accuracies.max()}, must be an accuracy in [0, 1]")
    if sizes.shape != accuracies.shape or sizes.min() < 1:
        raise ValueError(f"sizes: must be {len(accuracies)} numbers of at least 1")
    return math.sqrt((accuracies * (1 - accuracies) / sizes).mean())


def excess_spread(accuracies: np.ndarray, sizes: np.ndarray) -> float:
    """Population standard deviation of accuracies beyond `binomial_floor`: sqrt(max(0, variance - floor^2))."""
    floor = binomial_floor(accuracies, sizes)
    return math.sqrt(max(0.0, float(np.var(np.asarray(accuracies, dtype=np.float64))) - floor**2))


def q_fair_objective(losses: np.ndarray, q: float, weights: np.ndarray | None = None) -> float:
    """q-FFL objective: sum_k p_k L_k^(q+1) / (q+1), `losses` >= 0, q >= 0 (0: weighted mean).

    Source: Li et al., arXiv 1905.10497, equation 2. Without `weights` all clients count the same.
    """
    losses = _checked(losses, "losses")
    if losses.min() < 0:
        raise ValueError(f"losses: lowest {losses.min()}, must be at least 0")
    if q < 0:
        raise ValueError(f"q: {q}, must be at least 0")
    return float((_shares(weights, len(losses)) * losses ** (q + 1)).sum() / (q + 1))


def tilted_loss(losses: np.ndarray, t: float, weights: np.ndarray | None = None) -> float:
    """TERM: (1/t) ln sum_k p_k exp(t L_k); weighted mean at t = 0, maximum as t grows, minimum as it falls.

    Source: Li et al., arXiv 2007.01162, equation 2 (over clients). Only clients of positive weight count.
    """
    from scipy.special import logsumexp

    losses = _checked(losses, "losses")
    shares = _shares(weights, len(losses))
    if t == 0:
        return float((shares * losses).sum())
    return float(logsumexp(t * losses, b=shares) / t)


def agnostic_loss(losses: np.ndarray) -> float:
    """The largest client loss: the maximum over mixtures of clients of their mixed loss (AFL, arXiv 1902.00146)."""
    return float(_checked(losses, "losses").max())


def conditional_value_at_risk(losses: np.ndarray, share: float, weights: np.ndarray | None = None) -> float:
    """Mean loss of the worst `share`, in (0, 1], of the weight; the client at the border counts in part.

    Source: Rockafellar and Uryasev, Journal of Risk 2 (2000), 21. 1: weighted mean; towards 0: the largest loss of
    a client of positive weight.
    """
    losses = _checked(losses, "losses")
    if not 0 < share <= 1:
        raise ValueError(f"share: {share}, must lie in (0, 1]")
    shares = _shares(weights, len(losses))
    order = np.argsort(-losses, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(shares[order])[:-1]])
    taken = np.clip(share - before, 0, shares[order])
    return float((taken * losses[order]).sum() / taken.sum())
