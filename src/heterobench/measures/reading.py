"""A run's record for an evaluation: every file read once, nothing raised; what is damaged or absent is told."""

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

    Of a run that has failed or is missing the streams are empty.
    """

    folder: Path
    status: str
    problems: list[str]
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    end: Mapping[str, Any] = field(default_factory=dict)
    metrics: Stream = field(default_factory=lambda: Stream(np.zeros(0, np.int64), {}))
    timing: Stream = field(default_factory=lambda: Stream(np.zeros(0, np.int64), {}))

    @property
    def run_id(self) -> str:
        return str(self.config.get("run_id", ""))


def read(folder: Path, failure: str | None = None, personal: bool = False) -> Reading:
    """The run in `folder`. `failure`: what the manifest of its job says of a failed run.

    Personal models have no global test, so that a record without it is whole.
    """
    problems: list[str] = []
    about = {name: _object(folder / name, problems) for name in (record.CONFIG, record.PROVENANCE)}
    end = _object(folder / record.END, problems)
    config, provenance = about[record.CONFIG] or {}, about[record.PROVENANCE] or {}
    status = MISSING if end is None else end.get("status")
    if status not in record.COMPUTED:
        error = failure if end is None else error_line(str(end.get("error", ""))) if status == FAILED else None
        damaged = [problem for problem in problems if problem.startswith(f"{record.END}:")]
        told = [error] if error else damaged or [_unfinished(folder, config)]
        return Reading(folder, FAILED if error else MISSING, told, config, provenance, end or {})
    told = [_diverged(end)] if status == record.DIVERGED else []
    reading = Reading(folder, status, told + problems, config, provenance, end)
    _streams(reading, ALWAYS + (() if personal else GLOBAL))
    return reading


def _streams(reading: Reading, expected: tuple[str, ...]) -> None:
    """Fill in the two streams, and tell what is not as a run leaves it."""
    folder, problems = reading.folder, reading.problems
    text = _text(folder / record.ROUNDS, problems)
    if text is not None:
        digest = hashlib.sha256(text.encode()).hexdigest()
        if reading.end.get("digest", digest) != digest:
            problems.append(f"{record.ROUNDS}: changed after the run had ended")
        rows, values = _rows(text, record.ROUNDS, problems)
        reading.metrics = _stream(rows, [row.get("metrics") for row in values], record.ROUNDS, problems)
        gone = [name for name in expected if name not in reading.metrics.columns]
        if gone:
            problems.append(f"{record.ROUNDS}: no {', '.join(gone)}")
        rounds = len(reading.metrics.rounds)
        for name, absent in reading.metrics.absent.items():
            problems.append(f"{record.ROUNDS}: no {name} in {absent.sum()} of {rounds} rounds")
    text = _text(folder / record.TIMING, problems)
    if text is not None:
        rows, values = _rows(text, record.TIMING, problems)
        timing = _stream(rows, values, record.TIMING, [])  # it may hold words as well
        timing.columns.pop("round", None)
        if not np.array_equal(timing.rounds, reading.metrics.rounds):
            problems.append(f"{record.TIMING}: not of the rounds in {record.ROUNDS}")
            timing = _aligned(timing, reading.metrics.rounds)
        reading.timing = timing


def _text(path: Path, problems: list[str]) -> str | None:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path.name}: not readable ({type(error).__name__})")
    return None


def _object(path: Path, problems: list[str]) -> dict[str, Any] | None:
    text = _text(path, problems)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        problems.append(f"{path.name}: not a JSON object")
        return None
    return found


def _rows(text: str, name: str, problems: list[str]) -> tuple[list[int], list[dict[str, Any]]]:
    """Rounds and lines of a stream, in ascending order of rounds; of a round that comes twice the later line."""
    lines = text[: text.rfind("\n") + 1].splitlines()
    try:
        found = json.loads(f"[{','.join(lines)}]")  # all at once is several times as fast as line by line
    except ValueError:
        found = [_parsed(line) for line in lines]
    good = {
        row["round"]: row
        for row in found
        if isinstance(row, dict) and isinstance(row.get("round"), int) and isinstance(row.get("metrics", {}), dict)
    }
    if len(good) < len(lines):
        problems.append(f"{name}: {len(lines) - len(good)} of {len(lines)} lines are damaged or come twice")
    rounds = sorted(good)
    return rounds, [good[round] for round in rounds]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
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
    rounds = [row["round"] for row in _rows(_text(folder / record.ROUNDS, []) or "", record.ROUNDS, [])[1]]
    budget = config.get("configuration", {}).get("budget", {}).get("rounds", "?")
    return f"not finished: {max(rounds, default=0)} of {budget} rounds"


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
