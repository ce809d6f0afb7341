"""The whole workflow on altered results, on longer runs, and on runs that others take the place of."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from miniature import environment, miniature, snakemake

SETTING = """
title: Evidence
presets:
  mini:
    seeds: 1
    scenarios: [{dataset: digits, model: softmax, partition: iid}]
    budget: {rounds: 2, local_epochs: 1, batch_size: 64}
    algorithms: [fedavg, scaffold]
"""
FOLDER = "results/miniature/mini"
SCENARIO = "digits.iid.softmax.full"
RUN, OTHER = (f"{FOLDER}/runs/{SCENARIO}/{arm}/seed-0" for arm in ("fedavg", "scaffold"))
EVALUATED = f"{FOLDER}/evaluated/{SCENARIO}.json"


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "heterobench.cli", *arguments]
    return subprocess.run(program, cwd=root, env=environment(), capture_output=True, text=True)


def bits(folder: Path) -> dict[str, str]:
    names = ("rounds.jsonl", "final.safetensors", "selected.safetensors")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.fixture
def project(tmp_path):
    root = miniature(tmp_path)
    (root / "params/benchmarks/miniature.yaml").write_text(SETTING)
    return root


@pytest.mark.slow
def test_a_longer_budget_trains_what_is_missing_and_damage_is_mended_by_snakemake(project):
    run, log = project / RUN, project / f"results/logs/miniature/mini/train/{SCENARIO}/fedavg.log"
    made = snakemake(project, "--cores", "2", EVALUATED)
    assert made.returncode == 0, made.stdout
    short, timing = bits(run), (run / "timing.jsonl").read_bytes()
    rounds = (run / "rounds.jsonl").read_bytes()

    file = project / "params/benchmarks/miniature.yaml"
    file.write_text(SETTING.replace("rounds: 2", "rounds: 4"))
    made = snakemake(project, "--cores", "2", EVALUATED)
    assert made.returncode == 0, made.stdout
    assert (run / "rounds.jsonl").read_bytes().startswith(rounds)
    assert (run / "timing.jsonl").read_bytes().startswith(timing)  # times of its own say that it was not trained again
    assert len((run / "timing.jsonl").read_bytes().splitlines()) == 4
    assert "2 -> 4 rounds: run" in log.read_text()
    assert "goes on after round 2" in log.read_text()
    whole, manifest = bits(run), (run.parent / "runs.json").read_bytes()

    model = run / "final.safetensors"
    content = bytearray(model.read_bytes())
    content[-3] ^= 1
    model.write_bytes(content)
    made = snakemake(project, "--cores", "2", "--forcerun", "evaluate", "--", EVALUATED)
    assert made.returncode != 0
    told = (project / f"results/logs/miniature/mini/evaluate/{SCENARIO}.log").read_text()
    assert f"final.safetensors: altered: expected sha256 {whole['final.safetensors']}" in told
    assert "run snakemake again" in told
    assert not (project / EVALUATED).exists()

    made = snakemake(project, "--cores", "2", EVALUATED)
    assert made.returncode == 0, made.stdout
    assert made.stdout.count("rule train:") == 1  # of the damaged run's job alone
    assert bits(run) == whole
    assert (run.parent / "runs.json").read_bytes() == manifest
    ledger = pd.read_parquet(project / f"{FOLDER}/ledger/{SCENARIO}.parquet")
    assert set(ledger.error) == {""}
    assert set(ledger.status) == {"finished"}

    file.write_text(SETTING)  # back to two rounds: their record was kept
    made = snakemake(project, "--cores", "2", EVALUATED)
    assert made.returncode == 0, made.stdout
    assert "comes back" in log.read_text()
    assert bits(run) == short


@pytest.mark.slow
def test_damage_that_was_evaluated_by_hand_is_mended_and_evaluated_again(project):
    """The tables of a damaged run are there and newer than anything else; the manifest will be the same again."""
    made = snakemake(project, "--cores", "2")
    assert made.returncode == 0, made.stdout
    model = project / RUN / "final.safetensors"
    expected = hashlib.sha256(model.read_bytes()).hexdigest()
    model.write_bytes(b"nothing")
    assert "Nothing to be done" in snakemake(project, "--cores", "2").stdout
    found = command(project, "report", "--benchmark", "miniature", "--evaluate")
    assert found.returncode == 0, found.stderr  # a report of what is there can always be had
    assert f"expected sha256 {expected}" in found.stderr
    ledger = pd.read_parquet(project / f"{FOLDER}/ledger/{SCENARIO}.parquet")
    assert "final.safetensors: altered" in ledger.error[0]
    made = snakemake(project, "--cores", "2")
    assert made.returncode == 0, made.stdout
    assert hashlib.sha256(model.read_bytes()).hexdigest() == expected
    assert made.stdout.count("rule train:") == 1
    assert set(pd.read_parquet(project / f"{FOLDER}/ledger/{SCENARIO}.parquet").error) == {""}


@pytest.mark.slow
def test_killed_while_a_run_grows(project):
    """kill -9 after some of the new rounds; what goes on then has the bits of a straight run."""
    made = snakemake(project, "--cores", "2", EVALUATED)
    assert made.returncode == 0, made.stdout
    file = project / "params/benchmarks/miniature.yaml"
    file.write_text(SETTING.replace("rounds: 2", "rounds: 300"))
    arguments = ["train", "--benchmark", "miniature", "--scenario", SCENARIO, "--algorithm"]
    program = [sys.executable, "-m", "heterobench.cli", *arguments, "fedavg"]
    process = subprocess.Popen(program, cwd=project, env=environment(), stderr=subprocess.DEVNULL)
    done, until = project / RUN / "rounds.jsonl", time.monotonic() + 120
    while len(done.read_bytes().splitlines()) < 20 and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    killed_at = len(done.read_bytes().splitlines())
    assert 20 <= killed_at < 300
    assert command(project, *arguments, "fedavg").returncode == 0
    grown = bits(project / RUN)
    for path in sorted((project / RUN).parent.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert command(project, *arguments, "fedavg").returncode == 0
    assert bits(project / RUN) == grown


@pytest.mark.slow
def test_a_run_by_hand_with_other_settings_loses_no_record(project):
    arguments = ["run", "--partition", "iid", "--model", "softmax", "--rounds", "2", "--set"]
    folder = project / f"results/single/command-line/runs/{SCENARIO}/fedavg/seed-0"
    assert command(project, *arguments, "lr=0.1").returncode == 0
    first, run_id = bits(folder), json.loads((folder / "config.json").read_text())["run_id"]
    other = command(project, *arguments, "lr=0.01")
    assert other.returncode == 0
    assert f"holds run {run_id}, and run " in other.stderr
    assert "algorithm.hyperparameters.lr 0.1 -> 0.01" in other.stderr
    kept = folder.parent / "superseded" / "seed-0" / run_id
    assert f"its record is now in {kept}" in other.stderr
    assert bits(kept) == first
    back = command(project, *arguments, "lr=0.1")
    assert "comes back" in back.stderr
    assert bits(folder) == first
