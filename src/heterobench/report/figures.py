"""Learning curves as vector figures: same numbers, same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from heterobench.files import atomic
from heterobench.report import labels
from heterobench.report.curves import curves_of
from heterobench.resolve import Benchmark, Scenario
from heterobench.words import FAMILY, SIZE, names, widest, wrapped

# Okabe and Ito (2008), "Color Universal Design", without yellow, which is too light for a line; black is
# FedAvg's. Colours and dashes go round at different lengths (6 and 4), so that 12 methods differ and
# neighbours differ in both.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("-", (0, (6, 1.6)), (0, (4, 1.4, 1, 1.4)), (0, (1.6, 1.2)))
GREYS = (("#777777", (0, (5, 2.5))), ("#777777", (0, (1, 1.8))))
ACROSS = {"rounds": "Round", "bytes": "Sent up and down (MB)", "time": "Simulated time (s)"}
LEADER = {"arrowstyle": "-", "linewidth": 0.6, "alpha": 0.6, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}
DIRECT = 12  # lines that are labelled at their ends in a figure of one scenario
TITLE_LINES = 3  # of a panel, at most
TITLE = 10  # points
STYLE = {
    "font.family": FAMILY,
    "font.size": SIZE,
    "text.parse_math": False,  # a title with two dollar signs is no formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f96",
    "axes.linewidth": 0.8,
    "axes.titlesize": TITLE,
    "axes.titlelocation": "left",
    "axes.labelcolor": "#4a4f56",
    "xtick.color": "#8a8f96",
    "ytick.color": "#8a8f96",
    "xtick.labelcolor": "#4a4f56",
    "ytick.labelcolor": "#4a4f56",
    "axes.grid": True,
    "grid.color": "#eceef1",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "heterobench",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


def styles(benchmark: Benchmark) -> dict[str, dict]:
    """Line style of every arm, the same in all figures: the baseline is black, references are grey."""
    made, base = {}, labels.baseline(benchmark).name
    for index, arm in enumerate(a for a in labels.methods(benchmark) if a.name != base):
        made[arm.name] = {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": DASHES[index % len(DASHES)],
        }
    for index, arm in enumerate(labels.references(benchmark)):
        colour, dash = GREYS[index % len(GREYS)]
        made[arm.name] = {"color": colour, "linestyle": dash, "linewidth": 1.3}
    made[base] = {"color": "#111111", "linestyle": "-", "linewidth": 2.0}
    return made


def overview(benchmark: Benchmark, curves: Mapping[str, pd.DataFrame], levels: dict, axis: str) -> Figure:
    """Test accuracy, one panel per scenario with a shared vertical axis and one legend. `axis`: a key of `ACROSS`.

    `curves` maps scenarios to their long-form curves; `levels` maps (scenario, arm) to the test accuracy
    (0..1) of arms without a curve, drawn as horizontal lines.
    """

    def draw(ax, scenario: Scenario) -> None:
        _draw(ax, benchmark, scenario, curves[scenario.name], levels, axis)

    return panels(benchmark, draw, ACROSS[axis], "Test accuracy (%)", _limits, sharex=axis == "rounds")


def along(benchmark: Benchmark, curves: Mapping[str, pd.DataFrame], metric: str, label: str) -> Figure:
    """A positive metric of the models that runs keep along their way, on a logarithmic axis, like `overview`.

    Arms without the metric (none has it without a global model) have no line.
    """
    look, base = styles(benchmark), labels.baseline(benchmark).name

    def draw(ax, scenario: Scenario) -> None:
        found = curves_of(curves[scenario.name], metric, scale=1)
        for arm in labels.methods(benchmark) + labels.references(benchmark):
            if (made := found.get(arm.name)) is None:
                continue
            style = look[arm.name] | {"zorder": 3 if arm.name == base else 2.5}
            low = np.maximum(made.low, made.mean / 10)  # an interval may reach below zero, which the axis lacks
            ax.fill_between(made.rounds, low, made.high, color=style["color"], alpha=0.1, linewidth=0, zorder=2)
            ax.plot(made.rounds, made.mean, marker="o", markersize=3, **style)
        ax.set_yscale("log")
        ax.set_xlim(0, None)

    return panels(benchmark, draw, "Round", label, _log_limits, sharex=True)


def panels(
    benchmark: Benchmark,
    draw: Callable[[Any, Scenario], None],
    across: str,
    up: str,
    limits: Callable[[list], None],
    sharex: bool,
) -> Figure:
    """One panel per scenario with a shared vertical axis, and one legend of all arms above them.

    `draw(ax, scenario)` fills a panel; `across` and `up` name the axes; `limits(axes)` sets the vertical limits of all.
    """
    scenarios = benchmark.scenarios
    columns = min(len(scenarios), 2 if len(scenarios) in (2, 4) else 3)
    rows = math.ceil(len(scenarios) / columns)
    order = labels.methods(benchmark) + labels.references(benchmark)
    width = 9.6
    shown = names([arm.title for arm in order])
    per_row = _legend_columns(shown, width)
    legend = 0.26 * math.ceil(len(order) / per_row) + 0.15
    room = width / columns - 0.3
    titles = [wrapped(labels.title(benchmark, scenario), room, TITLE, TITLE_LINES) for scenario in scenarios]
    more = max(title.count("\n") for title in titles)  # lines of the longest title beyond the first
    height = (2.75 + 0.17 * more) * rows + 0.45 + legend
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        top = 1 - (legend + 0.28 + 0.17 * more) / height
        axes = figure.subplots(rows, columns, sharey=True, sharex=sharex, squeeze=False)
        figure.subplots_adjust(
            left=0.062,
            right=0.985,
            top=top,
            bottom=0.5 / height,
            wspace=0.09,
            hspace=(0.3 if sharex else 0.36) + 0.08 * more,
        )
        for index, ax in enumerate(axes.flat):
            if index >= len(scenarios):
                ax.remove()
                continue
            draw(ax, scenarios[index])
            ax.set_title(titles[index], color="#1c1e21")
            if index % columns == 0:
                ax.set_ylabel(up)
            if index + columns >= len(scenarios):
                ax.set_xlabel(across)
                _whole(ax)
                ax.tick_params(labelbottom=True)
        limits([ax for ax in axes.flat if ax.figure is not None])
        _make_room(figure, axes[0, 0])
        look = styles(benchmark)
        handles = [matplotlib.lines.Line2D([], [], **look[arm.name]) for arm in order]
        figure.legend(
            _by_rows(handles, per_row),
            _by_rows(shown, per_row),
            loc="upper left",
            bbox_to_anchor=(0.055, 1.0),
            ncols=per_row,
            frameon=False,
            handlelength=2.6,
            columnspacing=1.6,
            borderaxespad=0.3,
        )
    return figure


def single(benchmark: Benchmark, scenario: Scenario, frame: pd.DataFrame, levels: dict) -> Figure:
    """The curves of one scenario over rounds, each with its name at its end."""
    arms = labels.methods(benchmark) + labels.references(benchmark)
    shown = dict(zip([arm.name for arm in arms], names([arm.title for arm in arms]), strict=True))
    direct, across = len(arms) <= DIRECT, 6.8
    per_row = _legend_columns(list(shown.values()), across)
    title = wrapped(labels.title(benchmark, scenario), across - 0.8, TITLE, TITLE_LINES)
    above = 0.38 + 0.17 * title.count("\n")
    below = 0.5 + (0 if direct else 0.26 * math.ceil(len(arms) / per_row) + 0.1)
    height = 3.32 + above + below
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(across, height))
        ax = figure.subplots()
        right = min(0.72, 1 - (widest(shown.values()) + 0.45) / across) if direct else 0.98
        figure.subplots_adjust(left=0.085, right=right, top=1 - above / height, bottom=below / height)
        ends = _draw(ax, benchmark, scenario, frame, levels, "rounds")
        ax.set_title(title, color="#1c1e21")
        ax.set_xlabel("Round")
        _whole(ax)
        ax.set_ylabel("Test accuracy (%)")
        _limits([ax])
        _make_room(figure, ax)
        if direct:
            _label_ends(figure, ax, ends, shown)
        else:
            look = styles(benchmark)
            handles = [matplotlib.lines.Line2D([], [], **look[arm.name]) for arm, *_ in ends]
            figure.legend(
                _by_rows(handles, per_row),
                _by_rows([shown[arm.name] for arm, *_ in ends], per_row),
                loc="lower left",
                bbox_to_anchor=(0.07, 0.0),
                ncols=per_row,
                frameon=False,
                handlelength=2.6,
                columnspacing=1.6,
                borderaxespad=0.3,
            )
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write `figure` in the format of the file's ending, atomically; equal figures give equal bytes."""
    form = Path(path).suffix[1:]
    nothing = {
        "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    with matplotlib.rc_context(STYLE), atomic(path) as temporary:
        figure.savefig(temporary, format=form, metadata=nothing.get(form), dpi=150)


def _draw(ax, benchmark: Benchmark, scenario: Scenario, frame: pd.DataFrame, levels: dict, axis: str) -> list:
    """Draw all arms; return (arm, last x, last y, style) of each; last x is NaN where a run diverged."""
    look, ends, flat = styles(benchmark), [], []
    base, found = labels.baseline(benchmark).name, curves_of(frame)
    for arm in labels.methods(benchmark) + labels.references(benchmark):
        style = look[arm.name] | {"zorder": 3 if arm.name == base else 2.5, "label": arm.title}
        if (made := found.get(arm.name)) is None:
            if math.isfinite(level := levels.get((scenario.name, arm.name), math.nan)):
                flat.append((arm, 100 * level, style))
            continue
        x = {"rounds": made.rounds, "bytes": made.megabytes, "time": made.seconds}[axis]
        if axis != "rounds" and not np.nanmax(x, initial=0) > 0:  # a reference that sends nothing, or has no clock
            flat.append((arm, made.mean[-1], style))
            continue
        ax.fill_between(x, made.low, made.high, color=style["color"], alpha=0.1, linewidth=0, zorder=2)
        ax.plot(x, made.mean, marker="o" if len(x) < 3 else None, markersize=4, **style)  # a point alone is no line
        finite = np.flatnonzero(np.isfinite(made.mean))
        if len(finite) == 0:
            continue
        last = finite[-1]
        diverged = last < len(x) - 1
        if diverged:
            ax.plot(x[last], made.mean[last], marker="x", color=style["color"], markersize=6, markeredgewidth=1.6)
        ends.append((arm, math.nan if diverged else x[last], made.mean[last], style))
    right = max((x for _, x, _, _ in ends if math.isfinite(x)), default=1)
    for arm, level, style in flat:
        if math.isfinite(level):
            ax.axhline(level, **style)
            ends.append((arm, right, level, style))
    return ends


def _limits(axes: list) -> None:
    """Vertical limits from the lines: a band of few seeds may be wider than the figure."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for ax in axes for line in ax.lines] or [[0, 100]])
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return
    low, high = values.min(), values.max()
    margin = max(0.04 * (high - low), 0.5)
    for ax in axes:
        ax.set_ylim(max(0, low - margin) if low >= 0 else low - margin, high + margin)
        ax.margins(x=0.02)
        ax.set_xlim(0, None)


def _log_limits(axes: list) -> None:
    """Vertical limits from the lines, on a logarithmic axis with plain numbers at its ticks."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for ax in axes for line in ax.lines] or [[1, 10]])
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) == 0:
        return
    low, high = values.min(), values.max()
    margin = max((high / low) ** 0.06, 1.05)
    near = high / low < 30  # too few powers of ten to read anything from
    for ax in axes:
        ax.set_ylim(low / margin, high * margin)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if near else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())


