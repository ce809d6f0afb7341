"""One table, before it has a format: the single source of CSV, Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

ABSENT = "–"


class Source(NamedTuple):
    """The values, one for each seed, that a number is made from: where they stand in the evaluation.

    An empty `metric`: the runs as such and no value of theirs, e.g. for the share of runs that finished.
    """

    scenario: str
    arm: str
    selection: str = ""
    metric: str = ""


@dataclass(frozen=True)
class Column:
    key: str
    title: str
    group: str = ""
    unit: str = ""
    direction: str | None = None
    digits: int = 1
    signed: bool = False
    """Write a plus sign too: for differences."""
    words: bool = False
    """Its cells hold text: to the left, in lines where it is long, sorted by the alphabet."""


@dataclass(frozen=True)
class Cell:
    """A mean in the column's unit. `half` is half the width of its interval (NaN: none)."""

    value: float = math.nan
    half: float = math.nan
    std: float = math.nan
    n: int = 0
    n_finite: int = 0
    n_expected: int = 0
    bold: bool = False
    bound: bool = False
    """True: the mean is larger than `value`, since some runs never got there."""
    marks: tuple[str, ...] = ()
    text: str = ""
    """Stands in place of the number; `value`, where it is finite, still sorts the cell."""
    of: tuple[Source, ...] = ()
    """What the number is made from, so that a reader can go from it to its runs."""

    @property
    def runs(self) -> str:
        """How many of the expected runs stand behind the value, e.g. "3/5"; empty where all do."""
        return f"{self.n_finite}/{self.n_expected}" if self.n_finite < self.n_expected else ""


@dataclass(frozen=True)
class Row:
    key: str
    title: str
    cells: tuple[Cell, ...]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Rows between two rules."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Section:
    """Groups under one heading; a table with a single section has no heading."""

    key: str
    title: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    about: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    footnotes: tuple[tuple[str, str], ...] = ()
    """(mark, text) of the marks that rows and cells carry."""
    notes: tuple[str, ...] = ()
    extra: bool = False
    """True: shown for information, not for comparison."""
    protocol: str = ""
    """Which round and which hyper-parameters the numbers come from: stands under the title in every form."""
    stub: str = "Method"
    """What the rows are."""
    empty: str = "Nothing to show."
    """Said in place of a table without rows."""

    @property
    def bodies(self) -> list[tuple[Section, Group, Row]]:
        return [(s, g, row) for s in self.sections for g in s.groups for row in g.rows]


def number(cell: Cell, column: Column) -> str:
    """The value as every format shows it, e.g. "93.4", "> 24.3", "+1.2", words or a dash; minus is ASCII."""
    if cell.text:
        return cell.text
    if not math.isfinite(cell.value):
        return ABSENT
    text = f"{cell.value:{'+' if column.signed else ''}.{column.digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return f"> {text}" if cell.bound else text


def spread(cell: Cell, column: Column) -> str:
    """Half the width of the interval, or nothing where there is none or runs differ by rounding alone."""
    if cell.text or not math.isfinite(cell.value) or not math.isfinite(cell.half):
        return ""
    return f"{cell.half:.{column.digits}f}" if cell.half > 1e-9 * abs(cell.value) else ""
