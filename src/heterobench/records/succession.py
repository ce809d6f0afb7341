"""What becomes of a run's folder that is not empty: nothing is lost, and nothing changes, without a line that says so.

The same run goes on. Where it had ended, its files are compared with what it left, and what is damaged is made again,
from the last good checkpoint or from the beginning. A run that differs in its number of rounds alone becomes the one
that is asked for, and goes on from its last checkpoint, unless its rounds depend on how many there are. Any other run
moves to ``superseded/<name of the folder>/<run id>`` beside it: the last ones stay there, and come back when they are
asked for again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heterobench.errors import RunError
from heterobench.files import as_json, read_json, read_sealed, write_json
from heterobench.records import record

SUPERSEDED, UNKNOWN = "superseded", "unknown"
KEEP = 2
TOLD = 5  # of the differences between two runs
log = logging.getLogger(__name__)


def settle(folder: Path, config: dict[str, Any], bound: str = "", keep: int = KEEP) -> None:
    """Make `folder` that of the run `config`, with as much of the run as is there.

    bound: why the rounds of this run depend on how many it has; empty where they do not.
    keep: how many records of other runs stay beside it.
    """
    wanted = json.loads(as_json(config))  # as it comes back from the file
    if wrong := record.misplaced(folder):
        log.warning("%s: no file where one belongs, or no folder: %s; made anew", folder, ", ".join(wrong))
        _move(folder, UNKNOWN)
    there, kept = _config(folder, wanted), _kept(folder, wanted["run_id"])
    if there is None:
        if folder.is_dir() and any(folder.iterdir()):
            log.warning("%s: %s is missing or damaged, so that nothing tells which run it is", folder, record.CONFIG)
            _move(folder, UNKNOWN)
    elif there["run_id"] != wanted["run_id"] and (kept.is_dir() or not _goes_on(folder, there, wanted, bound)):
        apart = list(differences(there, wanted))
        told = [*apart[:TOLD], *([f"and {len(apart) - TOLD} more"] if len(apart) > TOLD else [])]
        ids = there["run_id"], wanted["run_id"]
        log.info("%s: holds run %s, and run %s was asked for: %s", folder, *ids, ", ".join(told))
        _move(folder, there["run_id"])
    if kept.is_dir() and not (folder / record.CONFIG).exists():
        log.info("%s: run %s was kept in %s and comes back", folder, wanted["run_id"], kept)
        os.rename(kept, folder)
    for old in sorted(kept.parent.glob("*"), key=lambda path: path.stat().st_mtime)[: -keep or None]:
        log.info("%s: removed; %d records of other runs are kept (superseded in params/config.yaml)", old, keep)
        shutil.rmtree(old)
    if not _holds(folder / record.CONFIG, wanted):
        if folder.is_dir() and any(folder.iterdir()):
            log.warning("%s: %s was missing or altered, and is written again", folder, record.CONFIG)
        write_json(folder / record.CONFIG, config)
    if damage := record.Record(folder).damage():
        for problem in damage:
            log.warning("%s: %s", folder, problem)
        log.warning("%s: made again, from the last good checkpoint or else from the beginning", folder)
        (folder / record.END).unlink()


def differences(one: Any, two: Any, name: str = "") -> Iterator[str]:
    """``name: value -> value`` of everything in which two configurations differ, their run ids aside."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted({*one, *two} - {"run_id"}):
            yield from differences(one.get(key), two.get(key), f"{name}.{key}" if name else key)
    elif one != two:
        yield f"{name.removeprefix('configuration.')} {one} -> {two}"


def _config(folder: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The configuration of the run that is there; None where nothing tells. Of a damaged file the run's end may."""
    try:
        found = read_json(folder / record.CONFIG)
        if isinstance(found["run_id"], str):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        expected = read_sealed(folder / record.END)["sha256"][record.CONFIG]
    except (OSError, RunError, KeyError, TypeError):
        return None
    return wanted if hashlib.sha256(as_json(wanted).encode()).hexdigest() == expected else None


def _holds(path: Path, value: Any) -> bool:
    try:
        return read_json(path) == value
    except (OSError, ValueError):
        return False


def _goes_on(folder: Path, there: dict[str, Any], wanted: dict[str, Any], bound: str) -> bool:
    """Whether another run is `wanted` with another number of rounds, so far; then it becomes `wanted`."""
    numbers = [rounds for config in (there, wanted) if (rounds := _rounds(config)) is not None]
    if len(numbers) < 2 or _rounds_aside(there) != _rounds_aside(wanted):
        return False
    change = f"{numbers[0]} -> {numbers[1]} rounds"
    if bound:
        log.info("%s: %s: run %s cannot go on: %s", folder, change, there["run_id"], bound)
        return False
    usable = {path: round for path, round in record.checkpoints(folder).items() if round <= numbers[1]}
    if not usable:
        log.info("%s: %s: run %s left no checkpoint to go on from", folder, change, there["run_id"])
        return False
    if (folder / record.END).is_file():
        _copy(folder, there["run_id"])
        (folder / record.END).unlink()  # before the rest: without it nothing here can be taken for a finished run
    for path in record.checkpoints(folder).keys() - usable:
        path.unlink()
    write_json(folder / record.CONFIG, wanted)
    log.info("%s: %s: run %s goes on as run %s", folder, change, there["run_id"], wanted["run_id"])
    return True


def _rounds(config: dict[str, Any]) -> int | None:
    try:
        return int(config["configuration"]["budget"]["rounds"])
    except (KeyError, TypeError, ValueError):
        return None


def _rounds_aside(config: dict[str, Any]) -> dict[str, Any]:
    rest = json.loads(json.dumps(config))
    del rest["run_id"], rest["configuration"]["budget"]["rounds"]
    return rest


def _kept(folder: Path, run_id: str) -> Path:
    return folder.parent / SUPERSEDED / folder.name / run_id


def _move(folder: Path, run_id: str) -> None:
    place = _free(folder, run_id)
    os.rename(folder, place)
    os.utime(place)
    log.info("%s: its record is now in %s", folder, place)


def _copy(folder: Path, run_id: str) -> None:
    """The record of a run without its checkpoints, whole or absent."""
    place = _free(folder, run_id)
    half = place.with_name(f".{place.name}")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(folder, half, ignore=shutil.ignore_patterns(record.CHECKPOINTS))
    os.rename(half, place)
    os.utime(place)
    log.info("%s: a copy of its record is in %s", folder, place)


def _free(folder: Path, run_id: str) -> Path:
    place = _kept(folder, run_id)
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place
