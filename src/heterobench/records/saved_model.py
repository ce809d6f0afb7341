"""Trained models on disk: safetensors, parameter by parameter, which execute nothing when loaded.

A global model holds each parameter under its name in the net. Personal models hold all clients' values of it
stacked, [clients, *shape], and say so in the metadata, which is one JSON entry: several entries would be written in
an arbitrary order, and equal models would have unequal bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from heterobench.files import atomic
from heterobench.task import Layout


def save(path: Path, layout: Layout, theta: Tensor, notes: dict[str, Any]) -> None:
    """`theta`: [P], or [clients, P] for personal models."""
    personal = theta.dim() == 2
    parts = theta.detach().cpu().split(layout.sizes, dim=-1)
    lead = theta.shape[:1] if personal else ()
    tensors = {
        name: part.reshape(*lead, *shape).contiguous()
        for name, part, shape in zip(layout.names, parts, layout.shapes, strict=True)
    }
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"heterobench": json.dumps(notes | {"personal": personal}, sort_keys=True)})


def content(path: Path) -> str | None:
    """sha256 of the names, shapes and numbers in a file of models, its notes aside; None where there are none."""
    try:
        stored = path.read_bytes()
        start = 8 + int.from_bytes(stored[:8], "little")  # the header's length, the header, the numbers
        header = json.loads(stored[8:start])
        del header["__metadata__"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + stored[start:]).hexdigest()


def note(path: Path, notes: dict[str, Any]) -> None:
    """Write other `notes` into a file of models; one that has them already is left as it is."""
    with safe_open(path, framework="pt") as stored:
        about = json.loads(stored.metadata()["heterobench"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    wanted = notes | {"personal": about["personal"]}
    if about == wanted:
        return
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"heterobench": json.dumps(wanted, sort_keys=True)})


def load(path: Path, layout: Layout, device="cpu") -> Tensor:
    """theta [P], or [clients, P] for personal models."""
    with safe_open(path, framework="pt", device=str(device)) as stored:
        personal = json.loads(stored.metadata()["heterobench"])["personal"]
        parts = [stored.get_tensor(name) for name in layout.names]
    return torch.cat([part.flatten(1 if personal else 0) for part in parts], dim=-1)
