"""A table, and words in general, in LaTeX; booktabs, in any engine."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import groupby

from heterobench.report.layout import about, heading
from heterobench.report.table import ABSENT, Cell, Column, Group, Row, Section, Table, number, spread

WIDTH = 80
"""Letters that fit beside each other in a plain article; more columns go into a further panel."""
LINE, SHORT_LINE = 28, 14
"""Letters of a line of words in a cell: most, and fewest where a table is wide."""
NAME_LINE = 40
"""Letters of a line of a row's title."""
HEAD_LINE = 14
"""Letters of a line of a column's heading."""
WORD = 24
"""Letters of a word of a heading that is not broken."""
LINES, FEW = 54, 36
"""Lines of rows that a page holds beside caption and notes, in small letters where there are more than `FEW`."""
HEADING = 2
"""Lines that the heading of a section takes, with its rules."""

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
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "²": "$^2$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "³": "$^3$",
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


LIKE_LATIN = frozenset(
    ("Alpha", "Beta", "Epsilon", "Zeta", "Eta", "Iota", "Kappa", "Mu", "Nu", "Omicron", "Rho", "Tau", "Chi")
)
"""Capitals that look like Latin ones: LaTeX has no commands for them."""


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
        if letter in LIKE_LATIN:
            return f"$\\mathrm{{{unicodedata.normalize('NFKD', letter)[0]}}}$"
        return "$o$" if letter == "omicron" else f"$\\{letter}$"
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or f"[U+{ord(character):04X}]"


