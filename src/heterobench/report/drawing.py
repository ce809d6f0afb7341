"""What several figures need: colours, and names beside what they belong to."""

from __future__ import annotations

from typing import Any

from heterobench.report.figures import LEADER, STYLE, spaced
from heterobench.words import SIZE

INK, QUIET, FAINT = "#1c1e21", "#5d636b", "#c9ced4"
LINE = SIZE * 1.32 / 72  # inches from one line of text to the next


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
