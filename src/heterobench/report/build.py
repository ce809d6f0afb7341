"""Everything that a benchmark's report consists of, in one go."""

from __future__ import annotations

from pathlib import Path

from heterobench.report import outputs
from heterobench.report.data import read
from heterobench.report.index import write_report
from heterobench.report.scores import write_scores
from heterobench.report.sections import provenance
from heterobench.report.write import write_figures, write_tables
from heterobench.resolve import Benchmark


def build(benchmark: Benchmark) -> list[Path]:
    """Tables, figures, the page and the scores; returns their paths."""
    data = read(benchmark)
    tables = write_tables(data, provenance.revisions(data))
    write_figures(data)
    write_scores(data)
    write_report(data, tables)
    return [
        *outputs.table_files(benchmark),
        *outputs.figure_files(benchmark),
        outputs.report_file(benchmark),
        *outputs.score_folders(benchmark),
    ]
