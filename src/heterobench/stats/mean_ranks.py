"""Friedman's test over data sets, Nemenyi's critical difference, and the cliques of its diagram.

Failed runs: a score that is not finite ranks last on its data set; several such scores tie. Source of the
procedure: Demšar, JMLR 7 (2006) 1-30, section 3.2.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from heterobench.keyed import generator
from heterobench.stats.checks import array, losses, share
from heterobench.stats.signed_rank import mid_ranks

PERMUTATIONS = 9999


class Friedman(NamedTuple):
    """Mean ranks [k] (1 is best) over n data sets, and tests that all methods are alike.

    `chi2` is Friedman's statistic without and `tied_chi2` with the correction for ties, both with k - 1 degrees
    of freedom; `f` is Iman and Davenport's, from `chi2`, with (k - 1, (k - 1)(n - 1)). Their p are for many data sets:
    with three, `f_p` < 0.05 comes by chance in 7 (five methods) to 25 % (two methods) of all cases. `p` holds for any
    number: the share of permutations of each data set's ranks with as large a statistic; never below 1/10000.
    """

    mean_ranks: np.ndarray
    chi2: float
    chi2_p: float
    tied_chi2: float
    tied_p: float
    f: float
    f_p: float
    p: float
    n: int


def rank_rows(scores: ArrayLike, direction: str = "max") -> np.ndarray:
    """Ranks [data sets, methods] within each data set: 1 is best, mid-ranks for ties, failed runs last."""
    return np.array([mid_ranks(row) for row in losses(array(scores, "scores", 2), direction)])


def friedman(scores: ArrayLike, direction: str = "max") -> Friedman:
    """Test of `scores` [n data sets, k methods]; one value per cell, seeds averaged before.

    chi2 = 12 n / (k (k + 1)) (sum R_j^2 - k (k + 1)^2 / 4); tied_chi2 divides by 1 - sum (t^3 - t) / (n k (k^2 - 1))
    over groups of t equal scores; f = (n - 1) chi2 / (n (k - 1) - chi2). Sources: Friedman, JASA 32 (1937) 675; Iman
    and Davenport, Communications in Statistics A9 (1980) 571. Equal scores throughout give statistics 0 and p 1;
    the same order on every data set gives f = inf and `f_p` 0.

    Raises ValueError for fewer than two data sets or two methods.
    """
    from scipy.stats import chi2 as chi2_distribution
    from scipy.stats import f as f_distribution

    ranks = rank_rows(scores, direction)
    n, k = ranks.shape
    if n < 2 or k < 2:
        raise ValueError(f"scores: must have at least two data sets and two methods, has shape {ranks.shape}")
    means = ranks.mean(axis=0)
    chi2 = 12 * n / (k * (k + 1)) * float(np.sum((means - (k + 1) / 2) ** 2))
    tied = sum(int(t) ** 3 - int(t) for row in ranks for t in np.unique(row, return_counts=True)[1])
    untied_share = 1 - tied / (n * k * (k * k - 1))
    tied_chi2 = chi2 / untied_share if untied_share > 0 else 0.0
    left = n * (k - 1) - chi2
    f = (n - 1) * chi2 / left if left > 1e-9 * n * k else math.inf
    return Friedman(
        means,
        chi2,
        float(chi2_distribution.sf(chi2, k - 1)),
        tied_chi2,
        float(chi2_distribution.sf(tied_chi2, k - 1)),
        f,
        float(f_distribution.sf(f, k - 1, (k - 1) * (n - 1))),
        _permuted_p(ranks),
        n,
    )


def _permuted_p(ranks: np.ndarray) -> float:
    """p of `ranks` [n, k], among themselves and `PERMUTATIONS` random permutations of each data set's.

    Source: Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010) 39: p = (b + 1) /
    (m + 1), which is below alpha in no more than alpha of all cases.
    """
    n, k = ranks.shape
    drawn = generator(0, "friedman", n, k).permuted(np.broadcast_to(ranks, (PERMUTATIONS, n, k)), axis=2)
    spread = np.square(drawn.sum(axis=1) - n * (k + 1) / 2).sum(axis=1)
    least = np.square(ranks.sum(axis=0) - n * (k + 1) / 2).sum()
    return (1 + int((spread >= least - 1e-9).sum())) / (PERMUTATIONS + 1)


@cache
def nemenyi_quantile(k: int, alpha: float = 0.05) -> float:
    """q: upper alpha quantile of the range of k standard normals, over sqrt 2 (Demšar 2006, table 5a)."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - alpha, k, math.inf)) / math.sqrt(2)


def critical_difference(k: int, n: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks of k methods on n data sets: q sqrt(k (k + 1) / (6 n)).

    Where not even the same order on every data set is rare enough (two methods, up to five data sets), it is a step
    beyond the largest difference that can be.

    Raises ValueError for k < 2, n < 1 or alpha outside (0, 1).
    """
    share(alpha, "alpha")
    found = nemenyi_quantile(k, alpha) * _scale(k, n)
    return max(found, k - 1 + 1 / n) if _rarest(k, n) > alpha else found


def _rarest(k: int, n: int) -> float:
    """Probability that n data sets order k methods alike, if all orders are as likely: what no p can be below."""
    return math.factorial(k) ** (1.0 - n)


def nemenyi_p(mean_ranks: ArrayLike, n: int) -> np.ndarray:
    """p-values [k, k] of all pairs of mean ranks [k] over n data sets, each corrected for all pairs; diagonal 1.

    By the range of normal variables, as published, but never below what n data sets can give at all.
    """
    from scipy.stats import studentized_range

    means = array(mean_ranks, "mean_ranks", 1)
    apart = np.abs(means[:, None] - means[None, :]) / _scale(means.size, n)
    p = np.ones_like(apart)
    for i, j in zip(*np.triu_indices(means.size, 1), strict=True):
        found = studentized_range.sf(math.sqrt(2) * apart[i, j], means.size, math.inf)
        p[i, j] = p[j, i] = max(found, _rarest(means.size, n))
    return p


def cliques(mean_ranks: ArrayLike, difference: float) -> list[list[int]]:
    """Bars of the critical-difference diagram: maximal sets of two or more methods whose extremes differ by less.

    Each set lists places in `mean_ranks` from best to worst; sets come from best to worst. A pair exactly
    `difference` apart is told apart (Demšar rejects at "at least").
    """
    means = array(mean_ranks, "mean_ranks", 1)
    if not np.all(np.isfinite(means)):
        raise ValueError(f"mean_ranks: must be finite, got {means.tolist()}")
    order = np.argsort(means, kind="stable")
    found: list[list[int]] = []
    reached = 0
    for start in range(means.size):
        end = start + int(np.sum(means[order[start:]] - means[order[start]] < difference))
        if end - start > 1 and end > reached:
            found.append([int(i) for i in order[start:end]])
            reached = end
    return found


def _scale(k: int, n: int) -> float:
    if k < 2:
        raise ValueError(f"k {k}: must be at least 2 methods")
    if n < 1:
        raise ValueError(f"n {n}: must be at least 1 data set")
    return math.sqrt(k * (k + 1) / (6 * n))
