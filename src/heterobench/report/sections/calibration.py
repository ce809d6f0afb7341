"""How far the probabilities of a model can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report.tables import by_metric
from heterobench.resolve import Benchmark
from heterobench.stats.ties import RULE

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "calibration", "Calibration"
READING = (
    "A calibrated model is right in 80 % of the cases in which it says 80 %. NLL and the Brier score reward that "
    "together with accuracy, and are what to rank by. Calibration errors alone are not: a model that always answers "
    "with the frequencies of the classes has none, and few examples make every error look larger than it is.",
    "Overconfidence is mean confidence less accuracy. A temperature above 1 says the same: the logits had to be made "
    "smaller. It is fitted on all clients' validation examples, never on the test set; the columns after it show what "
    "is left once every probability is scaled by it.",
    "AUROC of confidence: how likely a right answer has a higher confidence than a wrong one. AURC: mean error when "
    "only the most confident answers are kept, over all shares of them.",
)
CAPTIONS: dict[str, str] = {}
ERRORS = ("nll", "brier", "ece", "ece_mass", "ece_classwise", "ece_debiased", "overconfidence")
SCALED = ("temperature", "nll_scaled", "ece_scaled", "confidence_auroc", "risk_coverage")
BINS = (
    "ECE: expected calibration error of the predicted class, 15 bins of equal width (or of equal count); classwise: of "
    "every class's probability; debiased: root mean square error less what chance adds. No direction is better by "
    "itself for these, so none is bold."
)


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("calibration", "calibration-scaled") if "calibration" in benchmark.metrics else ()


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    if not table_names(data.benchmark):
        return []
    scaling = "Temperature: fitted to the validation examples of all clients together; scaled: logits divided by it."
    title = "Temperature scaling, and confidence as a sign of being right"
    return [
        by_metric(data, "calibration", "Calibration on the global test set", "validation", ERRORS, (BINS, RULE)),
        by_metric(data, "calibration-scaled", title, "validation", SCALED, (scaling, RULE)),
    ]


def figures(data: ReportData) -> dict[str, Any]:
    return {}
