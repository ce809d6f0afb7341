"""Small projects whose runs are tracked: records as training writes them, and what a tracker then holds."""

from __future__ import annotations

import functools
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from heterobench.files import digest, write_json
from heterobench.project import Project
from heterobench.records.record import line, seal

SCENARIO = "digits.iid.mlp.full"
START = 1.7e9


def write_run(
    project: Project,
    arm: str = "fedavg",
    seed: int = 0,
    rounds: int = 3,
    status: str = "finished",
    values: list[float] | None = None,
    lr: float = 0.1,
    trial: int | None = None,
) -> Path:
    """A small record in place of what was there; `values`: the training loss of each round."""
    place = ("label-skew", "mini", SCENARIO, arm)
    folder = project.run(*place, seed) if trial is None else project.trial(*place, trial) / f"seed-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    who = {"benchmark": "label-skew", "preset": "mini", "scenario": SCENARIO, "arm": arm, "seed": seed}
    who |= {} if trial is None else {"trial": trial}
    configuration = {
        "dataset": "digits",
        "partition": {"name": "iid", "scheme": "iid", "clients": 10, "options": {}},
        "model": {"name": "mlp", "options": {"hidden": [64]}},
        "schedule": {"name": "full", "participation": 1.0},
        "budget": {"rounds": rounds, "batch_size": 16},
        "algorithm": {"name": arm, "arm": arm, "hyperparameters": {"lr": lr, "mu": None}},
    }
    config = who | {"data_hash": "d" * 64, "partition_hash": "p" * 64, "code": "c" * 16}
    config |= {"configuration": configuration, "run_id": digest([who, configuration])[:16]}
    write_json(folder / "config.json", config)
    start = START + 100 * seed
    write_json(folder / "provenance.json", {"revision": "abc", "dirty": True, "host": "h", "started": start})
    text = ""
    with open(folder / "timing.jsonl", "w") as timing:
        for r in range(1, rounds + 1):
            loss = values[r - 1] if values else 1 / r
            text += line({"round": r, "metrics": {"test_accuracy": 1 - 1 / r, "train_loss": loss, "bytes_up": 10 * r}})
            timing.write(line({"round": r, "seconds": 2.0 * r, "time": start + 2 * r}))
    (folder / "rounds.jsonl").write_text(text)
    error = {"error": "RunError: diverged"} if status == "failed" else {}
    seal(folder, status, rounds=rounds, seconds=2.0 * rounds, **error)
    return folder


def write_tables(project: Project, text: str) -> Path:
    """A report and a table of the benchmark that `write_run` belongs to."""
    folder = project.benchmark("label-skew", "mini")
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    (folder / "tables" / "main.csv").write_text(text)
    (folder / "report.html").write_text(f"<p>{text}")
    return folder


def empty_project(root: Path, store: bool = True) -> Project:
    """A folder with a configuration, and an empty tracker unless `store` is false."""
    (root / "params").mkdir(parents=True)
    (root / "params" / "config.yaml").write_text("benchmarks: [label-skew]\n")
    if store:
        shutil.copy(fresh_store(), root / "mlflow.db")
    return Project(root)


@functools.cache
def fresh_store() -> Path:
    """A sqlite store whose tables are made: a copy of it opens in a fraction of the time."""
    file = Path(tempfile.mkdtemp(prefix="heterobench-tests-")) / "mlflow.db"
    client(f"sqlite:///{file}").search_experiments()
    return file


def client(uri: str) -> Any:
    """MLflow's own."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def tracked(project: Project, experiment: str = "label-skew/mini", uri: str = "") -> list[Any]:
    """All active runs that the tracker holds of an experiment, in the order of their import."""
    mlflow = client(uri or f"sqlite:///{project.root}/mlflow.db")
    found = mlflow.search_runs([mlflow.get_experiment_by_name(experiment).experiment_id], order_by=["start_time ASC"])
    return found


def query(project: Project, text: str) -> list[tuple]:
    """Rows of the tracker's database, read without mlflow."""
    with sqlite3.connect(project.root / "mlflow.db") as connection:
        return connection.execute(text).fetchall()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
