"""Runs that the results no longer hold, and several projects with one tracker: what is marked, and what left alone."""

import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

from heterobench.project import Project
from heterobench.tracking import follow, importer, ui
from tracked import SCENARIO, client, contents, empty_project, fresh_store, tracked, write_run, write_tables

MARK = "heterobench.superseded"
TUNING = "label-skew/mini/tuning"
BENCHMARK = """
title: Two rows
presets:
  mini:
    seeds: 1
    scenarios:
      - {{dataset: digits, model: mlp, partition: [iid], schedule: full}}
    budget: {{rounds: 3, local_epochs: 1, batch_size: 16}}
    algorithms: {rows}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return empty_project(tmp_path / "project")


def table(project, rows):
    """The benchmark's file, with these rows; its name is that of `write_run`'s records."""
    if not (project.params / "algorithms").is_dir():
        shutil.rmtree(project.params)
        shutil.copytree(Path(__file__).parents[2] / "params", project.params)
    (project.params / "benchmarks" / "label-skew.yaml").write_text(BENCHMARK.format(rows=rows))


def marks(project, experiment="label-skew/mini", uri=""):
    """(arm, seed, trial, step size) -> superseded, of all active runs but that of the tables."""
    return {
        (
            tags["arm"],
            int(tags["seed"]),
            tags.get("trial", ""),
            run.data.params.get("hyperparameters.lr", ""),
        ): tags.get(MARK)
        for run in tracked(project, experiment, uri)
        if (tags := run.data.tags)["heterobench.kind"] == "run"
    }


def current(project, uri=""):
    """Names of the runs that the links of the page lead to, found by the search that stands in the link."""
    uri = uri or f"sqlite:///{project.root}/mlflow.db"
    mlflow = client(uri)
    names = []
    for _, identity, search, *_ in getattr(ui, "views", getattr(ui, "experiments", None))(project, uri):
        names.append([run.info.run_name for run in mlflow.search_runs([identity], search)])
    return names


def test_replaced_run_is_marked_out_of_the_links_and_still_there(project):
    write_run(project, lr=0.1)
    write_run(project, seed=1)
    importer.track(project)
    assert marks(project) == {("fedavg", 0, "", "0.1"): "false", ("fedavg", 1, "", "0.1"): "false"}
    write_run(project, lr=0.01)
    assert importer.track(project) == importer.Summary(1, 1, ())
    assert marks(project) == {
        ("fedavg", 0, "", "0.1"): "true",
        ("fedavg", 0, "", "0.01"): "false",
        ("fedavg", 1, "", "0.1"): "false",
    }
    everything, of_scenario = current(project)
    assert sorted(everything) == ["fedavg #0 iid digits mlp full", "fedavg #1 iid digits mlp full"]
    assert of_scenario == ["fedavg #0 iid digits mlp full"]
    # back to the first value: the tracker has that run, and it speaks for the results again
    write_run(project, lr=0.1)
    assert importer.track(project) == importer.Summary(0, 2, ())
    assert marks(project)["fedavg", 0, "", "0.1"] == "false"
    assert marks(project)["fedavg", 0, "", "0.01"] == "true"


def test_run_whose_row_is_gone_is_marked_until_it_is_back(project):
    table(project, "[fedavg, fedprox]")
    write_run(project, "fedavg")
    write_run(project, "fedprox")
    importer.track(project)
    assert set(marks(project).values()) == {"false"}
    table(project, "[fedavg]")
    importer.track(project)
    assert marks(project) == {("fedavg", 0, "", "0.1"): "false", ("fedprox", 0, "", "0.1"): "true"}
    assert current(project) == [["fedavg #0 iid digits mlp full"]] * 2
    table(project, "[fedavg, fedprox]")
    importer.track(project)
    assert set(marks(project).values()) == {"false"}


def test_run_that_is_imported_after_its_row_has_gone(project):
    table(project, "[fedavg]")
    write_run(project, "fedprox")
    importer.track(project)
    assert marks(project) == {("fedprox", 0, "", "0.1"): "true"}


def test_a_benchmark_file_that_cannot_be_read_marks_nothing(project):
    table(project, "[fedavg, fedprox]")
    write_run(project, "fedprox")
    importer.track(project)
    table(project, "[fedavg, no-such-method]")
    importer.track(project)
    assert marks(project) == {("fedprox", 0, "", "0.1"): "false"}


def test_results_that_are_gone(project):
    write_run(project)
    write_run(project, trial=1, seed=7)
    write_tables(project, "some")
    importer.track(project)
    shutil.move(project.results, project.root / "away")
    assert importer.track(project) == importer.Summary()
    every = [*tracked(project), *tracked(project, TUNING)]
    assert [run.data.tags[MARK] for run in every] == ["true"] * 3
    shutil.move(project.root / "away", project.results)
    assert importer.track(project) == importer.Summary(0, 2, ())
    every = [*tracked(project), *tracked(project, TUNING)]
    assert [run.data.tags[MARK] for run in every] == ["false"] * 3


def test_trials_of_tuning_are_marked_by_their_number(project):
    for trial in (0, 1):
        write_run(project, trial=trial, seed=7)
    importer.track(project)
    write_run(project, trial=1, seed=7, lr=0.3)
    importer.track(project)
    assert marks(project, TUNING) == {
        ("fedavg", 7, "0", "0.1"): "false",
        ("fedavg", 7, "1", "0.1"): "true",
        ("fedavg", 7, "1", "0.3"): "false",
    }


def test_running_and_unreadable_runs(project):
    """A run that has begun anew has replaced the old one; of a record that cannot be read nobody knows."""
    for seed in (0, 1, 2):
        write_run(project, seed=seed)
    importer.track(project)
    (write_run(project, seed=0, lr=0.5) / "end.json").unlink()
    (project.run("label-skew", "mini", SCENARIO, "fedavg", 1) / "config.json").write_text("{")
    (project.run("label-skew", "mini", SCENARIO, "fedavg", 2) / "end.json").unlink()  # the same run goes on
    importer.track(project)
    found = marks(project)
    assert found["fedavg", 0, "", "0.1"] == "true"
    assert found["fedavg", 1, "", "0.1"] == "false"
    assert found["fedavg", 2, "", "0.1"] == "false"


def test_runs_from_before_there_was_the_mark_get_it(project):
    write_run(project)
    importer.track(project)
    mlflow = client(f"sqlite:///{project.root}/mlflow.db")
    for run in tracked(project):
        mlflow.delete_tag(run.info.run_id, MARK)
    assert current(project)[0] == []
    importer.track(project)
    assert current(project)[0] == ["fedavg #0 iid digits mlp full"]


def test_the_follower_marks_what_a_finished_run_replaces(project):
    """By one import of one run, without a look at the others."""
    write_run(project, seed=0)
    write_run(project, seed=1)
    write_run(project, trial=1, seed=0)  # same scenario, arm and seed; another experiment
    importer.track(project)
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    watcher = threading.Thread(target=follow.follow, args=(project, parent.pid, 0.1))
    watcher.start()
    try:
        write_run(project, seed=0, lr=0.2)
        until = time.monotonic() + 60
        while ("fedavg", 0, "", "0.2") not in marks(project) or marks(project)["fedavg", 0, "", "0.1"] != "true":
            assert time.monotonic() < until, marks(project)
            time.sleep(0.1)
    finally:
        parent.kill()
        parent.wait()
        watcher.join(60)
    assert marks(project)["fedavg", 1, "", "0.1"] == "false"
    assert set(marks(project, TUNING).values()) == {"false"}


# Several projects, one tracker


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """Two projects and the address of a tracker that both name."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "central").mkdir()
    shutil.copy(fresh_store(), tmp_path / "central" / "runs.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/central/runs.db")
    return [empty_project(tmp_path / name, store=False) for name in ("one", "two")]


