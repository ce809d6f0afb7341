"""Moved and copied projects: artifacts are found where the project is, and nothing is written anywhere else."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from heterobench.commands import doctor
from heterobench.errors import TrackerError
from heterobench.project import Project
from heterobench.tracking import importer
from tracked import client, contents, empty_project, fresh_store, query, tracked, write_run, write_tables

FILES = {"config.json", "provenance.json", "rounds.jsonl", "timing.jsonl"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """With one run and tables, imported. Its folder's name holds what an address has to write in percent form."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = empty_project(tmp_path / "a b%#é")
    write_run(project)
    write_tables(project, "original")
    importer.track(project)
    return project


def artifact(run, path):
    """The bytes of an artifact, by the address in the database: MLflow's client remembers older ones."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(artifact_uri=f"{run.info.artifact_uri}/{path}")).read_bytes()


def places(project):
    return query(project, "SELECT artifact_location FROM experiments UNION ALL SELECT artifact_uri FROM runs")


def test_after_a_move_artifacts_are_found_and_new_ones_lie_in_the_new_place(project, tmp_path):
    old = project.root
    moved = Project(shutil.move(old, tmp_path / "new"))
    folder = write_run(moved, seed=1)
    assert importer.track(moved) == importer.Summary(1, 1, ())
    assert not old.exists()
    found = {run.info.run_name: run for run in tracked(moved)}
    assert len(found) == 3
    for seed in (0, 1):
        run = found[f"fedavg #{seed} iid digits mlp full"]
        expected = (folder.parent / f"seed-{seed}" / "rounds.jsonl").read_bytes()
        assert artifact(run, "rounds.jsonl") == expected
        assert set(os.listdir(moved.root / "mlartifacts/label-skew/mini" / run.info.run_id / "artifacts")) == FILES
    assert artifact(found["tables"], "tables/main.csv") == b"original"
    # by the definition of file addresses, without any of our code
    for (place,) in places(moved):
        if "mlartifacts" in place:
            assert place.startswith((tmp_path / "new" / "mlartifacts").as_uri() + "/")


def test_a_copy_never_touches_the_original(project, tmp_path):
    copy = Project(Path(shutil.copytree(project.root, tmp_path / "copy")))
    before = contents(project.root)
    write_tables(copy, "copied")
    write_run(copy, lr=0.5)
    importer.track(copy)
    assert contents(project.root) == before
    (tables,) = (run for run in tracked(copy) if run.info.run_name == "tables")
    assert artifact(tables, "tables/main.csv") == b"copied"


def test_a_run_whose_artifacts_stayed_behind_is_imported_anew(project, tmp_path):
    """Its database alone was moved, or an earlier version wrote into the old place."""
    (kept,) = (run for run in tracked(project) if run.info.run_name != "tables")
    moved = Project(shutil.move(project.root, tmp_path / "new"))
    shutil.rmtree(moved.root / "mlartifacts")
    assert importer.track(moved) == importer.Summary(1, 0, ())
    found = {run.info.run_name: run for run in tracked(moved)}
    assert len(found) == 2
    again = found["fedavg #0 iid digits mlp full"]
    assert again.info.run_id != kept.info.run_id
    assert artifact(again, "config.json")
    assert artifact(found["tables"], "report.html") == b"<p>original"
    assert importer.track(moved) == importer.Summary(0, 1, ())


def test_places_of_others_in_the_same_database_stay(project, tmp_path):
    """A user's own experiment elsewhere; one below the project moves with it; a folder whose name only begins alike."""
    mlflow = client(f"sqlite:///{project.root}/mlflow.db")
    for name, place in (
        ("elsewhere", tmp_path / "store"),
        ("inside", project.root / "own"),
        ("beside", tmp_path / f"{project.root.name}-2"),
    ):
        mlflow.create_experiment(name, artifact_location=place.as_uri())
    moved = Project(shutil.move(project.root, tmp_path / "new"))
    importer.track(moved)
    found = dict(query(moved, "SELECT name, artifact_location FROM experiments"))
    assert found["elsewhere"] == (tmp_path / "store").as_uri()
    assert found["beside"] == (tmp_path / f"{project.root.name}-2").as_uri()
    assert found["inside"] == (tmp_path / "new/own").as_uri()


def test_a_project_moved_into_its_own_old_folder(project):
    old = project.root
    shutil.move(old, old.with_name("x"))
    old.mkdir()
    moved = Project(shutil.move(old.with_name("x"), old / "inner"))
    for seed in (1, 2):  # the second import finds nothing to change
        write_run(moved, seed=seed)
        importer.track(moved)
        base = (moved.root / "mlartifacts/label-skew/mini").as_uri()
        ours = [place for (place,) in places(moved) if "mlartifacts" in place]
        assert len(ours) == 2 + 1 + seed
        assert all(place == base or (place.startswith(f"{base}/") and "inner/inner" not in place) for place in ours)


def test_moved_database_that_is_locked_or_broken_changes_nothing(project, tmp_path, monkeypatch):
    moved = Project(shutil.move(project.root, tmp_path / "new"))
    before = places(moved)
    with sqlite3.connect(moved.root / "mlflow.db") as connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'the second statement fails'); END"
        )
    with pytest.raises(TrackerError, match="second statement fails"):
        importer.track(moved)
    assert places(moved) == before


def test_doctor_tells_of_a_moved_project(project, tmp_path):
    assert [check.status for check in doctor.tracker(project)] == ["ok"]
    old = project.root
    moved = Project(shutil.move(old, tmp_path / "new"))
    ((_, status, found, advice),) = doctor.tracker(moved)
    assert status == "warn"
    assert str(old) in found
    assert "heterobench track" in advice
    importer.track(moved)
    assert [check.status for check in doctor.tracker(moved)] == ["ok"]


def test_a_database_elsewhere_keeps_its_artifacts_beside_it(tmp_path, monkeypatch):
    """Whoever names one outside of the project asks for that; its folder moves with it."""
    (tmp_path / "central").mkdir()
    shutil.copy(fresh_store(), tmp_path / "central" / "runs.db")
    project = empty_project(tmp_path / "project", store=False)
    write_run(project)
    importer.import_runs(project, f"sqlite:///{tmp_path}/central/runs.db")
    assert not (project.root / "mlartifacts").exists()
    shutil.move(tmp_path / "central", tmp_path / "moved")
    uri = f"sqlite:///{tmp_path}/moved/runs.db"
    write_run(project, seed=1)
    assert importer.import_runs(project, uri) == importer.Summary(1, 1, ())
    assert not (tmp_path / "central").exists()
    for run in tracked(project, uri=uri):
        assert artifact(run, "config.json")


def test_a_place_for_artifacts_that_belongs_to_somebody_else_is_refused(tmp_path, monkeypatch):
    """An experiment of this name whose artifacts lie in another folder: made by hand, or in a shared SQL server."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = empty_project(tmp_path / "project")
    write_run(project)
    other = tmp_path / "other"
    client(f"sqlite:///{project.root}/mlflow.db").create_experiment("label-skew/mini", other.as_uri())
    with pytest.raises(TrackerError, match=f"label-skew/mini.*{other}"):
        importer.track(project)
    assert not other.exists()
    assert tracked(project) == []
