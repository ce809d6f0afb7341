"""Tuning: the trials of every method, the rule that chooses among them, and the job that runs with what was chosen.

The rules are those of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021, arXiv 2007.01434), with clients for domains:

validation   the highest validation accuracy, each run at its own best round; of equal ones the lower validation loss
             there, then the earlier trial. The test set has no say.
oracle       the highest test accuracy after the last round, no round chosen. Nobody could do this: an upper bound.

Accuracies are means over the seeds of the trials. A trial with a run that failed or diverged has no score and is below
all others: it is not chosen for what it had reached before.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from heterobench.config.schema import Config, Tuning
from heterobench.errors import MachineError, RunError, log_failure
from heterobench.files import digest, read_sealed, write_sealed
from heterobench.records import record
from heterobench.resolve import Benchmark, Job

log = logging.getLogger(__name__)
CHOSEN = "chosen.json"


class Score(NamedTuple):
    """What a trial has reached: the larger `value` is better; of equal ones the smaller `loss`."""

    value: float
    loss: float = math.inf

    def key(self, trial: int) -> tuple[float, float, int]:
        """Sorts trials from best to worst."""
        value = -self.value if math.isfinite(self.value) else math.inf
        return value, self.loss if math.isfinite(self.loss) else math.inf, trial


def at_best_round(rounds: Iterable[dict[str, Any]], until: float = math.inf) -> Score:
    """Validation accuracy at the best of the evaluated rounds up to `until`, and the validation loss there.

    The best round is the one whose model a run keeps: the earliest with the highest accuracy. A run whose last model
    there has diverged has no score.
    """
    seen = [row["metrics"] for row in rounds if row["round"] <= until]
    accuracies = [metrics.get("validation_accuracy", math.nan) for metrics in seen]
    finite = [value for value in accuracies if math.isfinite(value)]
    if not finite or not math.isfinite(accuracies[-1]):
        return Score(math.nan)
    best = seen[accuracies.index(max(finite))]
    return Score(best["validation_accuracy"], best.get("validation_loss", math.inf))


def mean(scores: Sequence[Score]) -> Score:
    return Score(*(math.fsum(column) / len(scores) for column in zip(*scores, strict=True)))


def survivors(scores: Sequence[Score], share: float) -> list[int]:
    """Trials that go on: the best `share` of them, rounded up, in the order of their numbers."""
    order = sorted(range(len(scores)), key=lambda trial: scores[trial].key(trial))
    return sorted(order[: math.ceil(share * len(scores))])


def best(scores: Sequence[Score], among: Iterable[int]) -> int:
    """Number of the best trial. Raises RunError where none of them has a score."""
    first = min(among, key=lambda trial: scores[trial].key(trial), default=None)
    if first is None or not math.isfinite(scores[first].value):
        raise RunError("no trial has a score: all of them failed, or there are no validation examples to choose by")
    return first


def cut(tuning: Tuning, rounds: int) -> int | None:
    """The round after which bad trials stop; None where all of them are run to the end."""
    if tuning.early_stopping is None or tuning.trials == 1:
        return None
    at = max(1, math.floor(tuning.early_stopping.after * rounds))
    return at if at < rounds else None


def identity(benchmark: Benchmark, jobs: Sequence[Job]) -> str:
    """Of what was tuned and how, so that a choice made under other parameters is not taken for this one."""
    return digest({"tuning": benchmark.tuning.model_dump(), "trials": [job.configuration() for job in jobs]})[:16]


def chosen_file(benchmark: Benchmark, scenario: str, arm: str) -> Path:
    return benchmark.project.tuning(benchmark.name, benchmark.preset, scenario, arm) / CHOSEN


def final_job(benchmark: Benchmark, scenario: str, arm: str) -> Job:
    """The job of the table's own runs: in a tuned table with the chosen setting.

    Raises RunError where it has not been chosen, or was chosen among other trials than the parameter files ask for.
    """
    job = benchmark.job(scenario, arm)
    if benchmark.tuning is None:
        return job
    file = chosen_file(benchmark, scenario, arm)
    shown = file.relative_to(benchmark.project.root)
    advice = (
        f"heterobench tune --benchmark {benchmark.name} --preset {benchmark.preset} "
        f"--scenario {scenario} --algorithm {arm}"
    )
    if not file.is_file():
        raise RunError(f"{shown}: no such file; {benchmark.name} is tuned, so first: {advice}")
    try:
        found = read_sealed(file)
    except RunError as error:
        raise RunError(f"{file.parent.relative_to(benchmark.project.root)}/{error}. What to do: {advice}") from None
    if found["identity"] != identity(benchmark, benchmark.trials(scenario, arm)):
        raise RunError(f"{shown}: chosen under other parameters than those of now; again: {advice}")
    return replace(job, tuned=found["hyperparameters"])


def tune(benchmark: Benchmark, scenario: str, arm: str, config: Config) -> Path:
    """Run all trials of an arm in a scenario and write ``chosen.json``; what was run before is not run again.

    A trial that fails is told of in the file and cannot be chosen. Raises RunError where all fail.
    """
    from heterobench import training  # torch takes its time, and the choice is read without it
    from heterobench.executor import distributed

    if benchmark.tuning is None:
        raise RunError(f"params/benchmarks/{benchmark.name}.yaml: presets.{benchmark.preset}: no `tuning`")
    tuning, jobs = benchmark.tuning, benchmark.trials(scenario, arm)
    at = cut(tuning, jobs[0].scenario.budget.rounds)
    failed: dict[int, str] = {}
    going = list(range(len(jobs)))
    with training.workplace(jobs[0], config) as place:

        def advance(until: int | None) -> None:
            for trial in [trial for trial in going if trial not in failed]:
                for seed in tuning.seeds:
                    try:
                        training.run(jobs[trial], seed, config, *place, until)
                    except MachineError:
                        raise
                    except Exception as error:
                        if distributed.started_by_torchrun():
                            raise
                        log_failure(log, f"{arm} on {scenario}, trial {trial}, seed {seed} failed", error)
                        failed[trial] = f"{type(error).__name__}: {error}"
                        break

        if at is not None:
            advance(at)
            going = distributed.agreed(survivors(_scores(jobs, tuning, failed, at), tuning.early_stopping.keep))
        advance(None)
        whole = [trial for trial in going if trial not in failed]
        stopped = [trial for trial in range(len(jobs)) if trial not in (*going, *failed)]
        path = chosen_file(benchmark, scenario, arm)
        if distributed.rank() == 0:
            _stop([jobs[trial] for trial in stopped], tuning.seeds)
            test = [_test_accuracies(job, tuning.seeds, *place) if n in whole else [] for n, job in enumerate(jobs)]
            write_sealed(path, record.encode(_answer(benchmark, jobs, whole, failed, test)))
    return path


def _rounds(job: Job, seed: int) -> list[dict[str, Any]]:
    return record.Record(job.run_folder(seed)).rounds


def _score(job: Job, seed: int, until: float) -> Score:
    run = record.Record(job.run_folder(seed))
    if (end := run.end) and end["status"] == record.DIVERGED:
        return Score(math.nan)
    return at_best_round(run.rounds, until)


def _scores(jobs: Sequence[Job], tuning: Tuning, failed: dict[int, str], until: float = math.inf) -> list[Score]:
    """Validation score of each trial, up to a round."""
    return [
        Score(math.nan) if n in failed else mean([_score(job, seed, until) for seed in tuning.seeds])
        for n, job in enumerate(jobs)
    ]


def _test_accuracies(job: Job, seeds: Sequence[int], dataset, task, device) -> list[float]:
    """Accuracy on the global test set after the last round, by seed; of personal models the mean over clients."""
    found = []
    for seed in seeds:
        accuracy = _rounds(job, seed)[-1]["metrics"].get("test_accuracy")
        if accuracy is None:
            from heterobench.opening import Opened
            from heterobench.partition.store import open_partition
            from heterobench.records import saved_model

            partition, _ = open_partition(job.project, dataset.name, job.scenario.partition, seed)
            test = Opened(dataset, device).federation(partition, seed).global_test
            models = saved_model.load(job.run_folder(seed) / record.FINAL, task.layout, task.device)
            means = [float(task.scores(model, test.chunks())["accuracy"].double().mean()) for model in models]
            accuracy = math.fsum(means) / len(means)
        found.append(accuracy)
    return found


def _stop(jobs: Iterable[Job], seeds: Sequence[int]) -> None:
    """Mark the runs of trials that were stopped early as ended. Their checkpoints stay: they could still go on."""
    for job in jobs:
        for seed in seeds:
            folder = job.run_folder(seed)
            if record.Record(folder).computed:  # it has diverged, and has ended by itself
                continue
            rounds = [row["round"] for row in _rounds(job, seed)]
            record.seal(folder, "stopped", rounds=max(rounds))


def _answer(
    benchmark: Benchmark, jobs: Sequence[Job], whole: list[int], failed: dict[int, str], test: list[list[float]]
) -> dict[str, Any]:
    tuning = benchmark.tuning
    validation = _scores(jobs, tuning, failed)
    oracle = [Score(math.fsum(values) / len(values)) if values else Score(math.nan) for values in test]
    ruling = validation if tuning.rule == "validation" else oracle
    chosen = best(ruling, whole)
    trials = []
    for number, job in enumerate(jobs):
        status = "failed" if number in failed else "finished" if number in whole else "stopped"
        values = job.hyperparameters.model_dump()
        about = {
            "trial": number,
            "hyperparameters": {name: values[name] for name in sorted(job.arm.search)},
            "score": ruling[number].value,
            "validation": validation[number].value,
            "test": oracle[number].value,
            "status": status,
        }
        if number in failed:
            trials.append(about | {"rounds": 0, "run_ids": {}, "error": failed[number]})
            continue
        runs = {seed: record.Record(job.run_folder(seed)) for seed in tuning.seeds}
        if any(run.end["status"] == record.DIVERGED for run in runs.values()):
            about["status"] = record.DIVERGED
        ids = {str(seed): run.config["run_id"] for seed, run in runs.items()}
        trials.append(about | {"rounds": max(run.end["rounds"] for run in runs.values()), "run_ids": ids})
    return {
        "identity": identity(benchmark, jobs),
        "rule": tuning.rule,
        "budget": tuning.model_dump(exclude={"rule"}),
        "trials": trials,
        "chosen": chosen,
        "oracle": best(oracle, whole),
        "hyperparameters": dict(sorted(jobs[chosen].tuned.items())),
    }
