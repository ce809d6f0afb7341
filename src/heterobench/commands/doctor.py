"""`heterobench doctor`: what is installed, what works, and what to do about what does not."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import urllib.error
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, TextIO
from urllib.parse import unquote

from heterobench import addresses
from heterobench.account import substitute_home
from heterobench.errors import HeterobenchError, without_credentials
from heterobench.project import Project
from heterobench.records.revision import revision

# Packages shown by name; the others are checked, and shown when they are wrong.
SHOWN = ("torch", "snakemake", "mlflow", "dvc")
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
GIB = 2**30
SHORT = 12  # hexadecimal digits of a revision
ANEW = "move the file away and run heterobench track: it is made anew from the records"


class Check(NamedTuple):
    """`status`: ok; warn: works within limits; fail: something that the pipeline needs does not work."""

    name: str
    status: str
    found: str
    advice: str = ""


def python(project: Project) -> Iterator[Check]:
    from packaging.specifiers import SpecifierSet

    wanted = metadata.metadata("heterobench")["Requires-Python"]
    if platform.python_version() in SpecifierSet(wanted):
        yield Check("python", "ok", platform.python_version())
    else:
        yield Check("python", "fail", platform.python_version(), f"make an environment with Python {wanted}")


def packages(project: Project) -> Iterator[Check]:
    """Installed versions against the requirements of the installed heterobench."""
    from packaging.requirements import Requirement

    shown, wrong = [], 0
    for text in metadata.requires("heterobench") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = None
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong += 1
            advice = f"pip install '{requirement.name}{requirement.specifier}'"
            yield Check("packages", "fail", f"{requirement.name} {version or 'is not installed'}", advice)
        elif requirement.name in SHOWN:
            shown.append(f"{requirement.name} {version}")
    if not wrong:
        yield Check("packages", "ok", ", ".join(shown))


def device(project: Project) -> Iterator[Check]:
    """What torch computes on. Importing torch takes seconds."""
    import torch

    from heterobench import resolve

    wish = resolve.config(project).device
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        unused = " (not used: params/config.yaml says device: cpu)" if wish == "cpu" else ""
        yield Check("device", "ok", ", ".join(names) + unused)
        return
    gpus = Path("/proc/driver/nvidia/gpus")
    present = gpus.is_dir() and any(gpus.iterdir())
    found = f"CPU, torch {torch.__version__}" + (", though this machine has an NVIDIA GPU" if present else "")
    build = "install a CUDA build of torch that fits the driver (see nvidia-smi)"
    if wish == "cuda":
        yield Check("device", "fail", found, f"{build}, or set device: auto in params/config.yaml")
    else:
        yield Check("device", "warn" if present else "ok", found, build if present else "")


def machine(project: Project) -> Iterator[Check]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory, disk = psutil.virtual_memory().available / GIB, shutil.disk_usage(project.root).free / GIB
    found = f"{cores} cores, {memory:.1f} GiB memory free, {disk:.1f} GiB disk free"
    if memory < 2:
        yield Check("machine", "warn", found, "a job needs about 1 GiB: give snakemake fewer --cores")
    elif disk < 2:
        yield Check("machine", "warn", found, "CIFAR-10 alone needs 1 GiB: free some disk")
    else:
        yield Check("machine", "ok", found)


def home(project: Project) -> Iterator[Check]:
    """Snakemake keeps a cache in the home directory, and does not start where it cannot."""
    from heterobench.data.versioned import check_writable

    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    advice = "export HOME=FOLDER, one that you can write to (make sets one by itself), before you call snakemake"
    if os.environ.get("HOME") == str(substitute_home()):
        yield Check("home", "fail", "no home directory: snakemake cannot start", advice)
        return
    try:
        check_writable(project, place)
        yield Check("home", "ok", f"{place} can be written")
    except HeterobenchError as error:
        yield Check("home", "fail", f"{parted(error)[0]} So snakemake cannot start.", advice)


def code(project: Project) -> Iterator[Check]:
    """The revision that provenance.json of each run will name."""
    found = revision(project.root)
    if found.reason:
        advice = (
            f"records will say that the {'changes are' if found.name else 'revision is'} not known. Remove the reason, "
            "or work in a clone; in a folder without a repository: git init, git add, git commit"
        )
        yield Check("code", "warn", found.reason, advice)
    elif found.changes:
        text = f"{found.name[:SHORT]} with {len(found.changes)} uncommitted changes"
        yield Check("code", "warn", text, "commit before a run whose numbers you want to cite")
    else:
        yield Check("code", "ok", found.name[:SHORT])


def parameters(project: Project) -> Iterator[Check]:
    """Every parameter file, and every preset of every benchmark resolved to its jobs."""
    from heterobench import resolve
    from heterobench.config.reading import load, names
    from heterobench.config.schema import BenchmarkFile, ModelFile, PartitionFile, ScheduleFile

    resolve.config(project)
    files, jobs, failed = 0, 0, False
    kinds = {"models": ModelFile, "partitions": PartitionFile, "schedules": ScheduleFile}
    for kind, schema in {**kinds, "benchmarks": BenchmarkFile}.items():
        for name in names(project, kind):
            try:
                file = load(project, kind, name, schema)
                for preset in file.presets if kind == "benchmarks" else ():
                    jobs += len(resolve.benchmark(project, name, preset).jobs())
                files += 1
            except HeterobenchError as error:
                failed = True
                yield Check("parameters", "fail", f"{kind}/{name}.yaml", str(error))
    if not failed:
        yield Check("parameters", "ok", f"{files} files, {jobs} jobs in all presets, all valid")


def data(project: Project) -> Iterator[Check]:
    """A line for each data set that the configured benchmarks need, one for all others.

    What is not there yet is no fault, the workflow makes it.
    """
    from heterobench import resolve
    from heterobench.config.reading import names
    from heterobench.data.schema import SOURCE, load_dataset_file

    config = resolve.config(project)
    needed = {
        scenario.dataset
        for name in config.benchmarks
        for scenario in resolve.benchmark(project, name, config.preset).scenarios
    }
    others = []
    for name in names(project, "datasets"):
        try:
            load_dataset_file(project, name)
            if name in needed:
                yield _needed(project, name)
            else:
                others.append(name)
        except HeterobenchError as error:
            yield Check(f"data {name}", "fail", *parted(error))
    there = [name for name in others if (project.raw(name) / SOURCE).is_file()]
    found = f"{len(others)} that params/config.yaml does not need; obtained: {', '.join(there) or 'none of them'}"
    yield Check("other data", "ok", found)


def _needed(project: Project, name: str) -> Check:
    """Asked as `obtain`, `prepare` and training ask. Raises HeterobenchError for what the workflow does not repair."""
    from heterobench.data.checksums import verify_raw
    from heterobench.data.dataset import open_dataset
    from heterobench.data.schema import SOURCE, load_dataset_file
    from heterobench.data.versioned import check_stage

    label, folder, file = f"data {name}", project.raw(name), load_dataset_file(project, name)
    check_stage(project, name)
    if not folder.is_dir() or not any(folder.iterdir()):
        return Check(label, "ok", "not obtained yet: snakemake does it", f"or now: heterobench obtain {name}")
    if missing := [path for path in (*file.raw_paths, SOURCE) if not (folder / path).is_file()]:
        return Check(label, "warn", f"in data/raw/{name} missing: {', '.join(missing)}", f"heterobench obtain {name}")
    verify_raw(project, name, file)
    if not (project.prepared(name) / "manifest.json").is_file():
        return Check(label, "ok", "raw files verified, not prepared yet: snakemake does it")
    open_dataset(project, name)
    return Check(label, "ok", "raw files verified, prepared")


def parted(error: HeterobenchError) -> tuple[str, str]:
    """What was found, and what to do."""
    found, _, advice = str(error).partition(" What to do: ")
    return found, advice


def mirror(project: Project) -> Iterator[Check]:
    place = os.environ.get("HETEROBENCH_MIRROR")
    if not place:
        yield Check("mirror", "ok", "HETEROBENCH_MIRROR is not set: data sets come from their publishers")
    elif "://" in place:
        reason = unanswered(place)
        advice = "check HETEROBENCH_MIRROR and the network" if reason else ""
        yield Check("mirror", "warn" if reason else "ok", without_credentials(f"{place}{reason}"), advice)
    elif Path(place).is_dir() and os.access(place, os.R_OK | os.X_OK):
        yield Check("mirror", "ok", place)
    else:
        yield Check("mirror", "fail", f"{place} is no readable folder", "correct or unset HETEROBENCH_MIRROR")


def dvc(project: Project) -> Iterator[Check]:
    """Remotes must verify: DVC believes an altered file of a local or S3 remote unless told not to."""
    from heterobench.data import versioned

    try:
        settings = versioned.ready(project)
    except HeterobenchError as error:
        yield Check("dvc", "fail", *parted(error))
        return
    default = settings.get("core.remote")
    if settings.get("core.analytics", "true").lower() != "false":
        yield Check("dvc", "warn", "usage reports are on", "dvc config core.analytics false")
    remotes = versioned.remotes(settings)
    unsafe = [name for name in remotes if not versioned.verifies(settings, name)]
    for name in unsafe:
        advice = f"dvc remote modify --local {name} verify true"
        yield Check("dvc", "warn", f"remote {name} accepts altered files", advice)
    if not remotes:
        yield Check("dvc", "ok", "no remote: raw files come from their publishers")
    elif not unsafe:
        advice = "" if default else f"to pull from one: dvc remote default --local {remotes[0]}"
        yield Check("dvc", "ok" if default else "warn", f"remotes, all verified: {', '.join(remotes)}", advice)
    yield from _by_hand(project, settings)


def _by_hand(project: Project, settings: Mapping[str, str]) -> Iterator[Check]:
    """What `heterobench obtain` can do without and DVC's own commands cannot; and where files lie twice."""
    from heterobench.data.versioned import cache_folder, environment
    from heterobench.data.versioned import settings as settings_in

    raw, cache = project.raw("any").parent, cache_folder(project, settings)
    outside = not raw.resolve().is_relative_to(project.root.resolve())
    unmanaged = revision(project.root).name is None
    if (outside or unmanaged) and settings_in(project, environment()).get("core.no_scm", "").lower() != "true":
        reason = f"data/raw lies in {raw.resolve()}" if outside else "git does not know this folder"
        advice = "dvc config --local core.no_scm true"
        yield Check("dvc", "ok", f"{reason}: heterobench obtain works, not every command of DVC by hand", advice)
    if raw.exists() and cache.exists() and raw.stat().st_dev != cache.stat().st_dev:
        found = f"data/raw and DVC's cache ({cache}) lie on different disks: each file is there twice"
        yield Check("dvc", "ok", found, f"both on the disk of the data: dvc cache dir --local {raw.resolve()}-cache")


