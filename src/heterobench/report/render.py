"""The four forms of a table. Each writes what `number` and `spread` say; none computes anything."""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from functools import cache
from itertools import groupby

from heterobench.report.table import ABSENT, Cell, Column, Row, Section, Table, number, spread

CSV_HEADER = [
    *("table", "section", "section_title", "group", "row", "row_title"),
    *("column", "column_group", "column_title", "unit", "direction"),
    *("value", "half_width", "low", "high", "std"),
    *("n_finite", "n", "n_expected", "bold", "lower_bound", "marks"),
]
LATEX_WIDTH = 80
"""Letters that fit beside each other in a plain article; more columns go into a further panel."""
ARROW = {"max": "↑", "min": "↓"}


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
                + [" ".join((*row.marks, *cell.marks))]
            )
    return out.getvalue()


def shared(table: Table) -> bool:
    """True where all columns have one unit and direction: said once, above the table."""
    return len({(column.unit, column.direction) for column in table.columns}) == 1


def heading(table: Table, column: Column) -> str:
    """Title of a column, with its unit and an arrow to what is better unless all columns share them."""
    if shared(table):
        return column.title
    unit = f" ({column.unit})" if column.unit else ""
    return column.title + unit + (f" {ARROW[column.direction]}" if column.direction else "")


def about(table: Table) -> str:
    """What stands under the title."""
    better = {"max": "higher is better", "min": "lower is better"}
    direction = better.get(table.columns[0].direction, "") if shared(table) and not table.extra else ""
    return "; ".join(filter(None, (table.about, direction)))


# Markdown


def escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)


def to_markdown(table: Table) -> str:
    """A pipe table per section, notes below."""
    md = escape_markdown
    lines = [f"### {md(table.title)}", "", *([md(about(table)) + ".", ""] if about(table) else [])]
    for section in table.sections:
        if section.title:
            lines += [f"**{md(section.title)}**", ""]
        heads = [md(heading(table, column)) for column in table.columns]
        if any(column.group for column in table.columns):
            heads = [f"{md(column.group)}: {head}" for column, head in zip(table.columns, heads, strict=True)]
        lines += [_pipes(["", *heads]), _pipes([":--", *["--:"] * len(heads)])]
        for index, group in enumerate(section.groups):
            if index:
                lines.append(_pipes([f"*{md(group.title)}*", *[""] * len(heads)]))
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
    text = _minus(number(cell, column)).replace(">", "\\>")
    text = f"**{text}**" if cell.bold else text
    if half := spread(cell, column):
        text += f" ± {half}"
    return text + (f" ({cell.runs})" if cell.runs else "") + _sup(cell.marks)


# LaTeX

_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "∞": r"$\infty$",
    "−": r"$-$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "\u00a0": "~",
}


@cache
def escape_latex(text: str) -> str:
    """`text` for LaTeX with 8-bit or Unicode engines: special characters escaped, Greek letters as symbols.

    A letter that neither ASCII nor Latin-1 has is written without its accent, or by its code.
    """
    return "".join(_TEX.get(character) or _tex_character(character) for character in text)


def _tex_character(character: str) -> str:
    if character.isascii() or ("\u00c0" <= character <= "\u00ff"):
        return character
    name = unicodedata.name(character, "")
    if match := re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", name):
        letter = match[2].lower().replace("lamda", "lambda")
        letter = letter if match[1] == "SMALL" else letter.capitalize()
        if letter in {
            "Alpha",
            "Beta",
            "Epsilon",
            "Zeta",
            "Eta",
            "Iota",
            "Kappa",
            "Mu",
            "Nu",
            "Omicron",
            "Rho",
            "Tau",
            "Chi",
        }:
            return f"$\\mathrm{{{unicodedata.normalize('NFKD', letter)[0]}}}$"
        return "$o$" if letter == "omicron" else f"$\\{letter}$"
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or f"[U+{ord(character):04X}]"


LATEX_HEAD = r"""% Compiles by itself, and by \input inside a document with \usepackage{booktabs}.
\expandafter\ifx\csname @twoclasseserror\endcsname\documentclass\else
\documentclass[a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\pagestyle{empty}
\def\heterobenchend{\end{document}}
\begin{document}
\fi
"""
LATEX_TAIL = r"""\ifdefined\heterobenchend\expandafter\heterobenchend\fi
"""


