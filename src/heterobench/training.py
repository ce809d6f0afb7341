"""Training: a job's runs, one after the other, each leaving its record and its models."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heterobench import energy, models, personal, registry
from heterobench import executor as executors
from heterobench.algorithm import Algorithm
from heterobench.config.schema import Budget, Config
from heterobench.data.dataset import Dataset, open_dataset
from heterobench.device import chosen
from heterobench.engine import checkpoint
from heterobench.engine.synchronous import RunState, Setting, advance, begin, costs
from heterobench.errors import MachineError, RunError, log_failure
from heterobench.executor import distributed
from heterobench.federation import Federation
from heterobench.files import locked, write_json
from heterobench.memory import keep_freed_memory
from heterobench.opening import Opened
from heterobench.partition.store import open_partition
from heterobench.records import record, saved_model
from heterobench.records.provenance import provenance, training_code
from heterobench.records.recorder import STREAMS, Recorder
from heterobench.records.succession import KEEP
from heterobench.resolve import Job, identity
from heterobench.task import Classification, Task

log = logging.getLogger(__name__)


def configure_torch(threads: int, device: str) -> None:
    """The same bits every time: a fixed number of threads; on a GPU deterministic kernels and no reduced precision.

    The CPU kernels of our nets are deterministic as they are, and asking torch for it would import its compiler.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    if device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs a kernel a tensor
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def classification(job: Job, dataset: Dataset, device: str, precision: str = "float32") -> Classification:
    """The task of a job: its model on its data set's shape and classes."""
    file, where = job.scenario.model_file, f"params/models/{job.scenario.model}.yaml"
    return Classification(lambda: models.build(file, dataset.shape, len(dataset.classes), where), device, precision)


def thetas(setting: Setting, state: RunState, clients: int) -> Tensor:
    """What is evaluated and saved: the global model [P], or the personal ones [clients, P]."""
    algorithm = setting.algorithm
    if "personalised" in algorithm.tags:
        return torch.stack([algorithm.personal(state.server, state.client(i)) for i in range(clients)])
    return algorithm.model(state.server)


def evaluate(task: Task, federation: Federation, theta: Tensor) -> dict[str, float]:
    """Scores after a round: mean over all clients' validation examples, and over the global test set.

    In a stream both cover all stages in every round, past or to come: only so do scores of different rounds compare.
    With personal models each client's validation examples are judged by its own model, and there is no global test.
    """
    result = {}
    if theta.dim() == 2:
        validation = personal.scores(task, federation.pool, theta, federation.validation)
    else:
        validation = task.scores(theta, federation.pool.chunks(federation.all_validation))
        test = task.scores(theta, federation.global_test.chunks())
        result |= {f"test_{name}": float(values.double().mean()) for name, values in test.items()}
    return result | {f"validation_{name}": float(values.double().mean()) for name, values in validation.items()}


def snapshot_rounds(budget: Budget, count: int) -> frozenset[int]:
    """Rounds after which a run keeps its model: `count` evaluated ones, evenly spaced, the first and last included."""
    evaluated = sorted({*range(budget.evaluate_every, budget.rounds + 1, budget.evaluate_every), budget.rounds})
    places = np.linspace(0, len(evaluated) - 1, min(count, len(evaluated))).round()
    return frozenset(evaluated[int(place)] for place in places)


def finite_models(theta: Tensor, clients: np.ndarray) -> Tensor:
    """bool [models]: whether all parameters of the global model [P], or of the `clients`' own [clients, P], are finite.

    Where none is, nothing can come to life again: what is sent, trained and averaged is no number either.
    """
    models = theta[None] if theta.dim() == 1 else theta[torch.from_numpy(clients.copy()).to(theta.device)]
    return models.isfinite().all(1)


@dataclass
class Best:
    """The round with the highest validation accuracy so far; of equal ones the earliest.

    Without validation examples it is the last round. A round whose model has diverged is it only as long as all rounds
    have: then there is no better model to keep, and its scores are NaN. `diverged`: the round from which on a model was
    not finite; None where the last ones are.
    """

    theta: Tensor
    accuracy: float = float("-inf")
    round: int = 0
    diverged: int | None = None

    def look(self, theta: Tensor, accuracy: float, round: int, diverged: bool) -> None:
        """`accuracy` is NaN where there are no validation examples, and where the model has `diverged`."""
        if diverged:
            if self.accuracy == float("-inf"):
                self.theta, self.round = theta.clone(), round
        elif accuracy > self.accuracy or np.isnan(accuracy):
            self.theta, self.accuracy, self.round = theta.clone(), accuracy, round


