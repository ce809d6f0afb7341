"""Evaluation: from records and saved models alone to one long table per scenario.

Selections: "last" is the model after the last round, "validation" the one of the best round on validation data,
"oracle" the best round on the global test set (known from the record, shown only as a marked extra), "run" what
belongs to the whole run.

Metrics of one data set or partition only, beside those of every run: ``held_out_accuracy`` and
``held_out_accuracy_worst`` where clients are held out; ``stage_accuracy_<k>`` of the stages of a stream;
``test_accuracy_<attribute>_<value>`` of the domains of the data (`heterobench.opening`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from heterobench import personal
from heterobench.data.dataset import open_dataset
from heterobench.federation import Federation, joined, sizes
from heterobench.files import atomic
from heterobench.metrics.clients import held_out, spread
from heterobench.metrics.target import cost_at, first_reached
from heterobench.opening import Opened
from heterobench.partition.store import open_partition
from heterobench.records import record, saved_model
from heterobench.resolve import Benchmark, Job
from heterobench.task import Task
from heterobench.training import classification, configure_torch


def test_metrics(task: Task, federation: Federation, theta: Tensor) -> dict[str, float]:
    """Scores of theta [P], or of personal models [clients, P], on the global test set and on clients' own tests.

    For personal models the global scores are means over the clients' models. A client that is held out has no model
    of its own, so that there those metrics are NaN; in no case does it count among the clients.
    """
    count = sizes(federation.test)
    held = np.zeros(len(count), bool) if federation.held_out is None else federation.held_out
    if theta.dim() == 2:
        own = (theta[client] for client in np.flatnonzero(~held))
        everywhere = [task.scores(model, federation.global_test.chunks()) for model in own]
        accuracy = personal.scores(task, federation.pool, theta, federation.test)["accuracy"]
        test = {name: torch.stack([scores[name] for scores in everywhere]) for name in everywhere[0]}
    else:
        test = task.scores(theta, federation.global_test.chunks())
        accuracy = task.scores(theta, federation.pool.chunks(joined(federation.test)))["accuracy"]
    accuracy = accuracy.cpu().numpy()
    result = {f"test_{name}": float(values.double().mean()) for name, values in test.items()}
    for name, rows in federation.slices.items():
        result[name] = float(test["accuracy"][..., torch.from_numpy(rows)].double().mean())
    if held.any():
        result |= held_out(accuracy, count, held, judged=theta.dim() == 1)
    present = np.repeat(~held, count)
    spreads = spread(accuracy[present], np.where(held, 0, count))
    return result | {f"client_accuracy_{name}": value for name, value in spreads.items()}


def model_rows(task: Task, federation: Federation, run: record.Record) -> Iterator[tuple[str, str, float]]:
    """(selection, metric, value) of the two saved models."""
    by_round = {row["round"]: row["metrics"] for row in run.rounds}
    last = max(by_round)
    for selection, name, at in (
        ("last", record.FINAL, last),
        ("validation", record.SELECTED, run.end["selected_round"]),
    ):
        metrics = test_metrics(task, federation, saved_model.load(run.folder / name, task.layout, task.device))
        metrics |= {
            "validation_accuracy": by_round.get(at, {}).get("validation_accuracy", math.nan),
            "round": at,
        }
        yield from ((selection, metric, float(value)) for metric, value in metrics.items())


def run_rows(run: record.Record, target: float | None, train_examples: int) -> Iterator[tuple[str, str, float]]:
    """(selection, metric, value) of what the record alone tells."""
    rounds, seconds = run.rounds, [row["seconds"] for row in run.timing]
    accuracy = [row["metrics"].get("test_accuracy", math.nan) for row in rounds]
    reached = first_reached(accuracy, target)
    last = rounds[-1]
    values = {
        "bytes_up": last["metrics"]["bytes_up"],
        "bytes_down": last["metrics"]["bytes_down"],
        "seconds": seconds[-1],
        "rounds": last["round"],
        "rounds_to_target": cost_at(reached, [row["round"] for row in rounds]),
        "seconds_to_target": cost_at(reached, seconds),
        "train_examples": train_examples,
    }
    yield from (("run", metric, float(value)) for metric, value in values.items())
    if not all(math.isnan(value) for value in accuracy):
        best = int(np.nanargmax(accuracy))
        yield "oracle", "test_accuracy", accuracy[best]
        yield "oracle", "round", float(rounds[best]["round"])


def _run(job: Job, seed: int) -> record.Record:
    return record.Record(job.project.run(job.benchmark, job.preset, job.scenario.name, job.arm.name, seed))


def evaluate_scenario(benchmark: Benchmark, scenario: str, threads: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The evaluation and the learning curves of all arms and seeds of a scenario, both in long form.

    Evaluation: benchmark, preset, scenario, arm, seed, run_id, selection, metric, value. Curves: scenario, arm,
    seed, round, metric, value.
    """
    configure_torch(threads, "cpu")
    jobs = [benchmark.job(scenario, arm.name) for arm in benchmark.arms]
    dataset = open_dataset(benchmark.project, jobs[0].scenario.dataset)
    task = classification(jobs[0], dataset, "cpu")
    opened = Opened(dataset)
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for seed in benchmark.seeds:  # the outer loop: what clients see may be an array of its own for each seed
        runs = [(job, run) for job in jobs if (run := _run(job, seed)).finished]
        if not runs:
            continue
        partition, _ = open_partition(benchmark.project, dataset.name, jobs[0].scenario.partition, seed)
        federation = opened.federation(partition, seed)
        train_examples = int(sizes(federation.train).sum())
        for job, run in runs:
            key = {"scenario": scenario, "arm": job.arm.name, "seed": seed}
            found = [
                *model_rows(task, federation, run),
                *run_rows(run, job.scenario.target, train_examples),
            ]
            origin = {"benchmark": benchmark.name, "preset": benchmark.preset, "run_id": run.config["run_id"]}
            rows += [origin | key | {"selection": s, "metric": m, "value": v} for s, m, v in found]
            curves += [
                key | {"round": row["round"], "metric": m, "value": float(v)}
                for row in run.rounds
                for m, v in row["metrics"].items()
            ]
    place = {job.arm.name: number for number, job in enumerate(jobs)}
    for table in (rows, curves):
        table.sort(key=lambda row: place[row["arm"]])
    columns = ["benchmark", "preset", "scenario", "arm", "seed", "run_id", "selection", "metric", "value"]
    return pd.DataFrame(rows)[columns], pd.DataFrame(curves)


def write_evaluation(benchmark: Benchmark, scenario: str, threads: int = 1) -> list[Path]:
    """`evaluate_scenario`, written to ``evaluation/<scenario>.parquet`` and ``curves/<scenario>.parquet``."""
    folder = benchmark.project.benchmark(benchmark.name, benchmark.preset)
    paths = [folder / kind / f"{scenario}.parquet" for kind in ("evaluation", "curves")]
    for path, frame in zip(paths, evaluate_scenario(benchmark, scenario, threads), strict=True):
        with atomic(path) as temporary:
            frame.to_parquet(temporary, index=False)
    return paths