def tracker(project: Project) -> Iterator[Check]:
    """Servers are asked by the client that imports runs, with its settings: what it says here, it says there."""
    from heterobench.tracking.store import database, tracking_uri, unreachable

    uri = tracking_uri(project)
    if (file := database(uri)) is not None:
        yield sqlite_tracker(file)
    elif reason := unreachable(project, uri):
        advice = "start that server, or correct or unset MLFLOW_TRACKING_URI; training goes on without it"
        yield Check("tracker", "fail", reason, advice)
    else:
        yield Check("tracker", "ok", without_credentials(uri))


def sqlite_tracker(file: Path) -> Check:
    """Read without mlflow and without waiting for whoever writes."""
    from heterobench.tracking.artifacts import moves

    if not file.exists():
        if file.parent.is_dir() and os.access(file.parent, os.W_OK):
            return Check("tracker", "ok", f"{file}: made when the first run has finished")
        return Check("tracker", "fail", f"{file.parent} cannot be written", "correct MLFLOW_TRACKING_URI")
    connection = None
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=2)
        count = connection.execute("SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'").fetchone()[0]
        if moved := moves(connection, file.parent):
            found = f"{file}: {count} runs, with artifacts in {', '.join(unquote(move.old) for move in moved)}"
            return Check("tracker", "warn", found, "moved or copied from there: heterobench track puts it right")
        return Check("tracker", "ok", f"{file}: {count} runs")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            advice = "somebody writes: imports wait and try again; else look who holds it (fuser)"
            return Check("tracker", "warn", f"{file}: locked", advice)
        return Check("tracker", "fail", f"{file}: {error}", ANEW)
    except sqlite3.DatabaseError as error:
        return Check("tracker", "fail", f"{file}: {error}", ANEW)
    finally:
        if connection is not None:
            connection.close()


