"""Checkpoints: everything the next round depends on, in safetensors, whole or absent.

A checkpoint's file name ends in the first digits of its sha256, so a damaged one is recognised; the last two are
kept, so that a damaged one costs some rounds and not the run. Client states that are too large for it stand in a
log beside it, which it refers to (`heterobench.engine.client_states`); a damaged log is recognised as well.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from heterobench.engine.client_states import ClientStates, Damaged
from heterobench.engine.synchronous import RunState
from heterobench.files import atomic, file_digest

KEEP = 2
log = logging.getLogger(__name__)


def _group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # clone: safetensors refuses tensors that share memory, and server states may (x is also the evaluated mean)
    return {f"{prefix}{name}": tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def save(folder: Path, state: RunState, extra: dict[str, Tensor], notes: dict[str, Any]) -> Path:
    """Write a checkpoint and remove all but the last two. `extra` tensors and JSON `notes` are the caller's.

    A full disk is a RunError, with the older checkpoints as they were.
    """
    clients, about = state.clients.stored()  # a log of client states is on disk before the file that refers to it
    groups = {"server/": state.server, "fresh/": state.fresh, "clients/": clients, "extra/": extra}
    numbers = {
        "round": state.round,
        "bytes_up": state.bytes_up,
        "bytes_down": state.bytes_down,
        "gradient_examples": state.gradient_examples,
        "simulated_seconds": state.simulated_seconds,
        "train_loss": state.train_loss,
        "clients": about,
        "notes": notes,
    }
    tensors = {name: t for prefix, group in groups.items() for name, t in _named(prefix, group).items()}
    content = to_bytes(tensors, {"state": json.dumps(numbers)})
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"round-{state.round:08d}-{digest[:16]}.safetensors"
    with atomic(path, len(content)) as temporary:
        temporary.write_bytes(content)
    _sync(folder)
    for old in _kept(folder)[:-KEEP]:
        old.unlink()
    _tidy(folder, state.clients.log)
    return path


def load(
    folder: Path, device="cpu", fault: Callable[[RunState, dict[str, Any]], str | None] = lambda state, notes: None
) -> tuple[RunState, dict[str, Tensor], dict[str, Any]] | None:
    """State, extra tensors and notes of the newest intact checkpoint, or None; damaged ones are reported.

    `fault`: why a state with its notes is of no use (what it goes with may be damaged, too), None where it is.
    """
    for path in reversed(_kept(folder)):
        try:
            found = _read(path, device)
            if (problem := fault(found[0], found[2])) is None:
                return found
            log.warning("%s: the run cannot go on from this checkpoint: %s", path, problem)
            path.unlink()
        except (Damaged, SafetensorError) as error:
            log.warning("%s: damaged checkpoint (%s); the one before is used", path, error)
            path.unlink()  # it must not count among the last ones that are kept
    return None


def size(state: RunState, extra: dict[str, Tensor]) -> int:
    """Bytes that a checkpoint takes, a log of client states included."""
    tensors = [*state.server.values(), *state.fresh.values(), *extra.values()]
    return state.clients.size + sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def trim(folder: Path, state: RunState) -> None:
    """Remove all checkpoints but the last, which is that of `state`."""
    for old in _kept(folder)[:-1]:
        old.unlink()
    _tidy(folder, state.clients.log)


def _kept(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"round-{'?' * 8}-{'?' * 16}.safetensors"))  # a copy by hand has another name


def _read(path: Path, device: Any) -> tuple[RunState, dict[str, Tensor], dict[str, Any]]:
    if file_digest(path)[:16] != path.stem.rpartition("-")[2]:
        raise Damaged("its checksum differs from its name")
    with safe_open(path, framework="pt", device=str(device)) as stored:
        # copies: the last bit of a matrix product depends on how its operands lie in memory
        tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118
        numbers = json.loads(stored.metadata()["state"])
    state = RunState(
        round=numbers["round"],
        server=_group(tensors, "server/"),
        fresh=_group(tensors, "fresh/"),
        clients=ClientStates.restored(path.parent, _group(tensors, "clients/"), numbers["clients"], device),
        bytes_up=numbers["bytes_up"],
        bytes_down=numbers["bytes_down"],
        gradient_examples=numbers["gradient_examples"],
        simulated_seconds=numbers["simulated_seconds"],
        train_loss=numbers["train_loss"],
    )
    return state, _group(tensors, "extra/"), numbers["notes"]


def _log_of(path: Path) -> str | None:
    """The name of the log of client states that a checkpoint refers to."""
    with safe_open(path, framework="pt") as stored:
        return json.loads(stored.metadata()["state"])["clients"].get("log", {}).get("name")


def _tidy(folder: Path, used: str | None) -> None:
    """Remove logs that neither the run (`used`) nor a kept checkpoint needs, and what a killed save left."""
    needed = {used, *map(_log_of, _kept(folder))}
    for path in folder.glob("states-*.rows"):
        if path.name not in needed:
            path.unlink()
    for path in folder.glob(".round-*"):
        path.unlink()


def _sync(folder: Path) -> None:
    """Make the names in a folder as durable as the files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
