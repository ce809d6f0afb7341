"""Figures of costs and of whole distributions: performance profiles, score profiles, Pareto fronts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from heterobench import words
from heterobench.report.differences import control
from heterobench.report.drawing import FAINT, INK, LINE, QUIET, names_beside, nothing
from heterobench.report.figures import STYLE, TITLE, styles
from heterobench.report.metrics import METRICS
from heterobench.report.missing import Cube, observed
from heterobench.resolve import Benchmark
from heterobench.stats.pareto import hypervolume, pareto_front, scaled
from heterobench.stats.profiles import cost_profile, cost_ratios, profile_score, score_profile, score_profile_band

if TYPE_CHECKING:
    from heterobench.report.data import ReportData

WIDTH, LEFT = 9.6, 0.74
COSTS = {"bytes": "Sent up and down", "simulated_seconds": "Simulated time", "joules": "Energy"}
CHEAPEST, DEAREST = 0.01, 10.0  # bounds of the relative cost for the hypervolume, fixed for all benchmarks
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
SPARSE_TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


# performance profiles


def cost_profiles(benchmark: Benchmark, values: Cube) -> Figure:
    """Share of scenarios and seeds in which a method's cost is within x times the least.

    Beside each name stands the mean share over x from 1 to 4 (`heterobench.stats.profiles.profile_score`).
    """
    if not values.scenarios:
        return nothing("No run has a cost to the target.")
    # a target that is met before the first round costs one round: ratios need costs above zero
    costs = np.maximum(values.values[:, values.kept], 1.0)
    ratios = cost_ratios(costs)
    finite = ratios[np.isfinite(ratios)]
    if not finite.size:
        return nothing("No run of a ranked method reaches its target.")
    largest = max(4.0, 1.05 * float(finite.max()))
    at = np.geomspace(1, largest, 600)
    shares, scores = cost_profile(costs, at), profile_score(costs)
    titles = words.names([arm.title for arm in values.arms])
    names = [f"{title}  {score:.2f}" for title, score in zip(titles, scores, strict=True)]
    note = words.wrapped(_not_shown(values), 8.2 - 0.9)
    under = LINE * (note.count("\n") + 1) * bool(note)
    height = max(3.6, 0.2 * len(names) + 1.4) + under
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.2, height))
        ax = figure.subplots()
        figure.subplots_adjust(
            left=0.085,
            right=1 - (words.widest(names) + 0.55) / 8.2,
            top=1 - 0.15 / height,
            bottom=(0.55 + under) / height,
        )
        ax.set_xscale("log", base=2)
        ax.set_xlim(1, largest)
        ax.set_ylim(-0.02, min(1.02, 1.15 * float(shares.max()) + 0.02))
        ticks = [tick for tick in (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64) if tick <= largest]
        ax.set_xticks(ticks, [f"{tick:g}×" for tick in ticks], minor=False)
        ax.minorticks_off()
        ax.set_xlabel("Rounds to the target, relative to the fastest method")
        ax.set_ylabel("Share of scenarios and seeds")
        look = styles(benchmark)
        for arm, share in zip(values.arms, shares, strict=True):
            ax.plot(at, share, drawstyle="steps-post", **look[arm.name])
        order = np.argsort(scores, kind="stable")  # of lines that end together the better one has the higher name
        names_beside(
            ax,
            [(largest, float(shares[m, -1])) for m in order],
            [names[m] for m in order],
            [look[values.arms[m].name]["color"] for m in order],
        )
        figure.text(0.085, 0.1 / height, note, color=QUIET, fontsize=words.SIZE - 0.5, va="bottom")
    return figure


def _not_shown(values: Cube) -> str:
    names = ", ".join(arm.title for arm in values.undefined)
    return f"Not shown, without a global model: {names}." if names else ""


def score_profiles(benchmark: Benchmark, values: Cube) -> Figure:
    """Share of runs above each score, a panel for each method: its own line with a band, the others behind it."""
    if not values.scenarios:
        return nothing("No run of a ranked method has a test accuracy.")
    runs = [[values.runs(m, s) for s in range(len(values.scenarios))] for m in range(len(values.arms))]
    pooled = np.concatenate([np.concatenate(of) for of in runs])
    # a run that collapsed would press all others together: the axis begins where a fiftieth of the runs lie
    low, high = float(np.quantile(pooled, 0.02)), float(pooled.max())
    margin = max(0.5, 0.04 * (high - low))
    at = np.linspace(low - margin, high + margin, 161)
    shares = [score_profile(of, at) for of in runs]
    # of three to five columns those that leave the fewest places empty
    columns = min((5, 4, 3), key=lambda count: -len(runs) % count) if len(runs) > 3 else len(runs)
    rows = math.ceil(len(runs) / columns)
    titles = [words.wrapped(arm.title, WIDTH / columns - 0.3, TITLE, most=2) for arm in values.arms]
    lines = max(title.count("\n") for title in titles)
    height = (1.55 + LINE * lines) * rows + 0.5
    base = control(benchmark)
    look = styles(benchmark)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        figure.subplots_adjust(
            left=0.065,
            right=0.985,
            top=1 - (0.3 + LINE * lines) / height,
            bottom=0.5 / height,
            wspace=0.12,
            hspace=0.34 + 0.12 * lines,
        )
        for place, ax in enumerate(axes.flat):
            if place >= len(runs):
                ax.remove()
                continue
            colour = look[values.arms[place].name]["color"]
            for other, share in enumerate(shares):
                grey = {"color": FAINT, "linewidth": 0.8, "zorder": 2}
                black = {"color": look[base.name]["color"], "linewidth": 1.3, "zorder": 3}
                if other != place:
                    ax.plot(at, share, **(black if values.arms[other] == base else grey))
            if any(len(of) > 1 for of in runs[place]):
                band = score_profile_band(runs[place], at)
                ax.fill_between(at, *band, color=colour, alpha=0.2, linewidth=0, zorder=4)
            ax.plot(at, shares[place], color=colour, linewidth=1.8, zorder=5)
            ax.set_title(titles[place], color=colour)
            ax.set_xlim(at[0], at[-1])
            ax.set_ylim(-0.03, 1.03)
            ax.set_yticks((0, 0.5, 1))
            if place % columns == 0:
                ax.set_ylabel("Share of runs")
            if place + columns >= len(runs):
                ax.set_xlabel(f"{METRICS[values.metric].title} ({METRICS[values.metric].unit})")
                ax.tick_params(labelbottom=True)
    return figure


# Pareto fronts


class Points(NamedTuple):
    """Cost relative to the baseline [M], NaN where a method has none; the baseline's own, in the unit of tables."""

    metric: str
    ratios: np.ndarray
    of_base: float


