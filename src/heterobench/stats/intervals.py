"""Means over seeds with t intervals, and paired differences between two methods.

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


@cache
def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t distribution: P(|T| <= t) = level."""
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, at a tenth of the time to import

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
