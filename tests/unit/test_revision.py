"""Which code this is: asked of real repositories in the states that checkouts are found in."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from heterobench.commands import keep
from heterobench.records import provenance, revision
from heterobench.report.sections import provenance as section
from heterobench.tracking import entries

WHO = ("-c", "user.name=n", "-c", "user.email=e@example.org")


def git(root, *arguments):
    return subprocess.run(
        ["git", *WHO, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for name in revision.ELSEWHERE:
        monkeypatch.delenv(name, raising=False)


def fill(root: Path) -> Path:
    """The files that tell a checkout of this project."""
    for file in ("params/config.yaml", "src/heterobench/__init__.py", "scores/metrics.json"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("x\n")
    return root


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, the code of which is the one that runs."""
    root = fill(tmp_path / "checkout")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "all")
    return runs_from(root, monkeypatch)


def runs_from(root, monkeypatch):
    monkeypatch.setattr(revision, "SOURCE", root.resolve() / "src" / "heterobench")
    return root


def state(root):
    found = revision.revision(root)
    assert (found.reason is None) == (found.name is not None and found.dirty is not None)
    return found.name, found.dirty, found.reason or ""


def test_a_clean_commit_and_what_is_not_committed(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert state(checkout) == (head, False, "")
    (checkout / "scores" / "metrics.json").write_text("made by the report\n")
    assert state(checkout) == (head, False, "")
    (checkout / "src" / "heterobench" / "__init__.py").write_text("y\n")
    assert state(checkout) == (head, True, "")


def test_an_untracked_file_counts_though_the_user_hides_such_files(checkout):
    git(checkout, "config", "status.showUntrackedFiles", "no")
    (checkout / "src" / "heterobench" / "new.py").write_text("x\n")
    assert git(checkout, "status", "--porcelain") == ""
    assert state(checkout)[1] is True


@pytest.mark.parametrize("how", ["worktree", "shallow"])
def test_kinds_of_clones(checkout, how, monkeypatch):
    other = checkout.parent / how
    if how == "worktree":
        git(checkout, "worktree", "add", "-q", str(other))
    else:
        git(checkout, "commit", "-q", "--allow-empty", "-m", "second")
        git(checkout, "clone", "-q", "--depth", "1", f"file://{checkout}", str(other))
    assert state(runs_from(other, monkeypatch)) == (git(other, "rev-parse", "HEAD"), False, "")


def test_another_owner_is_not_known_and_git_says_what_to_do(checkout, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for this state
    name, dirty, reason = state(checkout)
    assert (name, dirty) == (None, None)
    assert "dubious ownership" in reason
    assert "safe.directory" in reason


def test_an_archive(checkout, tmp_path, monkeypatch):
    root = runs_from(fill(tmp_path / "archive"), monkeypatch)
    assert state(root)[:2] == (None, None)
    assert "not a git repository" in state(root)[2]
    # Inside a repository of other things, whose commit says nothing of this code:
    git(tmp_path, "init", "-q")
    (tmp_path / "diary.txt").write_text("x\n")
    git(tmp_path, "add", "diary.txt")
    git(tmp_path, "commit", "-qm", "diary")
    assert state(root)[:2] == (None, None)
    assert "params/config.yaml" in state(root)[2]


def test_a_repository_without_a_commit(tmp_path, monkeypatch):
    root = runs_from(fill(tmp_path), monkeypatch)
    git(root, "init", "-q")
    assert state(root)[:2] == (None, None)


def test_git_is_not_installed(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert state(checkout) == (None, None, "git is not installed, or not in PATH")


def test_a_damaged_index_leaves_the_commit_known_and_the_changes_not(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / ".git" / "index").write_bytes(b"DIRC damaged")
    name, dirty, reason = state(checkout)
    assert (name, dirty) == (head, None)
    assert "index" in reason


def test_the_repository_of_a_hook_is_not_asked(checkout, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    head = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert state(checkout) == (head, False, "")


@pytest.mark.parametrize("place", ["elsewhere", "checkout/.venv/lib/heterobench"])
def test_code_that_is_not_the_checkouts(checkout, place, monkeypatch, tmp_path):
    """Installed from another clone, or copied into an environment inside this one."""
    (checkout / ".gitignore").write_text(".venv\n")
    monkeypatch.setattr(revision, "SOURCE", tmp_path / place)
    name, dirty, reason = state(checkout)
    assert (name, dirty) == (None, None)
    assert place.rpartition("/")[2] in reason


def test_what_is_not_known_is_null_in_the_record_and_stands_in_the_log(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = json.loads(json.dumps(provenance.provenance(tmp_path, "cpu")))
    assert (found["revision"], found["dirty"]) == (None, None)
    assert found["revision_unknown"]
    assert found["revision_unknown"] in caplog.text


ABOUT = {
    "clean": ({"revision": "a" * 40, "dirty": False}, False),
    "changed": ({"revision": "a" * 40, "dirty": True}, True),
    "half known": ({"revision": "a" * 40, "dirty": None}, None),
    "not known": ({"revision": None, "dirty": None}, None),
    "as once written where it was not known": ({"revision": None, "dirty": False}, None),
    "damaged": ({}, None),
}


@pytest.mark.parametrize("about", ABOUT)
def test_whoever_reads_a_record_keeps_unknown_apart_from_clean(about, tmp_path):
    origin, dirty = ABOUT[about]
    assert revision.dirty(origin) is dirty
    mark = {False: "", True: "+", None: "?"}[dirty]
    name = origin.get("revision") or ""
    row = {"revision": name, "dirty": dirty}
    assert section.revision(row) == (name[:12] + mark if name else "revision not known")
    tag = entries.tags(CONFIG, origin, {"status": "finished"})["revision"]
    assert tag == (name + {"": "", "+": "+dirty", "?": "+unknown"}[mark] if name else "unknown")


CONFIG = {"configuration": {}, "run_id": "r", "benchmark": "b", "preset": "p", "scenario": "s", "arm": "a", "seed": 0}
CONFIG |= {"data_hash": "d", "code": "c"}


def test_the_ledger_has_a_third_state(tmp_path):
    """Through a file, as the report reads it."""
    from heterobench.longform import Run, _ledger
    from heterobench.measures.reading import FINISHED, Reading
    from heterobench.project import Project
    from heterobench.report.data import ReportData

    class Job:
        project = Project(tmp_path)
        arm = type("Arm", (), {"name": "fedavg"})

    readings = [Reading(tmp_path / "run", FINISHED, [], {}, origin, {}) for origin, _ in ABOUT.values()]
    ledger = _ledger("s", [Run(Job, seed, reading) for seed, reading in enumerate(readings)])
    ledger.to_parquet(tmp_path / "ledger.parquet")
    read = pd.read_parquet(tmp_path / "ledger.parquet")
    data = ReportData(None, None, {}, read, {}, {})
    assert [row["dirty"] for row in data.runs.values()] == [dirty for _, dirty in ABOUT.values()]
    assert keep.CHANGES.keys() == {True, False, None}


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, of util-linux")
def test_a_user_who_is_only_a_number(tmp_path):
    """No name, no home: asked in a process that the system knows under no name."""
    code = (
        "import getpass; from heterobench import account, device; from pathlib import Path; account.ensure_account(); "
        "print(getpass.getuser(), device.lock_folder().name, Path.home().name)"
    )
    user = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    clean = {key: value for key, value in os.environ.items() if key not in ("HOME", "USER", "LOGNAME", "USERNAME")}
    if subprocess.run([*user, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    run = subprocess.run([*user, sys.executable, "-c", code], env=clean, capture_output=True, text=True)
    assert run.stdout.split() == ["uid-54321", "heterobench-54321", "heterobench-home-54321"], run.stderr
