"""Full and read-only disks: every command says which file, why, and what to do, and goes on when there is room."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from heterobench import cli
from miniature import miniature

SETTING = """
title: Miniature
presets:
  mini:
    seeds: 1
    scenarios: [{dataset: digits, model: softmax, partition: iid, schedule: full}]
    budget: {rounds: 2, batch_size: 64}
    tuning: {trials: 1, seeds: [7]}
    snapshots: 2
    algorithms: [fedavg]
"""
TABLE = ["--benchmark", "miniature"]
ROW = [*TABLE, "--scenario", "digits.iid.softmax.full", "--algorithm", "fedavg"]
RESULTS = "results/miniature/mini"
COMMANDS = {  # command -> (arguments, what it makes)
    "obtain": (["digits"], ["data/raw/digits"]),
    "prepare": (["digits"], ["data/prepared/digits"]),
    "partition": (["digits", "iid", "--seeds", "0", "7"], ["data/partitions", "results/partitions"]),
    "picture": (["digits", "iid"], ["results/partitions/digits/iid.svg"]),
    "tune": (ROW, [f"{RESULTS}/tuning"]),
    "train": (ROW, [f"{RESULTS}/runs"]),
    "evaluate": (ROW[:4], [f"{RESULTS}/evaluation", f"{RESULTS}/curves", f"{RESULTS}/ledger", f"{RESULTS}/outcomes"]),
    "report": (TABLE, [f"{RESULTS}/tables", f"{RESULTS}/figures", f"{RESULTS}/report.html", "scores"]),
    "keep": (TABLE, ["docs/results"]),
    "document": ([], ["docs/datasets"]),
}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount a file system"),
    pytest.mark.slow,  # half a minute
]


def mount(folder, *options) -> None:
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A project on a file system of 80 MB of its own, in which every command has been run."""
    folder = tmp_path_factory.mktemp("small")
    mount(folder, "-o", "size=80m")
    root = miniature(folder / "project")
    (root / "params/benchmarks/miniature.yaml").write_text(SETTING)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, (arguments, _) in COMMANDS.items():
            assert cli.main([name, *arguments]) == 0, name
    yield root
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(root) -> None:
    """Leave not a byte; the kernel counts in pages."""
    with open(root / "filling", "wb", buffering=0) as stream:
        for size in (1 << 20, 4096):
            try:
                while stream.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def removed(root, made) -> None:
    for path in (root / each for each in made):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(command, small, monkeypatch, capfd):
    arguments, made = COMMANDS[command]
    monkeypatch.chdir(small)
    removed(small, made)
    fill(small)
    capfd.readouterr()
    try:
        status = cli.main([command, *arguments])
    finally:
        (small / "filling").unlink()
    told = capfd.readouterr().err
    assert status == 1
    assert "No space left on device" in told
    assert "What to do: make room" in told
    assert str(small) in told
    assert "Traceback" not in told
    assert cli.main([command, *arguments]) == 0  # with room again
    assert all((small / path).exists() for path in made)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "obtain"])
def test_a_read_only_disk(command, small, monkeypatch, capfd):
    arguments, made = COMMANDS[command]
    monkeypatch.chdir(small)
    removed(small, made)
    subprocess.run(["mount", "-o", "remount,ro", str(small.parent)], check=True)
    try:
        status = cli.main([command, *arguments])
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small.parent)], check=True)
    told = capfd.readouterr().err
    assert status == 1
    assert "Read-only file system. What to do: make" in told
    assert str(small) in told
    assert "Traceback" not in told
    assert cli.main([command, *arguments]) == 0
