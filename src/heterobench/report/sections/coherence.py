"""Whether gradients agree: of single examples, and of clients, at the last model and along training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report.tables import by_metric
from heterobench.resolve import Benchmark

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "coherence", "Agreement of gradients"
READING = (
    "m-coherence: how many of the examples of a fixed probe a step along one example's gradient helps on average; 1 "
    "where no example helps another, the size of the probe where all agree. Gradient diversity is its inverse. Where "
    "the mean squared gradient is small, a few hard examples decide both.",
    "Client dissimilarity B² is 1 where all clients have the same gradient, and grows as they pull apart; ζ² is the "
    "mean squared distance of a client's gradient from the mean one. The unbiased ζ² is free of the noise that few "
    "examples add, and may be negative.",
    "These describe where a method has gone. They rank nothing, and nothing here is bold.",
)
TABLES = {
    "coherence": (
        "Agreement of examples after the last round",
        tuple(
            f"{probe}_{name}"
            for probe in ("train", "test")
            for name in ("m_coherence", "gradient_diversity", "gradient_square")
        ),
    ),
    "dissimilarity": (
        "Disagreement of clients after the last round",
        ("client_dissimilarity", "zeta_squared", "zeta_squared_unbiased"),
    ),
}
FIGURES = {
    "coherence-rounds": ("train_m_coherence", "m-coherence of training examples"),
    "dissimilarity-rounds": ("client_dissimilarity", "Client dissimilarity B²"),
}
CAPTIONS = {
    name: f"{label} along training, at the models that each run keeps; mean over seeds, and the 95 % t interval."
    for name, (_, label) in FIGURES.items()
}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return tuple(TABLES) if "coherence" in benchmark.metrics else ()


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return tuple(FIGURES) if "coherence" in benchmark.metrics and benchmark.snapshots else ()


def tables(data: ReportData) -> list[Table]:
    names = table_names(data.benchmark)
    return [by_metric(data, name, TABLES[name][0], "last", TABLES[name][1]) for name in names]


def figures(data: ReportData) -> dict[str, Any]:
    from heterobench.report.figures import along

    benchmark = data.benchmark
    return {name: along(benchmark, data.curves, *FIGURES[name]) for name in figure_names(benchmark)}
