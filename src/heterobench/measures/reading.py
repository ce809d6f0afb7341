"""A run's record for an evaluation: every file read once, nothing raised; what is damaged or absent is told.

Files are compared with the digests that end the run. One that is not what the run has left is told and counts as
absent, so that no altered number comes any further.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from heterobench.errors import RunError
from heterobench.files import altered, difference, read_sealed
from heterobench.records import record

FINISHED, FAILED, MISSING = record.FINISHED, "failed", "missing"
ALWAYS = ("bytes_down", "bytes_up", "train_loss", "validation_accuracy", "validation_loss")
GLOBAL = ("test_accuracy", "test_loss")  # where there is a global model


@dataclass
class Stream:
    """One of a record's streams as columns: `rounds` int [T], ascending, and name -> float [T].

    `absent` has bool [T] for the names that some rounds lack; there the column is NaN.
    """

    rounds: np.ndarray
    columns: dict[str, np.ndarray]
    absent: dict[str, np.ndarray] = field(default_factory=dict)

    def at(self, round: int, name: str) -> float:
        place = np.flatnonzero(self.rounds == round)
        return float(self.columns[name][place[0]]) if len(place) and name in self.columns else math.nan


@dataclass
class Reading:
    """What a run has left: `status` finished, diverged, failed or missing, and `problems`, in words.

    `damaged`: files of a run that has ended which are not as it left them. Of a run that has failed or is missing the
    streams are empty.
    """

    folder: Path
    status: str
    problems: list[str]
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    end: Mapping[str, Any] = field(default_factory=dict)
    metrics: Stream = field(default_factory=lambda: Stream(np.zeros(0, np.int64), {}))
    timing: Stream = field(default_factory=lambda: Stream(np.zeros(0, np.int64), {}))
    damaged: list[str] = field(default_factory=list)
    _models: dict[str, bool] = field(default_factory=dict)

    def left(self, name: str) -> bool:
        """Whether the run has left a file of this name."""
        return name in _digests(self.end)

    def whole(self, name: str) -> bool:
        """Whether a file that is not read here is as the run has left it; told, where it is not."""
        if name not in self._models:
            problem = difference(self.folder / name, _digests(self.end).get(name), name)
            self._models[name] = problem is None
            if problem:
                self.problems.append(problem)
                self.damaged.append(name)
        return self._models[name]

    @property
    def run_id(self) -> str:
        return str(self.config.get("run_id", ""))


def read(folder: Path, failure: str | None = None, personal: bool = False) -> Reading:
    """The run in `folder`. `failure`: what the manifest of its job says of a failed run.

    Personal models have no global test, so that a record without it is whole.
    """
    problems: list[str] = []
    damaged: list[str] = []
    end: Mapping[str, Any] = {}
    try:
        end = read_sealed(folder / record.END)
    except FileNotFoundError:
        pass
    except (OSError, RunError) as error:
        problems.append(str(error))
        damaged.append(record.END)
    digests, status = _digests(end), end.get("status", MISSING)
    if status in record.COMPUTED and not digests:
        problems.append(f"{record.END}: no digests of the run's files")
        damaged.append(record.END)
    known = digests if end else None
    about = {name: _object(folder / name, known, problems, damaged) for name in (record.CONFIG, record.PROVENANCE)}
    config, provenance = about[record.CONFIG] or {}, about[record.PROVENANCE] or {}
    # nobody can tell what a run without its end and its configuration is
    if status not in record.COMPUTED or {record.END, record.CONFIG} & {*damaged}:
        error = failure if not end else error_line(str(end.get("error", ""))) if status == FAILED else None
        told = [error] if error else problems if damaged else [_unfinished(folder, config)]
        return Reading(folder, FAILED if error else MISSING, told, config, provenance, end, damaged=damaged)
    told = [_diverged(end)] if status == record.DIVERGED else []
    reading = Reading(folder, status, told + problems, config, provenance, end, damaged=damaged)
    _streams(reading, ALWAYS + (() if personal else GLOBAL))
    return reading


def _digests(end: Mapping[str, Any]) -> dict[str, str]:
    found = end.get("sha256")
    return found if isinstance(found, dict) else {}


def _streams(reading: Reading, expected: tuple[str, ...]) -> None:
    """Fill in the two streams, and tell what is not as a run leaves it."""
    problems, digests = reading.problems, _digests(reading.end)
    rows = _lines(reading.folder / record.ROUNDS, digests, problems, reading.damaged)
    if rows is not None:
        at = [row["round"] for row in rows]
        reading.metrics = _stream(at, [row.get("metrics") for row in rows], record.ROUNDS, problems)
        gone = [name for name in expected if name not in reading.metrics.columns]
        if gone:
            problems.append(f"{record.ROUNDS}: no {', '.join(gone)}")
        rounds = len(reading.metrics.rounds)
        for name, absent in reading.metrics.absent.items():
            problems.append(f"{record.ROUNDS}: no {name} in {absent.sum()} of {rounds} rounds")
    rows = _lines(reading.folder / record.TIMING, digests, problems, reading.damaged)
    if rows is not None:
        timing = _stream([row["round"] for row in rows], rows, record.TIMING, [])  # it may hold words as well
        timing.columns.pop("round", None)
        if not np.array_equal(timing.rounds, reading.metrics.rounds):
            problems.append(f"{record.TIMING}: not of the rounds in {record.ROUNDS}")
            timing = _aligned(timing, reading.metrics.rounds)
        reading.timing = timing


def _content(path: Path, digests: Mapping[str, str] | None, problems: list[str], damaged: list[str]) -> bytes | None:
    """A file that is as the run has left it; without `digests`, of a run that has not ended, as it is."""
    try:
        content = path.read_bytes()
        expected = (digests or {}).get(path.name)
        problem = altered(path.name, expected, hashlib.sha256(content).hexdigest()) if digests is not None else None
    except FileNotFoundError:
        problem = f"{path.name} is missing"
    except OSError as error:
        problem = f"{path.name}: not readable ({error.strerror})"
    if not problem:
        return content
    problems.append(problem)
    if digests is not None:
        damaged.append(path.name)
    return None


def _object(
    path: Path, digests: Mapping[str, str] | None, problems: list[str], damaged: list[str]
) -> dict[str, Any] | None:
    content = _content(path, digests, problems, damaged)
    if content is None:
        return None
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        problems.append(f"{path.name}: not a JSON object")
        return None
    return found


def _lines(
    path: Path, digests: Mapping[str, str] | None, problems: list[str], damaged: list[str]
) -> list[dict[str, Any]] | None:
    """Lines of a stream, which has one for each round, in ascending order."""
    content = _content(path, digests, problems, damaged)
    if content is None:
        return None
    try:
        rows = record.lines(content)
        numbers = [row["round"] for row in rows]
        if all(isinstance(round, int) for round in numbers) and numbers == sorted({*numbers}):
            return rows
    except (ValueError, KeyError, TypeError):
        pass
    problems.append(f"{path.name}: not the lines of ascending rounds")
    return None


def _stream(rounds: list[int], rows: list[dict[str, Any] | None], name: str, problems: list[str]) -> Stream:
    at, first = np.array(rounds, dtype=np.int64), _keys(rows[0]) if rows else set()
    same = all(_keys(row) == first for row in rows)
    names = sorted(first if same else set().union(*map(_keys, rows)))
    if names and same:
        table = [[row[key] for key in names] for row in rows]
        if not any(None in line for line in table):
            with contextlib.suppress(TypeError, ValueError):  # not all are numbers: column by column tells which
                return Stream(at, dict(zip(names, np.array(table, dtype=np.float64).T.copy(), strict=True)))
    columns, absent = {}, {}
    for key in names:
        values = [(row or {}).get(key) for row in rows]
        try:
            columns[key] = np.array([math.nan if value is None else float(value) for value in values])
        except (TypeError, ValueError):
            problems.append(f"{name}: {key} is not a number")
            continue
        if None in values:
            absent[key] = np.array([value is None for value in values])
    return Stream(at, columns, absent)


def _keys(row: dict[str, Any] | None) -> Any:
    return row.keys() if row else set()


def _aligned(stream: Stream, rounds: np.ndarray) -> Stream:
    """`stream` with the lines of `rounds`, NaN where it has none."""
    place = {round: i for i, round in enumerate(stream.rounds.tolist())}
    index = np.array([place.get(round, -1) for round in rounds.tolist()], dtype=np.int64)
    columns = {
        name: np.where(index >= 0, np.append(values, math.nan)[index], math.nan)
        for name, values in stream.columns.items()
    }
    return Stream(rounds, columns)


def _unfinished(folder: Path, config: Mapping[str, Any]) -> str:
    if not (folder / record.CONFIG).is_file():
        return "no record"
    rows = _lines(folder / record.ROUNDS, None, [], []) if (folder / record.ROUNDS).is_file() else []
    done = "?" if rows is None else max((row["round"] for row in rows), default=0)
    budget = config.get("configuration", {}).get("budget", {}).get("rounds", "?")
    return f"not finished: {done} of {budget} rounds"


def _diverged(end: Mapping[str, Any]) -> str:
    left, clients = end.get("rounds_left", 0), end.get("diverged_clients")
    whose = "" if clients is None else f" (the model{'s' * (clients != 1)} of {clients} client{'s' * (clients != 1)})"
    after = f"; {left} round{'s' * (left != 1)} after it not computed" if left else ""
    return f"diverged in round {end.get('diverged', '?')}{whose}{after}"


def error_line(text: str) -> str:
    """The line that says what went wrong: the first of the message, below the last traceback in `text`."""
    _, _, last = text.rpartition("Traceback (most recent call last):\n")
    lines = [line for line in last.splitlines() if line.strip() and not line.startswith(" ")]
    return re.sub(r"^(\w+\.)+(?=\w+(:|$))", "", lines[0]) if lines else "failed, and left no message"
