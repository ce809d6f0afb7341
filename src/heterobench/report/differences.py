"""Differences between methods over scenarios, and tests of them, from values after the rule for what is missing."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heterobench.report import labels
from heterobench.report.metrics import METRICS
from heterobench.report.missing import Cube
from heterobench.resolve import Arm, Benchmark
from heterobench.stats.improvement import probability_of_improvement
from heterobench.stats.intervals import Interval, mean_interval, mean_of_means
from heterobench.stats.mean_ranks import Friedman, friedman, nemenyi_p, rank_rows
from heterobench.stats.signed_rank import Comparison, pairwise_signed_rank, smallest_p

SELECTION, METRIC = "validation", "test_accuracy"
"""What methods are compared and ranked by."""
ALPHA = 0.05


def control(benchmark: Benchmark) -> Arm:
    """What all methods are compared with: the baseline, or the first method where that is a reference."""
    methods = labels.methods(benchmark)
    base = labels.baseline(benchmark)
    return base if base in methods else methods[0]


class Difference(NamedTuple):
    """Mean difference over scenarios in the unit of tables; two intervals, and how many pairs of runs it is over.

    seeds      t interval with the seed as its unit (`heterobench.stats.intervals.mean_of_means`)
    scenarios  t interval of the scenarios' mean differences
    """

    mean: float
    seeds: tuple[float, float]
    scenarios: tuple[float, float]
    n: int
    expected: int

    @property
    def clear(self) -> bool:
        return self.seeds[0] > 0 or self.seeds[1] < 0


def difference(a: NDArray[np.float64], b: NDArray[np.float64], kept: NDArray[np.bool_]) -> Difference:
    """a - b from values [scenarios, seeds] with NaN where there is none, of the scenarios and seeds `kept`.

    Pairs are seeds that both have. Each scenario counts the same; one without any pair makes everything NaN.
    """
    apart = np.where(kept, a - b, np.nan)
    found = mean_of_means(apart)
    over = mean_interval([row[np.isfinite(row)].mean() if np.isfinite(row).any() else math.nan for row in apart])
    scenarios = (over.low, over.high) if over.n == over.n_finite else (math.nan, math.nan)
    return Difference(found.estimate, (found.low, found.high), scenarios, found.n_finite, int(kept.sum()))


class Tests:
    """Tests on one value for each method and scenario: the mean over seeds, as tables print it.

    scores  float [scenarios, methods] in the unit of tables
    ranks   float [scenarios, methods], 1 is best, mid-ranks for ties
    """

    def __init__(self, values: Cube):
        self.values = values
        self.scores = values.scores.T
        self.direction = METRICS[values.metric].direction or "max"
        # in units of the last printed digit differences are exact, so that equal ones tie
        self.units = np.rint(self.scores * 10 ** (METRICS[values.metric].digits or 0))
        self.ranks = rank_rows(self.scores, self.direction)

    @property
    def possible(self) -> bool:
        """Whether there is anything to test: two scenarios and two methods."""
        return min(self.scores.shape) > 1

    @property
    def mean_ranks(self) -> NDArray[np.float64]:
        return self.ranks.mean(axis=0)

    def place(self, arm: Arm) -> int | None:
        """Where a method stands; None for one that the values are not defined for."""
        return self.values.arms.index(arm) if arm in self.values.arms else None

    def friedman(self) -> Friedman | None:
        """Test that all methods are alike; None for a single scenario or method."""
        return friedman(self.scores, self.direction) if self.possible else None

    def nemenyi(self) -> NDArray[np.float64]:
        """p of each pair [methods, methods]."""
        return nemenyi_p(self.mean_ranks, len(self.ranks))

    def wilcoxon(self, control: int | None = None) -> list[Comparison]:
        """Exact signed-rank tests of all pairs, or of all against one, with Holm's correction; two methods or more."""
        return pairwise_signed_rank(self.units, self.direction, control, method="exact")

    def record(self, method: int, other: int) -> tuple[int, int, int]:
        """Scenarios that a method wins, ties and loses against another."""
        ahead = np.sign(self.units[:, method] - self.units[:, other]) * (1 if self.direction == "max" else -1)
        return int((ahead > 0).sum()), int((ahead == 0).sum()), int((ahead < 0).sum())

    def improvement(self, method: int, other: int) -> Interval:
        """Probability that a run of a method beats a run of another in the same scenario, mean over scenarios."""
        both = ([self.values.runs(m, s) for s in range(len(self.values.scenarios))] for m in (method, other))
        return probability_of_improvement(*both, self.direction)


def enough(comparisons: int) -> int:
    """Fewest scenarios with which the signed-rank test can find anything, corrected for so many comparisons."""
    return 1 + math.ceil(math.log2(comparisons / ALPHA))


def attainable(scenarios: int, comparisons: int) -> str:
    """What the signed-rank test with Holm's correction can say at all with so many scenarios."""
    alone = smallest_p(scenarios)
    corrected = min(1.0, alone * comparisons)
    n = f"{scenarios} scenario{'s' * (scenarios > 1)}"
    if scenarios >= enough(comparisons):
        return f"With {n} and {comparisons} comparisons the smallest p that it can give is {corrected:.3g}."
    after = f" and {corrected:.3g} after the correction for {comparisons}" if comparisons > 1 else ""
    return (
        f"With {n} it cannot find anything at 5 %, whatever the differences: the smallest p is {alone:.3g} for one "
        f"comparison{after}. That takes {enough(comparisons)} scenarios."
    )


def omnibus(found: Friedman | None, methods: int) -> str:
    """Result of the test that all methods are alike, in words."""
    if found is None:
        return "One scenario: no test over scenarios is possible."
    f = "∞" if math.isinf(found.f) else f"{found.f:.2f}"
    p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    return (
        f"Friedman's test that all {methods} methods are alike, over {found.n} scenarios: χ² = {found.chi2:.2f}; in "
        f"Iman and Davenport's form F({methods - 1}, {(methods - 1) * (found.n - 1)}) = {f}; {p}, by permutations of "
        "each scenario's ranks, which holds for few scenarios too."
    )
