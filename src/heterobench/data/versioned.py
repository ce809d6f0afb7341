"""Raw files through DVC: from a remote where one has them, else by running the fetch stage.

DVC is told to leave git alone (its setting ``core.no_scm``), which it needs for none of this. So data are obtained also
where there is no repository, or one that git refuses to read, and where ``data`` is a symbolic link to another disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from heterobench.addresses import connect_directly_to_this_machine
from heterobench.config.reading import check_name, shown
from heterobench.config.strict import nearest
from heterobench.data.checksums import verify_raw
from heterobench.data.schema import SOURCE, load_dataset_file
from heterobench.errors import ConfigurationError, DataError
from heterobench.files import check_room, read_json, write_text
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
    ConfigurationError for a data set without a stage and for what `ready` finds.
    """
    check_name(project, "datasets", name, "command line")
    check_stage(project, name)
    remote = ready(project).get("core.remote")
    folder, stage = project.raw(name), stage_of(name)
    with turn(project, name):
        if folder.is_dir() and any(folder.iterdir()) and (problem := fault(project, name)) is not None:
            say(f"{problem.partition(' What to do:')[0]} Obtaining {name} anew.")
            shutil.rmtree(folder)
        if remote is not None:
            if dvc(project, "pull", stage) == 0 and fault(project, name) is None:
                return folder / SOURCE
            lacking = undelivered(project, stage)
            about = f" (missing or damaged there, or out of reach: {', '.join(lacking)})" if lacking else ""
            say(f"remote {remote} has no intact copy of {name}{about}: running the stage {stage}")
        if dvc(project, "repro", "--single-item", stage) != 0:
            check_room(folder.parent)
            raise DataError(f"data set {name} cannot be obtained: DVC's stage {stage} failed; the reason stands above")
        verify_raw(project, name, load_dataset_file(project, name))
        if remote is not None and lacking:
            say(
                f"{name} is complete now. To repair remote {remote}: delete there what exists of {', '.join(lacking)} "
                f"(DVC does not look again at what it once pushed), then `dvc push {stage}`"
            )
    return folder / SOURCE


def ready(project: Project) -> dict[str, str]:
    """Check what DVC needs here, before it is called; return its settings, of which `core.remote` can be trusted.

    Raises ConfigurationError, or DataError where a folder cannot be written, that say what to do.
    """
    if not (project.root / ".dvc" / "config").is_file():
        raise ConfigurationError(
            ".dvc/config: no such file, so DVC does not take this folder for a project. "
            "What to do: copy the folder .dvc (without .dvc/cache) from the repository"
        )
    if shutil.which("python", path=environment()["PATH"]) is None:
        raise ConfigurationError(
            f"PATH: no command `python`, which the stages of dvc.yaml call, beside {sys.executable} or elsewhere. "
            "What to do: use a virtual environment, which has it (`make env` makes one)"
        )
    found = settings(project)
    for folder in (project.root / ".dvc" / "tmp", project.raw("any").parent, cache_folder(project, found)):
        check_writable(project, folder)
    check_remote(found)
    mend_list_of_locks(project.root / ".dvc" / "tmp")
    return found


def mend_list_of_locks(folder: Path) -> None:
    """Remove DVC's list of who reads and writes what where a kill or a full disk has cut it: DVC would refuse to run.

    What stands in it of processes that are gone, DVC removes by itself.
    """
    from dvc.lock import LockError, make_lock

    with suppress(LockError), make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
        try:
            read_json(folder / "rwlock")
        except FileNotFoundError:
            pass
        except ValueError:
            (folder / "rwlock").unlink()


def check_writable(project: Project, folder: Path) -> None:
    """Make the folder and a file in it, and lock that. Raises DataError that says what hinders."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe.") as probe, FileLock(probe.name, timeout=0):
            pass
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        raise DataError(f"{shown(project, folder)}: {hindrance(folder, error)}") from None


def hindrance(folder: Path, error: Exception) -> str:
    """Why a folder cannot be written to, and what to do."""
    for part in reversed((folder, *folder.parents)):
        if part.is_symlink() and not part.exists():
            return f"{part} is a link to {part.readlink()}, which is not there. What to do: mount it or make it"
        if part.exists() and not part.is_dir():
            return f"{part} is a file where a folder should be. What to do: move it away"
    return (
        f"cannot be written by user {os.getuid()}: {getattr(error, 'strerror', None) or error}. What to do: make it "
        "writable, or make it a symbolic link to a folder that is"
    )


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
    objects = cache_folder(project, settings(project))
    try:
        (out,) = YAML(typ="safe").load(project.root / "dvc.lock")["stages"][stage]["outs"]
        listing = _object(out["md5"])
        if not (objects / listing).is_file():
            return [listing]
        files = [_object(entry["md5"]) for entry in read_json(objects / listing)]
    except (OSError, YAMLError, ValueError, KeyError, TypeError):  # no lock, or one that another process writes
        return []
    lacking = [path for path in files if not (objects / path).is_file()]
    return [listing, *lacking] if lacking else []


def _object(md5: str) -> str:
    """Where DVC keeps the file with this checksum, in the cache and in a remote."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def settings(project: Project, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """DVC's settings of all levels, e.g. ``core.remote``; `env`: not those of our calls. Raises ConfigurationError."""
    return dict(line.partition("=")[::2] for line in output(project, "config", "--list", env=env).splitlines())


