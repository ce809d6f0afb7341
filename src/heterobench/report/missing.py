"""What counts in place of a run or a value that is not there: the one rule, and the function that applies it.

Rankings, tests over scenarios and profiles read values through `cube` (single values) and `answers` of
`heterobench.report.pooling` (test examples), so that a method cannot gain by a run that broke.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heterobench.records.record import COMPUTED, DIVERGED
from heterobench.report import labels
from heterobench.report.metrics import CENSORED_AT, METRICS
from heterobench.report.table import Source
from heterobench.report.tables import undefined
from heterobench.resolve import Arm, Scenario

if TYPE_CHECKING:
    from heterobench.report.data import ReportData

RULE = (
    "In rankings, in tests over scenarios and in profiles a value that is not there (the run failed, diverged or is "
    "missing, the metric is missing or not finite) counts as the worst value that any ranked method has in the same "
    "scenario and seed. For a target the worst is not to reach it; for single test examples it is to have all of them "
    "wrong. Where no ranked method has a value, that scenario and seed is left out for all. References are shown and "
    "never ranked. A run that diverged keeps the value of the round that validation data had selected before; of its "
    "last round it has none."
)
MEANS = (
    "Means in tables are over the runs that are there, with k/n beside them; paired differences are over the seeds "
    "that both methods have, with their number beside them."
)
WHY = {
    "diverged": "run diverged",
    "failed": "run failed",
    "missing": "run missing",
    "absent": "value missing",
    "infinite": "not a finite number",
}


class Filled(NamedTuple):
    """A value counted by the rule: whose, where, as what (unit of tables; inf: target not reached), a key of `WHY`."""

    arm: str
    scenario: str
    seed: int
    value: float
    why: str


@dataclass(frozen=True, eq=False)
class Cube:
    """Values of one metric at one selection, of M ranked methods in S scenarios with K seeds, in the unit of tables.

    observed   float [M, S, K]; NaN where there is no value, inf where a run is known not to have reached its target
    values     float [M, S, K]: the same with what is not there counted by `RULE`; NaN only for what is left out
    arms       the methods; those that the metric is not defined for (no global model) stand in `undefined`
    scenarios  those with a value of any method
    left_out   (scenario, seed) without a value of any method, also those of scenarios that are not in `scenarios`
    """

    selection: str
    metric: str
    arms: tuple[Arm, ...]
    scenarios: tuple[Scenario, ...]
    seeds: tuple[int, ...]
    observed: NDArray[np.float64]
    values: NDArray[np.float64]
    filled: tuple[Filled, ...]
    left_out: tuple[tuple[str, int], ...]
    undefined: tuple[Arm, ...]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which scenarios and seeds count [S, K]."""
        return ~np.isnan(self.values).any(axis=0)

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean over seeds [M, S], after the rule."""
        return over_seeds(self.values)

    @property
    def scores(self) -> NDArray[np.float64]:
        """`means` as tables print them [M, S]: noise beyond the last printed digit decides no rank and no test."""
        decimals = METRICS[self.metric].digits
        return self.means if decimals is None else np.round(self.means, decimals)

    def sources(self, *arms: Arm) -> tuple[Source, ...]:
        """Where the values of these arms stand, ranked ones or not."""
        return tuple(Source(s.name, arm.name, self.selection, self.metric) for arm in arms for s in self.scenarios)

    def runs(self, place: int, scenario: int) -> NDArray[np.float64]:
        """Values [kept seeds] of a method (by its place) in a scenario, after the rule."""
        row = self.values[place, scenario]
        return row[~np.isnan(row)]


def over_seeds(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over seeds [M, S] of values [M, S, K] in which a seed that is left out is NaN for all methods.

    A scenario of which no seed is left is left out as well. Raises ValueError for a NaN of some methods only, and
    where no scenario is left.
    """
    absent = np.isnan(values)
    if (absent.any(axis=0) != absent.all(axis=0)).any():
        raise ValueError("values: a scenario and seed is NaN for some methods only; apply the rule first (`cube`)")
    scenarios = np.flatnonzero(~absent.all(axis=(0, 2)))
    if not len(scenarios):
        raise ValueError("values: no scenario is left")
    return np.stack([values[:, place, ~absent[0, place]].mean(axis=1) for place in scenarios], axis=1)


