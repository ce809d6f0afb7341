"""The command line, as a user types it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import pytest

from miniature import environment, miniature


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return miniature(tmp_path_factory.mktemp("cli") / "project")


def heterobench(root, *arguments, **more):
    command = [sys.executable, "-m", "heterobench.cli", *arguments]
    return subprocess.run(command, cwd=root, env=environment() | more, capture_output=True, text=True)


def test_one_run_from_nothing(project):
    """Fetches, prepares and partitions what is missing, trains, and shows the run in the tracker."""
    result = heterobench(
        project, "run", "--algorithm", "fedadam", "--model", "softmax", "--rounds", "3", "--set", "tau=0.01"
    )
    assert result.returncode == 0, result.stderr
    folder = project / "results/single/command-line/runs/digits.dirichlet-0.1.softmax.full/fedadam/seed-0"
    config = json.loads((folder / "config.json").read_text())["configuration"]
    assert config["algorithm"]["hyperparameters"]["tau"] == 0.01
    assert config["algorithm"]["hyperparameters"]["optimizer"] == "adam"
    assert len((folder / "rounds.jsonl").read_text().splitlines()) == config["budget"]["rounds"] == 3
    assert str(folder.relative_to(project)) in result.stdout
    with sqlite3.connect(f"file:{project / 'mlflow.db'}?mode=ro", uri=True) as database:
        assert database.execute("SELECT COUNT(*) FROM tags WHERE key = 'heterobench.run_id'").fetchone() == (1,)


@pytest.mark.slow  # the follower alone is tested in test_tracking.py
def test_dead_tracker_does_not_stop_a_run(project):
    result = heterobench(
        project, "run", "--model", "softmax", "--rounds", "1", "--seed", "5", MLFLOW_TRACKING_URI="http://127.0.0.1:9"
    )
    assert result.returncode == 0, result.stderr
    folder = project / "results/single/command-line/runs/digits.dirichlet-0.1.softmax.full/fedavg/seed-5"
    assert (folder / "end.json").exists()
    assert "heterobench track" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--algorithm", "fedprx"], "did you mean 'fedprox'?"),
        (["--dataset", "digit"], "did you mean 'digits'?"),
        (["--partition", "dirichlet-0.11"], "did you mean 'dirichlet-0.1'?"),
        (["--set", "mu=1"], "command line: fedavg on digits.dirichlet-0.1.mlp.full: unknown key 'mu'"),
        (["--algorithm", "fedprox", "--set", "mu=-1"], "mu: Input should be greater than or equal to 0 (found -1)"),
        (["--set", "lr"], "expected NAME=VALUE"),
        (["--rounds", "0"], "rounds: Input should be greater than or equal to 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(project, arguments, told):
    result = heterobench(project, "run", *arguments)
    assert result.returncode == (2 if arguments[0] == "--rounds" else 1)  # 2: the parser of options itself refuses
    assert told in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("algorithms", "scaffold"),
        ("algorithms", "fedyogi"),
        ("benchmarks", "label-skew"),
        ("datasets", "fashion-mnist"),
        ("models", "mcmahan-cnn"),
        ("partitions", "k-classes-2"),
        ("published", "fedadam"),
        ("schedules", "sample-10"),
    ],
)
def test_list(project, kind, name):
    result = heterobench(project, "list", kind)
    assert result.returncode == 0, result.stderr
    assert name in [line.split("\t")[0] for line in result.stdout.splitlines()]


def test_outside_a_project(tmp_path):
    result = heterobench(tmp_path, "list", "models")
    assert result.returncode == 1
    assert "params/config.yaml" in result.stderr
    assert "HETEROBENCH_ROOT" in result.stderr