def central(project):
    return f"sqlite:///{project.root.parent}/central/runs.db"


def test_equal_runs_of_two_projects_are_imported_once(shared):
    one, two = shared
    for project in shared:
        write_run(project)
    assert importer.track(one) == importer.Summary(1, 0, ())
    assert importer.track(two) == importer.Summary(0, 1, ())
    assert len(tracked(one, uri=central(one))) == 1


def test_a_project_changes_no_run_of_another(shared):
    one, two = shared
    write_run(one, seed=0)
    write_run(one, seed=1)
    write_tables(one, "one")
    importer.track(one)
    before = {run.info.run_id: (run.data.tags, run.info.lifecycle_stage) for run in tracked(one, uri=central(one))}
    files = contents(one.root.parent / "central" / "mlartifacts")
    # of the same name: another value, another attempt of the same run, and another report
    write_run(two, seed=0, lr=0.7)
    write_run(two, seed=1, status="failed")
    write_tables(two, "two")
    assert importer.track(two) == importer.Summary(2, 0, ())
    after = {run.info.run_id: (run.data.tags, run.info.lifecycle_stage) for run in tracked(one, uri=central(one))}
    assert before.items() <= after.items()
    assert files.items() <= contents(one.root.parent / "central" / "mlartifacts").items()
    assert len(after) == 2 * 3
    for project in shared:  # and it stays so
        assert importer.track(project) == importer.Summary(0, 2, ())
    assert after == {r.info.run_id: (r.data.tags, r.info.lifecycle_stage) for r in tracked(one, uri=central(one))}