def relative_costs(data: ReportData, values: Cube, metric: str) -> Points | None:
    """Geometric mean over scenarios of a method's mean cost over the baseline's; None where the baseline has none.

    Means are over the runs that are there; a method without any in one of the scenarios has no cost.
    """
    base = control(data.benchmark)
    if base not in values.arms:
        return None
    places = [data.benchmark.scenarios.index(scenario) for scenario in values.scenarios]
    found = observed(data, values.arms, "run", metric)[:, places]
    if metric == "bytes" and np.isnan(found).all():
        found = sum(observed(data, values.arms, "run", name)[:, places] for name in ("bytes_up", "bytes_down"))
    counts = np.isfinite(found).sum(axis=2)
    sums = np.where(np.isfinite(found), found, 0.0).sum(axis=2)
    means = np.where((counts > 0) & (sums > 0), sums / np.maximum(counts, 1), np.nan)
    own = means[values.arms.index(base)]
    if np.isnan(own).any():
        return None
    return Points(metric, np.exp(np.log(means / own).mean(axis=1)), float(own.mean()))


def area(quality: np.ndarray, ratios: np.ndarray) -> float:
    """Hypervolume of accuracies (%) and relative costs, both scaled to [0, 1] with the fixed bounds."""
    known = np.isfinite(ratios)
    cost = scaled(np.maximum(ratios[known], CHEAPEST), CHEAPEST, DEAREST, log=True)
    return hypervolume(quality[known] / 100, cost, (0.0, 1.0))


def pareto(data: ReportData, values: Cube) -> Figure:
    """Accuracy against each cost that was measured, with the front as a step line."""
    if not values.scenarios:
        return nothing("No run of a ranked method has a test accuracy.")
    found = {metric: relative_costs(data, values, metric) for metric in COSTS}
    shown = [points for points in found.values() if points is not None]
    absent = [COSTS[metric].lower() for metric, points in found.items() if points is None]
    note = f"No value in these runs: {', '.join(absent)}." if absent else ""
    if not shown:
        return nothing(note)
    titles = words.names([arm.title for arm in values.arms], 1.8 if len(shown) > 1 else words.NAME)
    side = words.widest(titles) + 0.4
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    across = 5.6 if columns == 1 else WIDTH
    each = max(2.6, 0.19 * len(values.arms) + 0.4)
    height = (each + 0.95) * rows + (LINE + 0.08) * bool(note) + 0.05
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(across, height))
        for place, points in enumerate(shown):
            column, row = place % columns, place // columns
            left = (column * across / columns + LEFT) / across
            wide = (across / columns - LEFT - side) / across
            ax = figure.add_axes((left, 1 - ((each + 0.95) * (row + 1) - 0.6) / height, wide, each / height))
            _front(ax, data.benchmark, values, points, titles)
        figure.text(0.2 / across, 0.08 / height, note, color=QUIET, fontsize=words.SIZE - 0.5, va="bottom")
    return figure


def _front(ax: Any, benchmark: Benchmark, values: Cube, points: Points, titles: list[str]) -> None:
    look, base = styles(benchmark), control(benchmark)
    known = np.flatnonzero(np.isfinite(points.ratios))
    quality, ratios = values.means.mean(axis=1)[known], points.ratios[known]
    low, high = ratios.min() / 1.3, ratios.max() * 1.3
    low, high = min(low, 0.7), max(high, 1.4)
    margin = max(0.5, 0.07 * float(np.ptp(quality)))
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(quality.min() - margin, quality.max() + margin)
    ticks = [tick for tick in (TICKS if high / low < 15 else SPARSE_TICKS) if low <= tick <= high]
    ax.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    ax.minorticks_off()
    front = pareto_front(quality, ratios)
    x = [ratios[front[0]], *ratios[front], high]
    y = [quality.min() - margin, *quality[front], quality[front[-1]]]
    ax.plot(x, y, drawstyle="steps-post", color=QUIET, linewidth=1.2, zorder=2)
    colours = [look[values.arms[m].name]["color"] for m in known]
    for x_, y_, colour in zip(ratios, quality, colours, strict=True):
        ax.plot(x_, y_, "o", color=colour, markersize=6, zorder=3)
    names_beside(ax, list(zip(ratios.tolist(), quality.tolist(), strict=True)), [titles[m] for m in known], colours)
    unit = METRICS[points.metric].unit
    ax.set_title(f"Hypervolume {area(quality, ratios):.3f}", color=INK)
    named = words.fitted(base.title, 1.2)
    ax.set_xlabel(f"{COSTS[points.metric]}, relative to {named}\n({points.of_base:.3g} {unit} a run)")
    ax.set_ylabel(f"Mean {METRICS[values.metric].title.lower()} ({METRICS[values.metric].unit})")
