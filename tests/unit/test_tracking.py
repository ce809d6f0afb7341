"""Records -> MLflow, with real stores: nothing lost, nothing twice, and a dead tracker stops nobody."""

import hashlib
import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from heterobench.errors import TrackerError
from heterobench.project import Project
from heterobench.records.record import Record, line
from heterobench.tracking import entries, follow, importer, store, ui
from tracked import SCENARIO, empty_project, write_run


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return empty_project(tmp_path)


def runs(project, deleted=False):
    """All runs of the store by name, read with MLflow's own client."""
    client = store.client(store.tracking_uri(project))
    experiment = client.get_experiment_by_name("label-skew/mini")
    found = client.search_runs([experiment.experiment_id], run_view_type=2 if deleted else 1)
    assert len({run.info.run_name for run in found}) == len(found) or deleted
    return {run.info.run_name: run for run in found}


def points(project):
    """Every metric point in the database."""
    with sqlite3.connect(project.root / "mlflow.db") as connection:
        query = "SELECT run_uuid, key, step, value, is_nan, timestamp FROM metrics"
        return sorted(connection.execute(query).fetchall())


def test_a_run_is_there_with_all_it_has(project):
    folder = write_run(project, "fedprox", 4)
    assert importer.import_runs(project) == importer.Summary(1, 0, ())
    (run,) = runs(project).values()
    assert run.info.run_name == "fedprox #4 iid digits mlp full"
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (1_700_000_400_000, 1_700_000_406_000)
    expected = {"partition": "iid", "partition.clients": "10", "model.options.hidden": "[64]", "seed": "4"}
    expected |= {"hyperparameters.lr": "0.1", "hyperparameters.mu": "null", "budget.rounds": "3"}
    assert expected.items() <= run.data.params.items()
    tags = {"benchmark": "label-skew", "preset": "mini", "scenario": SCENARIO, "algorithm": "fedprox"}
    tags |= {"arm": "fedprox", "seed": "4", "data_hash": "d" * 64, "code": "c" * 16, "revision": "abc+dirty"}
    tags |= {"dataset": "digits", "partition": "iid", "partition_hash": "p" * 64, "status": "finished"}
    assert tags.items() <= run.data.tags.items()
    client = store.client(store.tracking_uri(project))
    history = client.get_metric_history(run.info.run_id, "accuracy/test_accuracy")
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (1, 0.0, 1_700_000_402_000),
        (2, 0.5, 1_700_000_404_000),
        (3, 1 - 1 / 3, 1_700_000_406_000),
    ]
    assert run.data.metrics["seconds/seconds"] == 6.0
    assert run.inputs.dataset_inputs[0].dataset.name == "digits"
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert names == {"config.json", "provenance.json", "rounds.jsonl", "timing.jsonl"}
    copy = client.download_artifacts(run.info.run_id, "rounds.jsonl")
    assert Path(copy).read_bytes() == (folder / "rounds.jsonl").read_bytes()


def test_importing_again_changes_nothing(project):
    for seed in range(3):
        write_run(project, seed=seed)
    importer.import_runs(project)
    before = (runs(project).keys(), points(project))
    # 3 runs x 3 rounds x (3 metrics + seconds)
    assert len(before[1]) == 36
    assert importer.import_runs(project) == importer.Summary(0, 3, ())
    assert (runs(project).keys(), points(project)) == before


def test_many_points_are_logged_in_parts(project):
    write_run(project, rounds=700)
    importer.import_runs(project)
    assert len(points(project)) == 4 * 700


def test_many_runs_are_looked_up_together(project):
    count = importer.FEW + 3
    folders = [write_run(project, seed=seed, rounds=1) for seed in range(count)]
    assert importer.import_runs(project, folders=folders[:2]).imported == 2
    assert importer.import_runs(project) == importer.Summary(count - 2, 2, ())
    assert importer.import_runs(project) == importer.Summary(0, count, ())


def test_half_imported_run_is_completed(project):
    write_run(project)
    importer.import_runs(project)
    (run,) = runs(project).values()
    whole = [row[1:] for row in points(project)]
    store.client(store.tracking_uri(project)).delete_tag(run.info.run_id, entries.IMPORTED)
    with sqlite3.connect(project.root / "mlflow.db") as connection:
        connection.execute("DELETE FROM metrics WHERE step = 2")
    assert importer.import_runs(project) == importer.Summary(1, 0, ())
    (again,) = runs(project).values()
    assert [row[1:] for row in points(project) if row[0] == again.info.run_id] == whole
    assert importer.import_runs(project) == importer.Summary(0, 1, ())