def remotes(settings: Mapping[str, str]) -> list[str]:
    """Names of the remotes that have an address."""
    found = (key.removeprefix("remote.").removesuffix(".url") for key in settings if key.startswith("remote."))
    return sorted(name for name in found if f"remote.{name}.url" in settings)


def verifies(settings: Mapping[str, str], remote: str) -> bool:
    return settings.get(f"remote.{remote}.verify", "").lower() == "true"


def check_remote(settings: Mapping[str, str]) -> None:
    """Raise ConfigurationError unless the default remote, if one is set, exists and has `verify` on.

    DVC believes a local or S3 remote unless told to verify: an altered file would land in data and cache. The
    option belongs to each remote, and remotes belong to users, so it cannot be set once in ``.dvc/config``.
    """
    remote = settings.get("core.remote")
    if remote is not None and remote not in remotes(settings):
        raise ConfigurationError(
            f"DVC's configuration: core.remote: no remote {remote!r} is there{nearest(remote, remotes(settings))}. "
            f"What to do: `dvc remote add --local {remote} URL`, or, to pull from none, `dvc config --local --unset "
            "core.remote` (without --local where .dvc/config names it)"
        )
    if remote is not None and not verifies(settings, remote):
        raise ConfigurationError(
            f".dvc/config: remote {remote} does not verify what it delivers. "
            f"What to do: dvc remote modify --local {remote} verify true"
        )


def cache_folder(project: Project, settings: Mapping[str, str]) -> Path:
    """Where DVC keeps a copy of what it has obtained. Raises ConfigurationError."""
    if "cache.dir" in settings:
        return project.root / output(project, "cache", "dir").strip()
    return project.root / ".dvc" / "cache"


def dvc(project: Project, *arguments: str) -> int:
    """Run DVC in the project; everything it prints goes to stderr. Returns its exit status."""
    # --wait-for-lock is a global option: without it, DVC gives up after three seconds of another one's work.
    run = subprocess.run(command("--wait-for-lock", *arguments), cwd=project.root, env=without_git(project), stdout=2)
    return run.returncode


def output(project: Project, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What a DVC command about its settings prints. Raises ConfigurationError where DVC cannot read them."""
    how = {"cwd": project.root, "env": env or without_git(project), "capture_output": True, "encoding": "utf-8"}
    run = subprocess.run(command(*arguments), **how)
    if run.returncode != 0:
        reason = next(iter(run.stderr.strip().splitlines()), "")
        raise ConfigurationError(
            f".dvc/config: DVC cannot read its configuration: {reason}. "
            "What to do: correct .dvc/config, or .dvc/config.local, which is yours alone"
        )
    return run.stdout


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]


def environment() -> dict[str, str]:
    """Stages call ``python``: let it be the one that runs now."""
    connect_directly_to_this_machine()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}


def without_git(project: Project) -> dict[str, str]:
    """`environment`, and ``core.no_scm`` for this call alone: DVC reads it as if it were set for the whole system.

    No file of the user's is touched; what the system's own file says is taken over. DVC's state, which it keeps in
    /var/tmp, goes into the project where that cannot be written.
    """
    from configobj import ConfigObj, ConfigObjError
    from dvc.dirs import site_cache_dir, system_config_dir

    folder = project.root / ".dvc" / "tmp" / "heterobench"
    system = Path(system_config_dir()) / "config"
    try:
        config = ConfigObj(system.read_text(encoding="utf-8").splitlines() if system.is_file() else [])
    except (OSError, ValueError, ConfigObjError) as error:
        raise ConfigurationError(f"{system}: DVC cannot read its configuration: {error}") from None
    config.setdefault("core", {})["no_scm"] = "true"
    text = "\n".join(config.write()) + "\n"
    place = folder / "config"
    try:
        if not place.is_file() or place.read_text(encoding="utf-8") != text:
            write_text(place, text)
    except OSError as error:
        raise DataError(f"{shown(project, folder)}: {hindrance(folder, error)}") from None
    more = {"DVC_SYSTEM_CONFIG_DIR": str(folder)}
    if not may_write(Path(site_cache_dir())):
        more["DVC_SITE_CACHE_DIR"] = str(folder / "state")
    return environment() | more


def may_write(folder: Path) -> bool:
    """Whether this process may make files in a folder, or the folder itself where it is not there."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(there, os.W_OK | os.X_OK)
