"""How much better or worse than the baseline, run by run of the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report import labels
from heterobench.report.metrics import METRICS
from heterobench.report.table import Cell, Group, Row, Section, Source, Table
from heterobench.report.tables import (
    CLEAR,
    PERSONAL,
    SELECTED,
    about,
    grouped,
    intervals,
    marked,
    scenario_columns,
)
from heterobench.resolve import Arm, Benchmark, Scenario

if TYPE_CHECKING:
    from heterobench.report.data import ReportData

KEY, TITLE = "difference", "Difference to the baseline"
READING = (
    "Each method's run minus the baseline's run of the same seed, in points of accuracy. Both saw the same split, "
    "initial weights, cohorts and batches, so what a hard split takes from both cancels: two methods whose accuracies "
    "have overlapping intervals may still differ clearly here.",
    "A star: the interval does not contain zero. With many methods and scenarios some stars come by chance; the "
    "intervals are not corrected for that.",
)
CAPTIONS: dict[str, str] = {}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("difference",)


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    benchmark = data.benchmark
    base, of = labels.baseline(benchmark), METRICS["test_accuracy"]

    def cell(scenario: Scenario, arm: Arm) -> Cell:
        both = tuple(Source(scenario.name, name, "validation", "test_accuracy") for name in (arm.name, base.name))
        row = data.cells.get(both[0])
        if row is None:
            return Cell(n_expected=len(benchmark.seeds), of=both)
        low, high = row["difference_low"], row["difference_high"]
        return Cell(
            value=row["difference"] * of.scale,
            half=(high - low) / 2 * of.scale,
            n=row["n"],
            n_finite=row["difference_n"],
            n_expected=row["n_expected"],
            marks=(CLEAR[0],) if low > 0 or high < 0 else (),
            of=both,
        )

    def make(arm: Arm) -> Row:
        marks = (PERSONAL[0],) if labels.is_personal(benchmark, arm) else ()
        return Row(arm.name, arm.title, tuple(cell(scenario, arm) for scenario in benchmark.scenarios), marks)

    groups = tuple(
        Group(group.title, tuple(row for row in group.rows if row.key != base.name))
        for group in grouped(benchmark, make)
    )
    table = Table(
        "difference",
        f"Difference to {base.title} in test accuracy (points)",
        about(benchmark),
        scenario_columns(benchmark, "points", of.direction, of.digits, signed=True),
        (Section("", "", tuple(group for group in groups if group.rows)),),
        notes=(
            intervals(benchmark),
            f"Paired: each method's run minus {base.title}'s of the same seed, mean and interval over seeds. "
            "What a hard split takes from both cancels, so these intervals are often narrower than those of "
            "the accuracies. They are not corrected for the number of comparisons.",
        ),
        protocol=SELECTED["validation"],
    )
    return [marked(table)]


def figures(data: ReportData) -> dict[str, Any]:
    return {}
