"""Small projects of one data set in which DVC is tried, and what is done to their files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from heterobench.data.fetch import MIRROR
from heterobench.data.versioned import environment, stage_of
from heterobench.files import file_digest
from heterobench.project import Project

REPOSITORY = Path(__file__).resolve().parents[1]
GRAINS = {"fine.bin": 3_000, "medium.bin": 200_000, "coarse.bin": 1_500_000}  # names and sizes in bytes


def make_project(root: Path, *names: str) -> Project:
    """A clone of the repository as far as some data sets are concerned, with their entries in dvc.lock."""
    files = ["params/config.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"]
    for path in (*files, *(f"params/datasets/{name}.yaml" for name in names)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, root / path)
    yaml = YAML()
    stages = yaml.load(REPOSITORY / "dvc.yaml")
    stages["stages"]["fetch"]["foreach"] = list(names)
    yaml.dump(stages, root / "dvc.yaml")
    lock = yaml.load(REPOSITORY / "dvc.lock")
    mine = [stage_of(name) for name in names]
    lock["stages"] = {stage: entry for stage, entry in lock["stages"].items() if stage in mine}
    yaml.dump(lock, root / "dvc.lock")
    git(root, "init", "-q", ".")
    git(root, "add", "-A")
    return Project(root)


def add_grains(project: Project, mirror: Path, edition: int = 1) -> None:
    """A data set `grains` whose only source is the folder `mirror`: several files, of different sizes."""
    draw = np.random.default_rng(edition)
    downloads = []
    for path, size in GRAINS.items():
        (mirror / "grains").mkdir(parents=True, exist_ok=True)
        (mirror / "grains" / path).write_bytes(draw.bytes(size))
        checksum = file_digest(mirror / "grains" / path)
        downloads.append({"path": path, "sha256": checksum, "bytes": size, "sources": [{"mirror": f"grains/{path}"}]})
    entries = {
        "title": "Grains",
        "licence": "none",
        "canonical": "nowhere",
        "classes": ["a", "b"],
        "shape": [1, 1, 1],
        "maximum": 1,
        "mean": [0.5],
        "std": [0.5],
        "reader": "idx",
        "forms": [{"name": "published", "downloads": downloads}],
    }
    yaml = YAML()
    (project.params / "datasets").mkdir(exist_ok=True)
    yaml.dump(entries, project.params / "datasets" / "grains.yaml")
    stages = yaml.load(project.root / "dvc.yaml")
    if edition == 1:
        stages["stages"]["fetch"]["foreach"].append("grains")
    yaml.dump(stages, project.root / "dvc.yaml")


def isolate(monkeypatch, folder: Path) -> None:
    """No settings of the user's DVC, SSH and AWS, and no mirror, reach a test."""
    for place in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE"):
        monkeypatch.setenv(f"DVC_{place}_DIR", str(folder / f"dvc-{place.lower()}"))
    monkeypatch.setenv("HOME", str(folder))
    for name in [MIRROR, "HETEROBENCH_ROOT", "SSH_AUTH_SOCK", *(key for key in os.environ if key.startswith("AWS_"))]:
        monkeypatch.delenv(name, raising=False)


def dvc(project: Project, *arguments: str) -> subprocess.CompletedProcess:
    """Run DVC as a user would."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=project.root, env=environment(), text=True, capture_output=True)


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(["git", *who, *arguments], cwd=root, text=True, capture_output=True, check=True).stdout


def git_changes(project: Project) -> str:
    """What differs from the index or is not in it."""
    listing = git(project.root, "status", "--short", "--untracked-files=all")
    return "".join(line for line in listing.splitlines(True) if not line.startswith("A  "))


def set_remote(project: Project, url: str, **options: str) -> None:
    """A default remote in .dvc/config.local, where a user has it; `verify` is on unless it is given."""
    lines = ["[core]", "    remote = store", "['remote \"store\"']", f"    url = {url}"]
    lines += [f"    {key} = {value}" for key, value in ({"verify": "true"} | options).items()]
    (project.root / ".dvc" / "config.local").write_text("\n".join(lines) + "\n")


def contents(project: Project, name: str) -> dict[str, bytes]:
    folder = project.raw(name)
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def forget(project: Project) -> None:
    """Delete data and cache."""
    shutil.rmtree(project.root / "data", ignore_errors=True)
    shutil.rmtree(project.root / ".dvc" / "cache", ignore_errors=True)


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def flip(path: Path) -> None:
    os.chmod(path, 0o644)  # DVC protects what it stores
    path.write_bytes(flipped(path.read_bytes()))


def rot(path: Path) -> None:
    """Alter a file behind DVC's back, as a failing disk does: same inode, size and times."""
    before = path.stat()
    flip(path)
    os.chmod(path, before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