def _whole(ax) -> None:
    """Ticks at whole numbers where the horizontal axis counts rounds: there is no round 2.5."""
    if ax.get_xlabel() == ACROSS["rounds"]:
        ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))


def _make_room(figure: Figure, ax) -> None:
    """Move the left edge of the panels where the labels of the vertical axis, that of `ax`, are wider than the edge."""
    low, high = ax.get_ylim()
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    numbers = widest(ax.yaxis.get_major_formatter().format_ticks(ticks))
    needed = (numbers + SIZE * 1.32 / 72 + 0.18) / figure.get_size_inches()[0]
    figure.subplots_adjust(left=max(figure.subplotpars.left, needed))


def spaced(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Positions nearest to `wanted` (least squares), in its order, `gap` apart, inside [low, high].

    Positions that would touch become one block around the mean of what they want (pool adjacent violators:
    isotonic regression on wanted[i] - i * gap). Where there is no room for all, the gap shrinks.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[float]] = []  # [sum, count]
    for place, index in enumerate(order):
        blocks.append([wanted[index] - place * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    fitted = [total / count for total, count in blocks for _ in range(count)]
    top = high - (len(wanted) - 1) * gap
    found = [0.0] * len(wanted)
    for place, index in enumerate(order):
        found[index] = min(max(fitted[place], low), top) + place * gap
    return found


def _label_ends(figure: Figure, ax, ends: list, shown: Mapping[str, str]) -> None:
    """Names to the right of the line ends, moved apart and joined to their lines by thin leaders."""
    low, high = ax.get_ylim()
    inches = figure.get_size_inches()[1] * ax.get_position().height
    gap = (high - low) * (STYLE["font.size"] * 1.32 / 72) / inches
    places = spaced([y for _, _, y, _ in ends], gap, low + gap / 2, high)
    for (arm, x, y, style), place in zip(ends, places, strict=True):
        joined = math.isfinite(x)  # a line to where a run diverged would cross the others
        ax.annotate(
            shown[arm.name] if joined else f"{shown[arm.name]} ×",
            xy=(ax.transLimits.transform((x, y))[0] if joined else 1, y),
            xytext=(1.045, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            color=style["color"],
            fontsize=STYLE["font.size"] - 0.5,
            annotation_clip=False,
            arrowprops=LEADER | {"color": style["color"]} if joined else None,
        )


def _legend_columns(titles: list[str], width: float) -> int:
    """Columns (at most 6) of a legend that reads row by row: few full rows, inside `width` inches."""
    n = len(titles)

    def fits(count: int) -> bool:
        return sum(widest(titles[column::count]) + 0.68 for column in range(count)) < width - 0.6

    fitting = [count for count in range(1, min(6, n) + 1) if count == 1 or fits(count)]
    return min(fitting, key=lambda count: (math.ceil(n / count), count))


def _by_rows(items: list, columns: int) -> list:
    """Matplotlib fills a legend column by column; this order makes it read row by row."""
    rows = math.ceil(len(items) / columns)
    grid = [items[row * columns : (row + 1) * columns] for row in range(rows)]
    return [row[column] for column in range(columns) for row in grid if column < len(row)]
