"""Means over seeds with t intervals, paired differences between two methods, and means over scenarios.

A seed fixes partition, initial weights, batches and cohorts for all methods, so two methods are compared on
the differences of their results seed by seed: what a hard partition takes from both cancels.

Values that are not finite (a run that diverged) never enter a mean and are never forgotten: `n` counts the
runs that there are, `n_finite` those that the mean is over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from heterobench.stats.checks import array

LEVEL = 0.95


class Summary(NamedTuple):
    """Mean of the finite values with its interval; `std` is the sample standard deviation (n - 1).

    `low` and `high` are NaN where fewer than two values are finite: one run says nothing about the spread.
    """

    mean: float
    low: float
    high: float
    std: float
    n: int
    n_finite: int

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


class Interval(NamedTuple):
    """An estimate with its interval, NaN ends where there is none; over `n_finite` of `n` values."""

    estimate: float
    low: float
    high: float
    n: int
    n_finite: int


@cache
def t_quantile(degrees: float, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t distribution: P(|T| <= t) = level."""
    from scipy.special import ndtri, stdtrit  # what scipy.stats.t.ppf calls, at a tenth of the time to import

    if math.isinf(degrees):
        return float(ndtri((1 + level) / 2))
    return float(stdtrit(degrees, (1 + level) / 2))


def mean_interval(values: Iterable[float], level: float = LEVEL) -> Summary:
    """Mean and t interval: mean +- t(n - 1) * std / sqrt(n) over the n finite values.

    The interval covers the mean of the distribution that seeds are drawn from with probability `level` where
    results are normal. Source: Student, Biometrika 6 (1908) 1-25; e.g. Casella and Berger, Statistical
    Inference, 9.2.
    """
    given = [float(value) for value in values]
    finite = [value for value in given if math.isfinite(value)]
    n = len(finite)
    nan = math.nan
    if n == 0:
        return Summary(nan, nan, nan, nan, len(given), 0)
    mean = math.fsum(finite) / n
    if n == 1:
        return Summary(mean, nan, nan, nan, len(given), 1)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / (n - 1))
    half = t_quantile(n - 1, level) * std / math.sqrt(n)
    return Summary(mean, mean - half, mean + half, std, len(given), n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = LEVEL) -> Summary:
    """Mean of a - b over the seeds that both have, with its t interval (the paired t procedure).

    `a` and `b` map seeds to results. `n` counts the common seeds, `n_finite` those where both results are
    finite. Source: Student (1908), as above; for learners on common splits, Dietterich, Neural Computation
    10 (1998), 1895.
    """
    return mean_interval([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())], level)


def mean_of_means(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Mean over scenarios of each one's mean over seeds, [scenarios, seeds] with NaN where a seed has no value.

    The interval speaks of other seeds of the same scenarios. Its unit is the seed: one seed fixes initial weights,
    batches and cohorts of all scenarios, so their results need not be independent, and an interval that took them
    for it would miss more often the more scenarios there are. Where every seed is there it is Student's interval of
    the seeds' means over scenarios, exact where these are normal, whatever the scenarios' spreads and correlations.
    With gaps: scenario s with n_s values adds (x - mean_s) / (S sqrt(n_s (n_s - 1))) to the part of its seed; the
    squared parts of all seeds add up to the variance, and the degrees of freedom are the harmonic mean of n_s less
    one (an approximation, never too narrow in simulation: `tests/unit/test_stats_coverage.py`).

    A scenario without a value makes everything NaN: leaving it out would flatter the method. One with a single value
    leaves the estimate without an interval.
    """
    given = array(values, "values", 2)
    there = np.isfinite(given)
    count = there.sum(axis=1)
    if (count == 0).any():
        return Interval(math.nan, math.nan, math.nan, given.size, int(count.sum()))
    means = np.where(there, given, 0.0).sum(axis=1) / count
    estimate = float(means.mean())
    if (count == 1).any():
        return Interval(estimate, math.nan, math.nan, given.size, int(count.sum()))
    apart = np.where(there, given - means[:, None], 0.0) / np.sqrt(count * (count - 1.0))[:, None]
    half = t_quantile(1 / float(np.mean(1 / count)) - 1, level) * float(np.linalg.norm(apart.mean(axis=0)))
    return Interval(estimate, estimate - half, estimate + half, given.size, int(count.sum()))


def wilson(share: ArrayLike, count: float, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Interval (low, high) of a probability from a `share` [...] of `count` independent trials, never of zero width.

    Source: Wilson, JASA 22 (1927) 209; Brown, Cai and DasGupta, Statistical Science 16 (2001) 101.
    """
    p, z2 = np.asarray(share, np.float64), t_quantile(math.inf, level) ** 2
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (p * (1 - p) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
