"""Write the tables and figures of a benchmark from its evaluation and curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from heterobench.errors import RunError
from heterobench.files import write_text
from heterobench.report import outputs, render
from heterobench.report.aggregate import aggregate
from heterobench.report.table import Table
from heterobench.report.tables import tables
from heterobench.resolve import Benchmark

FORMS = {
    "csv": render.to_csv,
    "md": render.to_markdown,
    "tex": render.to_latex,
    "html": render.to_html,
}


def _parquet(path: Path, benchmark: Benchmark) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        shown = path.relative_to(benchmark.project.root)
        raise RunError(f"{shown}: no such file; let snakemake evaluate the runs first") from None


def read_evaluation(benchmark: Benchmark) -> pd.DataFrame:
    """All scenarios, one below the other. Raises RunError where a scenario has not been evaluated."""
    files = [outputs.evaluation_file(benchmark, scenario.name) for scenario in benchmark.scenarios]
    return pd.concat([_parquet(file, benchmark) for file in files], ignore_index=True)


def read_curves(benchmark: Benchmark) -> dict[str, pd.DataFrame]:
    """Scenario -> its long-form curves."""
    return {s.name: _parquet(outputs.curve_file(benchmark, s.name), benchmark) for s in benchmark.scenarios}


def read_tables(benchmark: Benchmark, revisions: Sequence[str] = ()) -> list[Table]:
    return tables(aggregate(read_evaluation(benchmark), benchmark), benchmark, revisions)


def write_tables(benchmark: Benchmark, revisions: Sequence[str] = ()) -> None:
    """Write all of `outputs.table_files`. `revisions`: of the code that made the runs, for the notes."""
    summary = aggregate(read_evaluation(benchmark), benchmark)
    write_text(outputs.summary_file(benchmark), summary.to_csv(index=False, lineterminator="\n"))
    for table in tables(summary, benchmark, revisions):
        for form, to in FORMS.items():
            write_text(outputs.table_file(benchmark, table.name, form), to(table))


def write_figures(benchmark: Benchmark) -> None:
    """Write all of `outputs.figure_files`."""
    from heterobench.report import figures  # matplotlib takes its time, and tables do not need it

    curves = read_curves(benchmark)
    summary = aggregate(read_evaluation(benchmark), benchmark)
    last = summary[(summary["selection"] == "last") & (summary["metric"] == "test_accuracy")]
    levels = {
        (row["scenario"], row["arm"]): row["mean"]
        for row in last.to_dict("records")
        if row["n_finite"] == row["n_expected"]
    }
    drawn = {
        "curves-rounds": figures.overview(benchmark, curves, levels, "rounds"),
        "curves-bytes": figures.overview(benchmark, curves, levels, "bytes"),
    } | {
        outputs.curve_figure(s.name): figures.single(benchmark, s, curves[s.name], levels) for s in benchmark.scenarios
    }
    for name, figure in drawn.items():
        for form in outputs.VECTOR:
            figures.save(figure, outputs.figure_file(benchmark, name, form))
