"""Files that are whole or absent, and digests of what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heterobench.errors import RunError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary neighbour of `path`; rename it into place on success, remove it on any error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    os.chmod(name, 0o644)
    try:
        yield Path(name)
        with open(name, "rb") as done:
            os.fsync(done.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def room(path: Path, needed: int) -> Iterator[None]:
    """Turn what the system says of a full (or failing) disk while `needed` bytes are written into a RunError."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        raise RunError(
            f"{path.parent}: {error.strerror}: {needed:,} bytes are needed for {path.name}, {free:,} are free. What to "
            f"do: make room, then start the run again; it goes on from its last checkpoint"
        ) from error


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Readable JSON with sorted keys, so that equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
