"""Which runs and values are there, and why the others are not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from heterobench.report import labels
from heterobench.report.metrics import CENSORED_AT, METRICS
from heterobench.report.table import Cell, Column, Group, Row, Section, Source, Table
from heterobench.report.tables import grouped, scenario_columns, undefined
from heterobench.resolve import Arm, Benchmark, Scenario

if TYPE_CHECKING:
    from heterobench.report.data import ReportData

KEY, TITLE = "missing", "What is missing"
READING = (
    "Every run that the benchmark asks for is accounted for: finished, diverged (with the round from which on a model "
    "had parameters or outputs that are no finite numbers), failed (with its error) or missing, and what its record "
    "lacks. A model that has diverged has no accuracy, and one client's that has leaves means over clients without a "
    "value; what a run that stopped for it would have cost is not known. Below stand single values that finished runs "
    "lack although other methods have them. Tables show k/n beside every number that is made from fewer runs than it "
    "should be.",
)
CAPTIONS: dict[str, str] = {}
WHY = {
    "diverged": "diverged",
    "failed": "failed",
    "missing": "not run, or its record was removed",
    "absent": "not in the evaluation",
    "infinite": "not a finite number",
}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("runs", "missing-runs", "missing-values")


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def figures(data: ReportData) -> dict[str, Any]:
    return {}


def tables(data: ReportData) -> list[Table]:
    return [counts(data), missing_runs(data), missing_values(data)]


def counts(data: ReportData) -> Table:
    """How many runs of each method in each scenario have finished."""
    benchmark = data.benchmark
    n = len(benchmark.seeds)

    def cell(scenario: Scenario, arm: Arm) -> Cell:
        k = sum(data.runs[scenario.name, arm.name, seed]["status"] == "finished" for seed in benchmark.seeds)
        return Cell(text=f"{k}/{n}", of=(Source(scenario.name, arm.name),))

    def make(arm: Arm) -> Row:
        return Row(arm.name, arm.title, tuple(cell(scenario, arm) for scenario in benchmark.scenarios))

    whole = len(data.runs)
    done = sum(row["status"] == "finished" for row in data.runs.values())
    return Table(
        "runs",
        "Finished runs",
        f"{done} of {whole} runs have finished",
        scenario_columns(benchmark, "", None, 0),
        (Section("", "", grouped(benchmark, make)),),
    )


def missing_runs(data: ReportData) -> Table:
    """A row for each run that did not finish, or of whose record something is absent."""
    benchmark = data.benchmark
    titles = {arm.name: arm.title for arm in benchmark.arms}
    rows = []
    for scenario, arm, seed in product(benchmark.scenarios, titles, benchmark.seeds):
        run = data.runs[scenario.name, arm, seed]
        if run["status"] == "finished" and not said(run):
            continue
        of = (Source(scenario.name, arm),)
        texts = (labels.title(benchmark, scenario), str(seed), run["status"], said(run) or WHY[run["status"]])
        cells = tuple(Cell(text=text, of=of if index == 2 else ()) for index, text in enumerate(texts))
        rows.append(Row(f"{scenario.name}/{arm}/{seed}", titles[arm], cells))
    return Table(
        "missing-runs",
        "Runs that diverged, failed, are missing or have gaps in their record",
        "",
        tuple(Column(title.lower(), title, words=True) for title in ("Scenario", "Seed", "Status", "Why")),
        (Section("", "", (Group("", tuple(rows)),) if rows else ()),),
        empty="Nothing: all runs have finished, and their records are whole.",
    )


def said(run: Mapping[str, Any]) -> str:
    """What the ledger says is wrong with a run; empty where nothing is."""
    return " ".join(run["error"].split()) if isinstance(run["error"], str) else ""


def elsewhere(data: ReportData, source: Source) -> bool:
    """True where any other method has the metric in this scenario: what none has is not measured there."""
    others = (source._replace(arm=arm.name) for arm in data.benchmark.arms)
    return any(data.cells[other]["n_finite"] for other in others if other in data.cells)


def missing_values(data: ReportData) -> Table:
    """A row for each metric that some finished runs of a method lack, while others of the benchmark have it."""
    benchmark = data.benchmark
    titles = {arm.name: arm.title for arm in benchmark.arms}
    rows = []
    for source, row in data.cells.items():
        if row["n_finite"] == row["n_expected"] or source.metric not in METRICS or source.metric in CENSORED_AT:
            continue
        if undefined(data, source) or not elsewhere(data, source):
            continue
        found = data.values.get(source, {})
        lacking = {
            kind: [seed for seed in lacks if data.runs[source.scenario, source.arm, seed]["status"] == "finished"]
            for kind, lacks in (
                ("absent", [seed for seed in benchmark.seeds if seed not in found]),
                ("infinite", [seed for seed, value in sorted(found.items()) if not math.isfinite(value)]),
            )
        }
        for kind, seeds in lacking.items():
            if not seeds:
                continue
            scenario = next(s for s in benchmark.scenarios if s.name == source.scenario)
            what = f"{METRICS[source.metric].title} ({source.metric}, {source.selection})"
            texts = (labels.title(benchmark, scenario), what, ", ".join(map(str, seeds)), WHY[kind])
            cells = tuple(Cell(text=text, of=(source,) if index == 2 else ()) for index, text in enumerate(texts))
            rows.append(Row("/".join((*source, kind)), titles[source.arm], cells))
    return Table(
        "missing-values",
        "Values that finished runs lack",
        "",
        tuple(Column(title.lower(), title, words=True) for title in ("Scenario", "Metric", "Seeds", "Why")),
        (Section("", "", (Group("", tuple(rows)),) if rows else ()),),
        empty="Nothing: every finished run has every value.",
    )
