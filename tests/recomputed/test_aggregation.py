"""Every row of the summary: means, intervals, counts, bounds, bold and paired differences."""

from __future__ import annotations

import pandas as pd
import pytest

from recomputed import expected
from recomputed.expected import BASE, METHODS
from recomputed.project import LOST, RATE, SEEDS
from recomputed.raw import SCENARIOS

pytestmark = pytest.mark.xdist_group("recomputed")
NUMBERS = {"rel": 1e-9, "abs": 1e-12, "nan_ok": True}


@pytest.fixture(scope="module")
def left(evaluated):
    return evaluated


@pytest.fixture(scope="module")
def summary(tables):
    return pd.read_csv(tables / "summary.csv")


def test_every_arm_has_every_metric_of_its_scenario(left, summary):
    for scenario in SCENARIOS:
        evaluated = left.table("evaluation", scenario)
        pairs = set(zip(evaluated.selection, evaluated.metric, strict=True))
        rows = summary[summary.scenario == scenario]
        found = list(zip(rows.arm, rows.selection, rows.metric, strict=True))
        assert len(found) == len(set(found))
        assert set(found) == {(arm, *pair) for arm in RATE for pair in pairs}


def test_means_with_their_intervals_and_counts(left, summary):
    partial = 0
    for row in summary.itertuples():
        found = expected.mean(expected.values(left, row.scenario, row.arm, row.selection, row.metric).values())
        where = (row.scenario, row.arm, row.selection, row.metric)
        assert (row.n_expected, row.n, row.n_finite) == (len(SEEDS), found.runs, found.finite), where
        low_high = (found.value - found.half, found.value + found.half)
        for name, value in zip(("mean", "low", "high", "std"), (found.value, *low_high, found.std), strict=True):
            assert getattr(row, name) == pytest.approx(value, **NUMBERS), (name, *where)
        partial += 0 < found.finite < len(SEEDS)
    assert partial > 10


def test_differences_are_paired_by_seed(left, summary):
    for row in summary.itertuples():
        one, base = (expected.values(left, row.scenario, arm, row.selection, row.metric) for arm in (row.arm, BASE))
        found = expected.paired(one, base)
        where = (row.scenario, row.arm, row.selection, row.metric)
        assert row.difference_n == found.finite, where
        ends = (found.value, found.value - found.half, found.value + found.half)
        for name, value in zip(("difference", "difference_low", "difference_high"), ends, strict=True):
            assert getattr(row, name) == pytest.approx(value, **NUMBERS), (name, *where)


def test_a_cost_to_a_target_that_some_runs_missed_is_bounded_by_their_whole_cost(left, summary):
    """In the cost's own unit."""
    bounded = 0
    for row in summary.itertuples():
        value = expected.bound(left, row.scenario, row.arm, row.metric) if row.metric.endswith("_to_target") else None
        assert row.bound == pytest.approx(float("nan") if value is None else value, **NUMBERS), row
        bounded += value == value and value is not None and row.n_finite > 0
    assert bounded > 5


def test_bold_is_the_best_and_who_cannot_be_told_from_it(left, summary):
    """Of methods with all runs, in the direction that is better; never a reference, never by the test set's choice."""
    better = {"test_accuracy": "max", "validation_accuracy": "max", "test_loss": "min", "brier": "min", "nll": "min"}
    better |= {"rounds_to_target": "min", "bytes_to_target": "min", "confidence_auroc": "max", "ece": "", "round": ""}
    better |= {"client_accuracy_min": "max", "client_accuracy_std": "", "client_loss_max": "min", "bytes_up": ""}
    better |= {"worst_group_accuracy_sex": "max", "demographic_parity_sex": ""}
    counts = set()
    for (scenario, selection, metric), rows in summary.groupby(["scenario", "selection", "metric"]):
        if metric in better:
            found = set(rows.arm[rows.best])
            assert found == expected.bold(left, scenario, selection, metric, better[metric]), (scenario, metric)
            counts.add(len(found))
            assert found <= set(METHODS)
            assert not (scenario == LOST[0] and LOST[1] in found)
    assert counts >= {0, 1, 2}
