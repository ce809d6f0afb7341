"""Projects around a parameter file of the repository: with small files that a test made, or with the real ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from heterobench.data.fetch import MIRROR, fetch
from heterobench.data.prepare import prepare
from heterobench.files import file_digest
from heterobench.project import Project

REPOSITORY = Project(Path(__file__).resolve().parents[1])


def stand_in(root: Path, name: str, form: str, downloads: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in which form `form` of set `name` is the only one, fetched from these downloads, path -> bytes."""
    project, mirror = Project(root / "project"), root / "mirror"
    mirror.mkdir(parents=True)
    entries = YAML(typ="safe").load(REPOSITORY.params / "datasets" / f"{name}.yaml")
    (chosen,) = (entry for entry in entries["forms"] if entry["name"] == form)
    assert {download["path"] for download in chosen["downloads"]} == set(downloads)
    for download in chosen["downloads"]:
        file = mirror / download["path"]
        file.write_bytes(downloads[file.name])
        download |= {"sha256": file_digest(file), "bytes": file.stat().st_size, "sources": [{"mirror": file.name}]}
        download.pop("md5", None)
    if "outputs" in chosen:
        chosen["outputs"] = [{"path": output["path"]} for output in chosen["outputs"]]
    (project.params / "datasets").mkdir(parents=True)
    forget_sizes(entries)
    YAML().dump(entries | {"forms": [chosen]}, project.params / "datasets" / f"{name}.yaml")
    monkeypatch.setenv(MIRROR, str(mirror))
    return project


def forget_sizes(entries: dict) -> None:
    """Leave out of a parameter file how large the set is: what a test makes is smaller."""
    entries.pop("samples", None)
    for attribute in entries.get("attributes", {}).values():
        attribute.pop("train", None)


def real(root: Path, name: str) -> Project:
    """A project that holds set `name`, fetched from the mirror and prepared."""
    project = Project(root)
    (project.params / "datasets").mkdir(parents=True)
    shutil.copy(REPOSITORY.params / "datasets" / f"{name}.yaml", project.params / "datasets")
    fetch(project, name)
    prepare(project, name)
    return project


def same_bytes_again(project: Project, name: str) -> bool:
    """Whether preparing a prepared set again, from nothing, gives files of the same names and bytes."""
    folder = project.prepared(name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    prepare(project, name)
    return before == {path.name: path.read_bytes() for path in folder.iterdir()}
