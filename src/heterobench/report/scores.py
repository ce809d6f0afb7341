"""What two git revisions of a benchmark are compared by: small files for `dvc metrics` and `dvc plots`.

One JSON file of metrics and one CSV file of the learning curve for each arm in each scenario: DVC shows a file as one
row of a table, and as one picture in which each revision is a line. Nothing in them depends on the machine, so equal
results give equal bytes.
"""

from __future__ import annotations

import csv
import io
import math
import shutil

import pandas as pd

from heterobench.files import write_json, write_text
from heterobench.report import outputs
from heterobench.report.curves import Curve, curves_of
from heterobench.report.data import ReportData

# Name in the file -> (selection, metric, column) of the summary. Wall times are not here: they are the machine's.
SHOWN = {
    "test_accuracy": ("validation", "test_accuracy", "mean"),
    "test_accuracy_low": ("validation", "test_accuracy", "low"),
    "test_accuracy_high": ("validation", "test_accuracy", "high"),
    "test_loss": ("validation", "test_loss", "mean"),
    "client_accuracy_worst_decile": ("validation", "client_accuracy_worst_decile", "mean"),
    "last_test_accuracy": ("last", "test_accuracy", "mean"),
    "rounds_to_target": ("run", "rounds_to_target", "mean"),
    "bytes_up": ("run", "bytes_up", "mean"),
    "bytes_down": ("run", "bytes_down", "mean"),
    "runs": ("validation", "test_accuracy", "n"),
}


def metrics(summary: pd.DataFrame, scenario: str, arm: str) -> dict[str, float]:
    """Means over seeds in the units of the records (accuracies 0..1, bytes), without what is not finite."""
    rows = summary[(summary["scenario"] == scenario) & (summary["arm"] == arm)]
    by_key = rows.set_index(["selection", "metric"])
    found = {
        name: float(by_key.loc[(selection, metric), column])
        for name, (selection, metric, column) in SHOWN.items()
        if (selection, metric) in by_key.index
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def curve_csv(found: Curve) -> str:
    """Columns round and test_accuracy (mean over seeds, 0..1), without rounds where a value is not finite."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["round", "test_accuracy"])
    writer.writerows(
        (int(number), float(mean)) for number, mean in zip(found.rounds, found.mean, strict=True) if math.isfinite(mean)
    )
    return text.getvalue()


def write_scores(data: ReportData) -> None:
    """Write both of `outputs.score_folders` anew, so that no file of an arm that is gone stays."""
    benchmark = data.benchmark
    for folder in (folders := outputs.score_folders(benchmark)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for scenario in benchmark.scenarios:
        found = curves_of(data.curves[scenario.name], scale=1)
        for arm in benchmark.arms:
            place = f"{scenario.name}/{arm.name}"
            write_json(folders[0] / f"{place}.json", metrics(data.summary, scenario.name, arm.name))
            if arm.name in found:  # an arm without a global test has no curve
                write_text(folders[1] / f"{place}.csv", curve_csv(found[arm.name]))
