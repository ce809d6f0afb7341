"""From the records of a scenario's runs to its four tables in long form.

Records alone: nothing here needs torch, which takes longer to start than a thousand records take to read. What the
saved models tell beside them is added by `heterobench.evaluation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from heterobench.files import altered, atomic, file_digest, read_json, write_sealed
from heterobench.measures.costs import costs
from heterobench.measures.reading import Reading, read
from heterobench.records import record
from heterobench.records.revision import dirty
from heterobench.report import outputs
from heterobench.report.labels import is_personal
from heterobench.resolve import Benchmark, Job

FROM_RECORD = ("test_accuracy", "test_loss", "validation_accuracy")  # of a selected round, should its model be gone


class Evaluated(NamedTuple):
    """The tables of a scenario (`heterobench.report.data.ReportData` describes them)."""

    evaluation: pd.DataFrame
    curves: pd.DataFrame
    ledger: pd.DataFrame
    outcomes: pd.DataFrame


@dataclass
class Run:
    """What is found of one run: `values` by (selection, metric), `points` by (round, metric) beside the record's own.

    `correct` bool [n]: which examples of the global test set the selected model has right. A run that has diverged has
    values: those of the round that was selected before, and for the last round that they are not finite.
    """

    job: Job
    seed: int
    reading: Reading
    values: dict[tuple[str, str], float] = field(default_factory=dict)
    points: dict[tuple[int, str], float] = field(default_factory=dict)
    correct: np.ndarray | None = None

    @property
    def computed(self) -> bool:
        """Whether it has a record and models: finished, or diverged."""
        return self.reading.status in record.COMPUTED

    def put(self, selection: str, found: dict[str, float]) -> None:
        self.values |= {(selection, metric): value for metric, value in found.items()}


def evaluate_records(benchmark: Benchmark, scenario: str) -> Evaluated:
    """`evaluate_scenario` without what only models tell: costs, selected rounds, curves, ledger."""
    return tables(benchmark, scenario, read_runs(benchmark, scenario))


def read_runs(benchmark: Benchmark, scenario: str) -> list[Run]:
    """All runs that the benchmark asks for, arm by arm, with what their records alone tell."""
    runs = []
    for job in (benchmark.job(scenario, arm.name) for arm in benchmark.arms):
        manifest, personal = _manifest(job), is_personal(benchmark, job.arm)
        for seed in benchmark.seeds:
            line = manifest.get(seed, {})
            run = Run(job, seed, read(job.run_folder(seed), _failure(line), personal))
            if run.computed:
                _compare(run, line)
                _put_record(run)
            runs.append(run)
    return runs


def _manifest(job: Job) -> dict[int, dict[str, Any]]:
    """Seed -> what the job's manifest says of the run."""
    path = job.folder / "runs.json"
    try:
        return {line["seed"]: dict(line) for line in (read_json(path) if path.is_file() else [])}
    except (OSError, ValueError, KeyError, TypeError):  # the records themselves tell the rest
        return {}


def _failure(line: dict[str, Any]) -> str | None:
    """The first line of the error of a run that the manifest tells to have failed."""
    return str(line["failed"]).splitlines()[0] if line.get("failed") else None


def _compare(run: Run, line: dict[str, Any]) -> None:
    """The manifest of a job has the digests of its runs as well; tell where they are those of other files."""
    if line.get("run_id") != run.reading.run_id:
        return
    digests = run.reading.end["sha256"]
    for name, expected in dict(line.get("sha256", {})).items():
        if problem := altered(name, expected, digests.get(name, "nothing")):
            run.reading.problems.append(f"runs.json and {record.END} differ: {problem}")
            run.reading.damaged.append(record.END)


def _put_record(run: Run) -> None:
    metrics, timing = run.reading.metrics, run.reading.timing
    if not len(metrics.rounds):
        return
    for selection, round in _selected(run).items():
        known = {name: metrics.at(round, name) for name in FROM_RECORD if name in metrics.columns}
        run.put(selection, known | {"round": float(round)})
    stopped = bool(run.reading.end.get("rounds_left"))
    run.put("run", costs(metrics.rounds, metrics.columns, timing.columns, run.job.scenario.target, stopped))
    accuracy = metrics.columns.get("test_accuracy")
    if accuracy is not None and not np.isnan(accuracy).all():
        best = int(np.nanargmax(accuracy))
        run.put("oracle", {"test_accuracy": float(accuracy[best]), "round": float(metrics.rounds[best])})


def _selected(run: Run) -> dict[str, int]:
    """Selection -> its round."""
    found = {"last": int(run.reading.metrics.rounds[-1])}
    if isinstance(selected := run.reading.end.get("selected_round"), int):
        return found | {"validation": selected}
    run.reading.problems.append(f"{record.END}: no selected_round")
    return found


