"""Progress of all runs, read from the small files that they write: works for any executor, and over ssh."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

from heterobench.errors import ConfigurationError
from heterobench.files import read_json
from heterobench.project import Project
from heterobench.records.record import END, PROGRESS, decode
from heterobench.tracking.folders import run_folders

# Seconds: a run that has written nothing for so long, and whose process is gone, was killed.
SILENCE = 60.0
# paused: a trial of tuning that waits for the others; stopped: one that tuning has ended early
STATES = ("running", "paused", "stale", "failed", "diverged", "stopped", "finished")
COLOURS = {
    "running": "cyan",
    "paused": "cyan",
    "stale": "yellow",
    "failed": "red",
    "diverged": "red",
    "stopped": "green",
    "finished": "green",
}

Row = dict[str, Any]

# What is computed with. Other keys are only shown.
KINDS = {
    "round": int,
    "rounds": int,
    "updated": (int, float),
    "seconds_left": (int, float, type(None)),
    "metric": (dict, type(None)),
    "status": str,
}


def process_gone(row: Row) -> bool:
    """Whether the run's process was on this host and no longer exists."""
    if row.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(row["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, KeyError, TypeError, ValueError, OverflowError):
        return False
    return False


def state(row: Row, now: float) -> str:
    """One of STATES. Of a process on another host only its silence can be seen: it stays "running"."""
    if row.get("status") in ("paused", "failed", "diverged", "stopped", "finished"):
        return row["status"]
    return "stale" if now - row.get("updated", now) > SILENCE and process_gone(row) else "running"


def read_progress(results: Path, cache: dict[Path, tuple[tuple[int, int], Row]]) -> list[Row]:
    """One row for every run that has begun; `cache` saves reading files that have not changed."""
    rows = []
    for folder in run_folders(results):
        path = folder / PROGRESS
        try:
            now = path.stat()
            stamp = (now.st_mtime_ns, now.st_ino)
            if cache.get(folder, (None,))[0] != stamp:
                cache[folder] = (stamp, {"folder": str(folder)} | checked(decode(read_json(path))))
        except (OSError, ValueError):
            # Not begun, replaced at this moment, or damaged: the next look sees what is there then.
            continue
        row = cache[folder][1]
        if row.get("status") in ("running", "paused") and (folder / END).is_file():
            # Killed between its last two files, or stopped while it waited: the record is whole all the same.
            row = row | {"status": _end_status(folder)}
        rows.append(row)
    return rows


def checked(row: Any) -> Row:
    """A progress file's content; ValueError where it is no such thing."""
    if not isinstance(row, dict):
        raise ValueError("not an object")
    row = {"round": 0, "rounds": 0} | row
    for key, kinds in KINDS.items():
        if not isinstance(row.get(key), kinds) or isinstance(row.get(key), bool):
            raise ValueError(f"{key}: {row.get(key)!r}")
    return row


def _end_status(folder: Path) -> str:
    try:
        return str(read_json(folder / END)["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return "running"


def expected(project: Project) -> int | None:
    """Number of runs that params/config.yaml asks for; None when the parameter files cannot tell.

    Counts names without resolving them: resolving imports the algorithms, and with them torch.
    """
    try:
        from heterobench.config.reading import load, read_yaml
        from heterobench.config.schema import BenchmarkFile

        config = read_yaml(project.params / "config.yaml")
        total = 0
        for name in config["benchmarks"]:
            preset = load(project, "benchmarks", name, BenchmarkFile).presets[config.get("preset", "mini")]
            scenarios = 0
            for grid in preset.scenarios:
                product = 1
                for names in (grid.dataset, grid.model, grid.partition, grid.schedule):
                    product *= 1 if isinstance(names, str) else len(names)
                scenarios += product
            trials = preset.tuning.trials * len(preset.tuning.seeds) if preset.tuning else 0
            total += scenarios * len(preset.algorithms) * (len(preset.seeds) + trials)
        return total or None
    except (ConfigurationError, KeyError, TypeError):
        return None


def duration(seconds: float | None) -> str:
    """``5 s``, ``3 min 20 s``, ``2 h 05 min``; an empty text for what is not known."""
    if seconds is None or not 0 <= seconds < 1e9:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def metric(row: Row) -> str:
    """``validation_accuracy 0.8123``."""
    name, value = (row.get("metric") or {}).get("name"), (row.get("metric") or {}).get("value")
    return f"{name} {value:.4f}" if name and isinstance(value, (int, float)) else ""


def time_left(row: Row, now: float) -> str:
    """Time left of a running run; when it has been silent for long, that."""
    if state(row, now) != "running":
        return ""
    silent = now - row.get("updated", now)
    return f"silent for {duration(silent)}" if silent > SILENCE else duration(row.get("seconds_left"))


def job(row: Row) -> str:
    benchmark = f"{row.get('benchmark')}/{row.get('preset')}"
    return f"{benchmark} {row.get('scenario')} {arm(row)} seed {row.get('seed')}"


def arm(row: Row) -> str:
    """Name of the arm, and of its trial where the run belongs to tuning."""
    trial = row.get("trial")
    return str(row.get("arm")) if trial is None else f"{row.get('arm')} trial {trial}"


def line(row: Row, now: float) -> str:
    """A run in one line of plain text."""
    left = time_left(row, now)
    remaining = left if left.startswith("silent") else f"{left} left" if left else ""
    parts = (job(row), f"round {row['round']}/{row['rounds']}", metric(row), remaining, state(row, now))
    return "  ".join(part for part in parts if part)


def summary(rows: list[Row], now: float, total: int | None) -> str:
    """``12 of 220 finished, 2 running``."""
    counts = Counter(state(row, now) for row in rows)
    # With runs of benchmarks that are no longer asked for, the number asked for says nothing.
    of = f" of {total}" if total is not None and total >= len(rows) else ""
    parts = [f"{counts['finished']}{of} finished"]
    others = ("running", "paused", "stopped", "diverged", "failed", "stale")
    return ", ".join(parts + [f"{counts[name]} {name}" for name in others if counts[name]])


def by_interest(rows: list[Row], now: float) -> list[Row]:
    """Running runs first, then stale, failed and finished; the latest first among the ended."""
    order = {name: index for index, name in enumerate(STATES)}

    def key(row: Row):
        where = order.get(state(row, now), 0)
        return (where, 0.0 if where == 0 else -row.get("updated", 0), row["folder"])

    return sorted(rows, key=key)


def table(rows: list[Row], now: float, total: int | None, height: int):
    """A rich table of at most `height` lines, the summary below it."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    result = Table(expand=True, box=None, pad_edge=False, header_style="bold")
    for name, ratio in (("job", 3), ("scenario", 5), ("arm", 2), ("seed", 1), ("round", 2), ("", 3)):
        result.add_column(name, ratio=ratio, no_wrap=True, overflow="ellipsis")
    for name, ratio in (("metric", 5), ("left", 3), ("state", 2)):
        result.add_column(name, ratio=ratio, no_wrap=True, overflow="ellipsis")
    room = max(3, height - 3)
    for row in by_interest(rows, now)[:room]:
        status = state(row, now)
        result.add_row(
            Text(f"{row.get('benchmark')}/{row.get('preset')}"),
            Text(str(row.get("scenario"))),
            Text(arm(row)),
            str(row.get("seed")),
            f"{row['round']}/{row['rounds']}",
            ProgressBar(total=max(1, row["rounds"]), completed=row["round"]),
            Text(metric(row)),
            time_left(row, now),
            Text(status, style=COLOURS.get(status, "")),
        )
    hidden = f" ({len(rows) - room} more not shown)" if len(rows) > room else ""
    return Group(result, Text(summary(rows, now, total) + hidden, style="bold"))


def watch(project: Project, once: bool = False, interval: float = 1.0, stream: TextIO | None = None) -> None:
    """Show all runs of the project, every `interval` seconds until Ctrl-C; `once`: the state now, and end.

    On a terminal a table that renews itself; else plain lines, one for each change, no control characters.
    """
    stream = stream or sys.stdout
    try:
        if stream.isatty():
            _watch_terminal(project, once, interval, stream)
        else:
            _watch_plain(project, once, interval, stream)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # The reader (`| head`) has enough; without this the interpreter complains while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _watch_plain(project: Project, once: bool, interval: float, stream: TextIO) -> None:
    cache: dict = {}
    shown: dict[str, tuple] = {}
    last = ""
    total = expected(project)
    while True:
        now = time.time()
        rows = read_progress(project.results, cache)
        for row in rows:
            seen = (row["round"], state(row, now))
            if shown.get(row["folder"]) != seen:
                shown[row["folder"]] = seen
                print(line(row, now), file=stream)
        if (text := summary(rows, now, total)) != last:
            last = text
            print(text, file=stream)
        stream.flush()
        if once:
            return
        if _reader_left(stream):
            raise BrokenPipeError
        time.sleep(interval)


def _reader_left(stream: TextIO) -> bool:
    """True where `stream` is a pipe that nobody reads any more; without a line to write nothing else would tell."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except (AttributeError, OSError):  # no `poll` on this system, or not a real file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _watch_terminal(project: Project, once: bool, interval: float, stream: TextIO) -> None:
    from rich.console import Console
    from rich.live import Live

    cache: dict = {}
    total = expected(project)
    console = Console(file=stream)

    def picture(height: int):
        now = time.time()
        return table(read_progress(project.results, cache), now, total, height)

    if once:
        console.print(picture(1_000_000))
        return
    with Live(picture(console.height), console=console, auto_refresh=False, transient=False) as live:
        while True:
            time.sleep(interval)
            live.update(picture(console.height), refresh=True)