def test_importer_killed_at_any_moment(project):
    """SIGKILL at some point of an import; the next one completes it."""
    for seed in range(30):
        write_run(project, seed=seed)
    process = spawn_import(project)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with sqlite3.connect(project.root / "mlflow.db", timeout=20) as connection:
            if connection.execute("SELECT count(*) FROM runs").fetchone()[0] >= 4:
                break
        time.sleep(0.01)
    process.kill()
    process.wait()
    summary = importer.import_runs(project)
    assert summary.imported + summary.already == 30
    assert summary.imported > 0
    assert len(runs(project)) == 30
    active = {run.info.run_id for run in runs(project).values()}
    assert len([row for row in points(project) if row[0] in active]) == 30 * 12


def test_failed_run_and_its_repetition(project):
    folder = write_run(project, status="failed", rounds=2)
    importer.import_runs(project)
    (run,) = runs(project).values()
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == "RunError: diverged"
    shutil.rmtree(folder)
    write_run(project, rounds=2)
    assert importer.import_runs(project).imported == 1
    client = store.client(store.tracking_uri(project))
    experiment = client.get_experiment_by_name("label-skew/mini").experiment_id
    first, second = sorted(client.search_runs([experiment]), key=lambda run: run.info.status)
    assert (first.info.run_id, first.info.status) == (run.info.run_id, "FAILED")
    assert first.data.tags[entries.SUPERSEDED] == "true"
    assert (second.info.status, second.data.tags[entries.SUPERSEDED]) == ("FINISHED", "false")
    assert "error" not in second.data.tags


def test_numbers_that_are_not_finite(project):
    write_run(project, values=[1.0, math.inf, math.nan])
    importer.import_runs(project)
    client = store.client(store.tracking_uri(project))
    (run,) = runs(project).values()
    losses = [m.value for m in client.get_metric_history(run.info.run_id, "loss/train_loss")]
    assert losses[0] == 1.0
    assert all(math.isnan(value) for value in losses[1:])
    before = points(project)
    assert importer.import_runs(project).already == 1
    assert points(project) == before


def test_run_deleted_by_the_user_stays_deleted(project):
    write_run(project)
    importer.import_runs(project)
    (run,) = runs(project).values()
    store.client(store.tracking_uri(project)).delete_run(run.info.run_id)
    assert importer.import_runs(project) == importer.Summary(0, 1, ())
    assert not runs(project)


def test_deleted_experiment_is_an_error_that_says_what_to_do(project):
    write_run(project)
    importer.import_runs(project)
    client = store.client(store.tracking_uri(project))
    client.delete_experiment(client.get_experiment_by_name("label-skew/mini").experiment_id)
    with pytest.raises(TrackerError, match="mlflow experiments restore"):
        importer.import_runs(project)


def test_unreadable_record_stops_nothing(project):
    write_run(project, seed=0)
    broken = write_run(project, seed=1)
    (broken / "config.json").write_text("{")
    without = write_run(project, seed=2)
    (without / "rounds.jsonl").write_text('{"round": 1}\n')
    write_run(project, seed=3)
    summary = importer.import_runs(project)
    assert summary.imported == 2
    assert len(summary.failed) == 2
    assert str(broken) in str(summary)


def test_an_altered_record_is_listed_and_not_imported(project):
    """A changed number that could be read as well as the right one."""
    write_run(project, seed=0)
    altered = write_run(project, seed=1)
    rounds = altered / "rounds.jsonl"
    text = rounds.read_text()
    rounds.write_text(text.replace('"bytes_up":10,', '"bytes_up":11,'))
    assert rounds.read_text() != text
    summary = importer.import_runs(project)
    assert summary.imported == 1
    (problem,) = summary.failed
    assert str(altered) in problem
    assert f"rounds.jsonl: altered: expected sha256 {hashlib.sha256(text.encode()).hexdigest()}" in problem


def test_running_runs_are_left_alone(project):
    folder = write_run(project)
    (folder / "end.json").unlink()
    assert importer.import_runs(project) == importer.Summary()


