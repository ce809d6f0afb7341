"""Test accuracy without any choice of a round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report.tables import by_scenario
from heterobench.resolve import Benchmark
from heterobench.stats.ties import RULE

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "last-round", "Last round"
READING = (
    "The same comparison with the model of the last round, for those who choose no round at all. Where a method is "
    "much worse here than at the validation-selected round, its accuracy goes up and down, or falls late.",
)
CAPTIONS: dict[str, str] = {}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("accuracy-last",)


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    return [
        by_scenario(data, "accuracy-last", "Test accuracy (%) after the last round", "last", "test_accuracy", (RULE,))
    ]


def figures(data: ReportData) -> dict[str, Any]:
    return {}
