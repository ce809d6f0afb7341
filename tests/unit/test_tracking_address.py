"""A real MLflow server behind a password and a proxy: everybody agrees on it, nobody shows the password."""

import contextlib
import os
import subprocess
import sys

import psutil
import pytest

from heterobench.commands import doctor
from servers import HOST, free_port, guarded, listens, wait_for
from tracked import empty_project, tracked, write_run

PASSWORD = "S3cret/Pass"
SHOWN = "http://ana:S3cret%2FPass@"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """`heterobench ui` on a project of its own: (process, port)."""
    project = empty_project(tmp_path_factory.mktemp("page"))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "HETEROBENCH")) and "proxy" not in k}
    port = free_port()
    command = [sys.executable, "-m", "heterobench.cli", "ui", "--port", str(port)]
    process = subprocess.Popen(command, cwd=project.root, env=clean, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port) or process.poll() is not None, 120, "the page")
        yield process, port
    finally:
        process.terminate()
        process.wait(30)


def track(project, **settings):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "HETEROBENCH"))} | settings
    command = [sys.executable, "-m", "heterobench.cli", "track"]
    return subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, timeout=120)


def test_doctor_and_track_agree_on_a_live_server_with_a_password(page, tmp_path, monkeypatch):
    project = empty_project(tmp_path / "p", store=False)
    write_run(project)
    with guarded(page[1], "ana", PASSWORD) as (port, asked):
        for address, status in ((f"{SHOWN}{HOST}:{port}", "ok"), (f"http://ana:S3cretWrong@{HOST}:{port}", "fail")):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            ((_, found, text, advice),) = doctor.tracker(project)
            run = track(project, MLFLOW_TRACKING_URI=address)
            assert (found, run.returncode) == (status, 0 if status == "ok" else 1), (text, run.stderr)
            assert "S3cret" not in f"{text}{advice}{run.stdout}{run.stderr}"
        assert asked
    assert len(tracked(project, uri=f"http://{HOST}:{page[1]}")) == 1


def test_proxies_are_used_but_not_for_loopback(page, tmp_path):
    project = empty_project(tmp_path / "p", store=False)
    write_run(project)
    with guarded(page[1], "ana", PASSWORD, proxy=True) as (port, asked):
        proxy = {"HTTP_PROXY": f"{SHOWN}{HOST}:{port}", "http_proxy": f"{SHOWN}{HOST}:{port}"}
        run = track(project, MLFLOW_TRACKING_URI="http://tracker.example", **proxy)
        assert run.returncode == 0, run.stderr
        assert asked
        assert all(path.startswith("http://tracker.example/") for path in asked)
        asked.clear()
        run = track(project, MLFLOW_TRACKING_URI=f"http://{HOST}:{page[1]}", **proxy)
        assert run.returncode == 0, run.stderr
        assert asked == []


@pytest.mark.parametrize("password", ["pa/S3cret", "pa#S3cret", "pa?S3cret", "pa@S3cret", "S3cret"])
def test_no_password_in_any_message(tmp_path, password):
    project = empty_project(tmp_path / "p", store=False)
    write_run(project)
    run = track(project, MLFLOW_TRACKING_URI=f"http://ana:{password}@{HOST}:9")
    assert run.returncode == 1
    assert "S3cret" not in run.stdout + run.stderr


def test_killed_page_leaves_no_server(page):
    process, port = page
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.wait()

    def gone():
        with contextlib.suppress(psutil.Error):
            return not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children)
        return False

    try:
        wait_for(gone, 20, "the server to end")
    finally:
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
    assert not listens(port)


@pytest.mark.parametrize("damage", [os.mkdir, lambda path: os.symlink(path.name, path)], ids=["folder", "loop"])
def test_what_is_no_file_is_told_at_once(tmp_path, damage):
    """MLflow itself would try again for minutes."""
    project = empty_project(tmp_path / "p", store=False)
    write_run(project)
    damage(project.root / "mlflow.db")
    run = track(project)
    assert run.returncode == 1
    assert f"{project.root}/mlflow.db: no file, so no database. What to do: move it away" in run.stderr
