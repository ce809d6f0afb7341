"""Wilcoxon's signed-rank test for pairs of methods over data sets, with Holm's correction.

One value per data set (seeds averaged before): seeds of one data set are not data sets. Preferred to mean-rank
post-hoc tests because the outcome for a pair does not depend on the other methods (Benavoli et al., JMLR 17
(2016), "Should we really use post-hoc tests based on mean-ranks?").

Failed runs: a value that is not finite loses by more than any finite pair differs (worst rank, several such
pairs tied); where both failed the difference is zero. Source of worst ranks: Lachin, Controlled Clinical
Trials 20 (1999) 408.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from heterobench.stats.checks import array, choice, losses

EXACT_UP_TO = 25
ZEROS = ("wilcox", "pratt", "zsplit")


class SignedRank(NamedTuple):
    """Rank sums of the pairs that a wins and that b wins, two-sided p, "exact" or "normal", pairs that entered."""

    wins: float
    losses: float
    p: float
    method: str
    n: int


class Comparison(NamedTuple):
    """Outcome for methods at places `first` and `second`; `p` is Holm's, `raw_p` that of the pair alone."""

    first: int
    second: int
    test: SignedRank
    raw_p: float
    p: float


def signed_rank(
    a: ArrayLike, b: ArrayLike, direction: str = "max", zeros: str = "wilcox", method: str = "auto"
) -> SignedRank:
    """Two-sided test that a - b is symmetric about zero; a and b are [data sets], paired by place.

    Magnitudes share mid-ranks when equal. Zero differences: "wilcox" drops them before ranking, "pratt" ranks
    them and then drops them, "zsplit" ranks them and gives half their ranks to each side. `method`: "exact"
    counts all 2^n signs given the ranks that occurred (so ties are exact as well); "normal" uses the mean and
    the variance (sum of squared ranks) / 4, without continuity correction; "auto" is exact up to 25 pairs
    without ties and zeros, else normal. Under "zsplit" the normal variance keeps the ranks of the zeros, as in
    Demšar, JMLR 7 (2006), section 3.1.3. Nothing but zeros gives p = 1. Magnitudes are compared as computed,
    so round decimal scores before if 0.3 - 0.2 is to tie with 0.2 - 0.1.

    Source: Wilcoxon, Biometrics Bulletin 1 (1945) 80; Pratt, JASA 54 (1959) 655.
    Raises ValueError for arrays that do not pair or an unknown option.
    """
    choice(zeros, "zeros", ZEROS)
    choice(method, "method", ("auto", "exact", "normal"))
    ahead = _ahead(a, b, direction)
    if zeros == "wilcox":
        ahead = ahead[ahead != 0]
    ranks = mid_ranks(np.abs(ahead))
    split = ranks[ahead == 0].sum() / 2 if zeros == "zsplit" else 0.0
    won, lost = ranks[ahead > 0].sum() + split, ranks[ahead < 0].sum() + split
    kept = ranks[ahead != 0]
    if kept.size == 0:
        return SignedRank(float(won), float(lost), 1.0, "exact", int(ahead.size))
    if method == "auto":
        plain = np.unique(np.abs(ahead)).size == ahead.size and kept.size == ahead.size
        # a zero that "wilcox" has dropped is still a zero of the data
        plain = plain and ahead.size == np.size(a)
        method = "exact" if plain and kept.size <= EXACT_UP_TO else "normal"
    if method == "exact":
        p = _exact_p(kept, min(won, lost) - split)
    else:
        variance = np.sum((ranks if zeros == "zsplit" else kept) ** 2) / 4
        p = math.erfc(abs(won - lost) / 2 / math.sqrt(2 * variance))
    return SignedRank(float(won), float(lost), float(p), method, int(ahead.size))


def smallest_p(n: int) -> float:
    """Smallest two-sided exact p that n pairs without ties can give: 2 / 2^n (0.0625 for five)."""
    if n < 1:
        raise ValueError(f"n {n}: must be at least 1")
    return 2.0 ** (1 - n)


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's adjusted p-values [m]: the j-th smallest times (m - j + 1), running maximum, at most 1.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65. Raises ValueError for a p outside [0, 1];
    a comparison that was not made (NaN) must not be passed, since the caller alone knows whether it counts.
    """
    raw = array(p, "p", 1)
    if not np.all((raw >= 0) & (raw <= 1)):
        raise ValueError(f"p: must lie in [0, 1], got {raw.tolist()}")
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raw[order] * np.arange(raw.size, 0, -1)))
    return adjusted


def pairwise_signed_rank(
    scores: ArrayLike, direction: str = "max", control: int | None = None, zeros: str = "wilcox", method: str = "auto"
) -> list[Comparison]:
    """Every pair of methods, or every method against `control`, Holm-corrected over the pairs tested.

    `scores` is [data sets, methods]. Raises ValueError for fewer than two methods or a control out of range.
    """
    table = array(scores, "scores", 2)
    k = table.shape[1]
    if k < 2:
        raise ValueError(f"scores: must have at least two methods (columns), has {k}")
    if control is not None and not 0 <= control < k:
        raise ValueError(f"control {control}: must be a column from 0 to {k - 1}")
    pairs: Sequence[tuple[int, int]] = (
        list(combinations(range(k), 2)) if control is None else [(control, j) for j in range(k) if j != control]
    )
    tests = [signed_rank(table[:, i], table[:, j], direction, zeros, method) for i, j in pairs]
    adjusted = holm([test.p for test in tests])
    return [Comparison(i, j, test, test.p, float(p)) for (i, j), test, p in zip(pairs, tests, adjusted, strict=True)]


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 [n], the least first; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place.reshape(-1)]


def _ahead(a: ArrayLike, b: ArrayLike, direction: str) -> np.ndarray:
    """By how much a beats b [n]; +-inf where one failed, 0 where both did."""
    first, second = array(a, "a", 1), array(b, "b", 1)
    if first.shape != second.shape:
        raise ValueError(f"b: must pair with a, has {second.size} values for {first.size}")
    worse, better = losses(second, direction), losses(first, direction)
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(worse) & np.isinf(better), 0.0, worse - better)


def _exact_p(ranks: np.ndarray, smaller: float) -> float:
    """Two-sided p of the smaller rank sum: the share of sign patterns with a sum that small, doubled.

    Mid-ranks are multiples of one half, so sums of doubled ranks are integers; `ways[s]` is the probability of
    a doubled sum s, built rank by rank (each is in or out with probability 1/2).
    """
    doubled = np.rint(2 * ranks).astype(int)
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1.0
    for rank in doubled:
        ways[rank:] = (ways[rank:] + ways[:-rank]) / 2
        ways[:rank] /= 2
    return float(min(1.0, 2 * ways[: round(2 * smaller) + 1].sum()))
