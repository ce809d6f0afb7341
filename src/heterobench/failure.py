"""What the command line says of an error: one way to fail for every command."""

from __future__ import annotations

import shlex
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from heterobench.errors import HeterobenchError, without_credentials
from heterobench.files import cannot_write, in_a_line
from heterobench.project import Project

MEMORY = ("can't allocate memory", "out of memory", "unable to allocate", "bad_alloc")


def explained(error: Exception, arguments: Sequence[str], project: Project | None) -> str:
    """The message for a user. Of an error that nobody foresaw the traceback goes to a file, which is named."""
    text = without_credentials(_explained(error, arguments, project))
    return text.encode(errors="backslashreplace").decode()  # an argument may hold bytes that are no text


def _explained(error: Exception, arguments: Sequence[str], project: Project | None) -> str:
    if isinstance(error, HeterobenchError):
        return str(error)
    if (text := cannot_write(error)) is not None:
        return text
    command = shlex.join(arguments)
    if isinstance(error, MemoryError) or any(word in str(error).lower() for word in MEMORY):
        return (
            f"{command}: out of memory ({in_a_line(error)}). What to do: fewer jobs or workers at a time, a smaller "
            "batch_size or model, or a machine with more memory"
        )
    place = kept(error, command, project)
    what = f"{type(error).__name__}: {in_a_line(error)}"
    return f"{command}: stopped by an error that should have been explained: {what}. The traceback is in {place}"


def kept(error: Exception, command: str, project: Project | None) -> Path | str:
    """Write the traceback below results/logs/, else to the folder for temporary files; returns where it is."""
    text = without_credentials(f"{command}\n\n{''.join(traceback.format_exception(error))}")
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}.log"
    for folder in ([project.results / "logs" / "errors"] if project else []) + [Path(tempfile.gettempdir())]:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
            return folder / name
    return f"no file, for none can be written:\n{text}"
