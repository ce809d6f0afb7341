"""Finished runs -> MLflow. Importing again changes nothing; the record stays the only truth.

One experiment per benchmark and preset, another for the trials of its tuning, flat runs in both. A run is known
by the tag `heterobench.run_id`; the tag `heterobench.imported` is written last and says which version of the record
the tracker holds. A run without it was cut off while it was imported: it is deleted and imported anew, so no point
is there twice.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from heterobench.errors import RunError, TrackerError
from heterobench.files import leftover
from heterobench.project import Project
from heterobench.records.record import CONFIG, PROVENANCE, ROUNDS, TIMING, Record
from heterobench.tracking import entries
from heterobench.tracking.folders import ended, experiment_folders, run_folders

# Limits of one call of MLflow's log_batch: metric points and parameters, and all of them together.
MOST_POINTS, MOST_PARAMETERS = 1000, 100
# Up to so many runs are looked up one by one; for more, the whole experiment is listed, page by page.
FEW = 20
LOGGED = (CONFIG, PROVENANCE, ROUNDS, TIMING)
SHOWN = ("report.html", "tables", "figures", "curves", "evaluation")
SAFE = "the records in results/ are complete without the tracker; run `heterobench track` again when it works"


@dataclass(frozen=True)
class Summary:
    """What an import did: numbers of runs, and one line for each record that cannot be read."""

    imported: int = 0
    already: int = 0
    failed: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{self.imported} runs imported, {self.already} already there, {len(self.failed)} unreadable"
        return "\n  ".join([counts, *self.failed])


@dataclass(frozen=True)
class Entry:
    """All that the tracker gets of one run, read before the tracker is asked for anything."""

    folder: Path
    run_id: str
    version: str
    name: str
    start: float
    stop: float
    status: str
    dataset: str
    parameters: dict[str, str]
    tags: dict[str, str]
    points: list[tuple[str, float, int, int]]


def tracking_uri(project: Project) -> str:
    """MLFLOW_TRACKING_URI, else sqlite:///mlflow.db; a relative sqlite path is one below the project."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    path = uri.removeprefix("sqlite:///")
    return f"sqlite:///{project.root / path}" if path != uri and not path.startswith("/") else uri


def database(uri: str) -> Path | None:
    """The file behind a sqlite URI; None for every other tracker."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def quiet_environment() -> dict[str, str]:
    """Settings under which mlflow sends nothing home, and gives up on a dead server within seconds."""
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        # Else a server's client prints two lines for every run.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }


@cache
def client(uri: str) -> Any:
    """An MLflow client, one per address and process; the first call imports mlflow (seconds).

    Opening a fresh sqlite file writes its tables, so the caller holds `exclusive`.
    """
    for key, value in quiet_environment().items():
        os.environ.setdefault(key, value)
    # Notes about tables being created are no news for a user.
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@contextmanager
def exclusive(project: Project, uri: str, wait: float = 120) -> Iterator[None]:
    """One importer at a time: the lock lies beside the database, else in results/.

    Raises TrackerError after `wait` seconds. The lock of a killed process is free again.
    """
    file = database(uri)
    path = file.with_name(f"{file.name}.lock") if file else project.results / ".tracking.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=wait)
    except Timeout:
        raise TrackerError(f"{path}: another import has held the lock for {wait:g} s: {SAFE}") from None
    except OSError as error:
        hint = "check MLFLOW_TRACKING_URI"
        raise TrackerError(f"{path}: cannot be written ({error}): {hint}; {SAFE}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def readable(folder: Path, failed: list[str]) -> Iterator[None]:
    """A record that cannot be read becomes a line in `failed`."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RunError) as error:
        failed.append(f"{folder}: {type(error).__name__}: {error}")


@contextmanager
def reported(uri: str) -> Iterator[None]:
    """Whatever goes wrong in the tracker becomes a TrackerError that says what to do."""
    try:
        yield
    except TrackerError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise TrackerError(f"{uri}: the tracker does not answer or refuses: {reason}. {SAFE}") from error


