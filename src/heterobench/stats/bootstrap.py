"""Bootstrap intervals: of one sample, of paired differences, and over data sets with seeds inside.

The unit that is drawn again is the level one generalises to: seeds here, one value each. All draws are keyed
(`heterobench.keyed`), so an interval is a function of values, method and seed.

Failed runs: a value that is not finite is never drawn and never forgotten; `n` counts the units that there are,
`n_finite` those that take part (a pair takes part when both its values are finite).

Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13 (percentile) and 14 (BCa);
Agarwal et al., NeurIPS 2021, arXiv 2108.13264 (strata, interquartile mean).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from heterobench.keyed import generator
from heterobench.stats.checks import array, choice, share
from heterobench.stats.intervals import LEVEL

RESAMPLES = 5000
FEWEST_RESAMPLES = 2000  # fewer leave the ends of a 95 % interval to some fifty draws

Statistic = Callable[..., np.ndarray]


class BootstrapInterval(NamedTuple):
    """Statistic of the units that took part, and its interval; NaN ends where fewer than two did."""

    estimate: float
    low: float
    high: float
    n: int
    n_finite: int


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of what is left when floor(n / 4) values are cut at each end (Agarwal et al. 2021, section 4.3)."""
    ordered = np.sort(values, axis=axis)
    n = ordered.shape[axis]
    return np.take(ordered, np.arange(n // 4, n - n // 4), axis=axis).mean(axis=axis)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Statistic = np.mean,
    method: str = "percentile",
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> BootstrapInterval:
    """Interval of `statistic` over the units `values` [n].

    `statistic(array, axis=-1)` reduces that axis; `method` is "percentile" or "bca" (bias-corrected and
    accelerated: for skewed statistics). Raises ValueError for another method, a level outside (0, 1) or fewer
    than 2000 resamples.
    """
    choice(method, "method", ("percentile", "bca"))
    _check(level, resamples)
    given = array(values, "values", 1)
    finite = given[np.isfinite(given)]
    estimate = float(statistic(finite, axis=-1)) if finite.size else math.nan
    if finite.size < 2:
        return BootstrapInterval(estimate, math.nan, math.nan, given.size, finite.size)
    drawn = generator(seed, "bootstrap").integers(0, finite.size, (resamples, finite.size))
    replicates = statistic(finite[drawn], axis=-1)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _bca_tails(tails, finite, statistic, estimate, replicates)
    low, high = np.quantile(replicates, tails)
    return BootstrapInterval(estimate, float(low), float(high), given.size, finite.size)


def paired_bootstrap(a: ArrayLike, b: ArrayLike, **options) -> BootstrapInterval:
    """Interval of the mean (or another statistic) of a - b, pairs drawn whole; a and b are [n], paired by place.

    `options` are those of `bootstrap_interval`. Raises ValueError when the lengths differ.
    """
    first, second = array(a, "a", 1), array(b, "b", 1)
    if first.shape != second.shape:
        raise ValueError(f"b: must pair with a, has {second.size} values for {first.size}")
    with np.errstate(invalid="ignore"):
        return bootstrap_interval(first - second, **options)


def stratified_bootstrap(
    values: Sequence[ArrayLike],
    statistic: str = "mean",
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> BootstrapInterval:
    """Percentile interval over data sets, seeds drawn again within each data set.

    `values` holds one array of results [seeds] per data set; the numbers of seeds may differ. `statistic` is
    "mean" (mean of the data sets' means) or "iqm" (interquartile mean of all results together). A data set
    without any finite result makes estimate and interval NaN: leaving it out would flatter the method.
    """
    choice(statistic, "statistic", ("mean", "iqm"))
    _check(level, resamples)
    if len(values) == 0:
        raise ValueError("values: must hold at least one data set")
    given = [array(one, f"values[{i}]", 1) for i, one in enumerate(values)]
    strata = [one[np.isfinite(one)] for one in given]
    n, n_finite = sum(one.size for one in given), sum(one.size for one in strata)
    if any(one.size == 0 for one in strata):
        return BootstrapInterval(math.nan, math.nan, math.nan, n, n_finite)
    estimate = float(_aggregate([one[None] for one in strata], statistic)[0])
    if all(one.size == 1 for one in strata):
        return BootstrapInterval(estimate, math.nan, math.nan, n, n_finite)
    replicates = _aggregate(redraw(strata, resamples, seed), statistic)
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return BootstrapInterval(estimate, float(low), float(high), n, n_finite)


def redraw(strata: Sequence[np.ndarray], resamples: int, seed: int, purpose: str = "bootstrap") -> list[np.ndarray]:
    """Each stratum [n_i] drawn again with replacement: arrays [resamples, n_i], keyed by place of the stratum."""
    return [
        one[generator(seed, purpose, place).integers(0, one.size, (resamples, one.size))]
        for place, one in enumerate(strata)
    ]


def _check(level: float, resamples: int) -> None:
    share(level, "level")
    if resamples < FEWEST_RESAMPLES:
        raise ValueError(f"resamples {resamples}: must be at least {FEWEST_RESAMPLES}")


def _aggregate(strata: Sequence[np.ndarray], statistic: str) -> np.ndarray:
    if statistic == "mean":
        return np.mean([one.mean(axis=-1) for one in strata], axis=0)
    return interquartile_mean(np.concatenate(strata, axis=-1))


def _bca_tails(
    tails: np.ndarray, values: np.ndarray, statistic: Statistic, estimate: float, replicates: np.ndarray
) -> np.ndarray:
    """Tails moved for bias z0 and acceleration a: Phi(z0 + (z0 + z) / (1 - a (z0 + z))), equations 14.9 to 14.15."""
    from scipy.stats import norm

    # ties count half, so that a discrete statistic is not taken for a biased one
    below = np.mean(replicates < estimate) + np.mean(replicates == estimate) / 2
    if below in (0.0, 1.0) or np.ptp(replicates) == 0:
        return tails  # no bias can be estimated; a constant sample keeps its interval of zero width
    bias = norm.ppf(below)
    n = values.size
    left_out = np.array([np.delete(values, i) for i in range(n)])
    jackknife = statistic(left_out, axis=-1)
    away = jackknife.mean() - jackknife
    spread = np.sum(away**2)
    acceleration = np.sum(away**3) / (6 * spread**1.5) if spread > 0 else 0.0
    moved = bias + norm.ppf(tails)
    return norm.cdf(bias + moved / (1 - acceleration * moved))
