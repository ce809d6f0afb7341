"""One way to fail: whatever is wrong, a command ends with a line that names the file and what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from heterobench import cli
from heterobench.config.reading import KINDS
from heterobench.data.dataset import open_dataset
from heterobench.errors import DamagedFile, DataError, DiskError, PartitionError
from heterobench.files import atomic, leftover, read_json, write_json
from heterobench.partition.store import open_partition
from heterobench.project import Project
from miniature import REPOSITORY, miniature

DAMAGES = {
    "no text": lambda path: path.write_bytes(b"title: \xff\xfe\x00"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "cut": lambda path: path.write_text("title: [a, b"),
    "too deep": lambda path: path.write_text("a: " + "[" * 100_000),
    "too deep in lines": lambda path: path.write_text("- " * 100_000),
    "no date": lambda path: path.write_text("title: 2026-99-99"),
    "a list": lambda path: path.write_text("- a\n- b\n"),
    "nothing": lambda path: path.write_text(""),
    "another's tag": lambda path: path.write_text("!!python/object/apply:os.system [ls]"),
}


@pytest.fixture
def at_home(monkeypatch):
    """Commands in the folder of a project, in this process."""

    def run(root, *arguments):
        monkeypatch.chdir(root)
        return cli.main(list(arguments))

    return run


@pytest.fixture(scope="module")
def parameters(tmp_path_factory):
    """A project's parameter files, to be damaged."""
    root = tmp_path_factory.mktemp("parameters")
    shutil.copytree(REPOSITORY / "params", root / "params")
    return root


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", [*KINDS, "config"])
def test_a_damaged_parameter_file_is_named(kind, damage, parameters, at_home, capsys):
    folder = parameters / "params" / ("" if kind == "config" else kind)
    path = folder / "config.yaml" if kind == "config" else sorted(folder.glob("*.yaml"))[0]
    kept = path.read_bytes()
    try:
        DAMAGES[damage](path)
        command = ["list", kind] if kind != "config" else ["train", "--benchmark", "label-skew"]
        status = at_home(parameters, *command, *(["--scenario", "s", "--algorithm", "a"] if kind == "config" else []))
    finally:
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(kept)
    told = capsys.readouterr().err
    assert status == 1
    assert str(path.relative_to(parameters)) in told
    assert "Traceback" not in told
    assert "should have been explained" not in told


@pytest.mark.parametrize("text", ["{", "[1]", "3", '"x"', "null"])
def test_settings_in_the_environment_that_are_none(text, parameters, at_home, capsys, monkeypatch):
    monkeypatch.setenv("HETEROBENCH_CONFIG", text)
    command = ("evaluate", "--benchmark", "label-skew", "--scenario", "digits.iid.mlp.full")
    assert at_home(parameters, *command) == 1
    told = capsys.readouterr().err
    assert f"HETEROBENCH_CONFIG={text}: expected a JSON object" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("value", ["lr=[1", "lr={", "lr=2026-99-99", "lr=!!python/name:os.system", "lr=a: b: c"])
def test_a_hyper_parameter_that_is_no_yaml(value, at_home, capsys):
    assert at_home(REPOSITORY, "run", "--set", value) == 1
    told = capsys.readouterr().err
    assert f"--set {value}: not valid YAML" in told
    assert "Traceback" not in told


def test_the_traceback_of_an_unforeseen_error_goes_to_a_file(parameters, at_home, capsys, monkeypatch):
    def broken(*_):
        undecodable = "\udcff"  # how Python holds a byte of a file's name or an argument that is no text
        raise ZeroDivisionError(f"a fault of ours {undecodable}\nin two lines")

    monkeypatch.setattr("heterobench.commands.listing.show", broken)
    assert at_home(parameters, "list", "models") == 1
    told = capsys.readouterr().err.strip()
    assert len(told.splitlines()) == 1
    assert "list models: " in told
    assert "ZeroDivisionError: a fault of ours" in told
    (file,) = (parameters / "results/logs/errors").iterdir()
    assert told.endswith(str(file))
    assert "in broken\n    raise ZeroDivisionError" in file.read_text()


def test_an_algorithm_that_no_text_may_be_is_told_as_the_option(parameters, at_home, capsys):
    assert at_home(parameters, "run", "--algorithm", "\x1b[31m") == 1
    assert "command line: algorithm: a text has letters" in (told := capsys.readouterr().err)
    assert "should have been explained" not in told


