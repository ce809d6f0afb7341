"""Evaluation: from records and saved models alone to the four tables of a scenario.

Selections: "last" is the model after the last round, "validation" the one of the best round on validation data,
"oracle" the best round on the global test set (known from the record, shown only as a marked extra), "run" what
belongs to the whole run. What is measured of models and runs stands in `heterobench.measures`, a module for each group;
a benchmark file chooses among the groups.

Nothing that is missing stops an evaluation. A run that is not there or failed has no values, and a whole record of
which something was removed has those that can still be had. A run that has diverged has no score of its last model; the
one selected on validation data is of a round before, where there is one with a model that is finite, and has its own.
The ledger says of every run what became of it, and what is absent. What was altered after the run had ended counts as
absent: its digest is not the one that ends the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from heterobench.data.dataset import open_dataset
from heterobench.errors import PartitionError
from heterobench.federation import sizes
from heterobench.longform import Evaluated, Run, read_runs, tables, write
from heterobench.measures import coherence
from heterobench.measures.context import EvaluatedModel, EvaluationData, right
from heterobench.measures.groups import ANY, LAST, measured
from heterobench.opening import Opened
from heterobench.partition.store import open_partition
from heterobench.records import record, saved_model
from heterobench.report import outputs
from heterobench.report.labels import baseline
from heterobench.resolve import Benchmark
from heterobench.training import classification, configure_torch, snapshot_rounds


def evaluate_scenario(benchmark: Benchmark, scenario: str, threads: int = 1) -> Evaluated:
    """All tables of a scenario, from the records of its runs and from their models."""
    return tables(benchmark, scenario, judged_runs(benchmark, scenario, threads))


def judged_runs(benchmark: Benchmark, scenario: str, threads: int = 1) -> list[Run]:
    """All runs of a scenario, with what their records and models tell."""
    runs = read_runs(benchmark, scenario)
    judge_models(benchmark, [run for run in runs if run.computed], threads)
    return runs


# models


def judge_models(benchmark: Benchmark, runs: Iterable[Run], threads: int = 1) -> None:
    """Add what the models of `runs` of one scenario tell, which are computed to their end."""
    by_seed: dict[int, list[Run]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run)
    if not by_seed:
        return
    configure_torch(threads, "cpu")
    job = next(iter(by_seed.values()))[0].job
    dataset = open_dataset(benchmark.project, job.scenario.dataset, verify=True)
    dataset = dataset.seen(job.scenario.model_file.inputs)
    task = classification(job, dataset, "cpu")
    opened, start = Opened(dataset), baseline(benchmark).name
    for seed, own in by_seed.items():  # what clients see may be an array of its own for each seed
        try:
            partition, _ = open_partition(benchmark.project, dataset.name, job.scenario.partition, seed)
        except PartitionError as error:  # the other seeds have theirs
            for run in own:
                run.reading.problems.append(str(error))
            continue
        data = EvaluationData.of(task, opened.federation(partition, seed), seed, dataset)
        first = next((_load(run, record.FINAL, task) for run in own if run.job.arm.name == start), None)
        for run in own:
            _judge(run, data, benchmark.metrics, first)
            run.put("run", {"train_examples": float(sizes(data.federation.train).sum())})


def _judge(run: Run, data: EvaluationData, chosen: tuple[str, ...], baseline: Tensor | None) -> None:
    """Add what the two models of a run tell, and those that it kept along its way."""
    last, selected = (_load(run, name, data.task) for name in (record.FINAL, record.SELECTED))
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
            judged = right(answers.test, answers.test_labels)
            run.correct = judged > 0 if np.isfinite(judged).all() else None
    personal = any(theta is not None and theta.dim() == 2 for theta in (last, selected))
    if run.job.snapshots and not personal:
        _snapshots(run, data, chosen, end)


def _snapshots(run: Run, data: EvaluationData, chosen: tuple[str, ...], end: dict[str, float]) -> None:
    """Add what is measured along the way (`end`: of the last model), and tell which models are absent."""
    last = int(run.reading.end.get("rounds", run.job.scenario.budget.rounds))  # it may have diverged before
    wanted = sorted(r for r in snapshot_rounds(run.job.scenario.budget, run.job.snapshots) if r <= last)
    kept = [round for round in wanted if run.reading.left(record.snapshot_name(round))]
    if absent := [str(round) for round in wanted if round not in kept]:
        run.reading.problems.append(f"{record.SNAPSHOTS}: no model of round {', '.join(absent)}")
    whole = [round for round in kept if run.reading.whole(record.snapshot_name(round))]
    if "coherence" not in chosen:
        return
    for round in whole:
        theta = _load(run, record.snapshot_name(round), data.task)
        if theta is None:
            continue
        known = round == run.job.scenario.budget.rounds and set(coherence.NAMES) <= end.keys()
        found = end if known else coherence.measure(EvaluatedModel(data, theta))
        run.points |= {(round, name): found[name] for name in coherence.NAMES if name in found}


def _load(run: Run, name: str, task: Any) -> Tensor | None:
    """A model of the run as it has left it; None, and a problem, where there is none that fits."""
    if not run.reading.whole(name):
        return None
    try:
        theta = saved_model.load(run.reading.folder / name, task.layout, task.device)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        problem = f"{name}: not readable ({error})"
    else:
        if theta.shape[-1] == sum(task.layout.sizes):
            return theta
        problem = f"{name}: {theta.shape[-1]} parameters, but the net has {sum(task.layout.sizes)}"
    if problem not in run.reading.problems:
        run.reading.problems.append(problem)
    return None


def write_evaluation(benchmark: Benchmark, scenario: str, threads: int = 1) -> tuple[list[Path], list[str]]:
    """`evaluate_scenario`, in files (`heterobench.longform.write`), and a line for each run that is damaged.

    The manifest of a job with such a run is removed, since it says that its runs are there; and what says that the
    benchmark is done, since Snakemake does not miss files that nothing asks for. The next ``snakemake`` then makes what
    is damaged again, and all that follows from it.
    """
    runs = judged_runs(benchmark, scenario, threads)
    paths = write(benchmark, scenario, tables(benchmark, scenario, runs))
    damaged = [run for run in runs if run.reading.damaged]
    for run in damaged:
        for path in (run.job.folder / "runs.json", outputs.tracked_file(benchmark)):
            path.unlink(missing_ok=True)
    return paths, [f"{_shown(run)}: {'; '.join(run.reading.problems)}. What to do: {_again(run)}" for run in damaged]


def _shown(run: Run) -> Path:
    return run.reading.folder.relative_to(run.job.project.root)


def _again(run: Run) -> str:
    job = run.job
    return (
        f"run snakemake again, or heterobench train --benchmark {job.benchmark} --preset {job.preset} "
        f"--scenario {job.scenario.name} --algorithm {job.arm.name}; what is damaged is made again"
    )