def identity(folder: Path) -> tuple[str, str]:
    """Run id and version of the record in `folder`: enough to know whether the tracker has it."""
    record = Record(folder)
    return str(record.config["run_id"]), entries.version(record.end)


def read_entry(folder: Path) -> Entry:
    """The record in `folder` as the tracker wants it."""
    record = Record(folder)
    if damage := record.damage():
        raise RunError(f"{'; '.join(damage)}. What to do: let heterobench train make it again")
    config, end = record.config, record.end
    provenance = record.provenance if (folder / PROVENANCE).is_file() else {}
    timing = record.timing
    first = timing[0]["time"] - timing[0].get("seconds", 0) if timing else os.path.getmtime(folder / CONFIG)
    start = float(provenance.get("started") or first)
    # Without timing there is the length of training; a resumed run may have rested for days in between.
    stop = float(timing[-1]["time"] if timing else start + (end.get("seconds") or 0))
    return Entry(
        folder=folder,
        run_id=config["run_id"],
        version=entries.version(end),
        name=entries.run_name(config),
        start=start,
        stop=max(start, stop),
        status={"finished": "FINISHED", "stopped": "KILLED"}.get(end["status"], "FAILED"),
        dataset=config["configuration"]["dataset"],
        parameters=entries.parameters(config),
        tags=entries.tags(config, provenance, end),
        points=entries.points(record, start),
    )


