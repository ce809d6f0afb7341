"""Files that are whole or absent, digests of what they hold, and errors that name them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from heterobench.errors import DamagedFile, DiskError, RunError

TEMPORARY = ".heterobench-"  # begins the names of files that are being written; a killed process leaves them behind
FAILING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP}
CLOSED = {errno.EROFS: "writable", errno.EACCES: "accessible to this user", errno.EPERM: "accessible to this user"}


@contextmanager
def atomic(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary neighbour of `path`; rename it into place on success, remove it on any error.

    Raises DiskError where the system cannot write; `needed`: bytes, for its message.
    """
    path = Path(path)
    with writing(path, needed):
        if path.exists() and not (path.is_file() or path.is_dir()):  # renaming over /dev/null would remove the device
            raise DiskError(f"{path}: a device or a pipe, which is not replaced. What to do: name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{TEMPORARY}{path.name}.", dir=path.parent)
        try:
            os.close(handle)
            os.chmod(name, 0o644)
            yield Path(name)
            with open(name, "rb") as done:
                os.fsync(done.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock `path`, and hold it. Raises DiskError where it cannot be made."""
    lock = FileLock(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def leftover(path: Path) -> bool:
    """Whether `path` is what a killed process was writing: no part of any result."""
    return path.name.startswith(TEMPORARY)


@contextmanager
def writing(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn what the system says of a full, read-only or failing disk, or of a folder in the place of a file, while
    `path` is written into a DiskError."""
    try:
        yield
    except Exception as error:  # whoever writes for us has error types of its own
        if (text := cannot_write(error, path, needed)) is None:
            raise
        raise DiskError(text) from error


def check_room(folder: Path, needed: int = 1 << 20) -> None:
    """Raise DiskError unless `needed` bytes can be written there: for programs that only say that they failed."""
    with writing(folder / "a file", needed):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as stream:
            stream.write(bytes(needed))
            stream.write(b"\0")  # where the first fell short, the system says why now


def cannot_write(error: BaseException, path: Path | None = None, needed: int | None = None) -> str | None:
    """Where an error says that the system cannot write (or, without `path`, reach) a file: which, why, what to do.

    None for every other error. `path`: the file that was written; `needed`: its bytes.
    """
    named = Path(name).absolute() if isinstance(name := getattr(error, "filename", None), str) else None
    if (number := _number(error)) is None:
        return None
    if path and named and number in (errno.EACCES, errno.EPERM):
        whole = path.absolute()
        if named.parent != whole.parent and named not in whole.parents:
            return None  # what is closed is another file, which was to be read
    path = (path or named or Path("a file")).absolute()
    folder, reason = path.parent, os.strerror(number)
    if number in CLOSED:
        return f"{path}: {reason}. What to do: make {folder} {CLOSED[number]}, or move the project; nothing is lost"
    if number in IN_THE_WAY:
        way = "move away what stands in the place of this file, or of a folder above it"
        return f"{path}: {reason}. What to do: {way}; nothing is lost"
    if number == errno.ENAMETOOLONG:
        return f"{path.name[:40]}...: {reason}. What to do: choose a shorter one"
    what = f"{needed:,} bytes are needed for {path.name}" if needed is not None else f"{path.name} cannot be written"
    free = ""
    with contextlib.suppress(OSError):
        there = next(place for place in (folder, *folder.parents) if place.is_dir())
        free = f", {shutil.disk_usage(there).free:,} are free"
    advice = "make room, then start the same command again; a run goes on from its last checkpoint"
    return f"{folder}: {reason}: {what}{free}. What to do: {advice}"


def _number(error: BaseException) -> int | None:
    """The system's number of an error of writing; libraries hide it in their texts."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in FAILING | IN_THE_WAY | CLOSED.keys() | {errno.ENAMETOOLONG} else None
    text = str(error)
    if (found := re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", text)) is not None:  # safetensors, pyarrow
        return _number(OSError(int(found[1] or found[2]), ""))
    if isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", text):  # numpy
        return errno.ENOSPC
    return None


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Readable JSON with sorted keys, so that equal values give equal bytes."""
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def read_json(path: Path) -> Any:
    """Raises FileNotFoundError, and DamagedFile for what is no JSON or cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(f"{path}: damaged or not readable: {in_a_line(error)}") from None


def json_object(path: Path) -> dict[str, Any] | None:
    """What `path` holds where it is a JSON object; None where it is absent, damaged or something else."""
    try:
        found = read_json(path)
    except (FileNotFoundError, DamagedFile):
        return None
    return found if isinstance(found, dict) else None


def in_a_line(error: BaseException) -> str:
    """The first line of what an error says; the name of its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


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
