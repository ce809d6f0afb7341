"""The lock of a workflow whose Snakemake was killed: recognised as nobody's, and released.

Snakemake locks a project while it runs, in files that do not say whose they are; after ``kill -9``, a crash or a power
cut they stay, and the next start refuses until somebody types ``snakemake --unlock``. Here every Snakemake that reads
the Snakefile signs a list beside the locks. A lock is nobody's when all who signed have ended. Who signed on another
machine cannot be seen from here: such a lock stays.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from heterobench.files import json_object, write_json
from heterobench.project import Project


def sign(project: Project) -> list[Path]:
    """Sign as a process that may lock the project, after releasing a lock that is nobody's. Returns what it removed."""
    folder = project.root / ".snakemake"
    list_, locks = folder / "heterobench-running.json", folder / "locks"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".heterobench-running.lock"):  # two starts at once see each other
        since, signed = _read(list_)
        others = [who for who in signed if not _ended(who) and who["pid"] != os.getpid()]
        held = sorted(locks.glob("*.lock"))
        # a lock from before the list may be that of somebody who has not signed
        stale = held if not others and all(lock.stat().st_mtime >= since for lock in held) else []
        for lock in stale:
            lock.unlink(missing_ok=True)
        write_json(list_, {"since": since, "running": [*others, _me()]})
    if stale:
        print("released the lock of a workflow that was killed", file=sys.stderr, flush=True)
    elif held:
        names = ", ".join(f"process {who['pid']} on {who['host']}" for who in others) or "a process that has not signed"
        print(f"this project is locked, perhaps by {names}", file=sys.stderr, flush=True)
    return stale


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def _read(path: Path) -> tuple[float, list[dict[str, Any]]]:
    """Since when everybody signs (unix; now, where there is no list), and who has signed."""
    found = json_object(path) or {}
    since, running = found.get("since"), found.get("running")
    if not isinstance(since, float) or not isinstance(running, list):
        return time.time(), []
    return since, [who for who in running if isinstance(who, dict) and {"host", "pid", "started"} <= who.keys()]


def _ended(who: dict[str, Any]) -> bool:
    """Whether a process of this machine is gone; a later one of the same number is another."""
    if who["host"] != socket.gethostname():
        return False
    with suppress(psutil.NoSuchProcess, TypeError, ValueError):
        process = psutil.Process(who["pid"])
        return process.create_time() != who["started"] or process.status() == psutil.STATUS_ZOMBIE
    return True