def test_tables_are_one_run_that_is_renewed(project):
    write_run(project)
    tables = project.benchmark("label-skew", "mini") / "tables"
    tables.mkdir()
    (tables / "main.csv").write_text("old\n")
    (tables.parent / "report.html").write_text("<p>")
    importer.track(project)
    first = runs(project)["tables"]
    assert importer.track(project) == importer.Summary(0, 1, ())
    (tables / "main.csv").write_text("new\n")
    importer.track(project)
    again = runs(project)["tables"]
    assert again.info.run_id == first.info.run_id
    client = store.client(store.tracking_uri(project))
    assert Path(client.download_artifacts(again.info.run_id, "tables/main.csv")).read_text() == "new\n"
    assert {item.path for item in client.list_artifacts(again.info.run_id)} == {"report.html", "tables"}
    assert len(runs(project)) == 2


def test_measured_costs_are_points_beside_the_metrics(project):
    folder = write_run(project, rounds=2)
    rows = [{"round": r, "seconds": 2.0 * r, "time": 1e9 + r} | ({"joules": 5.0 * r} if r > 1 else {}) for r in (1, 2)]
    (folder / "timing.jsonl").write_text("".join(map(line, rows)))
    found = {(name, round): value for name, value, _, round in entries.points(Record(folder), 0.0)}
    assert [found["seconds/seconds", r] for r in (1, 2)] == [2, 4]
    assert found["energy/joules", 2] == 10
    assert ("energy/joules", 1) not in found


def test_names_that_mlflow_refuses_are_mended():
    assert entries.metric_name("loss@5%") == "loss_5_"
    assert entries.metric_name("worst_client_accuracy") == "accuracy/worst_client_accuracy"
    assert entries.metric_name("gradient_examples") == "compute/gradient_examples"
    assert entries.metric_name("flops") == "compute/flops"
    assert entries.metric_name("joules") == "energy/joules"
    assert entries.metric_name("simulated_seconds") == "seconds/simulated_seconds"
    assert entries.flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_relative_sqlite_is_below_the_project(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///here.db")
    assert store.tracking_uri(Project(tmp_path)) == f"sqlite:///{tmp_path}/here.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////there.db")
    assert store.tracking_uri(Project(tmp_path)) == "sqlite:////there.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert store.tracking_uri(Project(tmp_path)) == "http://host:5000"


