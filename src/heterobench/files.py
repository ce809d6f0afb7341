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
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def read_json(path: Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


SEAL = "seal"


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """`write_json`, with the digest of `value` in it, which `read_sealed` compares."""
    write_json(path, value | {SEAL: digest(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` has written; RunError where the file is anything else, FileNotFoundError without one."""
    content = path.read_bytes()
    try:
        found = json.loads(content)
        expected = found.pop(SEAL)
    except (ValueError, AttributeError, KeyError, TypeError):
        raise RunError(f"{path.name}: damaged: not a JSON object that ends with its own digest") from None
    if (actual := digest(found)) != expected:
        raise RunError(f"{path.name}: altered: expected content of sha256 {expected}, found {actual}")
    return found


def difference(path: Path, expected: str | None, name: str | None = None) -> str | None:
    """What makes a file another one than that whose sha256 is `expected`, in words; None where it is the same."""
    name = name or path.name
    try:
        found = file_digest(path)
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name}: not readable ({error.strerror})"
    return altered(name, expected, found)


def altered(name: str, expected: str | None, found: str) -> str | None:
    """What is wrong with a file whose sha256 is `found` and ought to be `expected`; None where nothing is."""
    if found == expected:
        return None
    return f"{name}: altered: expected {f'sha256 {expected}' if expected else 'no such file'}, found {found}"


def digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