def train(
    setting: Setting,
    federation: Federation,
    recorder: Recorder,
    about: dict[str, Any],
    checkpoint_seconds: float,
    until: int | None = None,
    snapshots: int = 0,
    meter: energy.Meter | None = None,
    last_checkpoint: float = 0,
) -> tuple[RunState, Tensor, Best]:
    """All rounds of a run, or those up to round `until`, from its last checkpoint where there is one.

    `federation` is what is evaluated (the setting's own may be pooled); `about` is the provenance. `snapshots` says how
    many global models are kept along the way (`snapshot_rounds`); of personal models none are. `meter` counts the
    energy, which is modelled without one. `last_checkpoint`: bytes that the checkpoint after the last round may take,
    which is what a longer run goes on from; a larger one is not made.
    Returns the last state, the model(s) after the last round, and the best on validation data. A run that is left
    before its last round leaves a checkpoint, and goes on from it with the bits that it would have had anyway. A run of
    which no model is finite any more ends there, with the scores of that round.
    """
    budget, folder = setting.budget, recorder.folder / record.CHECKPOINTS
    meter, told = meter or energy.Modelled(), None
    kept = snapshot_rounds(budget, snapshots)

    def fault(state: RunState, notes: dict[str, Any]) -> str | None:
        """Why a run cannot go on from a checkpoint that is whole."""
        wanted = [round for round in sorted(kept) if round <= state.round]
        absent = [str(round) for round in wanted if record.snapshot_name(round) not in notes["files"]]
        if absent and "personalised" not in setting.algorithm.tags:
            return f"no model of round {', '.join(absent)} was kept"
        names = {*STREAMS, *map(record.snapshot_name, wanted)}
        return recorder.fault({name: about for name, about in notes["files"].items() if name in names})

    stored = checkpoint.load(folder, setting.task.device, fault)
    if stored:
        state, extra, notes = stored
        best = Best(extra["selected"], notes["best"], notes["best_round"], notes["diverged"])
        seconds, evaluation, files = notes["seconds"], notes["evaluation"], notes["files"]
        joules, told = notes["joules"], notes["energy"]
        log.info("%s: goes on after round %d", recorder.folder, state.round)
    else:
        state = begin(setting, folder)
        best = Best(thetas(setting, state, len(federation)))
        seconds, evaluation, joules, files = 0.0, 0.0, 0.0, {}
    told = energy.continued(told, meter.about())
    recorder.begin(about | {"energy": told}, files, kept)
    saved, theta, metric = time.monotonic(), thetas(setting, state, len(federation)), float("nan")

    def store() -> None:
        notes = {
            "best": best.accuracy,
            "best_round": best.round,
            "diverged": best.diverged,
            "seconds": seconds,
            "evaluation": evaluation,
            "joules": joules,
            "energy": told,
            "files": recorder.files(),
        }
        checkpoint.save(folder, state, {"selected": best.theta}, notes)

    last = budget.rounds if until is None else min(until, budget.rounds)
    one, lost = "personalised" not in setting.algorithm.tags, False

    def look() -> None:
        nonlocal theta, metric, evaluation, lost
        began = time.perf_counter()
        theta = thetas(setting, state, len(federation))
        finite = finite_models(theta, federation.active)
        metrics = evaluate(setting.task, federation, theta)
        metric = metrics["validation_accuracy"]
        unusable = not bool(finite.all()) or (np.isnan(metric) and len(federation.all_validation) > 0)
        best.look(theta, metric, state.round, unusable)
        unusable = unusable or np.isnan(metrics.get("test_accuracy", 0.0))
        best.diverged = (best.diverged or state.round) if unusable else None
        lost = not bool(finite.any())
        if state.round in kept and theta.dim() == 1:
            notes = {"run_id": recorder.config["run_id"], "round": state.round}
            path = record.snapshot(recorder.folder, state.round)
            saved_model.save(path, setting.task.layout, theta, notes)
            recorder.keep(path)
        evaluation += time.perf_counter() - began
        metrics |= {"train_loss": state.train_loss} | costs(setting, state)
        recorder.append(record.ROUNDS, {"round": state.round, "metrics": metrics})
        clock = {"seconds": seconds, "evaluation": evaluation, "time": time.time()}
        clock |= {} if np.isnan(joules) else {"joules": joules}
        recorder.append(record.TIMING, {"round": state.round} | clock)

    while state.round < last and not lost:
        began, before = time.perf_counter(), meter.joules()
        state = advance(setting, state)
        seconds += time.perf_counter() - began
        joules += distributed.total(meter.joules() - before)
        due = state.round % budget.evaluate_every == 0
        if due or (one and not setting.algorithm.model(state.server).isfinite().all()):
            look()
        recorder.progress(state.round, budget.rounds, seconds, ("validation_accuracy", metric), "running")
        if time.monotonic() - saved >= checkpoint_seconds and state.round < budget.rounds and not lost:
            store()
            saved = time.monotonic()
    whole = state.round == budget.rounds or lost
    if not whole:
        store()
    elif not lost and checkpoint.size(state, {"selected": best.theta}) <= last_checkpoint:
        store()
        checkpoint.trim(folder, state)
    if whole and not lost and state.round % budget.evaluate_every:  # after the checkpoint: a longer run looks elsewhere
        look()
    status = "paused" if not whole else record.FINISHED if best.diverged is None else record.DIVERGED
    recorder.progress(state.round, budget.rounds, seconds, ("validation_accuracy", metric), status)
    return state, theta, best