# Trackers in trouble


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_dead_server_is_an_error_within_seconds(project, monkeypatch):
    write_run(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    start = time.monotonic()
    with pytest.raises(TrackerError, match="heterobench track"):
        importer.track(project)
    assert time.monotonic() - start < 30


def test_file_that_is_no_database(project):
    write_run(project)
    (project.root / "other.db").write_bytes(b"not a database " * 100)
    with pytest.raises(TrackerError, match=r"other\.db"):
        importer.import_runs(project, uri=f"sqlite:///{project.root}/other.db")


def test_locked_database_is_waited_for(project):
    write_run(project)
    store.client(store.tracking_uri(project)).search_experiments()
    connection = sqlite3.connect(project.root / "mlflow.db", check_same_thread=False, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(3, lambda: connection.execute("COMMIT"))
    release.start()
    start = time.monotonic()
    assert importer.import_runs(project).imported == 1
    assert time.monotonic() - start > 2.5
    release.join()
    connection.close()


def test_import_lock_has_a_bound(project):
    with store.exclusive(project, f"sqlite:///{project.root}/mlflow.db"):
        code = (
            "import sys; from pathlib import Path; from heterobench.project import Project\n"
            "from heterobench.tracking.store import exclusive\n"
            "with exclusive(Project(Path(sys.argv[1])), sys.argv[2], wait=0.5): pass"
        )
        uri = f"sqlite:///{project.root}/mlflow.db"
        result = subprocess.run(
            [sys.executable, "-c", code, project.root, uri], capture_output=True, text=True, timeout=60
        )
    assert result.returncode == 1
    assert "another import" in result.stderr


def spawn_import(project):
    code = (
        "import sys; from pathlib import Path; from heterobench.project import Project\n"
        "from heterobench.tracking.importer import track\n"
        "print(track(Project(Path(sys.argv[1]))))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(project.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_importers_into_a_new_database(tmp_path, monkeypatch):
    """The tables of the store, the experiment and the runs: each is made once."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = empty_project(tmp_path, store=False)
    for seed in range(5):
        write_run(project, seed=seed)
    outputs = [process.communicate(timeout=100)[0] for process in [spawn_import(project) for _ in range(2)]]
    counts = sorted(text.splitlines()[-1] for text in outputs)
    assert counts == [
        "0 runs imported, 5 already there, 0 unreadable",
        "5 runs imported, 0 already there, 0 unreadable",
    ]
    assert len(runs(project)) == 5


# The follower


def test_follower_imports_what_finishes_and_ends_with_its_parent(project):
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    follower = follow.start(project, parent.pid, interval=0.2)
    try:
        log = project.results / "logs" / "track.log"
        wait_for(lambda: log.is_file() and "following" in log.read_text())
        libraries = Path(f"/proc/{follower.pid}/maps")
        # Of the libraries that mlflow loads; as long as nothing has finished, it is not imported.
        assert "sqlalchemy" not in libraries.read_text()
        write_run(project, seed=0)
        wait_for(lambda: "1 runs imported" in log.read_text())
        assert "sqlalchemy" in libraries.read_text()
        assert len(runs(project)) == 1
        assert follower.poll() is None
        # Ends without having been seen by a look in between, or not: the last look finds it.
        write_run(project, seed=1)
    finally:
        parent.kill()
        parent.wait()
    assert follower.wait(60) == 0
    assert len(runs(project)) == 2
    assert "the workflow has ended" in log.read_text()


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)


def test_follower_survives_a_dead_tracker(project, monkeypatch):
    write_run(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])
    waiter = threading.Thread(target=parent.wait)
    waiter.start()
    follow.follow(project, parent.pid, interval=0.2)
    waiter.join()
    log = (project.results / "logs" / "track.log").read_text()
    assert "WARNING" in log
    assert "does not answer" in log
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert importer.track(project).imported == 1


def test_second_follower_ends_at_once(project):
    logs = project.results / "logs"
    logs.mkdir(parents=True)
    with follow.FileLock(logs / ".track.lock"):
        start = time.monotonic()
        follow.start(project, os.getpid()).wait(20)
        assert time.monotonic() - start < 10
    assert not (logs / "track.log").exists()


def test_a_later_process_of_the_same_number_is_another_one(monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    running = follow.alive(process.pid)
    assert running()
    process.kill()
    # Not yet waited for: a zombie keeps its number.
    wait_for(lambda: not running(), 10)
    process.wait()
    assert not running()
    assert not follow.alive(process.pid)()


# The page


def test_links_open_the_model_training_view():
    views = [ui.View("label-skew/mini", "7", "tags.a = 'b'", table=True), ui.View("one", "7", "tags.seed = '0'")]
    text = ui.links("http://ana:secret@host:5000/", views)
    page = "http://host:5000/#/experiments/7/runs?workflowType=machine_learning&searchFilter="
    assert text.splitlines() == [
        "label-skew/mini: runs",
        f"  {page}tags.a%20%3D%20%27b%27",
        "label-skew/mini: charts",
        f"  {page}tags.a%20%3D%20%27b%27&compareRunsMode=CHART",
        "one: charts",
        f"  {page}tags.seed%20%3D%20%270%27&compareRunsMode=CHART",
    ]


def test_ui_serves_prints_links_and_stops(project):
    write_run(project)
    importer.import_runs(project)
    port = closed_port()
    code = (
        "import sys; from pathlib import Path; from heterobench.project import Project\n"
        "from heterobench.tracking.ui import ui\n"
        "sys.exit(ui(Project(Path(sys.argv[1])), port=int(sys.argv[2])))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(project.root), str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines[0] == "label-skew/mini: runs\n"
        assert f"http://127.0.0.1:{port}/#/experiments/" in lines[1]
        assert ui.answers(f"http://127.0.0.1:{port}")
        with pytest.raises(TrackerError, match="choose another"):
            ui.ui(project, port=port)
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not ui.answers(f"http://127.0.0.1:{port}")


def test_training_never_imports_mlflow():
    code = (
        "import json, sys, heterobench.records.record, heterobench.tracking.importer, heterobench.tracking.follow\n"
        "import heterobench.tracking.ui\n"
        "print(json.dumps([name for name in ('mlflow', 'torch', 'pandas') if name in sys.modules]))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(output) == []


@pytest.mark.slow  # MLflow starts twice
def test_a_database_that_was_being_made_when_its_maker_was_killed(tmp_path):
    """It is whole or absent, and what is left of it is in nobody's way."""
    project = empty_project(tmp_path, store=False)
    write_run(project)
    code = (
        "from pathlib import Path; from heterobench.project import Project; from heterobench.tracking import importer\n"
    )
    code += f"importer.track(Project(Path({str(project.root)!r})))"
    process = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 120
    while not any(path.stat().st_size for path in project.root.glob(".heterobench-mlflow.db*")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not (project.root / "mlflow.db").exists()
    assert importer.track(project).imported == 1
