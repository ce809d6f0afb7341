"""Finished runs -> MLflow. Importing again changes nothing; the record stays the only truth.

One experiment per benchmark and preset, another for the trials of its tuning, flat runs in both. A run is known
by the tag `heterobench.run_id`; the tag `heterobench.imported` is written last and says which version of the record
the tracker holds. A run without it was cut off while it was imported: it is deleted and imported anew, so no point
is there twice. Of an earlier version or place in the results, it is marked as superseded.

Several projects may use one tracker. The tag `heterobench.project` says whose a run is: a project changes nothing of
another's, and does not import again what another has imported from an equal record.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heterobench.errors import RunError, TrackerError
from heterobench.files import leftover
from heterobench.project import Project
from heterobench.records.record import CONFIG, PROVENANCE, ROUNDS, TIMING, Record
from heterobench.tracking import artifacts, entries, superseded
from heterobench.tracking.folders import ended, experiment_folders, run_folders
from heterobench.tracking.store import EVERY, database, equal, is_server, opened, owner, search, tracking_uri

# Limits of one call of MLflow's log_batch: metric points and parameters, and all of them together.
MOST_POINTS, MOST_PARAMETERS = 1000, 100
# Up to so many runs are looked up one by one; for more, the whole experiment is listed, page by page.
FEW = 20
LOGGED = (CONFIG, PROVENANCE, ROUNDS, TIMING)
SHOWN = ("report.html", "tables", "figures", "curves", "evaluation")


@dataclass(frozen=True)
class Summary:
    """What an import did: numbers of runs, and one line for each record that cannot be read."""

    imported: int = 0
    already: int = 0
    failed: tuple[str, ...] = ()

    def __add__(self, other: Summary) -> Summary:
        return Summary(self.imported + other.imported, self.already + other.already, (*self.failed, *other.failed))

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


@contextmanager
def readable(folder: Path, failed: list[str]) -> Iterator[None]:
    """A record that cannot be read becomes a line in `failed`."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RunError) as error:
        failed.append(f"{folder}: {type(error).__name__}: {error}")


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


