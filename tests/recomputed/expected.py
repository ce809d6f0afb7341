"""Means over seeds, intervals, bounds and bold, written out by themselves."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from recomputed.project import RATE, SEEDS
from recomputed.raw import PERSONAL, Key, Left

METHODS = tuple(arm for arm in RATE if arm != PERSONAL)  # without collaboration a run is a reference
BASE = "fedavg"


class Mean(NamedTuple):
    """Mean of the finite values with half the width of its 95 % t interval, sample deviation, and counts of runs."""

    value: float
    half: float
    std: float
    finite: int
    runs: int


def values(left: Left, scenario: str, arm: str, selection: str, metric: str) -> dict[int, float]:
    """Seed -> value of the runs that have one: scores and rounds from the record, all else as it was evaluated."""
    found = {}
    for seed in SEEDS:
        key = Key(scenario, arm, seed)
        if not left.folder(key).is_dir() or metric not in left.evaluated(key, selection):
            continue
        found[seed] = left.evaluated(key, selection)[metric]
        if metric in ("test_accuracy", "test_loss", "validation_accuracy") and arm != PERSONAL:
            rows = {row["round"]: row for row in left.rounds(key)}
            best = max(rows.values(), key=lambda row: row["test_accuracy"])["round"]
            round = {"last": max(rows), "validation": left.end(key)["selected_round"], "oracle": best}[selection]
            found[seed] = rows[round][metric]
    return found


def mean(numbers) -> Mean:
    numbers = list(numbers)
    finite = np.array([number for number in numbers if math.isfinite(number)])
    n = len(finite)
    if n < 2:
        return Mean(finite.mean() if n else math.nan, math.nan, math.nan, n, len(numbers))
    half = stats.sem(finite) * stats.t.ppf(0.975, n - 1)
    return Mean(finite.mean(), half, math.sqrt(((finite - finite.mean()) ** 2).sum() / (n - 1)), n, len(numbers))


def paired(one: dict[int, float], other: dict[int, float]) -> Mean:
    return mean(one[seed] - other[seed] for seed in SEEDS if seed in one and seed in other)


def bold(left: Left, scenario: str, selection: str, metric: str, direction: str) -> set[str]:
    """The best mean of the methods that have all runs, and those whose paired interval to it contains zero."""
    found = {arm: values(left, scenario, arm, selection, metric) for arm in METHODS}
    whole = {arm: of for arm, of in found.items() if np.isfinite([of.get(seed, math.nan) for seed in SEEDS]).all()}
    if not whole or selection == "oracle" or not direction:
        return set()
    sign = 1 if direction == "max" else -1
    first = max(whole, key=lambda arm: sign * np.mean(list(whole[arm].values())))
    tied = set()
    for arm, of in whole.items():
        apart = np.array([of[seed] - whole[first][seed] for seed in SEEDS])
        interval = stats.ttest_1samp(apart, 0).confidence_interval(0.95) if np.ptp(apart) > 0 else (apart[0],) * 2
        if interval[0] <= 0 <= interval[1]:
            tied.add(arm)
    return tied


def bound(left: Left, scenario: str, arm: str, metric: str) -> float:
    """Mean with every run that never reached its target at what the whole run cost; NaN where all reached it."""
    found = values(left, scenario, arm, "run", metric)
    if all(map(math.isfinite, found.values())):
        return math.nan
    total = metric.removesuffix("_to_target")
    return float(
        np.mean([
            value if math.isfinite(value) else left.evaluated(Key(scenario, arm, seed), "run")[total]
            for seed, value in found.items()
        ])
    )  # fmt: skip
