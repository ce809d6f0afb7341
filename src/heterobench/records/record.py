"""A run's record: the only thing that training writes beside checkpoints and models.

Files in the directory of a run::

    config.json         identity, resolved configuration, seed, hashes of data and partition, code fingerprint
    provenance.json     git revision, packages, hardware, host, time of start; "energy": how joules were counted,
                        {"method", "measured" (true or false), "scope", and the constants of a model}
    rounds.jsonl        one line per evaluated round, append-only, no times: same inputs, same bytes
    timing.jsonl        what was measured in the same rounds: {"round", "seconds" of training so far, seconds of
                        "evaluation" so far, "joules" of training so far (all ranks; left out where not known), "time"
                        (unix)}
    progress.json       round, rounds, metric, seconds left: for `heterobench watch`
    checkpoints/        what a killed run goes on from; of a finished run the last one, where it is small enough: what
                        a longer run, or one whose files were damaged, goes on from
    final.safetensors, selected.safetensors     models: last round, best round on validation data
    snapshots/round-<k>.safetensors     where they were asked for: global models along the way
    end.json            written last: status, rounds, seconds, "selected_round", "sha256" of each of the files above but
                        progress and checkpoints, and its own digest ("seal"): who reads a run compares
                        (`Record.damage`). Of a run that diverged "diverged", the round from which on a model was not
                        finite, "rounds_left", how many were not computed for that, and, of personal models,
                        "diverged_clients", how many

A line of rounds.jsonl is {"round", "metrics"}. Beside scores and "train_loss" the metrics are what the run has cost so
far: "bytes_up", "bytes_down"; "gradient_examples", the gradients of single examples that all clients computed; "flops",
these times the operations of one gradient; "simulated_seconds", where the schedule has a clock.

Numbers that are not finite are written as the strings "NaN", "Infinity", "-Infinity" (JSON has no such numbers).
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heterobench.errors import RunError
from heterobench.files import difference, file_digest, read_json, read_sealed, write_sealed

FINISHED, DIVERGED = "finished", "diverged"
COMPUTED = (FINISHED, DIVERGED)  # status of runs that are whole; the last model of one that has diverged is none
CONFIG, PROVENANCE, ROUNDS, TIMING = "config.json", "provenance.json", "rounds.jsonl", "timing.jsonl"
PROGRESS, CHECKPOINTS, END = "progress.json", "checkpoints", "end.json"
FINAL, SELECTED, SNAPSHOTS = "final.safetensors", "selected.safetensors", "snapshots"
REPEATABLE = (ROUNDS, FINAL, SELECTED)  # the same inputs give the same bytes


def snapshot_name(round: int) -> str:
    return f"{SNAPSHOTS}/round-{round:06d}.safetensors"


def snapshot(folder: Path, round: int) -> Path:
    return folder / snapshot_name(round)


def snapshots(folder: Path) -> dict[int, Path]:
    """Round -> file of the models that a run kept along its way, in ascending order."""
    return {number: path for path, number in _numbered(folder / SNAPSHOTS, r"round-(\d+)\.safetensors").items()}


def checkpoints(folder: Path) -> dict[Path, int]:
    """Checkpoints of a run, in ascending order, and the round after which each was made."""
    return _numbered(folder / CHECKPOINTS, r"round-(\d{8})-[0-9a-f]{16}\.safetensors")


def _numbered(folder: Path, pattern: str) -> dict[Path, int]:
    """The files whose whole names are of the pattern, with the number in it; what else lies there is nobody's."""
    found = ((path, re.fullmatch(pattern, path.name)) for path in sorted(folder.glob("*")))
    return {path: int(match[1]) for path, match in found if match}


def misplaced(folder: Path) -> list[str]:
    """What stands where a file (or, for checkpoints and snapshots, a folder) of a run belongs, and is none."""
    folders = (CHECKPOINTS, SNAPSHOTS)
    files = [folder / name for name in (CONFIG, PROVENANCE, ROUNDS, TIMING, PROGRESS, END, FINAL, SELECTED)]
    files += [*checkpoints(folder), *snapshots(folder).values()]
    wrong = [path for path in files if os.path.lexists(path) and not path.is_file()]
    wrong += [path for name in folders if os.path.lexists(path := folder / name) and not path.is_dir()]
    return [path.relative_to(folder).as_posix() for path in wrong]


def left(folder: Path) -> list[str]:
    """Names of the files that a run leaves, of those that are there."""
    models = [FINAL, SELECTED, *(path.relative_to(folder).as_posix() for path in snapshots(folder).values())]
    return [name for name in (CONFIG, PROVENANCE, ROUNDS, TIMING, *models) if (folder / name).is_file()]


def seal(folder: Path, status: str, **more: Any) -> None:
    """Write ``end.json``, which ends a run, with the digests of everything that the run leaves."""
    digests = {name: file_digest(folder / name) for name in left(folder)}
    write_sealed(folder / END, {"status": status, "sha256": digests} | more)


def encode(value: Any) -> Any:
    """`value` with non-finite floats as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(value: Any) -> Any:
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value.replace("Infinity", "inf"))
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def line(row: dict[str, Any]) -> str:
    return json.dumps(encode(row), sort_keys=True, separators=(",", ":")) + "\n"


def lines(content: bytes) -> list[dict[str, Any]]:
    """All complete lines of a stream, numbers that are not finite still as strings; ValueError where it is none.

    A last line without its end (the process was killed while writing) is left out.
    """
    text = content[: content.rfind(b"\n") + 1].decode()
    return json.loads(f"[{','.join(text.splitlines())}]")  # all at once is several times as fast as line by line


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a stream; none where there is no file. RunError where it holds something else."""
    if not Path(path).is_file():
        return []
    try:
        return decode(lines(Path(path).read_bytes()))
    except ValueError as error:
        raise RunError(f"{path}: damaged: not the lines of a record ({error})") from None


@dataclass(frozen=True)
class Record:
    """Read access to the directory of a run."""

    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        return read_json(self.folder / CONFIG)

    @property
    def provenance(self) -> dict[str, Any]:
        return read_json(self.folder / PROVENANCE)

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """One dictionary per evaluated round: "round" (1 = after the first) and the metrics by name."""
        return read_lines(self.folder / ROUNDS)

    @property
    def timing(self) -> list[dict[str, Any]]:
        return read_lines(self.folder / TIMING)

    @property
    def end(self) -> dict[str, Any] | None:
        """None while the run goes on, or when it was killed. RunError where it is damaged."""
        path = self.folder / END
        return read_sealed(path) if path.is_file() else None

    @property
    def finished(self) -> bool:
        """Computed to its last round, and its last model is one."""
        return (end := self.end) is not None and end["status"] == FINISHED

    @property
    def computed(self) -> bool:
        """Nothing is left to compute: finished, or diverged."""
        return (end := self.end) is not None and end["status"] in COMPUTED

    def damage(self, *names: str) -> list[str]:
        """What is not as the run has left it when it ended: a line for each file, of `names` alone where there are any.

        Empty where all is, and where the run has not ended.
        """
        try:
            end = self.end
        except RunError as error:
            return [str(error)]
        if end is None:
            return []
        if not isinstance(digests := end.get("sha256"), dict):
            return [f"{END}: no digests of the run's files"]
        found = (difference(self.folder / name, digests.get(name), name) for name in names or digests)
        return [problem for problem in found if problem]
