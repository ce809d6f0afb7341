"""Raw files through DVC: from a remote where one has them, else by running the fetch stage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from heterobench.addresses import connect_directly_to_this_machine
from heterobench.config.reading import check_name
from heterobench.data.checksums import verify_raw
from heterobench.data.schema import SOURCE, load_dataset_file
from heterobench.errors import ConfigurationError, DataError
from heterobench.files import read_json
from heterobench.project import Project

TEMPLATE = "fetch"  # the stage of dvc.yaml that is generated for each data set


def stage_of(name: str) -> str:
    """Name of the DVC stage that fetches a data set, e.g. ``fetch@mnist``."""
    return f"{TEMPLATE}@{name}"


def obtain(project: Project, name: str) -> Path:
    """Make ``data/raw/<name>`` hold what the parameter file says; return the path of its ``source.json``.

    What is there but incomplete or altered is removed first: DVC, which looks at sizes and times, might keep it.
    With a default remote, ``dvc pull`` comes next. Without one, or where it does not deliver the right bytes, the
    stage ``fetch@<name>`` is reproduced: DVC restores its files from the local cache if they are there and fetches
    them if not. One process at a time does this for a data set; the others wait. Messages, those of DVC included, go
    to stderr.

    Raises DataError where neither remote nor source has the files, and leaves none of them behind then;
    ConfigurationError for a data set without a stage and for a remote that does not verify.
    """
    check_name(project, "datasets", name, "command line")
    check_stage(project, name)
    folder, stage = project.raw(name), stage_of(name)
    with turn(project, name):
        if folder.is_dir() and any(folder.iterdir()) and (problem := fault(project, name)) is not None:
            say(f"{problem.partition(' What to do:')[0]} Obtaining {name} anew.")
            shutil.rmtree(folder)
        remote = default_remote(project)
        if remote is not None:
            if dvc(project, "pull", stage) == 0 and fault(project, name) is None:
                return folder / SOURCE
            lacking = undelivered(project, stage)
            about = f" (missing or damaged there, or out of reach: {', '.join(lacking)})" if lacking else ""
            say(f"remote {remote} has no intact copy of {name}{about}: running the stage {stage}")
        if dvc(project, "repro", "--single-item", stage) != 0:
            raise DataError(f"data set {name} cannot be obtained: DVC's stage {stage} failed; the reason stands above")
        verify_raw(project, name, load_dataset_file(project, name))
        if remote is not None and lacking:
            say(
                f"{name} is complete now. To repair remote {remote}: delete there what exists of {', '.join(lacking)} "
                f"(DVC does not look again at what it once pushed), then `dvc push {stage}`"
            )
    return folder / SOURCE


@contextmanager
def turn(project: Project, name: str) -> Iterator[None]:
    """Wait until no other process obtains this data set. A killed process gives its turn up."""
    path = project.raw(name).parent / f".{name}.obtain.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is obtaining {name}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def fault(project: Project, name: str) -> str | None:
    """What is wrong with the raw files of a data set; None where nothing is."""
    try:
        verify_raw(project, name, load_dataset_file(project, name))
    except DataError as error:
        return str(error)
    return None


def staged(project: Project) -> list[str]:
    """Names of the data sets that dvc.yaml generates a stage for. Raises ConfigurationError."""
    try:
        return list(YAML(typ="safe").load(project.root / "dvc.yaml")["stages"][TEMPLATE]["foreach"])
    except (OSError, YAMLError, KeyError, TypeError) as error:
        raise ConfigurationError(f"dvc.yaml: no list stages.{TEMPLATE}.foreach of data sets: {error!r}") from None


def check_stage(project: Project, name: str) -> None:
    """Raise ConfigurationError unless dvc.yaml has a stage for the data set."""
    if name not in staged(project):
        raise ConfigurationError(
            f"dvc.yaml: no stage {stage_of(name)}. What to do: add the line `- {name}` below stages.{TEMPLATE}.foreach"
        )


def undelivered(project: Project, stage: str) -> list[str]:
    """What a failed pull did not bring into the cache: paths of objects below the URL of a remote.

    The first is the list of the files of the stage, which has to be pushed again for any of them to be. Empty where
    all is in the cache, and where dvc.lock does not record the stage.
    """
    cache = Path(output(project, "cache", "dir").strip())
    try:
        (out,) = YAML(typ="safe").load(project.root / "dvc.lock")["stages"][stage]["outs"]
        listing = _object(out["md5"])
        if not (cache / listing).is_file():
            return [listing]
        files = [_object(entry["md5"]) for entry in read_json(cache / listing)]
    except (OSError, YAMLError, ValueError, KeyError, TypeError):  # no lock, or one that another process writes
        return []
    lacking = [path for path in files if not (cache / path).is_file()]
    return [listing, *lacking] if lacking else []


def _object(md5: str) -> str:
    """Where DVC keeps the file with this checksum, in the cache and in a remote."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def default_remote(project: Project) -> str | None:
    """Name of DVC's default remote, if there is one. Raises ConfigurationError unless its `verify` is on.

    DVC believes a local or S3 remote unless told to verify: an altered file would land in data and cache. The
    option belongs to each remote, and remotes belong to users, so it cannot be set once in ``.dvc/config``.
    """
    settings = dict(line.partition("=")[::2] for line in output(project, "config", "--list").splitlines())
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


def output(project: Project, *arguments: str) -> str:
    """What a DVC command about its settings prints. Raises ConfigurationError where DVC cannot read them."""
    run = subprocess.run(command(*arguments), cwd=project.root, env=environment(), text=True, capture_output=True)
    if run.returncode != 0:
        raise ConfigurationError(f".dvc/config: DVC cannot read its configuration: {run.stderr.strip()}")
    return run.stdout


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]


def environment() -> dict[str, str]:
    """Stages call ``python``: let it be the one that runs now."""
    connect_directly_to_this_machine()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
