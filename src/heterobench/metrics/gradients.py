"""Do gradients agree? Coherence of examples, dissimilarity of clients.

`gradients` [m, P] stacks the flat gradients of m examples or clients as a NumPy array or a torch tensor (only operators
and methods that both have are used) and is taken to float64 first. Gradients of examples must come from the model in
evaluation mode, at the same indices for every method compared, of the loss of ONE example each (a mean over the batch
scales them by 1/m: harmless in ratios, not in `zeta_squared`). Weights [clients] are divided by their sum; none: equal.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

STATIONARY = 1e-8  # norm of the mean gradient below which ratios to it say nothing


class GradientSums(NamedTuple):
    """What coherence needs of m gradients, to be summed over small batches: O(P) memory instead of m x P.

    `count` m, `total` [P] their sum, `squares` the sum of their squared norms.
    """

    count: int
    total: Any
    squares: float


def _float64(gradients: Any) -> Any:
    gradients = gradients.double() if hasattr(gradients, "double") else np.asarray(gradients, dtype=np.float64)
    if gradients.ndim != 2 or not len(gradients):
        raise ValueError(f"gradients: shape {tuple(gradients.shape)}, must be [m, P] with at least one row")
    return gradients


def _shares(weights: Any, clients: int) -> list[float]:
    values = [1.0] * clients if weights is None else [float(weight) for weight in weights]
    total = math.fsum(values)
    if len(values) != clients or min(values) < 0 or not 0 < total < math.inf:
        raise ValueError(f"weights: must be {clients} numbers of at least 0 with a positive, finite sum")
    return [value / total for value in values]


def _squared(vector: Any) -> float:
    return float((vector * vector).sum())


def gradient_sums(gradients: Any) -> GradientSums:
    """The sums of gradients [m, P]; those of two batches add by `added`."""
    gradients = _float64(gradients)
    return GradientSums(len(gradients), gradients.sum(0), _squared(gradients))


def added(first: GradientSums, second: GradientSums) -> GradientSums:
    """The sums over the gradients of both."""
    return GradientSums(first.count + second.count, first.total + second.total, first.squares + second.squares)


def _sums(gradients: Any) -> GradientSums:
    return gradients if isinstance(gradients, GradientSums) else gradient_sums(gradients)


def coherence(gradients: Any) -> float:
    """alpha = |mean g|^2 / mean |g|^2, in [0, 1]; 1/m for orthogonal gradients. NaN when all are zero.

    `gradients` [m, P] or their `GradientSums`. Source: Chatterjee and Zielinski, arXiv 2203.10036, section 2.
    """
    sums = _sums(gradients)
    return m_coherence(sums) / sums.count


def m_coherence(gradients: Any) -> float:
    """|sum g|^2 / sum |g|^2, in [0, m]: how many examples a step along one example's gradient helps on average.

    Equal gradients: m, orthogonal: 1, opposite: 0; NaN when all are zero. `gradients` [m, P] or their `GradientSums`;
    compare at equal m. Source: Chatterjee and Zielinski, arXiv 2008.01217.
    """
    sums = _sums(gradients)
    return _squared(sums.total) / sums.squares if sums.squares > 0 else math.nan


def distinct_coherence(gradients: Any) -> float:
    """Coherence over pairs of different examples: (|sum g|^2 - sum |g|^2) / ((m - 1) sum |g|^2).

    Free of the floor 1/m that pairs of an example with itself put under `coherence`; may be negative. NaN for one
    gradient or when all are zero. `gradients` [m, P] or their `GradientSums`.
    """
    sums = _sums(gradients)
    if sums.count < 2 or not sums.squares > 0:
        return math.nan
    return (_squared(sums.total) - sums.squares) / ((sums.count - 1) * sums.squares)


def gradient_diversity(gradients: Any) -> float:
    """sum |g|^2 / |sum g|^2 >= 1/m, the inverse of `m_coherence`; infinite when they cancel, NaN when all are zero.

    Source: Yin et al., arXiv 1706.05699, definition 1. `gradients` [m, P] or their `GradientSums`.
    """
    made = m_coherence(gradients)
    return math.inf if made == 0 else 1 / made


def batch_size_bound(gradients: Any) -> float:
    """m times `gradient_diversity`: batches up to about this size act like single steps (arXiv 1706.05699)."""
    sums = _sums(gradients)
    return sums.count * gradient_diversity(sums)


def mean_cosine(gradients: Any) -> float:
    """Mean cosine over pairs of different gradients [m, P] that are not zero; NaN with fewer than two of those."""
    gradients = _float64(gradients)
    norms = (gradients * gradients).sum(1) ** 0.5
    held = norms > 0
    count = int(held.sum())
    if count < 2:
        return math.nan
    unit = gradients[held] / norms[held][:, None]
    return (_squared(unit.sum(0)) - count) / (count * (count - 1))


def gradient_signal_to_noise(gradients: Any) -> float:
    """Mean over parameters of mean^2 / population variance over gradients [m, P] (GSNR, arXiv 2001.07384).

    Parameters on which all gradients agree have no finite ratio and are left out; NaN when none is left.
    """
    gradients = _float64(gradients)
    mean = gradients.sum(0) / len(gradients)
    deviations = gradients - mean
    variance = (deviations * deviations).sum(0) / len(gradients)
    held = variance > 0
    count = int(held.sum())
    return float((mean[held] * mean[held] / variance[held]).sum()) / count if count else math.nan


def _weighted_mean(gradients: Any, shares: list[float]) -> Any:
    return sum((share * row for share, row in zip(shares, gradients, strict=True)), 0 * gradients[0])


def _mean_square(gradients: Any, shares: list[float]) -> float:
    return math.fsum(share * _squared(row) for share, row in zip(shares, gradients, strict=True))


def zeta_squared(gradients: Any, weights: Any = None) -> float:
    """sum_k p_k |g_k - g|^2 with g = sum_k p_k g_k: how far client gradients [clients, P] lie from their mean.

    Source: Koloskova et al., arXiv 2003.10422, assumption on the diversity of functions, here at one point. Gradients
    from batches inflate it by their sampling noise: see `unbiased_zeta_squared`.
    """
    gradients = _float64(gradients)
    shares = _shares(weights, len(gradients))
    return _mean_square(gradients - _weighted_mean(gradients, shares), shares)


def unbiased_zeta_squared(first: Any, second: Any, weights: Any = None) -> float:
    """`zeta_squared` of the expected gradients from two independent batches of every client, each [clients, P].

    Products of independent estimates are unbiased for squares: sum_k p_k g1_k . g2_k - g1 . g2. May be negative.
    """
    first, second = _float64(first), _float64(second)
    if first.shape != second.shape:
        raise ValueError(f"second: shape {tuple(second.shape)}, must be {tuple(first.shape)} as first")
    shares = _shares(weights, len(first))
    products = math.fsum(share * float((a * b).sum()) for share, a, b in zip(shares, first, second, strict=True))
    return products - float((_weighted_mean(first, shares) * _weighted_mean(second, shares)).sum())


def dissimilarity(gradients: Any, weights: Any = None) -> float:
    """B^2 = sum_k p_k |g_k|^2 / |sum_k p_k g_k|^2 >= 1 of client gradients, or of client updates, [clients, P].

    B is the local dissimilarity of FedProx (Li et al., arXiv 1812.06127, definition 3). 1 when all are zero; NaN when
    the mean is shorter than 1e-8 otherwise (a stationary point, where the definition has no value).
    """
    gradients = _float64(gradients)
    shares = _shares(weights, len(gradients))
    square, mean = _mean_square(gradients, shares), _squared(_weighted_mean(gradients, shares))
    if square == 0:
        return 1.0
    return square / mean if mean >= STATIONARY**2 else math.nan


def cosine_to_mean(gradients: Any, weights: Any = None) -> float:
    """Weighted mean cosine of client gradients or updates [clients, P] to their weighted mean; in [-1, 1].

    Zero rows are left out with their weight; NaN when the mean is zero or nothing is left.
    """
    gradients = _float64(gradients)
    shares = _shares(weights, len(gradients))
    mean = _weighted_mean(gradients, shares)
    length = math.sqrt(_squared(mean))
    held = [(share, row) for share, row in zip(shares, gradients, strict=True) if share > 0 and _squared(row) > 0]
    if length == 0 or not held:
        return math.nan
    cosines = [share * float((row * mean).sum()) / (math.sqrt(_squared(row)) * length) for share, row in held]
    return math.fsum(cosines) / math.fsum(share for share, _ in held)


def fitted_dissimilarity(mean_squares: np.ndarray, squared_means: np.ndarray) -> tuple[float, float]:
    """(G^2, B^2) >= 0 by least squares in sum_k p_k |g_k|^2 ~ G^2 + B^2 |g|^2 over checkpoints.

    Both arguments are float [checkpoints]. A fit, not the bound that holds everywhere: (G, B) of SCAFFOLD
    (Karimireddy et al., arXiv 1910.06378, assumption A1) are any pair that is never exceeded.
    """
    from scipy.optimize import nnls

    left, right = np.asarray(mean_squares, dtype=np.float64), np.asarray(squared_means, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape or len(left) < 2:
        raise ValueError(f"mean_squares, squared_means: shapes {left.shape}, {right.shape}, must be equal, two or more")
    fitted, _ = nnls(np.stack([np.ones(len(right)), right], axis=1), left)
    return float(fitted[0]), float(fitted[1])
