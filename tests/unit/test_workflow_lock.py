"""Locks that a killed Snakemake left: released, and no other lock is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from heterobench.files import write_json
from heterobench.project import Project
from heterobench.workflow_lock import sign
from miniature import environment, miniature, snakemake

HOLDER = """
import sys, time
from pathlib import Path
from heterobench.project import Project
from heterobench.workflow_lock import sign
root = Path(sys.argv[1])
sign(Project(root))
(root / ".snakemake/locks").mkdir(exist_ok=True)
(root / ".snakemake/locks/0.input.lock").write_text("a")
print("locked", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has signed and holds the lock of the project in `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def locks(root):
    return sorted(path.name for path in (root / ".snakemake/locks").iterdir())


def test_the_lock_of_a_process_that_runs_stays(holder, tmp_path, capsys):
    assert sign(Project(tmp_path)) == []
    assert locks(tmp_path) == ["0.input.lock"]
    assert f"process {holder.pid} on" in capsys.readouterr().err


@pytest.mark.parametrize("waited", [True, False], ids=["gone", "a zombie"])
def test_the_lock_of_a_killed_process_is_released(holder, waited, tmp_path, capsys):
    sign(Project(tmp_path))  # this process, which looks again below, has signed as well by then
    holder.kill()
    if waited:
        holder.wait()
    else:
        time.sleep(0.2)
    assert [path.name for path in sign(Project(tmp_path))] == ["0.input.lock"]
    assert locks(tmp_path) == []
    assert "released the lock" in capsys.readouterr().err


def test_a_later_process_of_the_same_number_is_not_the_one_that_signed(tmp_path):
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").touch()
    me = {"host": os.uname().nodename, "pid": os.getppid(), "started": 1.0}
    write_json(tmp_path / ".snakemake/heterobench-running.json", {"since": 1.0, "running": [me]})
    assert len(sign(Project(tmp_path))) == 1


@pytest.mark.parametrize(
    "signed",
    [
        {"since": 1.0, "running": [{"host": "another machine", "pid": 1, "started": 1.0}]},
        {"since": 9e9, "running": []},  # a list that began after the lock
        None,
        [],
    ],
)
def test_a_lock_of_which_nothing_is_known_stays(signed, tmp_path):
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    time.sleep(0.01)
    if signed is not None:
        write_json(tmp_path / ".snakemake/heterobench-running.json", signed)
    assert sign(Project(tmp_path)) == []
    assert locks(tmp_path) == ["0.input.lock"]


@pytest.mark.slow  # half a minute of Snakemake's starts
def test_a_workflow_goes_on_after_kill_9_without_unlock(tmp_path):
    root = miniature(tmp_path / "project")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "data/prepared/digits/manifest.json"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=root, env=environment(), start_new_session=True, **silent)
    deadline = time.monotonic() + 120
    while not list((root / ".snakemake").glob("locks/*.lock")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    again = snakemake(root, "--cores", "1", "data/prepared/digits/manifest.json")
    assert "LockException" in again.stdout  # the other one still runs
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shutil.rmtree(root / "data", ignore_errors=True)
    done = snakemake(root, "--cores", "1", "data/prepared/digits/manifest.json")
    assert done.returncode == 0, done.stdout
    assert "released the lock of a workflow that was killed" in done.stdout
    assert (root / "data/prepared/digits/manifest.json").is_file()