HEAD = r"""% Compiles by itself, and by \input inside a document with \usepackage{booktabs}.
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
TAIL = r"""\ifdefined\heterobenchend\expandafter\heterobenchend\fi
"""


Block = tuple[str, tuple[Group, ...]]
"""A heading, empty where there is none, and the groups of rows below it."""


def to_latex(table: Table) -> str:
    """One float per `WIDTH` letters of columns and per `LINES` lines of rows, notes under the last."""
    lengths = _lengths(table)
    panels = [(piece, lines, part) for piece, lines in _pieces(table, lengths) for part in _parts(table, lengths)]
    blocks = []
    for index, (piece, lines, part) in enumerate(panels or [([], 0, [])]):
        within = f" ({about(table)})" if about(table) and not index else ""
        caption = escape_latex(table.title + within + ", continued" * bool(index))
        label = f"tab:{table.name}" + (f"-{index + 1}" if index else "")
        body = _tabular(table, piece, part, lengths) if piece else f"{escape_latex(table.empty)}\n"
        blocks.append(
            f"\\begin{{table}}[htbp]\n\\centering\n\\{'small' if lines <= FEW else 'footnotesize'}\n"
            "\\setlength{\\tabcolsep}{4pt}\n\\setlength{\\belowcaptionskip}{4pt}\n"
            f"\\caption{{{caption}}}\n\\label{{{label}}}\n"
            f"{body}"
            f"{_notes(table) if index >= len(panels) - 1 else ''}"
            "\\end{table}\n"
        )
    return HEAD + "\n".join(blocks) + TAIL


def _pieces(table: Table, lengths: Sequence[int]) -> list[tuple[list[Block], int]]:
    """What fits on a page, with its lines: sections, as many as there is room for, and parts of long ones."""
    pieces: list[tuple[list[Block], int]] = []
    for section in table.sections:
        for part, lines in _page_long(section, lengths):
            if not pieces or pieces[-1][1] + lines > LINES:
                pieces.append(([], 0))
            blocks, used = pieces[-1]
            pieces[-1] = ([*blocks, (section.title, part)], used + lines)
    return pieces


def _page_long(section: Section, lengths: Sequence[int]) -> list[tuple[tuple[Group, ...], int]]:
    """(groups, lines) of a section, in parts that each fit on a page."""
    parts: list[tuple[list[Group], int]] = [([], HEADING)]
    for group in section.groups:
        rows: list[Row] = []
        for row in group.rows:
            lines = _lines(row, lengths)
            if parts[-1][1] + lines > LINES:
                parts[-1][0].append(Group(group.title, tuple(rows)))
                parts.append(([], HEADING))
                rows = []
            rows.append(row)
            parts[-1] = (parts[-1][0], parts[-1][1] + lines)
        parts[-1][0].append(Group(group.title, tuple(rows)))
    kept = ((tuple(group for group in groups if group.rows), lines) for groups, lines in parts)
    return [(groups, lines) for groups, lines in kept if groups]


def _lines(row: Row, lengths: Sequence[int]) -> int:
    """Lines that a row takes: its longest words decide."""
    used = [-(-len(c.text) // of) for c, of in zip(row.cells, lengths, strict=True) if of]
    return max(1, -(-len(row.title) // NAME_LINE), *used)


def _lengths(table: Table) -> list[int]:
    """Letters of a line of each column of words, 0 for numbers: shorter where that saves a panel, none below a word."""
    texts = [[row.cells[index].text for _, _, row in table.bodies] for index in range(len(table.columns))]
    words = [max((len(word) for text in of for word in text.split()), default=1) for of in texts]
    found: list[int] = []
    for line in range(LINE, SHORT_LINE - 1, -1):
        found = [max(line, word) if c.words else 0 for c, word in zip(table.columns, words, strict=True)]
        if _name_width(table) + sum(_widths(table, found)) <= WIDTH:
            break
    return found


def _name_width(table: Table) -> int:
    return min(NAME_LINE, max((len(row.title) for _, _, row in table.bodies), default=0))


def _widths(table: Table, lengths: Sequence[int]) -> list[int]:
    """Letters that each column takes, with the space before it."""
    found = []
    for index, column in enumerate(table.columns):
        cells = [
            min(len(c.text), lengths[index] or len(c.text))
            if c.text
            else len(f"{number(c, column)} + {spread(c, column)}{c.runs}{''.join(c.marks)}")
            for c in (row.cells[index] for _, _, row in table.bodies)
        ]
        found.append(1 + max(*(len(text) for text in _broken(heading(table, column))), *cells, 0))
    return found


def _parts(table: Table, lengths: Sequence[int]) -> list[list[int]]:
    """Indices of the columns of each panel: as few panels as `WIDTH` allows, and of these the most even ones."""
    name, widths = _name_width(table), _widths(table, lengths)
    fewest = _filled(widths, WIDTH - name)
    limits = range(max(widths, default=0), WIDTH - name)
    return next((parts for limit in limits if len(parts := _filled(widths, limit)) == len(fewest)), fewest)


def _filled(widths: Sequence[int], limit: int) -> list[list[int]]:
    """Indices in runs of at most `limit` together, each with one at least."""
    parts: list[list[int]] = [[]]
    used = 0
    for index, width in enumerate(widths):
        if parts[-1] and used + width > limit:
            parts.append([])
            used = 0
        parts[-1].append(index)
        used += width
    return parts


def _tabular(table: Table, blocks: Sequence[Block], part: Sequence[int], lengths: Sequence[int]) -> str:
    columns = [table.columns[index] for index in part]
    sides = "".join("l" if column.words else "r" for column in columns)
    lines = [f"\\begin{{tabular}}{{@{{}}l{sides}@{{}}}}", "\\toprule"]
    if any(column.group for column in columns):
        heads, rules, at = [], [], 2
        for text, members in groupby(columns, key=lambda column: column.group):
            width = len(list(members))
            heads.append(f"\\multicolumn{{{width}}}{{c}}{{{escape_latex(text)}}}")
            if text:
                rules.append(f"\\cmidrule(lr){{{at}-{at + width - 1}}}")
            at += width
        lines += [" & ".join(["", *heads]) + r" \\", "".join(rules)]
    heads = [_head(heading(table, column), column.words) for column in columns]
    lines.append(" & ".join(["", *heads]) + r" \\")
    for title, groups in blocks:
        if title:
            text = f"\\multicolumn{{{len(columns) + 1}}}{{@{{}}l}}{{\\textbf{{{escape_latex(title)}}}}}"
            lines += ["\\midrule", text + r" \\"]
        for group in groups:
            lines.append("\\addlinespace" if title and group is groups[0] else "\\midrule")
            for row in group.rows:
                cells = [_cell(row.cells[index], table.columns[index], lengths[index]) for index in part]
                lines.append(
                    "{}" * _row_title(row).startswith(("[", "*")) + " & ".join([_row_title(row), *cells]) + r" \\"
                )
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _broken(text: str) -> list[str]:
    """A long heading in lines, so that numbers and not words set the width of a column."""
    lines = [""]
    words = (re.findall(f".{{1,{WORD}}}", word) for word in re.split(r" (?![↑↓])", text))
    for word in (piece for pieces in words for piece in pieces):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > HEAD_LINE:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _row_title(row: Row) -> str:
    text = escape_latex(row.title) + _sup(row.marks)
    if len(row.title) <= NAME_LINE:
        return text
    return f"\\parbox[t]{{{NAME_LINE / 2:g}em}}{{\\raggedright\\hangindent=1em {text}\\strut}}"


def _head(text: str, words: bool) -> str:
    lines = _broken(text)
    if len(lines) == 1:
        return escape_latex(lines[0])
    inner = r" \\{} ".join(escape_latex(text) for text in lines)  # without {} a bracket or star would be an argument
    return f"\\begin{{tabular}}[b]{{@{{}}{'l' if words else 'r'}@{{}}}}{inner}\\end{{tabular}}"


def _sup(marks: tuple[str, ...]) -> str:
    return f"\\textsuperscript{{{escape_latex(', '.join(marks))}}}" if marks else ""


def _cell(cell: Cell, column: Column, length: int) -> str:
    marks = _sup((*((cell.runs,) if cell.runs else ()), *cell.marks))
    if cell.text:
        text = escape_latex(cell.text)
        text = f"\\textbf{{{text}}}" if cell.bold else text
        if column.words and len(cell.text) > length:
            return f"\\parbox[t]{{{length / 2:g}em}}{{\\raggedright {text}{marks}\\strut}}"
        return text + marks
    text = number(cell, column)
    bold = f"$\\mathbf{{{text}}}$" if cell.bold else f"${text}$"
    text = "--" if text == ABSENT else bold
    if half := spread(cell, column):
        text += f" {{\\footnotesize$\\pm\\,{half}$}}"
    return text + marks


def _notes(table: Table) -> str:
    lines = [f"{_sup((mark,))}{escape_latex(text)}" for mark, text in table.footnotes]
    lines += [escape_latex(note) for note in (table.protocol, *table.notes) if note]
    body = "\\par\n".join(lines)
    start = "\\par\\smallskip\n\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright\n"
    return f"{start}{body}\n\\end{{minipage}}\n" if lines else ""
