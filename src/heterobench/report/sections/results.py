"""The comparison: test accuracy at the round that validation data have chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report.tables import by_scenario
from heterobench.resolve import Benchmark
from heterobench.stats.ties import RULE

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "results", "Test accuracy"
READING = (
    "The comparison. Of each run the round with the best validation accuracy is taken, and its model is scored on the "
    "global test set; the test set has no say in the choice.",
    "Bold is more than one number: all methods that cannot be told apart from the best one by their runs on the same "
    "seeds.",
)
CAPTIONS: dict[str, str] = {}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("accuracy",)


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    title = "Test accuracy (%) at the validation-selected round"
    return [by_scenario(data, "accuracy", title, "validation", "test_accuracy", (RULE,))]


def figures(data: ReportData) -> dict[str, Any]:
    return {}
