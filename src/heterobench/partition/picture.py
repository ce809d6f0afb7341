"""A picture of a partition: who holds how many examples of which class, and what else clients differ in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from heterobench.files import atomic
from heterobench.partition.heterogeneity import gini, total_variation
from heterobench.words import wrapped

MOST_ROWS = 40  # clients that are drawn one by one; more are summed up in histograms
MOST_NUMBERS = 20  # classes whose counts are also written as numbers
MOST_STAGES = 5  # of a stream that are drawn; of more, evenly spaced ones
BLUE = "#0072B2"  # of Okabe and Ito's colours, which colour-blind readers can tell apart
ORANGE = "#D55E00"


def draw_picture(
    counts: np.ndarray,
    title: str,
    path: Path,
    beside: Mapping[str, np.ndarray] | None = None,
    held_out: np.ndarray | None = None,
    stages: np.ndarray | None = None,
) -> None:
    """Write `path` (SVG by its ending, or PNG): label counts [clients, classes] of every client.

    beside: title -> [clients], what else clients differ in (label noise, strength of a transformation). held_out: bool
    [clients]. stages: label counts of a stream, [clients, stages, classes].

    Up to 40 clients: a heat map with the size of each client beside it, and one for each of up to five stages. More:
    histograms of sizes and of label distances, and a heat map of classes by stage. Equal arguments give equal SVG
    bytes.
    """
    path, counts = Path(path), np.asarray(counts)
    style = {
        "svg.hashsalt": "heterobench",
        "font.size": 10,
        "text.parse_math": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(style):
        draw = _each_client if len(counts) <= MOST_ROWS else _all_clients
        figure = draw(counts, dict(beside or {}), np.zeros(len(counts), bool) if held_out is None else held_out, stages)
        figure.suptitle(wrapped(title, figure.get_figwidth() - 0.4, 12), fontsize=12)
        kind = path.suffix.removeprefix(".")
        with atomic(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)


def _each_client(counts, beside, held_out, stages) -> Figure:
    clients, classes = counts.shape
    width, height = min(0.46 * max(classes, 6), 11), 0.27 * max(clients, 4)
    beside = {"examples": counts.sum(1)} | beside
    bars = [1.8, *[1.4] * (len(beside) - 1)]
    top = height + 1.5
    if stages is None:
        figure = whole = Figure(figsize=(width + 1.8 + sum(bars), top), layout="constrained")
    else:
        figure = Figure(figsize=(width + 1.8 + sum(bars), top + 0.75 * height + 1.1), layout="constrained")
        whole, parts = figure.subfigures(2, 1, height_ratios=[top, 0.75 * height + 1.1])
        _each_stage(parts, stages)
    cells, *columns = whole.subplots(1, 1 + len(bars), sharey=True, width_ratios=[width, *bars])

    mesh = _heat(cells, counts)
    cells.set(xlabel="class", ylabel="client")
    _number_ticks(cells.xaxis, classes, 20)
    cells.set_yticks(np.arange(clients) + 0.5, [f"{i} (held out)" if out else str(i) for i, out in enumerate(held_out)])
    if classes <= MOST_NUMBERS:
        for client, label in np.argwhere(counts > 0):
            dark = counts[client, label] > 0.5 * counts.max()
            cells.text(
                label + 0.5,
                client + 0.52,
                _short(counts[client, label]),
                fontsize=7.5,
                ha="center",
                va="center",
                color="white" if dark else "black",
            )
    else:
        whole.colorbar(mesh, ax=cells, label="examples", location="top", shrink=0.4, aspect=30)
    for axes, (name, values) in zip(columns, beside.items(), strict=True):
        _bars(axes, name, values, held_out)
    return figure


def _heat(axes: Axes, counts: np.ndarray, largest: float | None = None):
    """Counts [rows, classes] as cells, the first row on top; white where there is nothing."""
    rows, classes = counts.shape
    # a class that a client lacks stays white: what is missing is what a skewed partition is about
    mesh = axes.pcolormesh(np.ma.masked_equal(counts, 0), cmap="YlGnBu", vmin=0, vmax=max(largest or counts.max(), 1))
    axes.vlines(np.arange(classes + 1), 0, rows, color="0.85", lw=0.5)
    axes.hlines(np.arange(rows + 1), 0, classes, color="0.85", lw=0.5)
    axes.set_xlim(0, classes)
    axes.set_ylim(rows, 0)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return mesh


def _bars(axes: Axes, name: str, values: np.ndarray, held_out: np.ndarray) -> None:
    """One bar and its number for each client; held-out clients in another colour."""
    axes.barh(np.arange(len(values)) + 0.5, values, height=0.8, color=np.where(held_out, ORANGE, BLUE))
    low, high = min(values.min(), 0), max(values.max(), 0)
    span = max(high - low, 1e-9)
    for client, value in enumerate(values):
        number = str(value) if np.issubdtype(values.dtype, np.integer) else f"{value:.3g}"
        axes.text(max(value, 0), client + 0.52, f" {number}", fontsize=8, va="center")
    axes.set(xlabel=name, xticks=[], xlim=(low, high + 0.45 * span))
    axes.tick_params(left=False, labelleft=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.axvline(0, color="black", lw=0.8)


def _each_stage(figure: SubFigure, stages: np.ndarray) -> None:
    """A heat map of clients by classes for each of a few stages, all with one scale of colours."""
    number = stages.shape[1]
    shown = np.unique(np.linspace(0, number - 1, min(number, MOST_STAGES)).round().astype(int))
    for axes, stage in zip(np.atleast_1d(figure.subplots(1, len(shown), sharey=True)), shown, strict=True):
        _heat(axes, stages[:, stage], stages.max())
        axes.set_title(f"stage {stage}", fontsize=9)
        _number_ticks(axes.xaxis, stages.shape[2], 10)
        _number_ticks(axes.yaxis, len(stages), 10)


def _all_clients(counts, beside, held_out, stages) -> Figure:
    panels = 2 + len(beside) + (stages is not None)
    rows = -(-panels // 2)
    figure = Figure(figsize=(9, 3.6 * rows), layout="constrained")
    left, right, *others = figure.subplots(rows, 2).ravel()
    for axes in others[panels - 2 :]:
        axes.set_axis_off()
    sizes = counts.sum(1)
    _histogram(left, sizes, f"examples of a client (Gini {gini(sizes):.2f})", _size_edges(sizes))
    distances = total_variation(counts)[sizes > 0]
    _histogram(right, distances, "total variation of a client's labels to all labels", np.linspace(0, 1, 41))
    out = f", {held_out.sum()} held out" if held_out.any() else ""
    left.set_ylabel(f"clients (of {len(counts)}{out})")
    left.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    left.set_xlim(min(left.get_xlim()[0], sizes.min() - 3), max(left.get_xlim()[1], sizes.max() + 3))
    for axes, (name, values) in zip(others, beside.items(), strict=False):
        _histogram(axes, values, name, np.linspace(min(values.min(), 0), max(values.max(), 1e-9), 41))
    if stages is not None:
        axes = others[len(beside)]
        mesh = _heat(axes, stages.sum(0))
        axes.set(xlabel="class", ylabel="stage")
        _number_ticks(axes.xaxis, stages.shape[2], 20)
        _number_ticks(axes.yaxis, stages.shape[1], 20)
        figure.colorbar(mesh, ax=axes, label="examples of all clients")
    return figure


def _histogram(axes: Axes, values: np.ndarray, label: str, edges: np.ndarray) -> None:
    axes.hist(values, bins=edges, color=BLUE)
    axes.set_xlabel(label)
    axes.margins(y=0.15)
    if len(values):
        middle = float(np.median(values))
        axes.axvline(middle, color="black", lw=1, ls="--")
        # written on the side with more room, above the bars
        right = middle < (edges[0] + edges[-1]) / 2
        axes.annotate(
            f"median {middle:.3g}",
            (middle, 1),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            xytext=(4 if right else -4, -2),
            va="top",
            ha="left" if right else "right",
        )


def _size_edges(sizes: np.ndarray) -> np.ndarray:
    """Edges between whole numbers, so that no bin catches more of them than its neighbours."""
    low, high = int(sizes.min()), int(sizes.max())
    step = max(-(-(high - low + 1) // 40), 1)
    return np.arange(low, high + step + 1, step) - 0.5


def _number_ticks(axis, count: int, most: int) -> None:
    shown = np.arange(0, count, -(-count // most))
    axis.set_ticks(shown + 0.5, [str(number) for number in shown])


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"
