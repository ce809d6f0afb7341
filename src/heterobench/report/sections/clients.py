"""How accuracy and loss are spread over clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report.tables import by_metric
from heterobench.resolve import Benchmark
from heterobench.stats.ties import RULE

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "clients", "Per client"
READING = (
    "The same models on each client's own test examples. A good mean may hide clients for whom the model is of no use: "
    "look at the worst ones.",
    "A small spread says little by itself: a method that is equally bad for everybody has one, so nothing in these "
    "columns is bold. Few test examples alone make accuracies differ; the spread beyond chance is what is left once "
    "that is taken off.",
)
CAPTIONS: dict[str, str] = {}
SPREAD = ("worst_5", "chance", "excess", "variation", "gini", "jain", "divergence")
TABLES = {
    "clients": (
        "Accuracy of each client on its own test examples",
        ("mean", "weighted", "min", "worst_decile", "best_decile", "std"),
        "client_accuracy_",
        (
            "Weighted by the clients' numbers of test examples. Worst and best decile: mean over that part "
            "of the clients, at least one. Standard deviation over clients, never bold: a method that is equally bad "
            "for everybody has a small one.",
            RULE,
        ),
    ),
    "clients-spread": (
        "How uneven accuracy is over clients",
        SPREAD,
        "client_accuracy_",
        (
            "Worst 5 %: mean over that part of the clients, at least one. By chance: the standard deviation that few "
            "test examples alone would give. Gini index: 0 where all clients have the same accuracy; Jain's index: 1 "
            "there. KL: divergence of the shares of accuracy from equal ones.",
        ),
    ),
    "clients-loss": (
        "Loss of each client on its own test examples",
        ("mean", "max", "worst_decile", "tilted"),
        "client_loss_",
        (
            "Mean cross-entropy of a client, in nats. Worst decile: of the tenth of all examples with the largest loss "
            "(CVaR). Tilted: ln sum p exp(L) over clients, which weighs the worst ones more.",
            RULE,
        ),
    ),
}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return tuple(TABLES)


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def folded(name: str) -> bool:
    """The first table is the one to read."""
    return name != "clients"


def tables(data: ReportData) -> list[Table]:
    return [
        by_metric(data, name, title, "validation", [prefix + metric for metric in metrics], notes)
        for name, (title, metrics, prefix, notes) in TABLES.items()
    ]


def figures(data: ReportData) -> dict[str, Any]:
    return {}
