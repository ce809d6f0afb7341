"""Everything that a report is made from, read once from the results of a benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from heterobench.errors import RunError
from heterobench.files import difference, read_sealed
from heterobench.records.record import COMPUTED, CONFIG, DIVERGED, END, PROVENANCE, Record, decode
from heterobench.report import outputs
from heterobench.report.aggregate import aggregate
from heterobench.report.table import Source
from heterobench.resolve import Benchmark

LEDGER = ("scenario", "arm", "seed", "status", "run_id", "error", "revision", "dirty", "folder")
FINISHED, FAILED, MISSING = "finished", "failed", "missing"


@dataclass(frozen=True)
class ReportData:
    """What the sections of a report draw on; each reads, none changes anything.

    evaluation: long form, a row per scenario, arm, seed, selection and metric, in the units of the records.
    curves: scenario -> long form, a row per arm, seed, round and metric.
    ledger: a row for each run that the benchmark asks for, also for those that are not there: scenario, arm, seed,
    status (finished, diverged, failed, missing), run_id, error, revision (empty where not known), dirty (None where not
    known), folder.
    outcomes: scenario -> a row per arm and seed with `correct`, whether each example of the global test set was right
    (bool [n]), for the validation-selected model; arms without a global model have none.
    tuning: (scenario, arm) -> what the tuning protocol tried and chose; empty where nothing was tuned.
    """

    benchmark: Benchmark
    evaluation: pd.DataFrame
    curves: Mapping[str, pd.DataFrame]
    ledger: pd.DataFrame
    outcomes: Mapping[str, pd.DataFrame]
    tuning: Mapping[tuple[str, str], dict[str, Any]]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per scenario, arm, selection and metric (`heterobench.report.aggregate.aggregate`)."""
        return aggregate(self.evaluation, self.benchmark)

    @cached_property
    def cells(self) -> dict[Source, dict[str, Any]]:
        """The rows of `summary` by what they summarise."""
        return {Source(*(row[key] for key in Source._fields)): row for row in self.summary.to_dict("records")}

    @cached_property
    def values(self) -> dict[Source, dict[int, float]]:
        """Seed -> value, of everything that was evaluated; a run that is not there has no entry."""
        found: dict[Source, dict[int, float]] = defaultdict(dict)
        columns = [self.evaluation[key] for key in (*Source._fields, "seed", "value")]
        for *key, seed, value in zip(*columns, strict=True):
            found[Source(*key)][int(seed)] = float(value)
        return dict(found)

    @cached_property
    def runs(self) -> dict[tuple[str, str, int], dict[str, Any]]:
        """(scenario, arm, seed) -> its row of `ledger`; "dirty" is None where it is not known."""
        rows = self.ledger.to_dict("records")
        changes = [None if pd.isna(row["dirty"]) else bool(row["dirty"]) for row in rows]
        return {
            (row["scenario"], row["arm"], int(row["seed"])): row | {"dirty": dirty}
            for row, dirty in zip(rows, changes, strict=True)
        }

    @cached_property
    def diverged(self) -> dict[tuple[str, str], set[int]]:
        """(scenario, arm) -> seeds of the runs that have diverged."""
        found: dict[tuple[str, str], set[int]] = defaultdict(set)
        for (scenario, arm, seed), row in self.runs.items():
            if row["status"] == DIVERGED:
                found[scenario, arm].add(seed)
        return dict(found)

    @cached_property
    def provenance(self) -> dict[tuple[str, str, int], dict[str, Any]]:
        """(scenario, arm, seed) -> code, packages, hardware and energy meter of each computed run that tells them."""
        benchmark = self.benchmark
        records = {
            key: Record(benchmark.project.run(benchmark.name, benchmark.preset, *key))
            for key, row in self.runs.items()
            if row["status"] in COMPUTED
        }
        return {key: found.provenance for key, found in records.items() if _tells(found, self.runs[key]["run_id"])}


TABLES = {
    "evaluation": outputs.evaluation_file,
    "curves": outputs.curve_file,
    "ledger": outputs.ledger_file,
    "outcomes": outputs.outcome_file,
}


def read_tables(benchmark: Benchmark, scenario: str) -> dict[str, pd.DataFrame]:
    """The tables of a scenario by name. RunError where one is missing, or not the one that was written."""
    paths = {name: path(benchmark, scenario) for name, path in TABLES.items()}
    again = f"heterobench evaluate --benchmark {benchmark.name} --preset {benchmark.preset} --scenario {scenario}"
    shown, file = outputs.folder(benchmark).relative_to(benchmark.project.root), outputs.evaluated_file
    try:
        digests = read_sealed(file(benchmark, scenario))["sha256"]
        problems = [difference(path, digests[name], f"{name}/{path.name}") for name, path in paths.items()]
    except FileNotFoundError:
        raise RunError(f"{shown}: {scenario} has not been evaluated. What to do: run snakemake, or {again}") from None
    except RunError as error:
        problems = [f"{file(benchmark, scenario).parent.name}/{error}"]
    if problem := next(filter(None, problems), None):
        raise RunError(f"{shown}/{problem}. What to do: {again}")
    return {name: pd.read_parquet(path) for name, path in paths.items()}


def _tells(found: Record, run_id: str) -> bool:
    """Whether a record is that of the run which was evaluated, and its provenance what it has left."""
    names = (CONFIG, PROVENANCE)
    there = all((found.folder / name).is_file() for name in (*names, END))
    return there and not found.damage(*names) and found.config["run_id"] == run_id


def read(benchmark: Benchmark) -> ReportData:
    """All results of a benchmark; each file is opened once.

    Raises RunError, which names the file, where a scenario has not been evaluated, or was evaluated by a version that
    did not write all that a report needs.
    """
    tables = {scenario.name: read_tables(benchmark, scenario.name) for scenario in benchmark.scenarios}
    of = {kind: {name: found[kind] for name, found in tables.items()} for kind in TABLES}
    ledger = pd.concat(of["ledger"].values(), ignore_index=True)
    if missing := set(LEDGER) - set(ledger.columns):
        raise RunError(
            f"ledger of {benchmark.name} ({benchmark.preset}): columns {sorted(missing)} are missing; evaluate again"
        )
    evaluation = pd.concat(of["evaluation"].values(), ignore_index=True)
    return ReportData(benchmark, evaluation, of["curves"], ledger, of["outcomes"], read_tuning(benchmark))


def read_tuning(benchmark: Benchmark) -> dict[tuple[str, str], dict[str, Any]]:
    """(scenario, arm) -> its ``chosen.json``, of those that are whole; where one is not, runs are missing."""
    if benchmark.tuning is None:
        return {}
    files = {
        (scenario.name, arm.name): outputs.tuning_file(benchmark, scenario.name, arm.name)
        for scenario in benchmark.scenarios
        for arm in benchmark.arms
    }
    return {key: decode(_choice(benchmark, *key, path)) for key, path in files.items() if path.is_file()}


def _choice(benchmark: Benchmark, scenario: str, arm: str, path: Path) -> dict[str, Any]:
    try:
        return read_sealed(path)
    except RunError as error:
        again = f"heterobench tune --benchmark {benchmark.name} --preset {benchmark.preset} --scenario {scenario}"
        shown = path.parent.relative_to(benchmark.project.root)
        raise RunError(f"{shown}/{error}. What to do: {again} --algorithm {arm}") from None
