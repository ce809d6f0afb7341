"""The doctor, on this repository and on projects with something broken."""

import io
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from heterobench.account import substitute_home
from heterobench.commands import doctor
from heterobench.data.fetch import fetch
from heterobench.data.prepare import prepare
from heterobench.project import Project
from heterobench.records import revision
from raw_files import flip

REPOSITORY = Project.find(Path(__file__))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The parameter files and the DVC configuration of the repository, without data and results."""
    for name in ("HETEROBENCH_MIRROR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(REPOSITORY.params, tmp_path / "params")
    shutil.copy(REPOSITORY.root / "dvc.yaml", tmp_path / "dvc.yaml")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    return Project(tmp_path)


def found(check, project):
    return [(c.status, c.found, c.advice) for c in check(project)]


def test_the_repository_is_examined_within_seconds(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("HETEROBENCH_MIRROR", raising=False)
    stream = io.StringIO()
    start = time.monotonic()
    doctor.doctor(REPOSITORY, stream=stream)
    assert time.monotonic() - start < 30
    text = stream.getvalue()
    for name in (
        "python",
        "packages",
        "device",
        "machine",
        "code",
        "parameters",
        "data digits",
        "other data",
        "home",
        "dvc",
        "tracker",
    ):
        assert name in text
    assert "\x1b" not in text


def test_result_is_false_only_when_something_failed(project, monkeypatch):
    checks = {"good": ("ok",), "odd": ("ok", "warn"), "bad": ("warn", "fail")}
    for statuses in checks.values():

        def check(project, statuses=statuses):
            for status in statuses:
                yield doctor.Check("something", status, "found")

        monkeypatch.setattr(doctor, "CHECKS", (check,))
        assert doctor.doctor(project, stream=io.StringIO()) == ("fail" not in statuses)


def test_a_check_that_breaks_does_not_stop_the_others(project, monkeypatch):
    def broken(project):
        raise ZeroDivisionError("by zero")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (broken, doctor.python))
    first, second = doctor.examine(project)
    assert (first.status, first.found) == ("fail", "ZeroDivisionError: by zero")
    assert second.status == "ok"


def test_requirements_that_are_not_met(project, monkeypatch):
    wanted = ["torch>=99", "no-such-package-at-all>=1", "rich>=1", "absent-extra; extra == 'slurm'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    lines = found(doctor.packages, project)
    assert [status for status, _, _ in lines] == ["fail", "fail"]
    assert lines[0][2] == "pip install 'torch>=99'"
    assert lines[1][1] == "no-such-package-at-all is not installed"


def test_parameter_mistakes_are_shown(project):
    assert [status for status, _, _ in found(doctor.parameters, project)] == ["ok"]
    file = project.params / "benchmarks" / "label-skew.yaml"
    file.write_text(file.read_text().replace("scaffold", "scafold"))
    (project.params / "models" / "mlp.yaml").write_text("titel: x\n")
    lines = found(doctor.parameters, project)
    assert {status for status, _, _ in lines} == {"fail"}
    text = " ".join(advice for _, _, advice in lines)
    assert "titel" in text


def test_a_line_for_each_data_set_that_is_needed_and_one_for_all_others(project):
    lines = list(doctor.data(project))
    others = len(list((project.params / "datasets").glob("*.yaml"))) - 1
    assert [line.name for line in lines] == ["data digits", "other data"]
    assert lines[1].found.startswith(f"{others} that params/config.yaml does not need; obtained: none")
    assert {line.status for line in lines} == {"ok"}


def test_data_are_asked_for_as_the_workflow_asks(project):
    def digits():
        return [check for check in doctor.data(project) if check.name == "data digits"]

    folder = project.raw("digits")
    folder.mkdir(parents=True)
    (folder / "digits.csv.gz").write_bytes(b"")
    missing = "in data/raw/digits missing: source.json"
    assert digits() == [doctor.Check("data digits", "warn", missing, "heterobench obtain digits")]
    fetch(project, "digits")
    assert [(line.status, line.found[:18]) for line in digits()] == [("ok", "raw files verified")]
    prepare(project, "digits")
    assert [(line.status, line.found) for line in digits()] == [("ok", "raw files verified, prepared")]
    array = project.prepared("digits") / "test_y.npy"
    array.write_bytes(array.read_bytes()[:-1])
    ((status, text, advice),) = [line[1:] for line in digits()]
    assert status == "fail"
    assert "test_y.npy: truncated" in text
    assert "heterobench prepare digits" in advice
    flip(folder / "digits.csv.gz")
    ((status, text, advice),) = [line[1:] for line in digits()]
    assert status == "fail"
    assert "digits.csv.gz: altered: expected sha256 09f66e6debdee2cd" in text
    assert "heterobench obtain digits" in advice
    (project.root / "dvc.yaml").write_text("stages: {fetch: {foreach: [mnist]}}\n")
    assert [line.found for line in digits()] == ["dvc.yaml: no stage fetch@digits."]


def test_home(project, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found(doctor.home, project)[0][0] == "ok"
    monkeypatch.setenv("HOME", "/proc")  # where nobody, not even root, makes a folder
    ((status, text, advice),) = found(doctor.home, project)
    assert status == "fail"
    assert "/proc/.cache: cannot be written" in text
    assert "export HOME" in advice
    monkeypatch.setenv("HOME", str(substitute_home()))
    assert found(doctor.home, project)[0][0] == "fail"


def test_mirror(project, monkeypatch, tmp_path):
    assert found(doctor.mirror, project)[0][0] == "ok"
    monkeypatch.setenv("HETEROBENCH_MIRROR", str(tmp_path))
    assert found(doctor.mirror, project)[0][0] == "ok"
    monkeypatch.setenv("HETEROBENCH_MIRROR", str(tmp_path / "absent"))
    assert found(doctor.mirror, project)[0][0] == "fail"


def test_remotes_must_verify(project, tmp_path):
    assert found(doctor.dvc, project) == [("ok", "no remote: raw files come from their publishers", "")]
    config = project.root / ".dvc" / "config"
    plain = config.read_text()
    remote = f"    remote = store\n['remote \"store\"']\n    url = {tmp_path}/store\n"
    config.write_text(plain + remote)
    ((status, text, advice),) = found(doctor.dvc, project)
    assert status == "fail"
    assert "remote store does not verify" in text
    assert advice == "dvc remote modify --local store verify true"
    config.write_text(plain + remote.replace("    remote = store\n", ""))
    assert found(doctor.dvc, project)[0][:2] == ("warn", "remote store accepts altered files")
    config.write_text(plain + "    remote = stroe\n" + remote.replace("    remote = store\n", ""))
    ((status, text, advice),) = found(doctor.dvc, project)
    assert status == "fail"
    assert "no remote 'stroe' is there; did you mean 'store'?" in text
    assert "dvc config --local --unset core.remote" in advice
    config.write_text(plain + remote + "    verify = true\n")
    assert found(doctor.dvc, project)[0][0] == "ok"
    config.write_text("[core]\n    no_scm = true\n")
    assert found(doctor.dvc, project)[0][2] == "dvc config core.analytics false"
    config.unlink()
    assert found(doctor.dvc, project)[0][0] == "fail"


def test_sqlite_tracker(project):
    file = project.root / "mlflow.db"
    assert found(doctor.tracker, project)[0][0] == "ok"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("CREATE TABLE runs (lifecycle_stage)")
    connection.execute("INSERT INTO runs VALUES ('active'), ('deleted')")
    assert found(doctor.tracker, project)[0][:2] == ("ok", f"{file}: 1 runs")
    connection.execute("BEGIN EXCLUSIVE")
    assert found(doctor.tracker, project)[0][:2] == ("warn", f"{file}: locked")
    connection.close()
    file.write_bytes(b"no database " * 1000)
    assert found(doctor.tracker, project)[0][0] == "fail"


def test_dead_server(project, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{probe.getsockname()[1]}")
    ((status, text, advice),) = found(doctor.tracker, project)
    assert status == "fail"
    assert "refused" in text
    assert "MLFLOW_TRACKING_URI" in advice


def test_revision(project, monkeypatch):
    def git(*arguments):
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=project.root, check=True, capture_output=True, env=environment)

    package = project.root / "src" / "heterobench"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(revision, "SOURCE", package)
    ((status, text, advice),) = found(doctor.code, project)
    assert (status, "not a git repository" in text) == ("warn", True)
    assert "git init" in advice
    git("init")
    git("add", "params", "src")
    git("commit", "-m", "all")
    assert "uncommitted" in found(doctor.code, project)[0][1]
    git("add", ".")
    git("commit", "-m", "rest")
    assert found(doctor.code, project)[0][0] == "ok"
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for a checkout of somebody else
    ((status, text, _),) = found(doctor.code, project)
    assert status == "warn"
    assert "safe.directory" in text