def run(
    job: Job,
    seed: int,
    config: Config,
    dataset: Dataset,
    task: Classification,
    device: str,
    until: int | None = None,
) -> dict[str, Any] | None:
    """One run, or its rounds up to `until`; finished already, it is left as it is.

    Returns its line of the job's manifest, or None where rounds are left.
    """
    partition, manifest = open_partition(job.project, job.scenario.dataset, job.scenario.partition, seed)
    if manifest["data_hash"] != dataset.hash:
        raise RunError(
            f"partition {job.scenario.partition} (seed {seed}) was drawn for other data ({manifest['data_hash']}) "
            f"than {job.scenario.dataset} holds now ({dataset.hash}); draw it again"
        )
    stacked = config.executor == "vmap"  # another order of sums, so other bits; loop and workers have the same
    configuration = job.configuration() | {
        "inputs": {"form": dataset.manifest["form"], "kind": dataset.kind, "maximum": dataset.maximum}
        | {"mean": list(dataset.mean), "std": list(dataset.std)},
        "compute": {"device": device.partition(":")[0], "threads": config.threads, "stacked": stacked}
        | {"precision": config.precision},
    }
    code = training_code(job.arm.algorithm, job.scenario.model_file.architecture)
    origin = {"seed": seed, "data_hash": dataset.hash, "partition_hash": manifest["hash"], "code": code}
    config_of_run = origin | {
        "run_id": identity(configuration, **origin),
        "benchmark": job.benchmark,
        "preset": job.preset,
        "scenario": job.scenario.name,
        "arm": job.arm.name,
        "configuration": configuration,
    }
    if job.trial is not None:
        config_of_run["trial"] = job.trial
    algorithm = registry.algorithm(job.arm.algorithm).make(job.hyperparameters)
    bound = bound_to_length(algorithm, partition.stages)
    with opened(job.run_folder(seed), config_of_run, bound, config.superseded) as recorder:
        if not distributed.agreed(recorder.finished):
            federation = Opened(dataset, device, job.scenario.model_file.augmentation).federation(partition, seed)
            scenario, about = job.scenario, provenance(job.project.root, device)
            executor = executors.make(config.executor, config.workers, device)
            setting = Setting(federation, task, algorithm, scenario.schedule_file, scenario.budget, seed, executor)
            with contextlib.closing(executor):
                kept = config.checkpoint_megabytes * 2**20
                more = (config.checkpoint_seconds, until, job.snapshots, kept)
                whole = compute(setting, federation, recorder, about, *more)
            if not whole:
                return None
        return manifest_line(recorder.folder, seed, recorder.config["run_id"])


def bound_to_length(algorithm: Algorithm, stages: int) -> str:
    """Why the rounds of a run depend on how many it has, so that a longer run begins anew; empty where they do not."""
    if "length" in algorithm.tags:
        return "what the method does in a round depends on the number of rounds"
    return f"the partition's {stages} stages divide the rounds among them" if stages > 1 else ""


@contextlib.contextmanager
def opened(folder: Path, config_of_run: dict[str, Any], bound: str = "", keep: int = KEEP) -> Iterator[Recorder]:
    """The recorder of a run, for this process alone.

    In a distributed run the folder belongs to rank 0; the other ranks do the same run in a copy that they drop.
    """
    if distributed.rank() == 0:
        # a job that outlived its killed workflow may still be at work: wait for it, then find the run finished
        with locked(folder.with_name(f".{folder.name}.lock")):
            recorder = Recorder(folder, config_of_run, bound, keep)
            distributed.agreed("the folder is ready")
            distributed.agreed("everybody has a copy")
            yield recorder
        return
    with tempfile.TemporaryDirectory() as scratch:
        own = Path(scratch) / folder.name
        distributed.agreed("the folder is ready")
        shutil.copytree(folder, own)
        distributed.agreed("everybody has a copy")
        yield Recorder(own, config_of_run)