def to_latex(table: Table) -> str:
    """booktabs; one float per section and per `LATEX_WIDTH` letters of columns, notes under the last."""
    panels = [(section, part) for section in table.sections for part in _parts(table)]
    blocks = []
    for index, (section, part) in enumerate(panels):
        within = f" ({about(table)})" if about(table) and not index else ""
        caption = escape_latex(
            table.title + within + (", continued" if index else "") + (f": {section.title}" if section.title else "")
        )
        label = f"tab:{table.name}" + (f"-{index + 1}" if index else "")
        blocks.append(
            "\\begin{table}[htbp]\n\\centering\n\\small\n\\setlength{\\tabcolsep}{4pt}\n"
            f"\\caption{{{caption}}}\n\\label{{{label}}}\n"
            f"{_tabular(table, section, part)}"
            f"{_latex_notes(table) if index == len(panels) - 1 else ''}"
            "\\end{table}\n"
        )
    return LATEX_HEAD + "\n".join(blocks) + LATEX_TAIL


def _parts(table: Table) -> list[list[int]]:
    """Indices of the columns of each panel: as many as `LATEX_WIDTH` holds, beside the names of the rows."""
    rows = [row for _, _, row in table.bodies]
    name = max((len(row.title) for row in rows), default=0)
    parts: list[list[int]] = [[]]
    used = name
    for index, column in enumerate(table.columns):
        head = heading(table, column)
        cells = [
            f"{number(c, column)} + {spread(c, column)}{c.runs}{''.join(c.marks)}"
            for c in (row.cells[index] for row in rows)
        ]
        width = 1 + max(len(text) for text in (*_broken(head), *cells))
        if parts[-1] and used + width > LATEX_WIDTH:
            parts.append([])
            used = name
        parts[-1].append(index)
        used += width
    size = -(-len(table.columns) // len(parts))  # as even as that many panels allow
    return [list(range(len(table.columns)))[start : start + size] for start in range(0, len(table.columns), size)]


def _tabular(table: Table, section: Section, part: list[int]) -> str:
    columns = [table.columns[index] for index in part]
    lines = [f"\\begin{{tabular}}{{@{{}}l{'r' * len(columns)}@{{}}}}", "\\toprule"]
    if any(column.group for column in columns):
        heads, rules, at = [], [], 2
        for text, members in groupby(columns, key=lambda column: column.group):
            width = len(list(members))
            heads.append(f"\\multicolumn{{{width}}}{{c}}{{{escape_latex(text)}}}")
            rules.append(f"\\cmidrule(lr){{{at}-{at + width - 1}}}")
            at += width
        lines += [" & ".join(["", *heads]) + r" \\", "".join(rules)]
    heads = [_latex_head(heading(table, column)) for column in columns]
    lines.append(" & ".join(["", *heads]) + r" \\")
    for group in section.groups:
        lines.append("\\midrule")
        for row in group.rows:
            cells = [_latex_cell(row.cells[index], table.columns[index]) for index in part]
            lines.append(" & ".join([escape_latex(row.title) + _tex_sup(row.marks), *cells]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _broken(text: str) -> list[str]:
    """A long heading in lines, so that numbers and not words set the width of a column."""
    lines = [""]
    for word in re.split(r" (?![↑↓])", text):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > 14:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _latex_head(text: str) -> str:
    lines = _broken(text)
    if len(lines) == 1:
        return escape_latex(lines[0])
    inner = r" \\ ".join(escape_latex(text) for text in lines)
    return f"\\begin{{tabular}}[b]{{@{{}}r@{{}}}}{inner}\\end{{tabular}}"


def _tex_sup(marks: tuple[str, ...]) -> str:
    return f"\\textsuperscript{{{escape_latex(', '.join(marks))}}}" if marks else ""


def _latex_cell(cell: Cell, column: Column) -> str:
    text = number(cell, column)
    bold = f"$\\mathbf{{{text}}}$" if cell.bold else f"${text}$"
    text = "--" if text == ABSENT else bold
    if half := spread(cell, column):
        text += f" {{\\footnotesize$\\pm\\,{half}$}}"
    marks = (*((cell.runs,) if cell.runs else ()), *cell.marks)
    return text + _tex_sup(marks)


def _latex_notes(table: Table) -> str:
    lines = [f"{_tex_sup((mark,))}{escape_latex(text)}" for mark, text in table.footnotes]
    lines += [escape_latex(note) for note in table.notes]
    body = "\\par\n".join(lines)
    start = "\\par\\smallskip\n\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright\n"
    return f"{start}{body}\n\\end{{minipage}}\n"


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


def to_html_fragment(table: Table, level: int = 2, folded: bool = False) -> str:
    """A <section> for a page that has `page.css` and `sort.js`; `level` is that of its heading.

    `folded`: the notes open on a click; the explanations of marks are always there.
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
            number=lambda cell, column: _minus(number(cell, column)),
            spread=spread,
            finite=math.isfinite,
            heading=lambda column: heading(table, column),
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
            body=Markup(to_html_fragment(table, level=1)),
            style=asset("page.css"),
            script=asset("sort.js"),
        )
    )


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
