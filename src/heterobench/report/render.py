"""The forms of a table but LaTeX. Each writes what `number` and `spread` say; none computes anything."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from functools import cache
from itertools import groupby

from heterobench.report.layout import about, heading
from heterobench.report.table import Cell, Column, Row, Section, Table, number, spread

LINE = 26
"""Letters of a column of words that are kept on one line, where the page is narrow."""
CSV_HEADER = [
    *("table", "section", "section_title", "group", "row", "row_title"),
    *("column", "column_group", "column_title", "unit", "direction"),
    *("value", "half_width", "low", "high", "std"),
    *("n_finite", "n", "n_expected", "bold", "lower_bound", "marks", "text"),
]


def to_csv(table: Table) -> str:
    """Tidy: one line per cell, numbers unrounded in the column's unit, empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for section, group, row in table.bodies:
        for column, cell in zip(table.columns, row.cells, strict=True):
            numbers = (cell.value, cell.half, cell.value - cell.half, cell.value + cell.half, cell.std)
            writer.writerow(
                [table.name, section.key, section.title, group.title, row.key, row.title]
                + [column.key, column.group, column.title, column.unit, column.direction or ""]
                + [repr(float(value)) if math.isfinite(value) else "" for value in numbers]
                + [cell.n_finite, cell.n, cell.n_expected, int(cell.bold), int(cell.bound)]
                + [" ".join((*row.marks, *cell.marks)), cell.text]
            )
    return out.getvalue()


# Markdown


def escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)


def to_markdown(table: Table) -> str:
    """A pipe table per section, notes below."""
    md = escape_markdown
    lines = [f"### {md(table.title)}", "", *([md(about(table)) + ".", ""] if about(table) else [])]
    lines += [md(table.protocol), ""] * bool(table.protocol) + [md(table.empty), ""] * (not table.bodies)
    for section in table.sections if table.bodies else ():
        if section.title:
            lines += [f"**{md(section.title)}**", ""]
        heads = [md(heading(table, column)) for column in table.columns]
        if any(column.group for column in table.columns):
            heads = [f"{md(column.group)}: {head}" for column, head in zip(table.columns, heads, strict=True)]
        sides = [":--" if column.words else "--:" for column in table.columns]
        lines += [_pipes(["", *heads]), _pipes([":--", *sides])]
        for index, group in enumerate(section.groups):
            if index:
                lines.append(_pipes([f"*{md(group.title)}*" if group.title else "", *[""] * len(heads)]))
            for row in group.rows:
                cells = [_markdown_cell(c, column) for c, column in zip(row.cells, table.columns, strict=True)]
                lines.append(_pipes([md(row.title) + _sup(row.marks), *cells]))
        lines.append("")
    lines += [f"{_sup((mark,))} {md(text)}  " for mark, text in table.footnotes]
    lines += [""] * bool(table.footnotes) + [f"{md(note)}  " for note in table.notes]
    return "\n".join(lines).rstrip() + "\n"


def _pipes(fields: list[str]) -> str:
    return "| " + " | ".join(fields) + " |"


def _sup(marks: tuple[str, ...]) -> str:
    return f"<sup>{', '.join(marks)}</sup>" if marks else ""


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _markdown_cell(cell: Cell, column: Column) -> str:
    shown = number(cell, column)
    text = escape_markdown(" ".join(shown.split())) if cell.text else _minus(shown).replace(">", "\\>")
    text = f"**{text}**" if cell.bold else text
    if half := spread(cell, column):
        text += f" ± {half}"
    return text + (f" ({cell.runs})" if cell.runs else "") + _sup(cell.marks)


# HTML


@cache
def environment():
    """Templates beside this file; everything that is put into them is escaped."""
    import jinja2

    loader = jinja2.PackageLoader("heterobench.report", "templates")
    made = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.undefined = jinja2.StrictUndefined
    return made


def asset(name: str):
    """Style sheet or script, to be written into a page as it is."""
    from markupsafe import Markup

    loader = environment().loader
    return Markup(loader.get_source(environment(), name)[0])


Key = Callable[[Section, Row, Column, Cell], str]
"""What a cell carries so that a reader can go on from it (`heterobench.report.trace`)."""


def to_html_fragment(table: Table, level: int = 2, folded: bool = False, key: Key | None = None) -> str:
    """A <section> for a page that has `page.css` and `sort.js`; `level` is that of its heading.

    `folded`: the notes open on a click; the explanations of marks are always there. `key`: of each cell, for a page
    with `trace.js`.
    """
    return (
        environment()
        .get_template("table.html")
        .render(
            table=table,
            level=level,
            folded=folded,
            about=about(table),
            header_groups=[
                (text, len(list(members))) for text, members in groupby(table.columns, key=lambda column: column.group)
            ],
            widths=_widths(table),
            lines=[min(LINE, max(map(len, texts), default=0)) for texts in zip(*_texts(table), strict=True)],
            number=lambda cell, column: number(cell, column) if cell.text else _minus(number(cell, column)),
            spread=spread,
            finite=math.isfinite,
            heading=lambda column: heading(table, column),
            key=key or (lambda *_: ""),
        )
    )


def to_html(table: Table) -> str:
    """A whole page with this table alone."""
    from markupsafe import Markup

    return (
        environment()
        .get_template("page.html")
        .render(
            title=table.title,
            body=Markup("<main>{}</main>").format(Markup(to_html_fragment(table, level=1))),
            style=asset("page.css"),
            scripts=[asset("sort.js")],
        )
    )


def _texts(table: Table) -> list[list[str]]:
    """Words of each cell, row by row; empty where it shows a number."""
    return [[cell.text for cell in row.cells] for _, _, row in table.bodies]


def _widths(table: Table) -> list[tuple[int, int]]:
    """Characters of the widest spread and of the widest mark of each column, which get slots that wide."""
    rows: list[Row] = [row for _, _, row in table.bodies]
    return [
        (
            max((len(spread(row.cells[index], column)) for row in rows), default=0),
            max((len(row.cells[index].runs + "".join(row.cells[index].marks)) for row in rows), default=0),
        )
        for index, column in enumerate(table.columns)
    ]
