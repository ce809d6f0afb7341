"""A sidecar of the workflow that imports runs as they finish: no training process waits for a tracker."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from heterobench.addresses import Formatter
from heterobench.project import Project
from heterobench.tracking.folders import ended, run_folders

# Runs imported under one hold of the import lock, so that another importer gets its turn.
BATCH = 50
LONGEST_PAUSE = 60.0


def alive(pid: int) -> Callable[[], bool]:
    """A question: does the process that is `pid` now still run? A later one of that number does not count."""
    try:
        process = psutil.Process(pid)
    except psutil.Error:
        return lambda: False

    def running() -> bool:
        try:
            # Compares the time of start, too; a killed child that nobody waited for stays a zombie.
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    return running


def open_log(path: Path) -> logging.Logger:
    """A logger that begins `path` anew."""
    log = logging.getLogger("heterobench.track")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return log


def follow(project: Project, parent_pid: int, interval: float = 2.0) -> None:
    """Import finished runs every `interval` seconds until process `parent_pid` has ended, then once more.

    Never raises because of a tracker: it writes to results/logs/track.log and tries again, after twice the
    pause each time (at most a minute). A second follower of the same project ends at once. mlflow is imported
    when the first run has finished, and only once.
    """
    running = alive(parent_pid)
    logs = project.results / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(logs / ".track.lock", timeout=0):
            _follow(project, running, interval, open_log(logs / "track.log"))
    except Timeout:
        return


def _follow(project: Project, running: Callable[[], bool], interval: float, log: logging.Logger) -> None:
    done: dict[Path, tuple[int, int]] = {}
    pause = interval
    log.info("following; the tracker is asked when a run has finished")
    while True:
        # Asked before looking: what ended before the parent did is seen by the look that follows.
        last = not running()
        try:
            found = ended(run_folders(project.results))
            new = [folder for folder, mark in found.items() if done.get(folder) != mark]
            for start in range(0, len(new), BATCH):
                batch = new[start : start + BATCH]
                _import(project, batch, log)
                done |= {folder: found[folder] for folder in batch}
                if start + BATCH < len(new):
                    time.sleep(0.2)
            pause = interval
        except Exception as error:
            # Nothing that a tracker does may end this process while runs are still to come.
            pause = min(2 * pause, LONGEST_PAUSE)
            log.warning("%s", error)
        if last:
            log.info("the workflow has ended")
            return
        _wait(pause, running)


def _import(project: Project, folders: list[Path], log: logging.Logger) -> None:
    from heterobench.tracking.importer import import_runs

    summary = import_runs(project, folders=folders)
    log.info("%s", summary)


def _wait(seconds: float, running: Callable[[], bool]) -> None:
    """Sleep, but not on after the parent has ended."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and running():
        time.sleep(min(left, 1.0))


def start(project: Project, parent_pid: int, interval: float = 2.0) -> subprocess.Popen:
    """`follow` as a process of its own that a Ctrl-C in the terminal does not reach; returns at once."""
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(project.root), str(parent_pid), str(interval)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


if __name__ == "__main__":
    follow(Project(Path(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3]))
