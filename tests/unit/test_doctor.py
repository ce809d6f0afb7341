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

from heterobench.commands import doctor
from heterobench.project import Project

REPOSITORY = Project.find(Path(__file__))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The parameter files and the DVC configuration of the repository, without data and results."""
    for name in ("HETEROBENCH_MIRROR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(REPOSITORY.params, tmp_path / "params")
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


def test_data_that_are_half_there(project):
    assert {status for status, _, _ in found(doctor.data, project)} == {"ok"}
    folder = project.raw("digits")
    folder.mkdir(parents=True)
    (folder / "digits.csv.gz").write_bytes(b"")
    assert ("warn", "in data/raw/digits missing: source.json", "heterobench obtain digits") in found(
        doctor.data, project
    )


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
    assert (status, text) == ("fail", "remote store accepts altered files")
    assert advice == "dvc remote modify --local store verify true"
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


def test_revision(project):
    def git(*arguments):
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=project.root, check=True, capture_output=True, env=environment)

    assert found(doctor.code, project)[0][1] == "no git revision"
    git("init")
    git("add", "params")
    git("commit", "-m", "all")
    assert "uncommitted" in found(doctor.code, project)[0][1]
    git("add", ".")
    git("commit", "-m", "rest")
    assert found(doctor.code, project)[0][0] == "ok"
