"""Test accuracy where people have corrected the labels of the test set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report.tables import by_metric
from heterobench.resolve import Benchmark
from heterobench.stats.ties import RULE

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "corrected-labels", "Corrected labels"
READING = (
    "Some published test labels are wrong. Here the same models are judged by labels that people have corrected, "
    "beside the published ones. A difference between two methods below what label errors can do (0.15 points on "
    "MNIST, 0.54 on CIFAR-10) decides nothing.",
    "On the few examples whose label changed: accuracy by the published label is high where a model has learned the "
    "mistakes themselves.",
)
CAPTIONS: dict[str, str] = {}
METRICS = ("test_accuracy", "corrected_accuracy", "error_accuracy_published", "error_accuracy_corrected")


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("corrected-labels",) if "corrected-labels" in benchmark.metrics else ()


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    title = "Test accuracy by published and by corrected labels"
    return [by_metric(data, name, title, "validation", METRICS, (RULE,)) for name in table_names(data.benchmark)]


def figures(data: ReportData) -> dict[str, Any]:
    return {}