# files of our own ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A project with the data set digits and one partition."""
    project = Project(miniature(tmp_path_factory.mktemp("damaged") / "project"))
    commands = [["obtain", "digits"], ["prepare", "digits"], ["partition", "digits", "iid"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        assert [cli.main(command) for command in commands] == [0, 0, 0]
    return project


def flipped(content: bytes) -> bytes:
    return b"\x00" * 8 + content[8:]


@pytest.mark.parametrize("damage", [flipped, lambda c: c[:-3], lambda c: b"", lambda c: b"[]", lambda c: b"{}"])
@pytest.mark.parametrize("name", ["manifest.json", "train_x.npy", "test_y.npy"])
def test_a_damaged_prepared_file_is_named(name, damage, prepared):
    path = prepared.prepared("digits") / name
    kept = path.read_bytes()
    path.write_bytes(damage(kept))
    try:
        with pytest.raises(DataError, match=rf"{name}: .*What to do: remove data/prepared/digits and run"):
            open_dataset(prepared, "digits")
    finally:
        path.write_bytes(kept)
    assert open_dataset(prepared, "digits").train_x.dtype == np.uint8


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"file": 3, "hash": "x", "seal": "y"}', None])
def test_a_damaged_manifest_of_a_partition_is_named(content, prepared):
    path = prepared.partition_manifest("digits", "iid", 0)
    kept = path.read_bytes()
    altered = re.sub(rb'"clients": \d+', b'"clients": 11', kept)
    assert altered != kept
    path.write_bytes(altered if content is None else content)
    try:
        with pytest.raises(PartitionError, match=r"seed-0.json: altered or damaged.*make the partition again"):
            open_partition(prepared, "digits", "iid", 0)
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize("content", [b"\xff", b"{", b"", b"[" * 100_000])
def test_json_that_is_none_is_named(content, tmp_path):
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"some\.json"):
        read_json(path)
    with pytest.raises(DamagedFile, match="Is a directory"):
        read_json(tmp_path)


def test_what_a_killed_process_was_writing_is_known_as_such(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from heterobench.files import atomic\n"
        "with atomic(Path(sys.argv[1])) as t: t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "table.csv")], check=False)
    (left,) = tmp_path.iterdir()
    assert leftover(left)
    with atomic(tmp_path / "table.csv") as temporary:
        temporary.write_text("whole")
    assert not leftover(tmp_path / "table.csv")
    assert json.dumps(sorted(p.name for p in tmp_path.iterdir() if not leftover(p))) == '["table.csv"]'


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "runs.json" / "x").mkdir(parents=True)
    with pytest.raises(DiskError, match=r"runs\.json: Is a directory\. What to do: move away"):
        write_json(tmp_path / "runs.json", [])
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="file"):
        write_json(tmp_path / "file" / "runs.json", [])
    os.mkfifo(tmp_path / "pipe")  # as /dev/null, which a rename by root would remove
    with pytest.raises(DiskError, match="pipe: a device or a pipe, which is not replaced"):
        write_json(tmp_path / "pipe", [])
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "pipe").unlink()
    with pytest.raises(DiskError, match="choose a shorter"):
        write_json(tmp_path / ("x" * 5000), [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "runs.json"]  # nothing is left over


def test_a_long_value_is_told_in_short(parameters, at_home, capsys):
    path = parameters / "params" / "config.yaml"
    kept, number = path.read_bytes(), f"0x{'f' * 9999}"
    try:
        for line in (
            f"threads: {number}",
            f"benchmarks: {'x' * 9999}",
            f"benchmarks: [{'x' * 9999}]",
            f"preset: {'x' * 9999}",
        ):
            path.write_text(line)
            assert at_home(parameters, "report", "--benchmark", "label-skew") == 1
            told = capsys.readouterr().err
            assert "params/config.yaml: " + line.split(":")[0] in told
            assert len(told) < 1000
    finally:
        path.write_bytes(kept)


LAUGHS = "\n".join(f"  - &a{i} [{', '.join(['x' if i == 0 else f'*a{i - 1}'] * 9)}]" for i in range(9))


@pytest.mark.parametrize("text", [f"title:\n{LAUGHS}", "&a\ntitle: T\noptions: {x: *a}"], ids=["billions", "endless"])
def test_aliases_that_make_a_file_huge_are_refused(text, parameters, at_home, capsys):
    path = parameters / "params" / "models" / "softmax.yaml"
    kept = path.read_bytes()
    try:
        path.write_text(text)
        assert at_home(parameters, "list", "models") == 1
        told = capsys.readouterr().err
        assert "params/models/softmax.yaml: " in told
        assert "values, aliases written out: allowed are 100,000" in told
    finally:
        path.write_bytes(kept)