def write(benchmark: Benchmark, scenario: str, made: Evaluated) -> list[Path]:
    """Each table of a scenario as ``<name of the table>/<scenario>.parquet``, and last the digests of all four.

    With them stand the run ids that the tables were made from.
    """
    folder = outputs.folder(benchmark)
    paths = {name: folder / name / f"{scenario}.parquet" for name in made._fields}
    digests = {}
    for (name, path), frame in zip(paths.items(), made, strict=True):
        with atomic(path) as temporary:
            frame.to_parquet(temporary, index=False)
            digests[name] = file_digest(temporary)
    rows = zip(made.ledger.arm, made.ledger.seed, made.ledger.run_id, strict=True)
    runs = {f"{arm}/seed-{seed}": run_id for arm, seed, run_id in rows}
    last = outputs.evaluated_file(benchmark, scenario)
    write_sealed(last, {"sha256": digests, "runs": runs})
    return [*paths.values(), last]


def tables(benchmark: Benchmark, scenario: str, runs: list[Run]) -> Evaluated:
    """The tables of a scenario from what its `runs` hold."""
    evaluation, curves = _evaluation(benchmark, scenario, runs), _curves(scenario, runs)
    return Evaluated(evaluation, curves, _ledger(scenario, runs), _outcomes(runs))


def _evaluation(benchmark: Benchmark, scenario: str, runs: list[Run]) -> pd.DataFrame:
    """Long form, a row per arm, seed, selection and metric."""
    filled = [run for run in runs if run.values]
    count = [len(run.values) for run in filled]
    keys = [key for run in filled for key in run.values]
    return pd.DataFrame(
        {
            "benchmark": _words([benchmark.name], [sum(count)]),
            "preset": _words([benchmark.preset], [sum(count)]),
            "scenario": _words([scenario], [sum(count)]),
            "arm": _words([run.job.arm.name for run in filled], count),
            "seed": np.repeat(np.array([run.seed for run in filled], np.int64), count),
            "run_id": _words([run.reading.run_id for run in filled], count),
            "selection": _words([selection for selection, _ in keys]),
            "metric": _words([metric for _, metric in keys]),
            "value": np.array([value for run in filled for value in run.values.values()], np.float64),
        }
    )


def _words(words: list[str], count: list[int] | None = None) -> pd.Series:
    """A column of strings, each repeated `count` times."""
    column = pd.Series(words, dtype="str")
    return column if count is None else column.repeat(count).reset_index(drop=True)


def _curves(scenario: str, runs: list[Run]) -> pd.DataFrame:
    """Long form, a row per arm, seed, round and metric."""
    parts = [part for run in runs for part in _points(run)]
    count = [len(values) for _, _, _, values in parts]
    return pd.DataFrame(
        {
            "scenario": _words([scenario], [sum(count)]),
            "arm": _words([run.job.arm.name for run, *_ in parts], count),
            "seed": np.repeat(np.array([run.seed for run, *_ in parts], np.int64), count),
            "round": np.concatenate([np.zeros(0, np.int64), *(rounds for _, rounds, _, _ in parts)]),
            "metric": pd.concat([pd.Series([], dtype="str"), *(m for _, _, m, _ in parts)], ignore_index=True),
            "value": np.concatenate([np.zeros(0), *(values for *_, values in parts)]),
        }
    )


def _points(run: Run) -> Iterator[tuple[Run, np.ndarray, pd.Series, np.ndarray]]:
    """(run, rounds, metrics, values), each [n]: the record's round by round, then those of kept models."""
    stream = run.reading.metrics
    names = list(stream.columns)
    if names:
        values = np.stack([stream.columns[name] for name in names], axis=1)
        there = np.stack([~stream.absent.get(name, np.zeros(len(values), bool)) for name in names], axis=1).ravel()
        rounds, metrics = np.repeat(stream.rounds, len(names)), pd.Series(names * len(values), dtype="str")
        yield run, rounds[there], metrics[there], values.ravel()[there]
    if run.points:
        keys = list(run.points)
        rounds = np.array([round for round, _ in keys], np.int64)
        yield run, rounds, _words([metric for _, metric in keys]), np.array(list(run.points.values()), np.float64)


def _ledger(scenario: str, runs: list[Run]) -> pd.DataFrame:
    """A row for each run that was asked for; `error` holds what is wrong with it, empty where nothing is."""
    about = [run.reading.provenance for run in runs]
    root = [run.job.project.root for run in runs]
    return pd.DataFrame(
        {
            "scenario": _words([scenario], [len(runs)]),
            "arm": _words([run.job.arm.name for run in runs]),
            "seed": np.array([run.seed for run in runs], np.int64),
            "status": _words([run.reading.status for run in runs]),
            "run_id": _words([run.reading.run_id for run in runs]),
            "error": _words(["; ".join(run.reading.problems) for run in runs]),
            "revision": _words([str(each.get("revision") or "") for each in about]),
            "dirty": pd.array([dirty(each) for each in about], dtype="boolean"),
            "folder": _words([str(run.reading.folder.relative_to(r)) for run, r in zip(runs, root, strict=True)]),
        }
    )


def _outcomes(runs: list[Run]) -> pd.DataFrame:
    """A row per arm and seed with `correct`, of the selected models that are there and global."""
    known = [run for run in runs if run.correct is not None]
    return pd.DataFrame(
        {
            "arm": _words([run.job.arm.name for run in known]),
            "seed": np.array([run.seed for run in known], np.int64),
            "correct": pd.Series([run.correct for run in known], dtype=object),
        }
    )
