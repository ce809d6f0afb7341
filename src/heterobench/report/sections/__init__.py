"""What a report consists of: one module for each section, in the order of the page; cheap to import.

Each module offers

KEY, TITLE      anchor and heading
READING         short paragraphs: how to read this section
table_names     (benchmark) -> names of its tables, known from the configuration alone
figure_names    (benchmark) -> names of its figures, the same
tables          (data) -> tables, in the order of their names
figures         (data) -> name -> matplotlib figure, in the order of their names
CAPTIONS        name -> what stands below a figure; or a function caption(name, benchmark)

and, where it has such things,

folded          (name) -> whether a table or figure is shown on demand only
pictures        (data) -> (caption, file) of pictures that other rules have drawn
facts           (data) -> (label, text), a list of plain facts

A section with nothing for a benchmark does not appear.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from heterobench.report.sections import (
    calibration,
    clients,
    coherence,
    comparison,
    corrected,
    cost,
    curves,
    difference,
    fairness,
    landscape,
    last,
    loss,
    oracle,
    partitions,
    provenance,
    published,
    rankings,
    results,
    runs,
    tuning,
)
from heterobench.report.tables import complete
from heterobench.resolve import Benchmark

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table


ORDER: tuple[ModuleType, ...] = (
    results,
    difference,
    comparison,
    rankings,
    curves,
    cost,
    clients,
    calibration,
    fairness,
    corrected,
    coherence,
    landscape,
    tuning,
    published,
    last,
    loss,
    runs,
    partitions,
    oracle,
    provenance,
)


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    """Names of all tables; raises ValueError where two sections use one name."""
    return _once([name for section in ORDER for name in section.table_names(benchmark)])


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    """Names of all figures; raises ValueError where two sections use one name."""
    return _once([name for section in ORDER for name in section.figure_names(benchmark)])


def _once(names: Sequence[str]) -> tuple[str, ...]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two sections of the report write {twice[0]!r}: each name may be used once")
    return tuple(names)


def tables(section: ModuleType, data: ReportData, revisions: Sequence[str] = ()) -> list[Table]:
    """The tables of a section with what holds for all tables; `revisions`: of the code of the runs, for the notes.

    Raises ValueError where the section makes others than it has announced.
    """
    made = section.tables(data)
    _announced(section, "tables", [table.name for table in made], section.table_names(data.benchmark))
    return [complete(table, data.benchmark, revisions) for table in made]


def figures(section: ModuleType, data: ReportData) -> dict[str, Any]:
    """Name -> figure of a section; raises ValueError where the section makes others than it has announced."""
    made = section.figures(data)
    _announced(section, "figures", list(made), section.figure_names(data.benchmark))
    return made


def _announced(section: ModuleType, what: str, made: Sequence[str], names: Sequence[str]) -> None:
    if list(made) != list(names):
        raise ValueError(f"{section.__name__}: announces the {what} {list(names)} and makes {list(made)}")


def caption(section: ModuleType, name: str, benchmark: Benchmark) -> str:
    """What stands below a figure."""
    return section.caption(name, benchmark) if hasattr(section, "caption") else section.CAPTIONS[name]


def folded(section: ModuleType, name: str) -> bool:
    return hasattr(section, "folded") and section.folded(name)
