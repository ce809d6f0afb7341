"""How to read a report, as far as it concerns all sections; each section adds its own part."""

from __future__ import annotations

from heterobench.report import labels
from heterobench.report.missing import MEANS
from heterobench.report.missing import RULE as MISSING
from heterobench.resolve import Benchmark
from heterobench.stats.ties import RULE


def general(benchmark: Benchmark) -> list[tuple[str, str]]:
    """(what, how to read it) of what stands in many sections."""
    base = labels.baseline(benchmark).title
    return [
        (
            "Same conditions",
            "Every method of a column saw the same partitions, the same initial weights, the same cohorts and batches, "
            "seed by seed. So methods are compared run by run of the same seed, which tells more than two means.",
        ),
        ("Hyper-parameters", hyperparameters(benchmark)),
        (
            "Which round",
            "Under the title of each table. Validation: of each run the round with the best validation accuracy, which "
            "is what somebody without the test set could do. Last: no choice at all. Best on test is shown as an "
            "extra, apart, and takes part in nothing.",
        ),
        (
            "±",
            "Half the width of a 95 % t interval of the mean over seeds. Two methods whose intervals overlap may still "
            "differ clearly, because they are compared seed by seed: see the differences.",
        ),
        ("Bold", upper(RULE.removeprefix("Bold: "))),
        (
            "References",
            "Grey rows below the methods, never ranked and never bold: training on everybody's data together shows "
            "what the split costs, training alone shows what working together brings. Differences are taken to "
            f"{base}.",
        ),
        ("What is missing", missing()),
        (
            "From a number to its runs",
            "Click a number, or go to it with Tab and the arrow keys and press Enter: its runs with seed, value, run "
            "id and git revision, their configuration, the folders of their records, and links to the same runs in "
            "MLflow, once the command make ui serves them.",
        ),
        (
            "Sorting",
            "Click the head of a column: best first, then the other way round, then as it was. Methods and references "
            "stay apart.",
        ),
    ]


def hyperparameters(benchmark: Benchmark) -> str:
    """Where they come from, by which rule and with which budget."""
    said = upper(labels.tuning(benchmark).removeprefix("Hyper-parameters: "))
    if benchmark.tuning is None:
        return said
    apart = "; their seeds are not those of the tables" if not {*benchmark.tuning.seeds} & {*benchmark.seeds} else ""
    return (
        f"{said} The first trial is each method's defaults; the others are values from the search space of its "
        f"parameter file{apart}."
    )


def upper(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def missing() -> str:
    """What becomes of runs and values that are not there."""
    return f"{MEANS} {MISSING} Every run and value that is not there is listed, with the reason, under What is missing."