def compute(
    setting: Setting,
    federation: Federation,
    recorder: Recorder,
    about: dict[str, Any],
    checkpoint_seconds: float,
    until: int | None = None,
    snapshots: int = 0,
    last_checkpoint: float = 0,
) -> bool:
    """Train, save the models, end the record; False where rounds are left.

    An error is written into the record and raised.
    """
    folder, layout = recorder.folder, setting.task.layout
    try:
        with contextlib.closing(energy.meter(str(setting.task.device), distributed.first_here())) as meter:
            more = (checkpoint_seconds, until, snapshots, meter, last_checkpoint)
            state, theta, best = train(setting, federation, recorder, about, *more)
    except MachineError:
        recorder.close()
        raise
    except Exception:
        recorder.end("failed", error=traceback.format_exc())
        raise
    alive = finite_models(theta, federation.active)
    if state.round < setting.budget.rounds and bool(alive.any()):
        recorder.close()
        return False
    about = {"selected_round": best.round}
    if best.diverged is not None:
        log.warning("%s: diverged in round %d", folder, best.diverged)
        about |= {"diverged": best.diverged, "rounds_left": setting.budget.rounds - state.round}
        if theta.dim() == 2:
            about["diverged_clients"] = int((~alive).sum())
    run_id = recorder.config["run_id"]
    saved_model.save(folder / record.FINAL, layout, theta, {"run_id": run_id, "round": state.round})
    saved_model.save(folder / record.SELECTED, layout, best.theta, {"run_id": run_id, "round": best.round})
    seconds = record.Record(folder).timing[-1]["seconds"]
    status = record.FINISHED if best.diverged is None else record.DIVERGED
    recorder.end(status, rounds=state.round, seconds=seconds, **about)
    if not bool(alive.any()) or checkpoint.size(state, {"selected": best.theta}) > last_checkpoint:
        shutil.rmtree(folder / record.CHECKPOINTS, ignore_errors=True)
    return True


def manifest_line(folder: Path, seed: int, run_id: str) -> dict[str, Any]:
    """Digests as they stand in ``end.json``, which have been compared, and never those of what lies there now."""
    digests = record.Record(folder).end["sha256"]
    return {"seed": seed, "run_id": run_id, "sha256": {name: digests[name] for name in record.REPEATABLE}}


@contextlib.contextmanager
def workplace(job: Job, config: Config) -> Iterator[tuple[Dataset, Classification, str]]:
    """What the runs of a job share: data set, task, and a device that is theirs while they run."""
    dataset = open_dataset(job.project, job.scenario.dataset, verify=True).seen(job.scenario.model_file.inputs)
    with chosen(config.device, config.runs_per_gpu) as device:
        configure_torch(config.threads, device)
        if distributed.started_by_torchrun():
            distributed.join(device)
        yield dataset, classification(job, dataset, device, config.precision), device
    distributed.leave()


def run_job(job: Job, seeds: Iterable[int], config: Config) -> Path:
    """All runs of a job in this process; then the manifest ``runs.json``, which holds digests and no times.

    A run that fails leaves its error in its record; the others go on, and the job fails at the end, unless
    the configuration says that failures are reported: then the manifest tells of them.
    """
    lines, failed = [], {}
    path = job.folder / "runs.json"
    with workplace(job, config) as (dataset, task, device):
        for seed in seeds:
            try:
                lines.append(run(job, seed, config, dataset, task, device))
            except MachineError:
                raise
            except Exception as error:
                if distributed.started_by_torchrun():
                    raise  # the other ranks wait for this one: torchrun ends them
                log_failure(log, f"{job.arm.name} on {job.scenario.name}, seed {seed} failed", error)
                failed[seed] = error
                lines.append({"seed": seed, "failed": f"{type(error).__name__}: {error}"})
        if failed and config.failures == "stop":
            seed, error = next(iter(failed.items()))
            raise RunError(
                f"{job.arm.name} on {job.scenario.name}: {len(failed)} of {len(lines)} runs failed; "
                f"seed {seed}: {type(error).__name__}: {error}"
            )
        if distributed.rank() == 0:
            write_json(path, lines)
    return path
