"""The shapes that most tables of a report have, filled from the summary of its evaluation; cheap to import."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from heterobench.report import labels
from heterobench.report.metrics import CENSORED_AT, METRICS
from heterobench.report.table import Cell, Column, Group, Row, Section, Source, Table
from heterobench.resolve import Arm, Benchmark, Scenario

if TYPE_CHECKING:
    from heterobench.report.data import ReportData

PERSONAL = ("a", "No global model: the mean over the clients' own models, each on the global test set.")
UNDEFINED = ("b", "Not defined without a global model.")
ITSELF = ("†", "Measured from the baseline's model to that of another method.")
DEVICES = ("‡", "There are no devices where the data are brought together.")
CLEAR = ("*", "The interval does not contain zero.")
BEFORE = ("e", "A run has diverged since: its value is of the time before.")
MARKS = (CLEAR, PERSONAL, UNDEFINED, ITSELF, DEVICES, BEFORE)
FROM_BASELINE = ("barrier", "error_barrier")  # first words of metrics that compare a model with the baseline's
SELECTED = {
    "validation": "Round: the best validation accuracy of each run.",
    "last": "Round: the last one of each run.",
    "oracle": "Round: the best accuracy on the test set itself; no one could have chosen it.",
    "run": "Over the whole run.",
}


def about(benchmark: Benchmark) -> str:
    """What all scenarios share."""
    return ", ".join(labels.common(benchmark))


def intervals(benchmark: Benchmark) -> str:
    """The note on what stands behind ±."""
    n = len(benchmark.seeds)
    if n == 1:
        return "One seed, so no interval."
    return f"Mean ± half the width of the 95 % t interval over {n} seeds, where they vary."


def digits(values: Iterable[float], fixed: int | None) -> int:
    """`fixed`, or as many decimals as give the largest value three digits (0 to 3)."""
    if fixed is not None:
        return fixed
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0)
    return 1 if largest == 0 else max(0, min(3, 2 - math.floor(math.log10(largest))))


def grouped(benchmark: Benchmark, make: Callable[[Arm], Row]) -> tuple[Group, ...]:
    """Methods first, references below a rule."""
    parts = (("Methods", labels.methods(benchmark)), ("References", labels.references(benchmark)))
    return tuple(Group(title, tuple(make(arm) for arm in arms)) for title, arms in parts if arms)


def scenario_columns(
    benchmark: Benchmark, unit: str, direction: str | None, decimals: int, signed: bool = False
) -> tuple[Column, ...]:
    """One column per scenario, under what sets them apart."""
    return tuple(
        Column(s.name, s.partition_file.title, labels.group(benchmark, s), unit, direction, decimals, signed)
        for s in benchmark.scenarios
    )


def mean_cell(data: ReportData, source: Source) -> Cell:
    """The mean of a metric over seeds, or a lower bound of it where runs never got there."""
    row = data.cells.get(source)
    if row is None:
        return Cell(n_expected=len(data.benchmark.seeds), of=(source,))
    scale = METRICS[source.metric].scale
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
        marks=(BEFORE[0],) * _diverged_since(data, source),
        of=(source,),
    )


def _diverged_since(data: ReportData, source: Source) -> bool:
    """Whether a finite value is of a run whose last model is not finite any more."""
    diverged, found = data.diverged.get((source.scenario, source.arm), ()), data.values.get(source, {})
    return any(math.isfinite(found.get(seed, math.nan)) for seed in diverged)


def undefined(data: ReportData, source: Source) -> str:
    """The mark of a metric that an arm cannot have, so that nothing is missing; empty where it could have it.

    An arm without a global model has no value where it has finished runs and none of them has one; the baseline has
    none of what compares a model with its own, and pooled training none of what simulated devices take.
    """
    benchmark = data.benchmark
    if source.metric.startswith(FROM_BASELINE) and source.arm == labels.baseline(benchmark).name:
        return ITSELF[0]
    row: dict[str, Any] | None = data.cells.get(source)
    arm = next(arm for arm in benchmark.arms if arm.name == source.arm)
    if source.metric.startswith("simulated_") and "pooled" in labels.tags(benchmark, arm):
        return DEVICES[0]
    if not labels.is_personal(benchmark, arm) or (row is not None and row["n_finite"] > 0):
        return ""
    found = any(data.runs[source.scenario, source.arm, seed]["status"] == "finished" for seed in benchmark.seeds)
    return UNDEFINED[0] if found else ""


def any_finished(data: ReportData, scenario: str) -> bool:
    return any(run["status"] == "finished" for (name, *_), run in data.runs.items() if name == scenario)


def source_cell(data: ReportData, source: Source) -> Cell:
    """The mean, or a dash with a mark where there cannot be one."""
    mark = undefined(data, source)
    return Cell(marks=(mark,)) if mark else mean_cell(data, source)


def measured(data: ReportData, selection: str, metrics: Iterable[str]) -> tuple[str, ...]:
    """Those of `metrics` that any run of the benchmark has, in their order."""
    found = {source.metric for source, row in data.cells.items() if source.selection == selection and row["n"]}
    return tuple(metric for metric in metrics if metric in found)


def of_what(data: ReportData, selection: str, family: str) -> tuple[str, ...]:
    """What a family of metrics was measured of: the ends of the names ``<family>_<of what>`` that any run has."""
    names = {source.metric for source, row in data.cells.items() if source.selection == selection and row["n"]}
    found = {name.removeprefix(f"{family}_") for name in names if name.startswith(f"{family}_")}
    return tuple(sorted(what for what in found if f"{family}_{what}" not in set(METRICS)))


def by_scenario(
    data: ReportData, name: str, title: str, selection: str, metric: str, notes: Sequence[str] = (), extra: bool = False
) -> Table:
    """Rows are arms, columns are scenarios, one metric at one selection."""
    of, benchmark = METRICS[metric], data.benchmark

    def cell(scenario: Scenario, arm: Arm) -> Cell:
        return source_cell(data, Source(scenario.name, arm.name, selection, metric))

    def make(arm: Arm) -> Row:
        cells = tuple(cell(scenario, arm) for scenario in benchmark.scenarios)
        personal = labels.is_personal(benchmark, arm) and any(UNDEFINED[0] not in c.marks for c in cells)
        return Row(arm.name, arm.title, cells, (PERSONAL[0],) if personal else ())

    groups = grouped(benchmark, make)
    found = [row.cells[i].value for g in groups for row in g.rows for i in range(len(row.cells))]
    return marked(
        Table(
            name,
            title,
            about(benchmark),
            scenario_columns(benchmark, of.unit, of.direction, digits(found, of.digits)),
            (Section("", "", groups),),
            notes=(intervals(benchmark), *notes),
            protocol=SELECTED[selection],
            extra=extra,
        )
    )


def by_metric(
    data: ReportData,
    name: str,
    title: str,
    selection: str,
    metrics: Sequence[str],
    notes: Sequence[str] = (),
    heading: Callable[[Scenario], str] | None = None,
    columns: Mapping[str, tuple[str, str]] | None = None,
) -> Table:
    """One section per scenario: rows are arms, columns are metrics at one selection.

    A scenario in which no run has any of them (of labels that nobody corrected, say) has no section. `columns`:
    metric -> (group, title) of its column, where that is not the metric's own title.
    """
    benchmark = data.benchmark
    there = {source.scenario for source, row in data.cells.items() if source.metric in metrics and row["n"]}
    there |= {s.name for s in benchmark.scenarios if not any_finished(data, s.name)}

    def cell(scenario: Scenario, arm: Arm, metric: str) -> Cell:
        if metric in CENSORED_AT and scenario.target is None:
            return Cell()
        return source_cell(data, Source(scenario.name, arm.name, selection, metric))

    def section(scenario: Scenario) -> Section:
        def make(arm: Arm) -> Row:
            return Row(arm.name, arm.title, tuple(cell(scenario, arm, metric) for metric in metrics))

        text = heading(scenario) if heading else labels.title(benchmark, scenario)
        return Section(scenario.name, text, grouped(benchmark, make))

    shown = [scenario for scenario in benchmark.scenarios if scenario.name in there] if metrics else []
    sections = tuple(map(section, shown))
    rows = [row for s in sections for g in s.groups for row in g.rows]

    def column(index: int, metric: str) -> Column:
        of = METRICS[metric]
        group, text = (columns or {}).get(metric, ("", of.title))
        decimals = digits([row.cells[index].value for row in rows], of.digits)
        return Column(metric, text, group, of.unit, of.direction, decimals)

    return marked(
        Table(
            name,
            title,
            about(benchmark),
            tuple(column(index, metric) for index, metric in enumerate(metrics)),
            sections,
            notes=(intervals(benchmark), *notes),
            protocol=SELECTED[selection],
        )
    )


def marked(table: Table) -> Table:
    """The table with its marks explained, and k/n where a cell says it."""
    used = {mark for _, _, row in table.bodies for cell in (row, *row.cells) for mark in cell.marks}
    used -= {mark for mark, _ in table.footnotes}
    known = tuple(note for note in MARKS if note[0] in used)
    partial = any(cell.runs and not cell.bound for _, _, row in table.bodies for cell in row.cells)
    note = (
        "k/n: only k of n runs gave a finite value, and the mean is over these; the others failed, diverged or are "
        "missing."
    )
    return replace(table, footnotes=known + table.footnotes, notes=table.notes + (note,) * partial)


def complete(table: Table, benchmark: Benchmark, revisions: Sequence[str] = ()) -> Table:
    """The table with what holds for all tables of numbers: the rule of tuning, where the runs lie, and their code."""
    if not any(math.isfinite(cell.value) for _, _, row in table.bodies for cell in row.cells):
        return table
    code = (f"Code: {', '.join(revisions)}.",) if revisions else ()
    where = f"Runs: results/{benchmark.name}/{benchmark.preset}/runs/."
    return replace(
        table,
        protocol=" ".join(filter(None, (table.protocol, labels.tuning(benchmark)))),
        notes=(*table.notes, where, *code),
    )
