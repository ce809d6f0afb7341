"""From one value per run to one row per cell."""

from __future__ import annotations

import math
from collections import defaultdict

import pandas as pd

from heterobench.errors import RunError
from heterobench.report.labels import baseline, methods
from heterobench.report.metrics import CENSORED_AT, METRICS
from heterobench.resolve import Benchmark
from heterobench.stats.intervals import mean_interval, paired_difference
from heterobench.stats.ties import best

KEY = ["scenario", "arm", "selection", "metric"]
SELECTIONS = ("validation", "last", "oracle", "run")
RANKED = ("validation", "last", "run")  # the oracle has seen the test set: nobody wins there
PLACES = {name: place for place, name in enumerate(METRICS)}


def aggregate(evaluation: pd.DataFrame, benchmark: Benchmark) -> pd.DataFrame:
    """One row per scenario x arm x selection x metric, also for arms and scenarios without any run.

    A metric that no run of a scenario has, while its runs have others, is none of that scenario's: it has no row there.

    `evaluation` has one row per scenario, arm, seed, selection and metric, in the units of the records
    (accuracies 0..1, bytes, seconds). The result has the same units and the columns

    ==================================  =====================================================================
    scenario, arm, selection, metric    key, in the order of the benchmark
    mean, low, high, std                over the finite runs; 95 % t interval
    n_expected, n, n_finite             seeds of the benchmark, runs found, runs with a finite value
    bound                               lower bound of the mean where a run never reached its target, else NaN
    best                                in bold, by the rule of `heterobench.stats.ties`
    difference, ..._low, ..._high       to the baseline over common seeds, with its own t interval
    difference_n                        number of those seeds
    ==================================  =====================================================================

    Raises RunError where columns lack, a value is given twice, or rows belong to no run of the benchmark.
    """
    values = _by_seed(evaluation, benchmark)
    of_scenario: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for name, _, selection, metric in values:
        of_scenario[name].add((selection, metric))
    pairs = sorted(set().union(*of_scenario.values()), key=_order)
    ranked = [arm.name for arm in methods(benchmark)]
    base = baseline(benchmark).name
    rows = []
    for scenario in benchmark.scenarios:
        here = of_scenario.get(scenario.name, pairs)
        for selection, metric in (pair for pair in pairs if pair in here):
            of = {arm.name: values.get((scenario.name, arm.name, selection, metric), {}) for arm in benchmark.arms}
            direction = METRICS[metric].direction if metric in METRICS and selection in RANKED else None
            first = best({a: of[a] for a in ranked}, benchmark.seeds, direction) if direction else set()
            for arm in benchmark.arms:
                found = of[arm.name]
                summary = mean_interval(found.values())
                difference = paired_difference(found, of[base])
                rows.append(
                    {"scenario": scenario.name, "arm": arm.name, "selection": selection, "metric": metric}
                    | {key: getattr(summary, key) for key in ("mean", "low", "high", "std")}
                    | {"n_expected": len(benchmark.seeds), "n": summary.n, "n_finite": summary.n_finite}
                    | {"bound": _bound(metric, found, values, scenario.name, arm.name)}
                    | {"best": arm.name in first}
                    | {"difference": difference.mean, "difference_low": difference.low}
                    | {"difference_high": difference.high, "difference_n": difference.n_finite}
                )
    table = pd.DataFrame(rows)
    order = {arm.name: index for index, arm in enumerate(benchmark.arms)}
    place = {scenario.name: index for index, scenario in enumerate(benchmark.scenarios)}
    if table.empty:
        raise RunError(f"the evaluation of {benchmark.name} ({benchmark.preset}) holds no values")
    keys = pd.DataFrame({"s": table["scenario"].map(place), "a": table["arm"].map(order)})
    return table.loc[keys.sort_values(["s", "a"], kind="stable").index].reset_index(drop=True)


def _order(pair: tuple[str, str]) -> tuple:
    selection, metric = pair
    return (
        SELECTIONS.index(selection) if selection in SELECTIONS else len(SELECTIONS),
        PLACES.get(metric, len(PLACES)),
        pair,
    )


Values = dict[tuple[str, str, str, str], dict[int, float]]
"""(scenario, arm, selection, metric) -> seed -> value."""


def _by_seed(evaluation: pd.DataFrame, benchmark: Benchmark) -> Values:
    what = f"evaluation of {benchmark.name} ({benchmark.preset})"
    if missing := {*KEY, "seed", "value"} - set(evaluation.columns):
        raise RunError(f"{what}: columns {sorted(missing)} are missing; evaluate again")
    known = {
        "scenario": {scenario.name for scenario in benchmark.scenarios},
        "arm": {arm.name for arm in benchmark.arms},
        "seed": set(benchmark.seeds),
    }
    for column, allowed in known.items():
        if unknown := set(evaluation[column].unique().tolist()) - allowed:
            raise RunError(
                f"{what}: {column} {sorted(unknown)[0]!r} is not one of the benchmark's; "
                "it was made with other parameters: evaluate again"
            )
    values: Values = defaultdict(dict)
    columns = [evaluation[column] for column in (*KEY, "seed", "value")]
    for scenario, arm, selection, metric, seed, value in zip(*columns, strict=True):
        cell = values[scenario, arm, selection, metric]
        if seed in cell:
            raise RunError(f"{what}: {scenario}, {arm}, seed {seed}, {selection}, {metric} is given twice")
        cell[int(seed)] = float(value)
    return dict(values)


def _bound(metric: str, found: dict[int, float], values: Values, scenario: str, arm: str) -> float:
    """Mean over the runs that are there, each that never reached the target counted as if it did at its very end.

    A diverged run has no end and is left out: it never gets there, so that the mean stays below the true one.
    """
    if metric not in CENSORED_AT or all(math.isfinite(value) for value in found.values()):
        return math.nan
    end = values.get((scenario, arm, "run", CENSORED_AT[metric]), {})
    counted = [value if math.isfinite(value) else end.get(seed, math.nan) for seed, value in found.items()]
    known = [value for value in counted if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else math.nan