def test_what_another_project_gives_up_is_imported_by_who_still_has_it(shared):
    one, two = shared
    for project in shared:
        write_run(project)
        importer.track(project)
    write_run(one, lr=0.3)
    importer.track(one)
    assert marks(one, uri=central(one)) == {("fedavg", 0, "", "0.1"): "true", ("fedavg", 0, "", "0.3"): "false"}
    assert importer.track(two) == importer.Summary(1, 0, ())
    found = [(r.data.params["hyperparameters.lr"], r.data.tags[MARK]) for r in tracked(two, uri=central(two))]
    assert sorted(found) == [("0.1", "false"), ("0.1", "true"), ("0.3", "false")]
    assert importer.track(two) == importer.Summary(0, 1, ())


def test_a_moved_project_knows_its_runs_in_a_shared_tracker(shared):
    one, _ = shared
    write_run(one)
    write_tables(one, "some")
    importer.track(one)
    moved = Project(shutil.move(one.root, one.root.with_name("moved")))
    assert importer.track(moved) == importer.Summary(0, 1, ())
    write_run(moved, lr=0.2)
    write_tables(moved, "other")
    importer.track(moved)
    assert marks(moved, uri=central(moved)) == {("fedavg", 0, "", "0.1"): "true", ("fedavg", 0, "", "0.2"): "false"}
    assert len(tracked(moved, uri=central(moved))) == 3  # one run "tables"


def test_results_that_are_gone_in_a_shared_tracker(shared):
    """Only this project's; the tables of a second benchmark keep the project known to the tracker."""
    one, _ = shared
    for project, lr in zip(shared, (0.1, 0.2), strict=True):
        write_run(project, lr=lr)
        importer.track(project)
    shutil.move(one.results / "label-skew", one.results / "other")
    importer.track(one)
    assert marks(one, uri=central(one)) == {("fedavg", 0, "", "0.1"): "true", ("fedavg", 0, "", "0.2"): "false"}


def test_a_half_imported_run_of_another_project_may_be_going_on(shared):
    one, two = shared
    for project in shared:
        write_run(project)
    importer.track(one)
    (run,) = tracked(one, uri=central(one))
    client(central(one)).delete_tag(run.info.run_id, "heterobench.imported")  # as it is until the last moment
    assert importer.track(two) == importer.Summary(1, 0, ())
    assert len(tracked(one, uri=central(one))) == 2
    assert importer.track(one) == importer.Summary(0, 1, ())  # the other's copy does


def test_links_of_the_report_leave_superseded_runs_out():
    """The search of a link, as the script of the page writes it, finds the run that is current."""
    from heterobench.report import trace

    script = (Path(trace.__file__).parent / "templates" / "trace.js").read_text()
    (search,) = re.findall(r"const ofAll = \(source\) => `(.*)`;", script)
    assert "data.mlflow.current" in search


def test_ui_prints_links_that_search_for_current_runs(project):
    write_run(project)
    importer.track(project)
    views = getattr(ui, "views", None) or ui.experiments
    text = unquote(ui.links("http://127.0.0.1:5000", views(project, f"sqlite:///{project.root}/mlflow.db")))
    pages = [line for line in text.splitlines() if line.startswith("  http")]
    assert len(pages) == 3
    assert all(f"`{MARK}` = 'false'" in page for page in pages)


def test_an_altered_end_stops_no_import(tmp_path):
    project = empty_project(tmp_path / "p")
    folder = write_run(project)
    (folder / "end.json").write_text("[]")
    summary = importer.track(project)
    assert len(summary.failed) == 1
    assert "end.json: damaged" in summary.failed[0]
