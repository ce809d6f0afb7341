"""What would have been had the test set chosen the round: for information alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report.tables import by_scenario
from heterobench.resolve import Benchmark

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "oracle", "Extra: best on test"
READING = (
    "Papers often report the best test accuracy over all rounds. That is a choice made on the test set: it is too "
    "high, and the more so the more a curve goes up and down. It stands here to be compared with such papers, and with "
    "nothing else; nothing in it is bold.",
)
CAPTIONS: dict[str, str] = {}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("accuracy-oracle",)


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    title = "Extra, not for comparison: test accuracy (%) at the best round on the test set"
    return [by_scenario(data, "accuracy-oracle", title, "oracle", "test_accuracy", extra=True)]


def figures(data: ReportData) -> dict[str, Any]:
    return {}
