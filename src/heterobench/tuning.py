"""Tuning: the trials of every method, the rule that chooses among them, and the job that runs with what was chosen.

The rules are those of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021, arXiv 2007.01434), with clients for domains:

validation   the highest validation accuracy, each run at its own best round; of equal ones the lower validation loss
             there, then the earlier trial. The test set has no say.
oracle       the highest test accuracy after the last round, no round chosen. Nobody could do this: an upper bound.

Accuracies are means over the seeds of the trials. A trial with a run that failed or diverged has no score and is below
all others: it is not chosen for what it had reached before. Where the settings come from, design by design, says
`heterobench.search`.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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


def best(scores: Mapping[int, Score] | Sequence[Score], among: Iterable[int]) -> int:
    """Number of the best trial. Raises RunError where none of them has a score."""
    first = min(among, key=lambda trial: scores[trial].key(trial), default=None)
    if first is None or not math.isfinite(scores[first].value):
        raise RunError("no trial has a score: all of them failed, or there are no validation examples to choose by")
    return first


def cut(tuning: Tuning, rounds: int) -> int | None:
    """The round after which bad trials stop; None where all of them are run to the end."""
    if tuning.early_stopping is None:
        return None
    at = max(1, math.floor(tuning.early_stopping.after * rounds))
    return at if at < rounds else None


def protocol(benchmark: Benchmark, scenario: str, arm: str) -> dict[str, Any]:
    """What is tuned and how, as plain JSON: all that is known before anything runs, and decides the rest."""
    jobs = benchmark.trials(scenario, arm)
    spaces = {name: list(space) for name, space in jobs[0].arm.search.items()}  # of a range its keys and values
    return {
        "tuning": benchmark.tuning.model_dump(),
        "trials": [job.configuration() for job in jobs],
        "search": spaces if benchmark.tuning.design == "optuna" else {},  # other designs have drawn their values
    }


def identity(benchmark: Benchmark, scenario: str, arm: str) -> str:
    """Of the protocol, so that a choice made under other parameters is not taken for this one."""
    return digest(protocol(benchmark, scenario, arm))[:16]


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
    if found["identity"] != identity(benchmark, scenario, arm):
        raise RunError(f"{shown}: chosen under other parameters than those of now; again: {advice}")
    return replace(job, tuned=found["hyperparameters"])


@dataclass
class Trials:
    """The trials of an arm in a scenario so far, by their numbers.

    What they have reached stands in the records of their runs alone: a job that was killed does the same again, and
    finished runs are not run again.
    """

    benchmark: Benchmark
    job: Job
    config: Config
    place: tuple  # data set, task and device: `heterobench.training.workplace`
    jobs: list[Job] = field(default_factory=list)
    stages: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)

    @property
    def tuning(self) -> Tuning:
        return self.benchmark.tuning

    @property
    def whole(self) -> list[int]:
        """Those that were run to their end."""
        return [trial for trial in range(len(self.jobs)) if trial not in self.stopped and trial not in self.failed]

    def add(self, setting: dict[str, Any], stage: int) -> int:
        """A new trial; its number."""
        job = self.benchmark.trial(self.job, len(self.jobs), setting)
        job.check()
        self.jobs.append(job)
        self.stages.append(stage)
        return len(self.jobs) - 1

    def advance(self, trial: int, until: int | None = None) -> None:
        """Run a trial for all seeds, to its end or to round `until`; what fails is remembered."""
        from heterobench import training  # torch takes its time, and the choice is read without it
        from heterobench.executor import distributed

        for seed in self.tuning.seeds if trial not in self.failed else ():
            try:
                training.run(self.jobs[trial], seed, self.config, *self.place, until)
            except MachineError:
                raise
            except Exception as error:
                if distributed.started_by_torchrun():
                    raise
                what = f"{self.job.arm.name} on {self.job.scenario.name}, trial {trial}, seed {seed} failed"
                log_failure(log, what, error)
                self.failed[trial] = f"{type(error).__name__}: {error}"
                break

    def validation(self, trial: int, until: float = math.inf) -> Score:
        """Validation score, up to a round."""
        if trial in self.failed:
            return Score(math.nan)
        seeds = self.tuning.seeds
        return mean([_score(self.jobs[trial], seed, until) for seed in seeds])

    def evaluated(self, trial: int) -> list[int]:
        """Rounds of which there are scores."""
        return [row["round"] for row in _rounds(self.jobs[trial], self.tuning.seeds[0])]

    def oracle(self, trial: int) -> Score:
        """Test accuracy after the last round, of a trial that was run to its end."""
        if trial not in self.whole:
            return Score(math.nan)
        found = _test_accuracies(self.jobs[trial], self.tuning.seeds, *self.place)
        return Score(math.fsum(found) / len(found))

    def ruling(self, trial: int) -> Score:
        """The score that the rule of the table looks at."""
        return self.validation(trial) if self.tuning.rule == "validation" else self.oracle(trial)

    def best(self, scores: Mapping[int, Score]) -> int:
        """The best of those that were run to their end. Raises RunError, with a failure, where there is none."""
        try:
            return best(scores, self.whole)
        except RunError as error:
            first = next((f"; trial {trial}: {why}" for trial, why in sorted(self.failed.items())), "")
            raise RunError(f"{self.job.arm.name} on {self.job.scenario.name}: {error}{first}") from None


def tune(benchmark: Benchmark, scenario: str, arm: str, config: Config) -> Path:
    """Run all trials of an arm in a scenario and write ``chosen.json``; what was run before is not run again.

    A trial that fails is told of in the file and cannot be chosen. Raises RunError where all fail.
    """
    from heterobench import training
    from heterobench.executor import distributed

    if benchmark.tuning is None:
        raise RunError(f"params/benchmarks/{benchmark.name}.yaml: presets.{benchmark.preset}: no `tuning`")
    job = benchmark.job(scenario, arm)
    with training.workplace(job, config) as place:
        trials = Trials(benchmark, job, config, place)
        if benchmark.tuning.design == "optuna":
            from heterobench import study  # Optuna is imported where it was asked for

            study.explore(trials)
        elif benchmark.tuning.design == "random":
            _stage(trials, [each.tuned for each in benchmark.trials(scenario, arm)], 1)
        else:
            _two_stages(trials)
        path = chosen_file(benchmark, scenario, arm)
        if distributed.rank() == 0:
            _stop([trials.jobs[trial] for trial in sorted(trials.stopped)], benchmark.tuning.seeds)
            write_sealed(path, record.encode(_answer(trials, identity(benchmark, scenario, arm))))
    return path


def _two_stages(trials: Trials) -> None:
    from heterobench.executor.distributed import computed

    _stage(trials, trials.benchmark.stage_one(trials.job), 1)
    base = computed(lambda: trials.best({trial: trials.ruling(trial) for trial in trials.whole}))
    _stage(trials, trials.benchmark.stage_two(trials.job, trials.jobs[base].tuned), 2, [base])


def _stage(trials: Trials, settings: Sequence[dict[str, Any]], stage: int, beside: Sequence[int] = ()) -> None:
    """Run the trials of a stage; with early stopping the worse ones, those `beside` them compared as well, stop."""
    from heterobench.executor.distributed import computed

    going = [trials.add(setting, stage) for setting in settings]
    at = cut(trials.tuning, trials.job.scenario.budget.rounds)
    if at is not None and len(going) + len(beside) > 1:
        for trial in going:
            trials.advance(trial, at)
        compared, keep = [*beside, *going], trials.tuning.early_stopping.keep
        kept = computed(lambda: survivors([trials.validation(trial, at) for trial in compared], keep))
        kept = [compared[place] for place in kept]
        trials.stopped |= {trial for trial in going if trial not in kept and trial not in trials.failed}
        going = [trial for trial in going if trial in kept]
    for trial in going:
        trials.advance(trial)


def _rounds(job: Job, seed: int) -> list[dict[str, Any]]:
    return record.Record(job.run_folder(seed)).rounds


def _score(job: Job, seed: int, until: float) -> Score:
    """What a run had reached by round `until`, whether or not it went on from there: so its rounds alone tell."""
    run = record.Record(job.run_folder(seed))
    rounds = [row for row in run.rounds if row["round"] <= until]
    if rounds and math.isnan(rounds[-1]["metrics"].get("validation_accuracy", math.nan)):
        return Score(math.nan)
    if until == math.inf and (end := run.end) and end["status"] == record.DIVERGED:
        return Score(math.nan)
    return at_best_round(rounds)


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


def _answer(trials: Trials, identity: str) -> dict[str, Any]:
    tuning, whole = trials.tuning, trials.whole
    validation = {trial: trials.validation(trial) for trial in range(len(trials.jobs))}
    oracle = {trial: trials.oracle(trial) for trial in range(len(trials.jobs))}
    ruling = validation if tuning.rule == "validation" else oracle
    chosen = trials.best(ruling)
    told = []
    for number, job in enumerate(trials.jobs):
        values = job.hyperparameters.model_dump()
        about = {
            "trial": number,
            "stage": trials.stages[number],
            "hyperparameters": {name: values[name] for name in sorted(job.arm.search)},
            "score": ruling[number].value,
            "validation": validation[number].value,
            "test": oracle[number].value,
            "status": "failed" if number in trials.failed else "finished" if number in whole else "stopped",
        }
        if number in trials.failed:
            told.append(about | {"rounds": 0, "run_ids": {}, "error": trials.failed[number]})
            continue
        runs = {seed: record.Record(job.run_folder(seed)) for seed in tuning.seeds}
        if any(run.end["status"] == record.DIVERGED for run in runs.values()):
            about["status"] = record.DIVERGED
        ids = {str(seed): run.config["run_id"] for seed, run in runs.items()}
        told.append(about | {"rounds": max(run.end["rounds"] for run in runs.values()), "run_ids": ids})
    return {
        "identity": identity,
        "rule": tuning.rule,
        "design": tuning.design,
        **({"optuna": importlib.metadata.version("optuna")} if tuning.design == "optuna" else {}),
        "budget": tuning.model_dump(exclude={"rule", "design"}),
        "trials": told,
        "chosen": chosen,
        "oracle": trials.best(oracle),
        "hyperparameters": dict(sorted(trials.jobs[chosen].tuned.items())),
    }
