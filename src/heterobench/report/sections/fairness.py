"""What a model does to the groups of a protected attribute, over all clients and within each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report.metrics import DISPARITIES, GAPS, METRICS
from heterobench.report.tables import by_metric, of_what
from heterobench.resolve import Benchmark
from heterobench.stats.ties import RULE

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "fairness", "Fairness to groups"
READING = (
    "A gap is the largest less the smallest rate of any two groups: of positive predictions (demographic parity), of "
    "true positives (equal opportunity), the larger of the gaps of true and of false positives (equalised odds), and "
    "of right answers (accuracy). Small is not better by itself: a model that answers the same to everybody has no "
    "gap at all.",
    "A model can be fair over all clients together and unfair within each, or the other way round. The disparities in "
    "bits take that apart: global = unique + redundant, local = unique + masked. Masked is what shows only within "
    "clients.",
    "Limit of accuracy: what a classifier could reach at most that is no less fair, in both senses, than this model. "
    "The distance to it is what fairness does not excuse.",
)
CAPTIONS: dict[str, str] = {}
WITHIN = tuple(f"local_{gap}{end}" for gap in GAPS for end in ("", "_max"))
UNDEFINED = tuple(f"local_{gap}_undefined" for gap in GAPS)
BITS = (*(f"disparity_{part}" for part in DISPARITIES), "accuracy_limit")
SHOWN = {
    "fairness": ("Groups over all clients", (*GAPS, "worst_group_accuracy")),
    "fairness-local": ("Groups within clients: weighted mean, and the largest of a client", (*WITHIN, *UNDEFINED)),
    "fairness-information": ("What a prediction tells of the group, and the accuracy that this leaves", BITS),
}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return tuple(SHOWN) if "fairness" in benchmark.metrics else ()


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    names = table_names(data.benchmark)
    attributes = of_what(data, "validation", "worst_group_accuracy") if names else ()
    made = []
    for name in names:
        title, families = SHOWN[name]
        columns = {
            f"{family}_{attribute}": (attribute, METRICS.families[family].title)
            for attribute in attributes
            for family in families
        }
        notes = ("On the clients' own test examples whose group is known.", *((RULE,) if name == "fairness" else ()))
        made.append(by_metric(data, name, title, "validation", list(columns), notes, columns=columns))
    return made


def figures(data: ReportData) -> dict[str, Any]:
    return {}
