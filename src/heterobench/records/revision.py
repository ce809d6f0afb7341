"""What git knows of the code that runs: its revision and its changes, or why it knows neither."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1]
SECONDS = 30  # a large checkout on a slow disk; beyond, its state counts as not known

# Set inside git's hooks and aliases; they would answer for another repository, or from another index.
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")


@dataclass(frozen=True)
class Revision:
    """`name` is the commit, `changes` the lines of ``git status``; None where not known, and then `reason` says why."""

    name: str | None = None
    changes: tuple[str, ...] | None = None
    reason: str | None = None

    @property
    def dirty(self) -> bool | None:
        return None if self.changes is None else bool(self.changes)


class Unknown(Exception):
    """Git does not say; the message is the reason."""


def revision(root: Path) -> Revision:
    """Of the checkout at `root`. What git does not say, for whatever reason, is not known, and never clean.

    A commit counts only where it holds this project and where the code that runs lies in it: a folder without a
    repository of its own may lie inside another one, and the package of another checkout may be the installed one.
    """
    if not SOURCE.is_relative_to(root := root.resolve()):
        return Revision(reason=f"the code that runs is not that of this checkout: it lies in {SOURCE}")
    name, code = None, SOURCE.relative_to(root) / "__init__.py"
    try:
        name, *_ = git(root, "rev-parse", "HEAD", "HEAD:./params/config.yaml", f"HEAD:./{code.as_posix()}").split()
        # Said in full, since a user's settings may hide untracked files or changes in submodules.
        how = ("--porcelain", "--untracked-files=normal", "--ignore-submodules=none")
        return Revision(name, tuple(git(root, "status", *how, "--", ".", ":!scores").splitlines()))
    except Unknown as unknown:
        return Revision(name, reason=str(unknown))


def git(root: Path, *arguments: str) -> str:
    """What git prints; raises Unknown in git's own words where it refuses."""
    environment = {key: value for key, value in os.environ.items() if key not in ELSEWHERE} | {"LC_ALL": "C"}
    command = ["git", "--no-optional-locks", *arguments]
    try:
        run = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=SECONDS)
    except FileNotFoundError:
        raise Unknown("git is not installed, or not in PATH") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unknown(f"git: {error}") from None
    if run.returncode != 0:
        raise Unknown("git: " + " ".join(run.stderr.decode(errors="replace").split()))
    return run.stdout.decode(errors="replace")


def dirty(about: Mapping[str, Any]) -> bool | None:
    """Whether the code of a run had changes, by its provenance; None where that is not known.

    Without a revision nothing is known, whatever stands beside it: earlier versions wrote "not dirty" there.
    """
    return about.get("dirty") if about.get("revision") else None
