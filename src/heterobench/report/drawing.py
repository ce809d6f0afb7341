"""What several figures need: words that know their size, and names beside what they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from heterobench.report.figures import LEADER, STYLE, spaced

INK, QUIET, FAINT = "#1c1e21", "#5d636b", "#c9ced4"
SIZE = STYLE["font.size"]
LINE = SIZE * 1.32 / 72  # inches from one line of text to the next


@cache
def width(text: str, size: float = SIZE) -> float:
    """Inches that the longest line of a text takes in the font of all figures, with a little to spare."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=STYLE["font.family"], size=size)
    lines = [line for line in text.split("\n") if line.strip()]
    inches = [text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] / 72 for line in lines]
    return 1.06 * max(inches, default=0.0)  # letters on a screen are set to whole pixels


def widest(texts: Iterable[str], size: float = SIZE) -> float:
    return max((width(text, size) for text in texts), default=0.0)


def wrapped(text: str, inches: float, size: float = SIZE) -> str:
    """Text in lines that are no wider than that, unless a word is."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width(longer, size) > inches:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def nothing(text: str) -> Any:
    """A figure that says why there is nothing to see."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 0.8))
        figure.text(0.02, 0.5, text, va="center", color=QUIET)
    return figure


def names_beside(ax: Any, points: list[tuple[float, float]], names: list[str], colours: list[str]) -> None:
    """Names to the right of a panel, each joined to its point (data coordinates) by a thin line, none on another."""
    size = SIZE - 0.5
    figure = ax.figure
    inches = figure.get_size_inches()[1] * ax.get_position().height
    heights = [ax.transAxes.inverted().transform(ax.transData.transform(point))[1] for point in points]
    gap = size * 1.32 / 72 / inches
    places = spaced(heights, gap, gap / 2, 1 - gap / 2)
    for point, name, colour, place in zip(points, names, colours, places, strict=True):
        ax.annotate(
            name,
            xy=point,
            xytext=(1.05, place),
            xycoords="data",
            textcoords="axes fraction",
            va="center",
            color=colour,
            fontsize=size,
            annotation_clip=False,
            arrowprops=LEADER | {"color": colour},
        )
