"""Raw files through DVC: from a remote where one has them, else by running the fetch stage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from heterobench.config.reading import check_name, shown
from heterobench.data.schema import SOURCE, load_dataset_file
from heterobench.errors import ConfigurationError, DataError
from heterobench.project import Project


def obtain(project: Project, name: str) -> Path:
    """Make ``data/raw/<name>`` hold what ``dvc.lock`` records; return the path of its ``source.json``.

    With a default remote, ``dvc pull`` first. Without one, or where it cannot deliver, the stage
    ``fetch-<name>`` is reproduced: DVC restores its files from the local cache if they are there and fetches
    them if not. Messages of DVC go to stderr. Raises DataError, and ConfigurationError for a remote that does
    not verify.
    """
    check_name(project, "datasets", name, "command line")
    stage = f"fetch-{name}"
    folder = project.raw(name)
    files = [folder / path for path in (*load_dataset_file(project, name).raw_paths, SOURCE)]
    if (remote := default_remote(project)) is not None:
        if dvc(project, "pull", stage) == 0 and all(file.is_file() for file in files):
            return folder / SOURCE
        print(
            f"remote {remote} has no intact copy of {name}: running the stage {stage}",
            file=sys.stderr,
            flush=True,
        )
    if dvc(project, "repro", "--single-item", stage) != 0:
        raise DataError(f"data set {name} cannot be obtained: DVC's stage {stage} failed; the reason stands above")
    if missing := [shown(project, file) for file in files if not file.is_file()]:
        raise DataError(
            f"{', '.join(missing)}: missing although DVC's stage {stage} ended well. "
            f"What to do: name it among the outs of {stage} in dvc.yaml"
        )
    return folder / SOURCE


def default_remote(project: Project) -> str | None:
    """Name of DVC's default remote, if there is one. Raises ConfigurationError unless its `verify` is on.

    DVC believes a local or S3 remote unless told to verify: an altered file would land in data and cache. The
    option belongs to each remote, and remotes belong to users, so it cannot be set once in ``.dvc/config``.
    """
    listing = subprocess.run(
        command("config", "--list"), cwd=project.root, env=environment(), text=True, capture_output=True
    )
    if listing.returncode != 0:
        raise ConfigurationError(f".dvc/config: DVC cannot read its configuration: {listing.stderr.strip()}")
    settings = dict(line.partition("=")[::2] for line in listing.stdout.splitlines())
    remote = settings.get("core.remote")
    if remote is not None and settings.get(f"remote.{remote}.verify", "").lower() != "true":
        raise ConfigurationError(
            f".dvc/config: remote {remote} does not verify what it delivers. "
            f"What to do: dvc remote modify --local {remote} verify true"
        )
    return remote


def dvc(project: Project, *arguments: str) -> int:
    """Run DVC in the project; everything it prints goes to stderr. Returns its exit status."""
    # --wait-for-lock is a global option: without it, DVC gives up after three seconds of another one's work.
    run = subprocess.run(command("--wait-for-lock", *arguments), cwd=project.root, env=environment(), stdout=2)
    return run.returncode


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]


def environment() -> dict[str, str]:
    """Stages call ``python``: let it be the one that runs now."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
