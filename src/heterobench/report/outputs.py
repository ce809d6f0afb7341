"""Names of everything that a benchmark's report is read from and written to; cheap to import."""

from __future__ import annotations

from pathlib import Path

from heterobench.resolve import Benchmark

TABLES = ("accuracy", "difference", "accuracy-last", "loss", "clients", "cost", "accuracy-oracle")
FORMATS = ("csv", "md", "tex", "html")
OVERVIEWS = ("curves-rounds", "curves-bytes")
VECTOR = ("svg", "pdf")


def folder(benchmark: Benchmark) -> Path:
    return benchmark.project.benchmark(benchmark.name, benchmark.preset)


def evaluation_file(benchmark: Benchmark, scenario: str) -> Path:
    """Long-form table with one row per arm, seed, selection and metric."""
    return folder(benchmark) / "evaluation" / f"{scenario}.parquet"


def curve_file(benchmark: Benchmark, scenario: str) -> Path:
    """Long-form table with one row per arm, seed, round and metric."""
    return folder(benchmark) / "curves" / f"{scenario}.parquet"


def summary_file(benchmark: Benchmark) -> Path:
    """Every mean with its interval, as one tidy table: the source of all other tables."""
    return folder(benchmark) / "tables" / "summary.csv"


def table_file(benchmark: Benchmark, table: str, form: str) -> Path:
    return folder(benchmark) / "tables" / f"{table}.{form}"


def figure_file(benchmark: Benchmark, figure: str, form: str) -> Path:
    return folder(benchmark) / "figures" / f"{figure}.{form}"


def report_file(benchmark: Benchmark) -> Path:
    return folder(benchmark) / "report.html"


def score_folders(benchmark: Benchmark) -> tuple[Path, Path]:
    """Metrics and curves of single arms, for DVC to compare between git revisions."""
    project, name, preset = benchmark.project, benchmark.name, benchmark.preset
    return project.scores("metrics", name, preset), project.scores("curves", name, preset)


def curve_figure(scenario: str) -> str:
    """Name of the figure with the learning curves of one scenario."""
    return f"curve-{scenario}"


def figures(benchmark: Benchmark) -> list[str]:
    return [*OVERVIEWS, *(curve_figure(scenario.name) for scenario in benchmark.scenarios)]


def table_files(benchmark: Benchmark) -> list[Path]:
    """All that `write_tables` writes."""
    return [
        summary_file(benchmark),
        *(table_file(benchmark, table, form) for table in TABLES for form in FORMATS),
    ]


def figure_files(benchmark: Benchmark) -> list[Path]:
    """All that `write_figures` writes."""
    return [figure_file(benchmark, figure, form) for figure in figures(benchmark) for form in VECTOR]
