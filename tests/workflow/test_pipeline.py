"""The real pipeline on its smallest setting: run, killed, resumed, repeated, changed."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from miniature import environment, miniature
from miniature import snakemake as run_snakemake

COMPARED = ("rounds.jsonl", "final.safetensors", "selected.safetensors", "config.json")
TRIALS = 2 * 2 * 2  # scenarios, arms, trials: the runs of tuning, one seed each

pytestmark = pytest.mark.xdist_group("pipeline")


def snakemake(root: Path, *arguments: str, check: bool = True) -> str:
    result = run_snakemake(root, *arguments)
    if check:
        assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


def jobs(dry_run: str) -> dict[str, int]:
    """Rule -> number of jobs, from the table of a dry run."""
    return {name: int(count) for name, count in re.findall(r"^(\S+) +(\d+)$", dry_run, flags=re.MULTILINE)}


def records(root: Path) -> dict[str, bytes]:
    """Every file of every run that must not depend on how the run was computed."""
    folder = root / "results" / "miniature" / "mini"
    files = [
        p for place in ("runs", "tuning") for name in (*COMPARED, "chosen.json") for p in (folder / place).rglob(name)
    ]
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(files)}


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """The whole pipeline, one job at a time, undisturbed."""
    root = miniature(tmp_path_factory.mktemp("straight") / "project")
    snakemake(root, "--cores", "1")
    return root


def test_everything_is_made(straight):
    folder = straight / "results" / "miniature" / "mini"
    for name in ("report.html", "tables/accuracy.csv", "tables/accuracy.tex", "figures/curves-rounds.svg"):
        assert (folder / name).stat().st_size > 0, name
    assert len(records(straight)) == (2 * 2 * 2 + TRIALS) * len(COMPARED) + 2 * 2
    assert (straight / "results/partitions/digits/dirichlet-0.1.svg").is_file()


def test_every_run_is_in_the_tracker_once(straight):
    with sqlite3.connect(f"file:{straight / 'mlflow.db'}?mode=ro", uri=True) as database:
        rows = database.execute(
            "SELECT value, COUNT(*) FROM tags WHERE key = 'heterobench.run_id' GROUP BY value"
        ).fetchall()
    assert len(rows) == 2 * 2 * 2 + TRIALS + 1  # and the tables
    assert {count for _, count in rows} == {1}


def test_every_run_of_the_table_has_what_tuning_chose(straight):
    folder = straight / "results" / "miniature" / "mini"
    chosen = sorted(folder.glob("tuning/*/*/chosen.json"))
    assert len(chosen) == 2 * 2
    for file in chosen:
        answer = json.loads(file.read_text())
        assert len(answer["trials"]) == 2
        wanted = answer["trials"][answer["chosen"]]["hyperparameters"]
        runs = list((folder / "runs" / file.parent.relative_to(folder / "tuning")).glob("seed-*/config.json"))
        assert len(runs) == 2
        for run in runs:
            used = json.loads(run.read_text())["configuration"]["algorithm"]["hyperparameters"]
            assert {name: used[name] for name in wanted} == wanted


def test_a_second_time_there_is_nothing_to_do(straight):
    assert "Nothing to be done" in snakemake(straight, "--cores", "1")


def test_a_changed_hyperparameter_runs_only_what_depends_on_it(straight):
    file = straight / "params/algorithms/scaffold.yaml"
    before = file.read_text()
    file.write_text(before.replace("server_lr: 1.0", "server_lr: 0.9"))
    try:
        output = snakemake(straight, "--dry-run")
    finally:
        file.write_text(before)
    planned = jobs(output)
    assert (planned["tune"], planned["train"]) == (2, 2), planned
    made = "\n".join(re.findall(r"output: (.*)", output))
    assert set(re.findall(r"/(?:runs|tuning)/[^/]+/([^/]+)/(?:runs|chosen).json", made)) == {"scaffold"}
    assert planned.keys() == {"tune", "train", "evaluate", "report_miniature", "track", "all", "total"}


def test_a_mistake_in_a_parameter_file_stops_before_any_job(straight):
    file = straight / "params/benchmarks/miniature.yaml"
    before = file.read_text()
    file.write_text(before.replace("rounds: 15", "round: 15"))
    try:
        output = snakemake(straight, "--dry-run", check=False)
    finally:
        file.write_text(before)
    assert "params/benchmarks/miniature.yaml" in output
    assert "unknown key 'round'; did you mean 'rounds'?" in output
    assert "Traceback" not in output


@pytest.mark.slow  # two minutes; runs that are killed are tested in test_client_states.py as well
def test_killed_and_resumed_with_two_jobs_gives_the_same_bits(straight, tmp_path):
    """SIGKILL to the workflow and its jobs while they train; run again: the straight run's bits."""
    root = miniature(tmp_path / "killed")
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2"],
        cwd=root,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    runs = root / "results/miniature/mini/runs"
    deadline = time.monotonic() + 600  # tuning comes first
    while not list(runs.glob("*/*/seed-*/checkpoints/round-*.safetensors")):  # tuning is over, for one arm at least
        assert process.poll() is None, "the workflow ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    unfinished = [p for p in runs.glob("*/*/seed-*") if not (p / "end.json").is_file()]
    assert unfinished, "the kill came too late to interrupt a run"

    targets = [str(p.relative_to(straight)) for p in straight.glob("results/miniature/mini/runs/*/*/runs.json")]
    snakemake(root, "--cores", "2", *targets)
    resumed, undisturbed = records(root), records(straight)
    assert resumed.keys() == undisturbed.keys()
    assert [name for name in resumed if resumed[name] != undisturbed[name]] == []


@pytest.mark.slow
def test_runs_that_fail_are_reported_where_that_is_wanted(tmp_path):
    """A stream of five stages cannot be divided into three rounds: every run on it fails, the others do not."""
    root = miniature(tmp_path / "failing")
    file = root / "params/benchmarks/miniature.yaml"
    text = (
        file.read_text()
        .replace("[dirichlet-0.1, iid]", "[class-incremental-5, iid]")
        .replace("rounds: 15", "rounds: 3")
    )
    file.write_text(text.replace("    tuning: {trials: 2, seeds: [7]}\n", ""))
    stopped = snakemake(root, "--cores", "2", check=False)
    assert "3 rounds cannot be divided into the 5 stages" in stopped
    folder = root / "results/miniature/mini"
    assert not (folder / "report.html").exists()
    snakemake(root, "--cores", "2", "--config", "failures=report")
    page = (folder / "report.html").read_text()
    assert "3 rounds cannot be divided into the 5 stages" in page
    accuracy = pd.read_csv(folder / "tables/accuracy.csv")
    found = accuracy.groupby("column")["n"].unique().map(list).to_dict()
    assert found == {"digits.class-incremental-5.softmax.full": [0], "digits.iid.softmax.full": [2]}
