"""Test loss beside test accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report.tables import by_scenario
from heterobench.resolve import Benchmark
from heterobench.stats.ties import RULE

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "loss", "Loss"
READING = (
    "Mean cross-entropy on the global test set, in nats. It also sees how sure a model is: of two models with the same "
    "accuracy the one that is wrong with great certainty has the larger loss.",
)
CAPTIONS: dict[str, str] = {}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("loss",)


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    return [by_scenario(data, "loss", "Test loss at the validation-selected round", "validation", "test_loss", (RULE,))]


def figures(data: ReportData) -> dict[str, Any]:
    return {}
