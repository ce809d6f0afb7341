"""Evaluation: from records and saved models alone to the four tables of a scenario.

Selections: "last" is the model after the last round, "validation" the one of the best round on validation data,
"oracle" the best round on the global test set (known from the record, shown only as a marked extra), "run" what
belongs to the whole run. What is measured of models and runs stands in `heterobench.measures`, a module for each group;
a benchmark file chooses among the groups.

Nothing that is missing stops an evaluation. A run that is not there or failed has no values, and a whole record of
which something was removed has those that can still be had; the ledger says of every run what became of it, and what
is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from torch import Tensor

from heterobench.data.dataset import open_dataset
from heterobench.federation import sizes
from heterobench.files import atomic, read_json
from heterobench.measures import coherence
from heterobench.measures.context import EvaluatedModel, EvaluationData, right
from heterobench.measures.costs import costs
from heterobench.measures.groups import ANY, LAST, measured
from heterobench.measures.reading import FINISHED, Reading, read
from heterobench.opening import Opened
from heterobench.partition.store import open_partition
from heterobench.records import record, saved_model
from heterobench.report.labels import baseline, is_personal
from heterobench.resolve import Benchmark, Job
from heterobench.training import classification, configure_torch, snapshot_rounds

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

    `correct` bool [n]: which examples of the global test set the selected model has right.
    """

    job: Job
    seed: int
    reading: Reading
    values: dict[tuple[str, str], float] = field(default_factory=dict)
    points: dict[tuple[int, str], float] = field(default_factory=dict)
    correct: np.ndarray | None = None

    @property
    def finished(self) -> bool:
        return self.reading.status == FINISHED

    def put(self, selection: str, found: dict[str, float]) -> None:
        self.values |= {(selection, metric): value for metric, value in found.items()}


def evaluate_scenario(benchmark: Benchmark, scenario: str, threads: int = 1) -> Evaluated:
    """All tables of a scenario, from the records of its runs and from their models."""
    runs = read_runs(benchmark, scenario)
    judge_models(benchmark, [run for run in runs if run.finished], threads)
    return _tables(benchmark, scenario, runs)


def evaluate_records(benchmark: Benchmark, scenario: str) -> Evaluated:
    """`evaluate_scenario` without what only models tell: costs, selected rounds, curves, ledger."""
    return _tables(benchmark, scenario, read_runs(benchmark, scenario))


def read_runs(benchmark: Benchmark, scenario: str) -> list[Run]:
    """All runs that the benchmark asks for, arm by arm, with what their records alone tell."""
    runs = []
    for job in (benchmark.job(scenario, arm.name) for arm in benchmark.arms):
        failures, personal = _failures(job), is_personal(benchmark, job.arm)
        for seed in benchmark.seeds:
            run = Run(job, seed, read(job.run_folder(seed), failures.get(seed), personal))
            if run.finished:
                _put_record(run)
            runs.append(run)
    return runs


def _failures(job: Job) -> dict[int, str]:
    """Seed -> first line of the error, of runs that the job's manifest tells to have failed."""
    path = job.folder / "runs.json"
    try:
        lines = read_json(path) if path.is_file() else []
        return {line["seed"]: line["failed"].splitlines()[0] for line in lines if line.get("failed")}
    except (ValueError, AttributeError, KeyError, TypeError):  # the records themselves tell the rest
        return {}


def _put_record(run: Run) -> None:
    metrics, timing = run.reading.metrics, run.reading.timing
    if not len(metrics.rounds):
        return
    for selection, round in _selected(run).items():
        known = {name: metrics.at(round, name) for name in FROM_RECORD if name in metrics.columns}
        run.put(selection, known | {"round": float(round)})
    run.put("run", costs(metrics.rounds, metrics.columns, timing.columns, run.job.scenario.target))
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


# models


