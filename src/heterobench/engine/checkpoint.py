"""Checkpoints: everything the next round depends on, in safetensors, whole or absent.

A checkpoint's file name ends in the first digits of its sha256, so a damaged one is recognised; the last two are
kept, so that a damaged one costs some rounds and not the run.
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from heterobench.engine.synchronous import RunState
from heterobench.files import atomic, file_digest

KEEP = 2
log = logging.getLogger(__name__)


def _tensors(state: RunState) -> dict[str, Tensor]:
    tensors = {f"server/{k}": v for k, v in state.server.items()} | {f"fresh/{k}": v for k, v in state.fresh.items()}
    if state.clients:
        ids = sorted(state.clients)
        tensors["clients"] = torch.tensor(ids)
        for key in state.clients[ids[0]]:
            tensors[f"client/{key}"] = torch.stack([state.clients[i][key] for i in ids])
    return tensors


def _group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def save(folder: Path, state: RunState, extra: dict[str, Tensor], notes: dict[str, Any]) -> Path:
    """Write a checkpoint and remove all but the last two. `extra` tensors and JSON `notes` are the caller's."""
    tensors = _tensors(state) | {f"extra/{name}": tensor for name, tensor in extra.items()}
    numbers = {
        "round": state.round,
        "bytes_up": state.bytes_up,
        "bytes_down": state.bytes_down,
        "train_loss": state.train_loss,
        "notes": notes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    name = f"round-{state.round:08d}"
    with atomic(folder / f"{name}.tmp") as temporary:
        # clone: safetensors refuses tensors that share memory, and server states may (x is also the evaluated mean)
        save_file(
            {k: v.detach().cpu().clone() for k, v in tensors.items()},
            temporary,
            {"state": json.dumps(numbers)},
        )
        digest = file_digest(temporary)
    path = (folder / f"{name}.tmp").rename(folder / f"{name}-{digest[:16]}.safetensors")
    for old in sorted(folder.glob("round-*.safetensors"))[:-KEEP]:
        old.unlink()
    return path


def load(folder: Path, device="cpu") -> tuple[RunState, dict[str, Tensor], dict[str, Any]] | None:
    """State, extra tensors and notes of the newest intact checkpoint, or None; damaged ones are reported."""
    for path in sorted(folder.glob("round-*.safetensors"), reverse=True):
        if file_digest(path)[:16] != path.stem.rpartition("-")[2]:
            log.warning("%s: damaged checkpoint (its checksum differs from its name); the one before is used", path)
            path.unlink()  # it must not count among the last ones that are kept
            continue
        with (
            contextlib.suppress(SafetensorError),
            safe_open(path, framework="pt", device=str(device)) as stored,
        ):
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            numbers = json.loads(stored.metadata()["state"])
            return _state(tensors, numbers), _group(tensors, "extra/"), numbers["notes"]
    return None


def _state(tensors: dict[str, Tensor], numbers: dict[str, Any]) -> RunState:
    stacked = _group(tensors, "client/")
    ids = tensors["clients"].tolist() if "clients" in tensors else []
    return RunState(
        round=numbers["round"],
        server=_group(tensors, "server/"),
        fresh=_group(tensors, "fresh/"),
        clients={i: {key: rows[n] for key, rows in stacked.items()} for n, i in enumerate(ids)},
        bytes_up=numbers["bytes_up"],
        bytes_down=numbers["bytes_down"],
        train_loss=numbers["train_loss"],
    )