def experiment(mlflow: Any, project: Project, uri: str, name: str) -> str:
    """Id of an experiment; made if missing.

    "<benchmark>/<preset>" holds the runs of a table, "<benchmark>/<preset>/tuning" the trials behind them. Raises
    TrackerError where it was deleted, or keeps its artifacts where this project must not write.
    """
    home, server = (database(uri) or project.root / "mlflow.db").absolute().parent, is_server(uri)
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        location = None if server or uri.startswith("databricks") else artifacts.place(home, name)
        kind = {"mlflow.experimentKind": "custom_model_development"}
        found = mlflow.get_experiment(mlflow.create_experiment(name, artifact_location=location, tags=kind))
    if found.lifecycle_stage == "deleted":
        raise TrackerError(
            f"{uri}: experiment {name} was deleted: remove it for good with `mlflow gc`, or bring it back "
            f"with `mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    artifacts.check(name, found.artifact_location, home, server)
    return found.experiment_id


def known_runs(mlflow: Any, experiment_id: str, folders: list[Path] | None) -> list[Any]:
    """The tracker's runs at the places of `folders`; of the whole experiment for many of them, or None."""
    if folders is None or len(folders) > FEW:
        return list(search(mlflow, [experiment_id], EVERY))
    filters = []
    for place in map(superseded.place, folders):
        tags = zip(("scenario", "arm", "seed", "trial"), place, strict=True)
        filters.append(" and ".join(equal(tag, value) for tag, value in tags if value))
    return [run for text in filters for run in search(mlflow, [experiment_id], text)]


def copy_of(runs: list[Any], version: str, me: str | None) -> Any | None:
    """The tracker's whole copy of a run in this version, if it has one.

    Another project's will do, unless that project has superseded it: then it speaks for those results no more.
    """
    for run in sorted(runs, key=lambda run: not superseded.mine(run, me)):
        tags = run.data.tags
        if tags.get(entries.IMPORTED) == version and (
            superseded.mine(run, me) or tags.get(entries.SUPERSEDED) != entries.truth(True)
        ):
            return run
    return None


def adopt(mlflow: Any, run: Any, me: str | None) -> None:
    """A run of the same record that nobody owns becomes this project's: of a project that has been moved here, say."""
    if superseded.mine(run, me):
        return
    host, _, root = run.data.tags.get(entries.PROJECT, "").partition(":")
    moved = host == platform.node() and not (Path(root) / "params" / "config.yaml").is_file()
    if not root or moved:
        mlflow.set_tag(run.info.run_id, entries.PROJECT, me)


def remove_cut_off(mlflow: Any, runs: list[Any], me: str | None) -> None:
    """Delete copies that are half imported; of another project, it may be importing now."""
    for run in runs:
        active = run.info.lifecycle_stage == "active"
        if active and entries.IMPORTED not in run.data.tags and superseded.mine(run, me):
            mlflow.delete_run(run.info.run_id)


def log_files(mlflow: Any, run: Any, files: list[Path], root: Path) -> None:
    """`files` as artifacts of `run`, under their paths below `root`.

    Into a folder on this machine they are copied as they are. The client would put them where it last saw this run.
    """
    where = artifacts.folder(run.info.artifact_uri)
    with tempfile.TemporaryDirectory(prefix="heterobench-") as stage:
        for file in files:
            target = (where or Path(stage)) / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        if where is None:
            mlflow.log_artifacts(run.info.run_id, stage)


def log_run(mlflow: Any, experiment_id: str, entry: Entry, more: dict[str, str]) -> None:
    """One run, whole, with `more` tags; the tag that says so comes last."""
    from mlflow.entities import Dataset, DatasetInput, Metric, Param

    made = mlflow.create_run(experiment_id, round(entry.start * 1000), entry.tags | more, entry.name)
    run = made.info.run_id
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
    log_files(mlflow, made, [f for name in LOGGED if (f := entry.folder / name).is_file()], entry.folder)
    mlflow.set_terminated(run, entry.status, round(entry.stop * 1000))
    mlflow.set_tag(run, entries.IMPORTED, entry.version)


def log_tables(mlflow: Any, experiment_id: str, folder: Path, me: str | None) -> None:
    """Tables, figures and report of a benchmark as artifacts of the project's run "tables"."""
    found = (f for name in SHOWN for f in (folder / name, *(folder / name).rglob("*")))
    files = sorted(f for f in found if f.is_file() and not leftover(f))
    if not files:
        return
    identity, version = f"{folder.parent.name}/{folder.name}", entries.files_version(files, folder)
    runs = list(search(mlflow, [experiment_id], equal(entries.RUN_ID, identity)))
    runs = [run for run in runs if run.info.lifecycle_stage == "active"]
    if copy := copy_of(runs, version, me):
        adopt(mlflow, copy, me)
        if superseded.mine(copy, me):
            superseded.tag(mlflow, copy, False)
        return
    current = {entries.SUPERSEDED: entries.truth(False)}
    if own := [run for run in runs if superseded.mine(run, me)]:
        run = own[0]
    else:
        tags = {
            entries.RUN_ID: identity,
            entries.KIND: "tables",
            "benchmark": folder.parent.name,
            "preset": folder.name,
            "mlflow.source.name": f"heterobench {folder.parent.name}",
            "mlflow.note.content": "Tables and figures over all runs of this experiment: see Artifacts.",
        }
        run = mlflow.create_run(experiment_id, tags=tags | owned(me), run_name="tables")
    log_files(mlflow, run, files, folder)
    mlflow.set_terminated(run.info.run_id, "FINISHED")
    for key, value in (current | {entries.IMPORTED: version}).items():
        mlflow.set_tag(run.info.run_id, key, value)


def owned(me: str | None) -> dict[str, str]:
    return {} if me is None else {entries.PROJECT: me}


def import_runs(project: Project, uri: str | None = None, folders: list[Path] | None = None) -> Summary:
    """Bring every finished or failed run into the tracker at `uri` (default: `tracking_uri`), and mark superseded ones.

    `folders`: only these runs and what they supersede, and no tables. Safe to call at any time and from several
    processes. A record that cannot be read is listed in the summary and stops nothing; a tracker that is dead, locked
    or full raises TrackerError, and what was imported until then stays.
    """
    uri = uri or tracking_uri(project)
    whole = folders is None
    places: dict[Path, list[Path]] = defaultdict(list)
    for folder in run_folders(project.results) if folders is None else folders:
        # <benchmark>/<preset>/runs/<scenario>/<arm>/seed-<k>; of a trial .../tuning/<scenario>/<arm>/trial-<n>/seed-<k>
        places[folder.parents[3]].append(folder)
    if whole:
        for folder in experiment_folders(project.results):
            places.setdefault(folder, [])
    file = database(uri)
    if not places and not (whole and file is not None and file.is_file()):
        return Summary()  # a tracker with nothing to do is not asked
    total, names = Summary(), {place: place.relative_to(project.results).as_posix() for place in places}
    with opened(project, uri) as mlflow:
        for place, runs in places.items():
            total += import_experiment(mlflow, project, uri, names[place], runs, whole)
        if whole:
            superseded.mark_others(mlflow, names.values(), owner(project, uri))
    return total


def import_experiment(mlflow: Any, project: Project, uri: str, name: str, folders: list[Path], whole: bool) -> Summary:
    """The runs in `folders`, all of one experiment; where they are the `whole` of it, also its tables."""
    me = owner(project, uri)
    experiment_id = experiment(mlflow, project, uri, name)
    done = list(ended(folders))
    # Only the whole is compared with the table's rows: a run that has just finished is in the table.
    table = superseded.rows(project, name) if whole else None
    known = known_runs(mlflow, experiment_id, None if whole else done)
    by_id = defaultdict(list)
    for run in known:
        by_id[run.data.tags[entries.RUN_ID]].append(run)
    imported, already, failed = 0, 0, []
    for folder in done:
        copy = entry = None
        with readable(folder, failed):
            run_id, version = identity(folder)
            copy = copy_of(by_id[run_id], version, me)
            entry = None if copy else read_entry(folder)
        if copy:
            adopt(mlflow, copy, me)
            already += 1
        elif entry:
            remove_cut_off(mlflow, by_id[entry.run_id], me)
            gone = table is not None and superseded.place(folder)[:2] not in table
            log_run(mlflow, experiment_id, entry, {entries.SUPERSEDED: entries.truth(gone)} | owned(me))
            imported += 1
    superseded.mark(mlflow, known, me, superseded.held(folders), table)
    if whole:
        log_tables(mlflow, experiment_id, project.results / name, me)
    return Summary(imported, already, tuple(failed))


def track(project: Project) -> Summary:
    """Import everything that has ended, with tables: the last step of the workflow, and `heterobench track`.

    Raises TrackerError, with what to do, when the tracker cannot be used; no record is lost by that.
    """
    return import_runs(project)
