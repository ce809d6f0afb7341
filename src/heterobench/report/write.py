"""Write the tables and figures of a report."""

from __future__ import annotations

from collections.abc import Sequence

from heterobench.files import write_text
from heterobench.report import latex, outputs, render, sections
from heterobench.report.data import ReportData
from heterobench.report.table import Table

FORMS = {
    "csv": render.to_csv,
    "md": render.to_markdown,
    "tex": latex.to_latex,
    "html": render.to_html,
}


def write_tables(data: ReportData, revisions: Sequence[str] = ()) -> dict[str, list[Table]]:
    """Write all of `outputs.table_files`; returns the tables of each section by its key, for the page.

    `revisions`: of the code that made the runs, for the notes.
    """
    made = {section.KEY: sections.tables(section, data, revisions) for section in sections.ORDER}
    write_text(outputs.summary_file(data.benchmark), data.summary.to_csv(index=False, lineterminator="\n"))
    for table in (table for tables in made.values() for table in tables):
        for form, to in FORMS.items():
            write_text(outputs.table_file(data.benchmark, table.name, form), to(table))
    return made


def write_figures(data: ReportData) -> None:
    """Write all of `outputs.figure_files`."""
    from heterobench.report.figures import save  # matplotlib takes its time, and tables do not need it

    for section in sections.ORDER:
        for name, figure in sections.figures(section, data).items():
            for form in outputs.VECTOR:
                save(figure, outputs.figure_file(data.benchmark, name, form))
