"""Figures of ranks: the critical-difference diagram, and how ranks move from rule to rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from heterobench.report.differences import Tests, attainable, omnibus
from heterobench.report.drawing import FAINT, INK, LINE, QUIET, nothing
from heterobench.report.figures import STYLE, styles
from heterobench.report.missing import Cube
from heterobench.resolve import Arm, Benchmark
from heterobench.stats.mean_ranks import cliques, critical_difference
from heterobench.words import SIZE, widest, width, wrapped
from heterobench.words import names as short_names

WIDTH = 9.6
ROW, BAR = 0.25, 0.13  # inches between two names, and between two bars


# critical differences


def critical_differences(benchmark: Benchmark, values: Cube) -> Figure:
    """Critical-difference diagram (Demšar 2006, figure 1) of mean ranks over scenarios, 1 to the left.

    Drawn for any number of scenarios; words below say what can be told from so many.
    """
    k, n = len(values.arms), len(values.scenarios)
    if not n or k < 2:
        return nothing("No two ranked methods have a test accuracy.")
    tests = Tests(values)
    difference = critical_difference(k, n)
    words = [
        omnibus(tests.friedman(), k),
        f"{n} scenario{'s' * (n > 1)}: mean ranks must differ by {difference:.2f} of at most {k - 1}"
        + ("; here no difference is large enough." if difference > k - 1 else "."),
        f"Wilcoxon's test of single pairs (exact, all pairs corrected): {attainable(n, k * (k - 1) // 2)}",
    ]
    return _diagram(benchmark, values.arms, tests.mean_ranks, difference, words)


def _diagram(
    benchmark: Benchmark, arms: Sequence[Arm], ranks: np.ndarray, difference: float, words: list[str]
) -> Figure:
    k = len(arms)
    order = np.argsort(ranks, kind="stable")
    bars = cliques(ranks, difference)
    titles = short_names([arm.title for arm in arms])
    names = [f"{title}  {rank:.2f}" for title, rank in zip(titles, ranks, strict=True)]
    side = widest(names) + 0.3
    text = "\n".join(wrapped(line, WIDTH - 0.4, SIZE - 0.5) for line in words)
    below = (text.count("\n") + 1) * LINE + 0.1
    rows = (k + 1) // 2
    first = 0.2 + BAR * len(bars)  # from the axis down to the first name
    top = 0.85  # above the axis: its numbers and the ruler
    height = top + first + ROW * rows + below + 0.1
    axis = height - top
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set_axis_off()
        ax.set_xlim(0, WIDTH)
        ax.set_ylim(0, height)
        left, right = side, WIDTH - side

        def at(rank: float) -> float:
            return left + (rank - 1) / (k - 1) * (right - left)

        _axis(ax, at, axis, k)
        _ruler(ax, at, axis + 0.45, difference, k)
        for level, bar in enumerate(bars):
            y = axis - 0.14 - BAR * level
            ends = at(ranks[bar[0]]), at(ranks[bar[-1]])
            ax.plot((ends[0] - 0.04, ends[1] + 0.04), (y, y), color=INK, linewidth=3.4, solid_capstyle="butt", zorder=4)
        look = styles(benchmark)
        for place, method in enumerate(order):
            to_left = place < rows
            row = place if to_left else k - 1 - place
            x, y = at(ranks[method]), axis - first - ROW * (row + 0.5)
            end = left - 0.12 if to_left else right + 0.12
            colour = look[arms[method].name]["color"]
            ax.plot((x, x, end), (axis, y, y), color=colour, linewidth=1.1, zorder=2, solid_joinstyle="miter")
            ax.text(
                end - 0.06 if to_left else end + 0.06,
                y,
                names[method],
                ha="right" if to_left else "left",
                va="center",
                color=colour,
            )
        ax.text(0.2, 0.1, text, ha="left", va="bottom", color=QUIET, fontsize=SIZE - 0.5, linespacing=1.3)
    return figure


def _axis(ax: Any, at: Any, y: float, k: int) -> None:
    ax.plot((at(1), at(k)), (y, y), color=INK, linewidth=1, zorder=3)
    step = math.ceil((width(str(k)) + 0.06) / (at(2) - at(1)))  # ranks from one number to the next
    for rank in range(1, k + 1):
        ax.plot((at(rank), at(rank)), (y, y + 0.07), color=INK, linewidth=1)
        if (rank - 1) % step == 0:
            ax.text(at(rank), y + 0.1, str(rank), ha="center", va="bottom", color=INK)


def _ruler(ax: Any, at: Any, y: float, difference: float, k: int) -> None:
    """The critical difference at the scale of the axis, cut off where it is longer than that."""
    end = min(1 + difference, k)
    whole = 1 + difference <= k
    ax.plot((at(1), at(end)), (y, y), color=QUIET, linewidth=1.4)
    for x in (at(1), at(end))[: 1 + whole]:
        ax.plot((x, x), (y - 0.045, y + 0.045), color=QUIET, linewidth=1.4)
    if not whole:
        ax.annotate("", (at(end) + 0.16, y), (at(end) - 0.02, y), arrowprops={"arrowstyle": "->", "color": QUIET})
    text = f"critical difference {difference:.2f}" + ("" if whole else ", longer than the axis")
    ax.text(at(1), y + 0.07, text, ha="left", va="bottom", color=QUIET, fontsize=SIZE - 0.5)


# ranks from rule to rule


def rank_flow(benchmark: Benchmark, arms: Sequence[Arm], rules: Mapping[str, np.ndarray], note: str = "") -> Figure:
    """Ranks of the methods under each rule, side by side, joined by a line for each method.

    `rules` maps titles to ranks [methods], 1 is best, tied methods with the smallest of theirs, NaN for one that the
    rule does not rank. Tied methods stand on places of their own, joined by a grey bar, each with the shared rank.
    `note` stands below.
    """
    if not rules:
        return nothing("No rule could rank the methods.")
    slots = _slots(rules)
    names = short_names([arm.title for arm in arms])
    sides = widest(names) + 0.35
    titles = list(rules)
    step = (WIDTH - 2 * sides) / max(1, len(titles) - 1)
    lines = ["\n".join(title.rsplit(" ", 1)) if " " in title else title.replace("-", "-\n", 1) for title in titles]
    turned = widest(lines, SIZE - 0.5) + 0.1 > step
    head = 0.2 + (max(width(t, SIZE - 0.5) for t in titles) * 0.72 + 0.1 if turned else 2 * LINE)
    text = wrapped(note, WIDTH - 0.4, SIZE - 0.5) if note else ""
    below = (text.count("\n") + 1) * LINE + 0.15 if text else 0.1
    row = 0.31
    height = head + row * len(arms) + below
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set_axis_off()
        ax.set_xlim(0, WIDTH)
        ax.set_ylim(0, height)
        x = [sides + step * place if len(titles) > 1 else WIDTH / 2 for place in range(len(titles))]
        y = height - head - row * (slots - 0.5)
        for place, title in enumerate(titles):
            turn = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if turned else {"ha": "center"}
            words = title if turned else lines[place]
            ax.text(x[place], height - head + 0.08, words, va="bottom", color=INK, fontsize=SIZE - 0.5, **turn)
            _ties(ax, x[place], y[place], list(rules.values())[place])
        look = styles(benchmark)
        for m, arm in enumerate(arms):
            _path(ax, x, y[:, m], [ranks[m] for ranks in rules.values()], look[arm.name])
            for place, side, gap in ((0, "right", -0.17), (len(titles) - 1, "left", 0.17)):
                if np.isfinite(y[place, m]):
                    ax.text(x[place] + gap, y[place, m], names[m], ha=side, va="center", color=look[arm.name]["color"])
        ax.text(0.2, 0.1, text, ha="left", va="bottom", color=QUIET, fontsize=SIZE - 0.5, linespacing=1.3)
    return figure


def _slots(rules: Mapping[str, np.ndarray]) -> np.ndarray:
    """Places [rules, methods] from 1, all different in a rule; tied methods keep the order of the rule before."""
    before = np.arange(len(next(iter(rules.values()))), dtype=float)
    found = []
    for ranks in rules.values():
        places = np.full(len(ranks), np.nan)
        ranked = np.flatnonzero(np.isfinite(ranks))
        order = ranked[np.lexsort((before[ranked], ranks[ranked]))]
        places[order] = np.arange(1, len(order) + 1)
        found.append(places)
        before = np.where(np.isfinite(places), places, before)
    return np.array(found)


def _ties(ax: Any, x: float, y: np.ndarray, ranks: np.ndarray) -> None:
    for rank in np.unique(ranks[np.isfinite(ranks)]):
        of = y[ranks == rank]
        if len(of) > 1:
            ax.plot((x, x), (of.min(), of.max()), color=FAINT, linewidth=20, solid_capstyle="round", zorder=1)


def _path(ax: Any, x: list[float], y: np.ndarray, ranks: list[float], style: dict[str, Any]) -> None:
    line = style | {"linewidth": 2.0}
    for i in range(len(x) - 1):
        if np.isfinite(y[i : i + 2]).all():
            ax.plot(x[i : i + 2], y[i : i + 2], zorder=2, **line)
    for here, height, rank in zip(x, y, ranks, strict=True):
        if np.isfinite(height):
            ax.plot(here, height, "o", color=style["color"], markersize=14, zorder=3)
            ax.text(
                here,
                height - 0.005,
                f"{rank:g}",
                ha="center",
                va="center_baseline",
                color="white",
                fontsize=8,
                zorder=4,
            )
