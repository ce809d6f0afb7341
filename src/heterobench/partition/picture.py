"""A picture of a partition: who holds how many examples of which class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from heterobench.files import atomic
from heterobench.partition.heterogeneity import gini, total_variation

MOST_ROWS = 40  # clients that are drawn one by one; more are summed up in histograms
MOST_NUMBERS = 20  # classes whose counts are also written as numbers
BLUE = "#0072B2"  # of Okabe and Ito's colours, which colour-blind readers can tell apart


def draw_picture(counts: np.ndarray, title: str, path: Path) -> None:
    """Write `path` (SVG by its ending, or PNG): label counts [clients, classes] of every client.

    Up to 40 clients: a heat map with the size of each client beside it. More: histograms of sizes and of
    label distances. Equal counts and title give equal SVG bytes.
    """
    path, counts = Path(path), np.asarray(counts)
    style = {
        "svg.hashsalt": "heterobench",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(style):
        figure = _each_client(counts) if len(counts) <= MOST_ROWS else _all_clients(counts)
        figure.suptitle(title, fontsize=12)
        kind = path.suffix.removeprefix(".")
        with atomic(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)


def _each_client(counts: np.ndarray) -> Figure:
    clients, classes = counts.shape
    width, height = min(0.46 * max(classes, 6), 11), 0.27 * max(clients, 4)
    figure = Figure(figsize=(width + 3.6, height + 1.5), layout="constrained")
    cells, bars = figure.subplots(1, 2, sharey=True, width_ratios=[width, 1.8])

    # a class that a client lacks stays white: what is missing is what a skewed partition is about
    mesh = cells.pcolormesh(np.ma.masked_equal(counts, 0), cmap="YlGnBu", vmin=0, vmax=max(counts.max(), 1))
    cells.vlines(np.arange(classes + 1), 0, clients, color="0.85", lw=0.5)
    cells.hlines(np.arange(clients + 1), 0, classes, color="0.85", lw=0.5)
    cells.set_xlim(0, classes)
    cells.set(xlabel="class", ylabel="client")
    cells.set_ylim(clients, 0)
    _number_ticks(cells.xaxis, classes, 20)
    _number_ticks(cells.yaxis, clients, MOST_ROWS)
    cells.tick_params(length=0)
    for side in ("left", "bottom"):
        cells.spines[side].set_visible(False)
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
        figure.colorbar(mesh, ax=cells, label="examples", location="top", shrink=0.4, aspect=30)

    sizes = counts.sum(1)
    bars.barh(np.arange(clients) + 0.5, sizes, height=0.8, color=BLUE)
    for client, size in enumerate(sizes):
        bars.text(size, client + 0.52, f" {size}", fontsize=8, va="center")
    bars.set(xlabel="examples", xticks=[], xlim=(0, 1.45 * max(sizes.max(), 1)))
    bars.tick_params(left=False, labelleft=False)
    bars.spines["bottom"].set_visible(False)
    return figure


def _all_clients(counts: np.ndarray) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = counts.sum(1)
    _histogram(left, sizes, f"examples of a client (Gini {gini(sizes):.2f})", _size_edges(sizes))
    distances = total_variation(counts)[sizes > 0]
    _histogram(right, distances, "total variation of a client's labels to all labels", np.linspace(0, 1, 41))
    left.set_ylabel(f"clients (of {len(counts)})")
    left.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    left.set_xlim(min(left.get_xlim()[0], sizes.min() - 3), max(left.get_xlim()[1], sizes.max() + 3))
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
