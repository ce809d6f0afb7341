"""Where a result comes from: code, packages, hardware."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import socket
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from heterobench.files import write_text
from heterobench.records.revision import revision

LOG = logging.getLogger(__name__)
PACKAGES = ("heterobench", "torch", "numpy", "safetensors")
SOURCE = Path(__file__).parents[1]
RULES = Path(__file__).read_bytes()  # what counts is said by this file: a change of it makes kept digests void

# Modules that say where things are and how errors read, but cannot change a bit of a result.
SILENT = ("cli", "commands", "config", "energy", "errors", "files", "project", "records", "registry", "resolve")


def _is_text(statement: ast.stmt) -> bool:
    """A string that stands alone: the docstring of a module, class, function or attribute."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_text(statement)] or [ast.Pass()]
    return tree


def _path(module: str) -> Path | None:
    base = SOURCE.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _parse(source: bytes) -> tuple[str, tuple[str, ...]]:
    """Digest of what counts of a module's source, and the modules of ours that it imports."""
    tree = ast.parse(source)
    inside = tuple(name for name in _imports(tree) if name.startswith("heterobench."))
    return hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest(), inside


@cache
def _parsed(module: str) -> tuple[str, tuple[str, ...]] | None:
    """`_parse`, kept from process to process where Python keeps the module's byte code, since every job asks."""
    path = _path(module)
    if path is None:
        return None
    source = path.read_bytes()
    key = hashlib.sha256(source + RULES).hexdigest()
    store = Path(importlib.util.cache_from_source(path)).with_suffix(".code.json")
    with contextlib.suppress(OSError, ValueError):
        kept, code, inside = json.loads(store.read_text(encoding="utf-8"))
        if kept == key:
            return code, tuple(inside)
    code, inside = _parse(source)
    with contextlib.suppress(OSError):  # a package that is not ours to write in, or nothing to write in any more
        write_text(store, json.dumps([key, code, inside]))
    return code, inside


def fingerprint(roots: Iterable[str]) -> str:
    """16 hexadecimal digits over the code of the modules `roots` and all modules of ours that they import.

    Comments, docstrings and layout do not count: what changes the fingerprint can change a result.
    """
    seen: dict[str, str] = {}
    queue = list(roots)
    while queue:
        module = queue.pop()
        if module in seen or module.split(".")[1] in SILENT or (parsed := _parsed(module)) is None:
            continue
        seen[module], inside = parsed
        queue += inside
    return hashlib.sha256("\n".join(f"{name} {seen[name]}" for name in sorted(seen)).encode()).hexdigest()[:16]


def training_code(algorithm: str, architecture: str) -> str:
    """Fingerprint of the code that decides the bits of a run."""
    name = algorithm.replace("-", "_")
    return fingerprint(["heterobench.training", f"heterobench.algorithms.{name}", f"heterobench.models.{architecture}"])


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # imported from a folder in PYTHONPATH, never installed
        return "not installed"


def provenance(root: Path, device: str) -> dict[str, Any]:
    """Git revision, packages, hardware, host and time of start, as plain JSON.

    "revision" and "dirty" are null where they are not known; "revision_unknown" then says why, and so does the log.
    """
    import torch

    code = revision(root)
    if code.reason:
        LOG.warning("which code this is cannot be told, and the record says so: %s", code.reason)
    return {
        "revision": code.name,
        "dirty": code.dirty,
        "revision_unknown": code.reason,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "hardware": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
            "system": platform.platform(),
        },
        "device": device,
        "host": socket.gethostname(),
        "started": time.time(),
    }
