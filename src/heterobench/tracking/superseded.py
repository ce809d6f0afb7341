"""Runs of the tracker that the results no longer hold: marked and out of the links, never deleted.

A run stands for a place: (scenario, arm, seed, trial). It is superseded when the results hold another one there, a
later attempt of the same, or nothing, and when its row is no longer in the table. When the results hold it again the
mark goes. What cannot be read is left as it is. Of a tracker that others use too, only this project's runs are marked.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from heterobench import resolve
from heterobench.errors import HeterobenchError, RunError
from heterobench.project import Project
from heterobench.records.record import Record
from heterobench.tracking import entries
from heterobench.tracking.store import EVERY, equal, experiments, search

Place = tuple[str, str, str, str]
Table = frozenset[tuple[str, str]]
"""(scenario, arm) of each row."""
CURRENT = f"tags.`{entries.SUPERSEDED}` = 'false'"
"""What the links search for. Every run has the tag: older servers cannot search for runs without one."""


class Held(NamedTuple):
    """What the results hold at a place: a run, and its version once it has ended; `run_id` None: cannot be read."""

    run_id: str | None = None
    version: str | None = None


def place(folder: Path) -> Place:
    """Of a run's folder: .../runs/<scenario>/<arm>/seed-<k>, of a trial .../<scenario>/<arm>/trial-<n>/seed-<k>."""
    seed, above, trial = folder.name.removeprefix("seed-"), folder.parent, ""
    if folder.parents[2].name != "runs":
        trial, above = above.name.removeprefix("trial-"), above.parent
    return above.parent.name, above.name, seed, trial


def place_of(run: Any) -> Place:
    """Of a run in the tracker, by its tags."""
    tags = run.data.tags
    return tags.get("scenario", ""), tags.get("arm", ""), tags.get("seed", ""), tags.get("trial", "")


def held(folders: Iterable[Path]) -> dict[Place, Held]:
    """What lies in the folders of runs, whether they have begun, go on or have ended."""
    found = {}
    for folder in folders:
        try:
            record = Record(folder)
            end = record.end
            found[place(folder)] = Held(str(record.config["run_id"]), entries.version(end) if end else None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RunError):
            found[place(folder)] = Held()
    return found


def rows(project: Project, experiment: str) -> Table | None:
    """(scenario, arm) of every row that an experiment's table has now; None where no parameter file says so.

    `experiment`: "<benchmark>/<preset>" or "<benchmark>/<preset>/tuning".
    """
    benchmark, _, preset = experiment.removesuffix("/tuning").partition("/")
    if not (project.params / "benchmarks" / f"{benchmark}.yaml").is_file():
        return None
    try:
        found = resolve.benchmark(project, benchmark, preset)
    except HeterobenchError:
        return None
    return frozenset((scenario.name, arm.name) for scenario in found.scenarios for arm in found.arms)


def superseded(run: Any, found: dict[Place, Held], table: Table | None) -> bool | None:
    """Whether the results hold something else than `run`, or nothing; None where that cannot be known."""
    where, tags = place_of(run), run.data.tags
    if where not in found or (table is not None and where[:2] not in table):
        return True
    now = found[where]
    if now.run_id is None:
        return None
    return now.run_id != tags[entries.RUN_ID] or now.version not in (None, tags[entries.IMPORTED])


def mine(run: Any, owner: str | None) -> bool:
    """Whether `run` was imported by the project `owner`; None owns every run, as `store.owner` says."""
    return owner is None or run.data.tags.get(entries.PROJECT) == owner


def mark(mlflow: Any, runs: Iterable[Any], owner: str | None, found: dict[Place, Held], table: Table | None) -> None:
    """Tag those of the tracker's whole and active runs that are this project's, where the tag is not so already.

    `runs`: those at the places of `found`, or all of an experiment where `found` is all that its folder holds.
    """
    for run in runs:
        tags = run.data.tags
        if run.info.lifecycle_stage != "active" or entries.IMPORTED not in tags or not mine(run, owner):
            continue
        if tags.get(entries.KIND) == "run" and (state := superseded(run, found, table)) is not None:
            tag(mlflow, run, state)


def mark_others(mlflow: Any, names: Iterable[str], owner: str | None) -> None:
    """Tag this project's runs in experiments other than `names`: the results have no such folder any more."""
    kept = {*names}
    others = [e.experiment_id for e in experiments(mlflow) if e.name not in kept]
    for run in search(mlflow, others, EVERY if owner is None else equal(entries.PROJECT, owner)):
        if run.info.lifecycle_stage == "active" and entries.RUN_ID in run.data.tags:
            tag(mlflow, run, True)


def tag(mlflow: Any, run: Any, state: bool) -> None:
    value = entries.truth(state)
    if run.data.tags.get(entries.SUPERSEDED) != value:
        mlflow.set_tag(run.info.run_id, entries.SUPERSEDED, value)
