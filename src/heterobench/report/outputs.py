"""Names of everything that a benchmark's report is read from and written to; cheap to import."""

from __future__ import annotations

from pathlib import Path

from heterobench.resolve import Benchmark

FORMATS = ("csv", "md", "tex", "html")
VECTOR = ("svg", "pdf")


def folder(benchmark: Benchmark) -> Path:
    return benchmark.project.benchmark(benchmark.name, benchmark.preset)


def evaluation_file(benchmark: Benchmark, scenario: str) -> Path:
    """Long-form table with one row per arm, seed, selection and metric."""
    return folder(benchmark) / "evaluation" / f"{scenario}.parquet"


def curve_file(benchmark: Benchmark, scenario: str) -> Path:
    """Long-form table with one row per arm, seed, round and metric."""
    return folder(benchmark) / "curves" / f"{scenario}.parquet"


def ledger_file(benchmark: Benchmark, scenario: str) -> Path:
    """One row for each run that the benchmark asks for, whether it is there or not."""
    return folder(benchmark) / "ledger" / f"{scenario}.parquet"


def outcome_file(benchmark: Benchmark, scenario: str) -> Path:
    """One row per arm and seed: which test examples its model got right."""
    return folder(benchmark) / "outcomes" / f"{scenario}.parquet"


def evaluated_file(benchmark: Benchmark, scenario: str) -> Path:
    """Digests of the four tables of a scenario, written when they are whole."""
    return folder(benchmark) / "evaluated" / f"{scenario}.json"


def tuning_file(benchmark: Benchmark, scenario: str, arm: str) -> Path:
    """What tuning tried and chose."""
    return benchmark.project.tuning(benchmark.name, benchmark.preset, scenario, arm) / "chosen.json"


def summary_file(benchmark: Benchmark) -> Path:
    """Every mean with its interval, as one tidy table: the source of all other tables."""
    return folder(benchmark) / "tables" / "summary.csv"


def table_file(benchmark: Benchmark, table: str, form: str) -> Path:
    return folder(benchmark) / "tables" / f"{table}.{form}"


def figure_file(benchmark: Benchmark, figure: str, form: str) -> Path:
    return folder(benchmark) / "figures" / f"{figure}.{form}"


def report_file(benchmark: Benchmark) -> Path:
    return folder(benchmark) / "report.html"


def paper_file(benchmark: Benchmark, form: str = "pdf") -> Path:
    return folder(benchmark) / f"paper.{form}"


def tracked_file(benchmark: Benchmark) -> Path:
    """What the workflow writes last, from the manifests of all jobs and the whole report."""
    return folder(benchmark) / "tracked.json"


def score_folders(benchmark: Benchmark) -> tuple[Path, Path]:
    """Metrics and curves of single arms, for DVC to compare between git revisions."""
    project, name, preset = benchmark.project, benchmark.name, benchmark.preset
    return project.scores("metrics", name, preset), project.scores("curves", name, preset)


def table_files(benchmark: Benchmark) -> list[Path]:
    """All that `heterobench.report.write.write_tables` writes."""
    from heterobench.report import sections  # they know their names, and stand above this module

    names = sections.table_names(benchmark)
    return [
        summary_file(benchmark),
        *(table_file(benchmark, table, form) for table in names for form in FORMATS),
    ]


def figure_files(benchmark: Benchmark) -> list[Path]:
    """All that `heterobench.report.write.write_figures` writes."""
    from heterobench.report import sections

    return [figure_file(benchmark, name, form) for name in sections.figure_names(benchmark) for form in VECTOR]