def unanswered(url: str) -> str:
    """Why `url` does not answer within 3 seconds, or an empty text; an HTTP status below 500 is an answer.

    Asked as `fetch` asks, with user and password; raises ConfigurationError where these cannot be told apart.
    """
    addresses.check("HETEROBENCH_MIRROR", url)
    try:
        with addresses.open_url(url, timeout=3):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code < 500 and error.code not in (401, 403, 407) else f": {error}"
    except (OSError, ValueError) as error:
        return f": {getattr(error, 'reason', error)}"


CHECKS = (python, packages, device, machine, home, code, parameters, data, mirror, dvc, tracker)


def examine(project: Project) -> Iterator[Check]:
    """All checks in order. One that breaks is itself a finding and does not stop the others."""
    for check in CHECKS:
        try:
            yield from check(project)
        except HeterobenchError as error:
            yield Check(check.__name__, "fail", *parted(error))
        except Exception as error:
            yield Check(check.__name__, "fail", f"{type(error).__name__}: {error}", "see this error first")


def doctor(project: Project, stream: TextIO | None = None) -> bool:
    """Print all checks as a table; False when one of them failed (warnings do not count)."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    checks = list(examine(project))
    table = Table(title=f"heterobench doctor: {project.root}", title_justify="left", show_lines=False)
    for name in ("check", "", "found", "what to do"):
        table.add_column(name, overflow="fold")
    for check in checks:
        status = Text(check.status, style=COLOURS[check.status])
        table.add_row(check.name, status, *(Text(without_credentials(text)) for text in check[2:]))
    Console(file=stream).print(table)
    return all(check.status != "fail" for check in checks)