def worst(values: NDArray[np.float64], direction: str) -> NDArray[np.float64]:
    """The worst value [...] that any method has, of `values` [M, ...] with M >= 1; NaN where none has one."""
    filler = np.inf if direction == "max" else -np.inf
    known = np.where(np.isnan(values), filler, values)
    least = known.min(axis=0) if direction == "max" else known.max(axis=0)
    return np.where(np.isnan(values).all(axis=0), np.nan, least)


def cube(data: ReportData, selection: str, metric: str) -> Cube:
    """The values of a metric of the ranked methods, with the rule applied; without any value there is no scenario.

    Raises ValueError for a metric of which no value is worse than another.
    """
    of, benchmark = METRICS[metric], data.benchmark
    if of.direction is None:
        raise ValueError(f"metric {metric!r}: no value of it is worse than another")
    methods = labels.methods(benchmark)
    without = tuple(arm for arm in methods if _without(data, arm, selection, metric))
    ranked = tuple(arm for arm in methods if arm not in without)
    found, why = _observed(data, ranked, selection, metric)
    nothing = np.isnan(found).all(axis=0)
    least = np.where(nothing, np.nan, math.inf) if metric in CENSORED_AT else worst(found, of.direction)
    values = np.where(np.isnan(found), least, found)
    places = np.flatnonzero(~nothing.all(axis=1))
    scenarios, seeds = benchmark.scenarios, benchmark.seeds
    return Cube(
        selection=selection,
        metric=metric,
        arms=ranked,
        scenarios=tuple(scenarios[place] for place in places),
        seeds=tuple(seeds),
        observed=found[:, places],
        values=values[:, places],
        filled=tuple(
            Filled(ranked[m].name, scenarios[s].name, seeds[k], float(values[m, s, k]), reason)
            for (m, s, k), reason in why.items()
            if not nothing[s, k]
        ),
        left_out=tuple((scenarios[s].name, seeds[k]) for s, k in np.argwhere(nothing)),
        undefined=without,
    )


def observed(data: ReportData, arms: Sequence[Arm], selection: str, metric: str) -> NDArray[np.float64]:
    """Values [arms, scenarios, seeds] in the unit of tables, NaN where there is none; nothing is filled."""
    return _observed(data, arms, selection, metric)[0]


def _without(data: ReportData, arm: Arm, selection: str, metric: str) -> bool:
    """True where the metric needs a global model and the method has none: that is no missing value."""
    names = [scenario.name for scenario in data.benchmark.scenarios]
    return all(undefined(data, Source(name, arm.name, selection, metric)) for name in names)


def _observed(
    data: ReportData, arms: Sequence[Arm], selection: str, metric: str
) -> tuple[NDArray[np.float64], dict[tuple[int, int, int], str]]:
    """(values [arms, scenarios, seeds], place -> key of `WHY` of those that are not there)."""
    benchmark = data.benchmark
    values = np.full((len(arms), len(benchmark.scenarios), len(benchmark.seeds)), np.nan)
    why = {}
    for m, arm in enumerate(arms):
        for s, scenario in enumerate(benchmark.scenarios):
            found = data.values.get(Source(scenario.name, arm.name, selection, metric), {})
            for k, seed in enumerate(benchmark.seeds):
                value, reason = _judged(data.runs[scenario.name, arm.name, seed]["status"], metric, found.get(seed))
                values[m, s, k] = value * METRICS[metric].scale
                if reason:
                    why[m, s, k] = reason
    return values, why


def _judged(status: str, metric: str, value: float | None) -> tuple[float, str]:
    """(value, empty) or (NaN, key of `WHY`)."""
    if status not in COMPUTED:
        return math.nan, status
    if value is not None and math.isfinite(value):
        return value, ""
    if value is not None and metric in CENSORED_AT:
        return math.inf, ""
    if status == DIVERGED:
        return math.nan, DIVERGED
    return math.nan, "absent" if value is None else "infinite"
