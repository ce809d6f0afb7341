"""Who holds what: a picture of one seed of each split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from heterobench.errors import RunError
from heterobench.files import read_sealed
from heterobench.resolve import Benchmark

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "partitions", "Partitions"
READING = (
    "Rows are clients, columns are classes, numbers are examples; white is a class that a client has none of. One seed "
    "of each split is shown. Mean label distance: total variation between a client's distribution of labels and that "
    "of all data, 0 where each client is like the whole. Gini of sizes: 0 where all clients have equally many "
    "examples.",
)
CAPTIONS: dict[str, str] = {}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    return []


def figures(data: ReportData) -> dict[str, Any]:
    return {}


def pictures(data: ReportData) -> list[tuple[str, Path]]:
    """(caption, file) of every partition, in the order of the scenarios.

    A partition that has not been drawn has no picture: the workflow was cut off, and its runs are missing too. What is
    damaged is left out.
    """
    benchmark = data.benchmark
    result, seed = [], min(benchmark.seeds)
    for dataset, name in dict.fromkeys((s.dataset, s.partition) for s in benchmark.scenarios):
        manifest = benchmark.project.partition_manifest(dataset, name, seed)
        picture = benchmark.project.partition_picture(dataset, name)
        if not (manifest.is_file() and picture.is_file() and b"<svg" in picture.read_bytes()):
            continue
        try:
            measured = read_sealed(manifest)["heterogeneity"]
        except RunError as error:
            result.append((f"{name}, {dataset}, seed {seed}: not measured here, {error}", picture))
            continue
        title = next(s.partition_file.title for s in benchmark.scenarios if s.partition == name)
        caption = (
            f"{title}, {dataset}, seed {seed}: mean label distance to all data "
            f"(total variation) {measured['label_total_variation_mean']:.2f}, Gini of sizes "
            f"{measured['size_gini']:.2f}."
        )
        result.append((caption, picture))
    return result
