"""Where the runs of a project lie, each in a folder seed-<k>.

Those of a table in results/<benchmark>/<preset>/runs/<scenario>/<arm>, those of its trials in
results/<benchmark>/<preset>/tuning/<scenario>/<arm>/trial-<n>.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from heterobench.records.record import END


def _folders(parent: str, prefix: str = "") -> list[str]:
    try:
        with os.scandir(parent) as entries:
            return sorted(e.path for e in entries if e.name.startswith(prefix) and e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def experiment_folders(results: Path) -> list[Path]:
    """Folders <benchmark>/<preset> that hold runs."""
    return [
        Path(preset)
        for benchmark in _folders(str(results))
        for preset in _folders(benchmark)
        if os.path.isdir(f"{preset}/runs") or os.path.isdir(f"{preset}/tuning")
    ]


def run_folders(results: Path) -> Iterator[Path]:
    """Folders of all runs, whether they have begun, go on or have ended, in the order of their names."""
    for experiment in experiment_folders(results):
        for scenario in _folders(f"{experiment}/runs"):
            for arm in _folders(scenario):
                yield from map(Path, _folders(arm, "seed-"))
        for scenario in _folders(f"{experiment}/tuning"):
            for arm in _folders(scenario):
                for trial in _folders(arm, "trial-"):
                    yield from map(Path, _folders(trial, "seed-"))


def ended(folders: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Those whose end.json is there: the runs that finished, diverged or failed. With it, a mark of that file.

    The mark changes when another run ends in the same folder.
    """
    found = {}
    for folder in folders:
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(f"{folder}/{END}")
            found[folder] = (status.st_mtime_ns, status.st_ino)
    return found