def experiment(mlflow: Any, project: Project, uri: str, folder: Path) -> str:
    """Id of the experiment that is called like a folder below results/; made if missing.

    "<benchmark>/<preset>" holds the runs of a table, "<benchmark>/<preset>/tuning" the trials behind them.
    """
    name = folder.relative_to(project.results).as_posix()
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        home = (database(uri) or project.root / "mlflow.db").absolute().parent / "mlartifacts" / name
        place = None if uri.startswith(("http:", "https:", "databricks")) else home.as_uri()
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return mlflow.create_experiment(name, artifact_location=place, tags=kind)
    if found.lifecycle_stage == "deleted":
        raise TrackerError(
            f"{uri}: experiment {name} was deleted: remove it for good with `mlflow gc`, or bring it back "
            f"with `mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    return found.experiment_id


def copies(mlflow: Any, experiment_id: str, wanted: list[str]) -> dict[str, list[Any]]:
    """The tracker's runs by run id, deleted ones included: what a user deleted does not come back."""
    from mlflow.entities import ViewType

    if len(wanted) <= FEW:
        filters = [f"tags.`{entries.RUN_ID}` = '{run_id}'" for run_id in wanted]
    else:
        filters = [f"tags.`{entries.RUN_ID}` LIKE '%'"]
    found = defaultdict(list)
    for text in filters:
        token = None
        while True:
            page = mlflow.search_runs([experiment_id], text, ViewType.ALL, max_results=1000, page_token=token)
            for run in page:
                found[run.data.tags[entries.RUN_ID]].append(run)
            if not (token := page.token):
                break
    return found


def holds(runs: list[Any], version: str) -> bool:
    """Whether one of the tracker's copies of a run is whole and of this version."""
    return any(run.data.tags.get(entries.IMPORTED) == version for run in runs)


def remove(mlflow: Any, runs: list[Any]) -> None:
    """Delete copies that are half imported, or of an earlier attempt."""
    for run in runs:
        if run.info.lifecycle_stage == "active":
            mlflow.delete_run(run.info.run_id)


def log_files(mlflow: Any, run: str, files: list[Path], root: Path) -> None:
    """`files` as artifacts of `run`, under their paths below `root`, in one transfer."""
    with tempfile.TemporaryDirectory(prefix="heterobench-") as stage:
        for file in files:
            target = Path(stage) / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        mlflow.log_artifacts(run, stage)


def log_run(mlflow: Any, experiment_id: str, entry: Entry) -> None:
    """One run, whole; the tag that says so comes last."""
    from mlflow.entities import Dataset, DatasetInput, Metric, Param

    run = mlflow.create_run(experiment_id, round(entry.start * 1000), entry.tags, entry.name).info.run_id
    parameters = [Param(key, value) for key, value in entry.parameters.items()]
    metrics = [Metric(key, value, time, step) for key, value, time, step in entry.points]
    while parameters or metrics:
        part, parameters = parameters[:MOST_PARAMETERS], parameters[MOST_PARAMETERS:]
        room = MOST_POINTS - len(part)
        mlflow.log_batch(run, metrics=metrics[:room], params=part)
        metrics = metrics[room:]
    # Fills the column "Dataset"; the tag data_hash has all digits.
    data = Dataset(entry.dataset, entry.tags["data_hash"][:12], "local", "{}")
    mlflow.log_inputs(run, [DatasetInput(data)])
    log_files(mlflow, run, [f for name in LOGGED if (f := entry.folder / name).is_file()], entry.folder)
    mlflow.set_terminated(run, entry.status, round(entry.stop * 1000))
    mlflow.set_tag(run, entries.IMPORTED, entry.version)


def log_tables(mlflow: Any, experiment_id: str, folder: Path) -> bool:
    """Tables, figures and report of a benchmark as artifacts of the run "tables"; False: nothing is new."""
    found = (f for name in SHOWN for f in (folder / name, *(folder / name).rglob("*")))
    files = sorted(f for f in found if f.is_file() and not leftover(f))
    if not files:
        return False
    identity, version = f"{folder.parent.name}/{folder.name}", entries.files_version(files, folder)
    runs = copies(mlflow, experiment_id, [identity])[identity]
    runs = [run for run in runs if run.info.lifecycle_stage == "active"]
    if holds(runs, version):
        return False
    if runs:
        run = runs[0].info.run_id
    else:
        tags = {
            entries.RUN_ID: identity,
            entries.KIND: "tables",
            "benchmark": folder.parent.name,
            "preset": folder.name,
            "mlflow.source.name": f"heterobench {folder.parent.name}",
            "mlflow.note.content": "Tables and figures over all runs of this experiment: see Artifacts.",
        }
        run = mlflow.create_run(experiment_id, tags=tags, run_name="tables").info.run_id
    log_files(mlflow, run, files, folder)
    mlflow.set_terminated(run, "FINISHED")
    mlflow.set_tag(run, entries.IMPORTED, version)
    return True


def import_runs(project: Project, uri: str | None = None, folders: list[Path] | None = None) -> Summary:
    """Bring every finished or failed run into the tracker at `uri` (default: `tracking_uri`).

    `folders`: only these runs, and no tables. Safe to call at any time and from several processes. A record
    that cannot be read is listed in the summary and stops nothing; a tracker that is dead, locked or full
    raises TrackerError, and what was imported until then stays.
    """
    uri = uri or tracking_uri(project)
    places = defaultdict(list)
    for folder in ended(run_folders(project.results) if folders is None else folders):
        # <benchmark>/<preset>/runs/<scenario>/<arm>/seed-<k>; of a trial .../tuning/<scenario>/<arm>/trial-<n>/seed-<k>
        places[folder.parents[3]].append(folder)
    if folders is None:
        for folder in experiment_folders(project.results):
            places.setdefault(folder, [])
    if not places:
        return Summary()
    imported, already, failed = 0, 0, []
    with exclusive(project, uri), reported(uri):
        mlflow = client(uri)
        for place, runs in places.items():
            experiment_id = experiment(mlflow, project, uri, place)
            identities = {}
            for folder in runs:
                with readable(folder, failed):
                    identities[folder] = identity(folder)
            known = copies(mlflow, experiment_id, [run_id for run_id, _ in identities.values()])
            for folder, (run_id, version) in identities.items():
                if holds(known[run_id], version):
                    already += 1
                    continue
                entry = None
                with readable(folder, failed):
                    entry = read_entry(folder)
                if entry is not None:
                    remove(mlflow, known[run_id])
                    log_run(mlflow, experiment_id, entry)
                    imported += 1
            if folders is None:
                log_tables(mlflow, experiment_id, place)
    return Summary(imported, already, tuple(failed))


def track(project: Project) -> Summary:
    """Import everything that has ended, with tables: the last step of the workflow, and `heterobench track`.

    Raises TrackerError, with what to do, when the tracker cannot be used; no record is lost by that.
    """
    return import_runs(project)