def judge_models(benchmark: Benchmark, runs: Iterable[Run], threads: int = 1) -> None:
    """Add what the models of finished `runs` of one scenario tell."""
    by_seed: dict[int, list[Run]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run)
    if not by_seed:
        return
    configure_torch(threads, "cpu")
    job = next(iter(by_seed.values()))[0].job
    dataset = open_dataset(benchmark.project, job.scenario.dataset)
    task = classification(job, dataset, "cpu")
    opened, start = Opened(dataset), baseline(benchmark).name
    for seed, own in by_seed.items():  # what clients see may be an array of its own for each seed
        partition, _ = open_partition(benchmark.project, dataset.name, job.scenario.partition, seed)
        data = EvaluationData.of(task, opened.federation(partition, seed), seed, dataset)
        first = next((_load(run, record.FINAL, task, []) for run in own if run.job.arm.name == start), None)
        for run in own:
            _judge(run, data, benchmark.metrics, first)
            run.put("run", {"train_examples": float(sizes(data.federation.train).sum())})


def _judge(run: Run, data: EvaluationData, chosen: tuple[str, ...], baseline: Tensor | None) -> None:
    """Add what the two models of a run tell, and those that it kept along its way."""
    last, selected = (_load(run, name, data.task, run.reading.problems) for name in (record.FINAL, record.SELECTED))
    found, end = {}, {}
    if last is not None:
        model = EvaluatedModel(data, last, baseline)
        found, end = measured(model, chosen, ANY), measured(model, chosen, LAST)
        run.put("last", found | end)
    if selected is not None:
        same = last is not None and torch.equal(last, selected)
        model = model if same else EvaluatedModel(data, selected)
        run.put("validation", found if same else measured(model, chosen, ANY))
        if not model.personal:
            (answers,) = model.answers
            run.correct = right(answers.test, answers.test_labels)
    personal = any(theta is not None and theta.dim() == 2 for theta in (last, selected))
    if run.job.snapshots and not personal:
        _snapshots(run, data, chosen, end)


def _snapshots(run: Run, data: EvaluationData, chosen: tuple[str, ...], end: dict[str, float]) -> None:
    """Add what is measured along the way (`end`: of the last model), and tell which models are absent."""
    kept = record.snapshots(run.reading.folder)
    if absent := snapshot_rounds(run.job.scenario.budget, run.job.snapshots) - kept.keys():
        rounds = ", ".join(str(round) for round in sorted(absent))
        run.reading.problems.append(f"{record.SNAPSHOTS}: no model of round {rounds}")
    if "coherence" not in chosen:
        return
    for round, path in kept.items():
        theta = _load(run, str(path.relative_to(run.reading.folder)), data.task, run.reading.problems)
        if theta is None:
            continue
        known = round == run.job.scenario.budget.rounds and set(coherence.NAMES) <= end.keys()
        found = end if known else coherence.measure(EvaluatedModel(data, theta))
        run.points |= {(round, name): found[name] for name in coherence.NAMES if name in found}


def _load(run: Run, name: str, task: Any, problems: list[str]) -> Tensor | None:
    """A model of the run; None, and a problem, where there is none that fits."""
    try:
        theta = saved_model.load(run.reading.folder / name, task.layout, task.device)
    except FileNotFoundError:
        problems.append(f"{name} is missing")
        return None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        problems.append(f"{name}: not readable ({error})")
        return None
    if theta.shape[-1] != sum(task.layout.sizes):
        problems.append(f"{name}: {theta.shape[-1]} parameters, but the net has {sum(task.layout.sizes)}")
        return None
    return theta


# tables


def _tables(benchmark: Benchmark, scenario: str, runs: list[Run]) -> Evaluated:
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
            "dirty": np.array([bool(each.get("dirty")) for each in about]),
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


def write_evaluation(benchmark: Benchmark, scenario: str, threads: int = 1) -> list[Path]:
    """`evaluate_scenario`, each table as ``<name of the table>/<scenario>.parquet``."""
    folder = benchmark.project.benchmark(benchmark.name, benchmark.preset)
    made = evaluate_scenario(benchmark, scenario, threads)
    paths = [folder / name / f"{scenario}.parquet" for name in made._fields]
    for path, frame in zip(paths, made, strict=True):
        with atomic(path) as temporary:
            frame.to_parquet(temporary, index=False)
    return paths
