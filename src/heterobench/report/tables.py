"""The tables of a benchmark, from its aggregated evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from heterobench.report import labels
from heterobench.report.metrics import CENSORED_AT, METRICS
from heterobench.report.outputs import TABLES
from heterobench.report.table import Cell, Column, Group, Row, Section, Table
from heterobench.resolve import Arm, Benchmark, Scenario
from heterobench.stats.ties import RULE

PERSONAL = ("a", "No global model: the mean over the clients' own models, each on the global test set.")
UNDEFINED = ("b", "Not defined without a global model.")
CLEAR = ("*", "The interval does not contain zero.")
SELECTED = {
    "validation": "the round with the best validation accuracy; the test set has no say in the choice",
    "last": "the model after the last round",
    "oracle": "the round with the best accuracy on the test set itself: no one could have chosen it",
}
CLIENTS = tuple(name for name in METRICS if name.startswith("client_accuracy_"))
COST = ("bytes_up", "bytes_down", "seconds", "rounds_to_target", "seconds_to_target")

Rows = dict[tuple[str, str, str, str], dict[str, Any]]


def tables(summary: pd.DataFrame, benchmark: Benchmark, revisions: Sequence[str] = ()) -> list[Table]:
    """All tables, in the order of `outputs.TABLES`.

    `summary` comes from `aggregate`; `revisions` are the code revisions of the runs (from their provenance),
    written into the notes.
    """
    keys = ("scenario", "arm", "selection", "metric")
    rows: Rows = {tuple(row[key] for key in keys): row for row in summary.to_dict("records")}
    about = ", ".join(labels.common(benchmark))
    made = (
        _by_scenario(
            "accuracy",
            "Test accuracy (%) at the validation-selected round",
            about,
            rows,
            benchmark,
            "validation",
            "test_accuracy",
        ),
        _difference(about, rows, benchmark),
        _by_scenario(
            "accuracy-last",
            "Test accuracy (%) after the last round",
            about,
            rows,
            benchmark,
            "last",
            "test_accuracy",
        ),
        _by_scenario(
            "loss",
            "Test loss at the validation-selected round",
            about,
            rows,
            benchmark,
            "validation",
            "test_loss",
        ),
        _by_metric("clients", "Accuracy of each client on its own test examples", about, rows, benchmark),
        _by_metric("cost", "Communication and time", about, rows, benchmark),
        _by_scenario(
            "accuracy-oracle",
            "Extra, not for comparison: test accuracy (%) at the best round on the test set",
            about,
            rows,
            benchmark,
            "oracle",
            "test_accuracy",
        ),
    )
    assert tuple(table.name for table in made) == TABLES
    return [_with_notes(table, benchmark, revisions) for table in made]


def _digits(values: list[float], digits: int | None) -> int:
    """`digits`, or as many decimals as give the largest value three digits (0 to 3)."""
    if digits is not None:
        return digits
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0)
    return 1 if largest == 0 else max(0, min(3, 2 - math.floor(math.log10(largest))))


def _cell(row: dict[str, Any] | None, scale: float, benchmark: Benchmark) -> Cell:
    if row is None:
        return Cell(n_expected=len(benchmark.seeds))
    bound = math.isfinite(row["bound"])
    return Cell(
        value=(row["bound"] if bound else row["mean"]) * scale,
        half=math.nan if bound else (row["high"] - row["low"]) / 2 * scale,
        std=math.nan if bound else row["std"] * scale,
        n=row["n"],
        n_finite=row["n_finite"],
        n_expected=row["n_expected"],
        bold=row["best"],
        bound=bound,
    )


def _grouped(benchmark: Benchmark, make) -> tuple[Group, ...]:
    """Methods first, references below a rule."""
    parts = (("Methods", labels.methods(benchmark)), ("References", labels.references(benchmark)))
    return tuple(Group(title, tuple(make(arm) for arm in arms)) for title, arms in parts if arms)


def _columns(benchmark: Benchmark, unit: str, direction: str | None, digits: int, signed: bool = False):
    return tuple(
        Column(
            scenario.name,
            scenario.partition_file.title,
            labels.group(benchmark, scenario),
            unit,
            direction,
            digits,
            signed,
        )
        for scenario in benchmark.scenarios
    )


def _by_scenario(name, title, about, rows: Rows, benchmark: Benchmark, selection: str, metric: str) -> Table:
    """Rows are arms, columns are scenarios, one metric."""
    of, extra = METRICS[metric], selection == "oracle"

    def cell(scenario: Scenario, arm: Arm, personal: bool) -> Cell:
        row = rows.get((scenario.name, arm.name, selection, metric))
        if extra and personal and (row is None or row["n"] == 0):
            return Cell(marks=(UNDEFINED[0],))
        return _cell(row, of.scale, benchmark)

    def make(arm: Arm) -> Row:
        personal = labels.is_personal(benchmark, arm)
        cells = tuple(cell(scenario, arm, personal) for scenario in benchmark.scenarios)
        return Row(arm.name, arm.title, cells, (PERSONAL[0],) if personal and not extra else ())

    return Table(
        name,
        title,
        about,
        _columns(benchmark, of.unit, of.direction, of.digits),
        (Section("", "", _grouped(benchmark, make)),),
        notes=(f"Selection: {SELECTED[selection]}.", *(() if extra else (RULE,))),
        extra=extra,
    )


def _difference(about: str, rows: Rows, benchmark: Benchmark) -> Table:
    base = labels.baseline(benchmark)
    of = METRICS["test_accuracy"]

    def cell(scenario: Scenario, arm: Arm) -> Cell:
        row = rows.get((scenario.name, arm.name, "validation", "test_accuracy"))
        if row is None:
            return Cell(n_expected=len(benchmark.seeds))
        low, high = row["difference_low"], row["difference_high"]
        return Cell(
            value=row["difference"] * of.scale,
            half=(high - low) / 2 * of.scale,
            n=row["n"],
            n_finite=row["difference_n"],
            n_expected=row["n_expected"],
            marks=(CLEAR[0],) if low > 0 or high < 0 else (),
        )

    def make(arm: Arm) -> Row:
        marks = (PERSONAL[0],) if labels.is_personal(benchmark, arm) else ()
        return Row(arm.name, arm.title, tuple(cell(s, arm) for s in benchmark.scenarios), marks)

    groups = tuple(
        Group(g.title, tuple(row for row in g.rows if row.key != base.name)) for g in _grouped(benchmark, make)
    )
    return Table(
        "difference",
        f"Difference to {base.title} in test accuracy (points)",
        about,
        _columns(benchmark, "points", of.direction, of.digits, signed=True),
        (Section("", "", tuple(g for g in groups if g.rows)),),
        notes=(
            f"Selection: {SELECTED['validation']}.",
            f"Paired: each method's run minus {base.title}'s of the same seed, mean and interval over seeds. "
            "What a hard split takes from both cancels, so these intervals are often narrower than those of "
            "the accuracies. They are not corrected for the number of comparisons.",
        ),
    )


def _by_metric(name: str, title: str, about: str, rows: Rows, benchmark: Benchmark) -> Table:
    """One section per scenario; columns are metrics."""
    metrics, selection = (CLIENTS, "validation") if name == "clients" else (COST, "run")
    targets = {scenario.target for scenario in benchmark.scenarios} - {None}
    if name == "cost" and not targets:
        metrics = tuple(metric for metric in metrics if metric not in CENSORED_AT)

    def cell(scenario: Scenario, arm: Arm, metric: str) -> Cell:
        row = rows.get((scenario.name, arm.name, selection, metric))
        undefined = metric in CENSORED_AT and (row is None or row["n_finite"] == 0)
        if undefined and scenario.target is None:
            return Cell()
        if undefined and labels.is_personal(benchmark, arm):
            return Cell(marks=(UNDEFINED[0],))
        return _cell(row, METRICS[metric].scale, benchmark)

    def section(scenario: Scenario) -> Section:
        heading = labels.title(benchmark, scenario)
        if name == "cost" and scenario.target is not None:
            heading += f" (target {100 * scenario.target:g} %)"
        groups = _grouped(
            benchmark,
            lambda arm: Row(arm.name, arm.title, tuple(cell(scenario, arm, m) for m in metrics)),
        )
        return Section(scenario.name, heading, groups)

    sections = tuple(section(scenario) for scenario in benchmark.scenarios)
    bodies = [row for s in sections for g in s.groups for row in g.rows]
    columns = tuple(
        Column(
            metric,
            METRICS[metric].title,
            unit=METRICS[metric].unit,
            direction=METRICS[metric].direction,
            digits=_digits([row.cells[index].value for row in bodies], METRICS[metric].digits),
        )
        for index, metric in enumerate(metrics)
    )
    if name == "clients":
        notes = (
            f"Selection: {SELECTED['validation']}.",
            "Weighted by the clients' numbers of test examples. Worst decile: mean over the tenth of the "
            "clients with the lowest accuracy. Standard deviation over clients, never bold: a method that "
            "is equally bad for everybody has a small one.",
            RULE,
        )
    else:
        notes = (
            "Per run, summed over all clients and rounds; 1 MB = 10^6 bytes. Wall time depends on the "
            "machine and on what else it computed.",
            "Target: a test accuracy, reached at an evaluated round. > x: some runs did not reach the "
            "target in their budget (reached/all runs beside it). Each of these counts with its whole "
            "budget, so x is a lower bound of the mean."
            if targets
            else "No target accuracy is set.",
            *((RULE + " In this table only what is counted to the target can be bold.",) if targets else ()),
        )
    return Table(name, title, about, columns, sections, notes=notes)


def _with_notes(table: Table, benchmark: Benchmark, revisions: Sequence[str]) -> Table:
    """The table with explained marks, and with what holds for all tables at the end of its notes."""
    used = {mark for _, _, row in table.bodies for cell in (row, *row.cells) for mark in cell.marks}
    n = len(benchmark.seeds)
    seeds = (
        "One seed, so no interval."
        if n == 1
        else f"Mean ± half the width of the 95 % t interval over {n} seeds, where they vary."
    )
    partial = (
        ["k/n: only k of n runs gave a finite value, and the mean is over these; the others diverged or are missing."]
        if any(cell.runs and not cell.bound for _, _, row in table.bodies for cell in row.cells)
        else []
    )
    where = [f"Runs: results/{benchmark.name}/{benchmark.preset}/runs/."]
    code = [f"Code: {', '.join(revisions)}."] if revisions else []
    return Table(
        table.name,
        table.title,
        table.about,
        table.columns,
        table.sections,
        tuple(note for note in (CLEAR, PERSONAL, UNDEFINED) if note[0] in used),
        (seeds, *table.notes, *partial, *where, *code),
        table.extra,
    )
