"""Results are evidence: what a run, an evaluation, a checkpoint or a data set has left is compared whenever it is read.

Digests are computed here, with hashlib, from the files themselves; numbers are those of the untouched record.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from heterobench import cli, resolve, training
from heterobench.commands.single import draw_partitions
from heterobench.data.fetch import fetch
from heterobench.data.prepare import prepare
from heterobench.errors import DataError, RunError
from heterobench.evaluation import evaluate_scenario
from heterobench.project import Project
from heterobench.report import data as report

REPOSITORY = Path(__file__).parents[2]
TABLE = """
title: Evidence
presets:
  mini:
    seeds: 1
    scenarios: [{dataset: digits, model: softmax, partition: iid}]
    budget: {rounds: 4, local_epochs: 1, batch_size: 64}
    snapshots: 3
    algorithms: [fedavg, scaffold]
"""
SCENARIO = "digits.iid.softmax.full"
REPEATABLE = ("rounds.jsonl", "final.safetensors", "selected.safetensors", "snapshots/round-000001.safetensors")
LEFT = ("config.json", "provenance.json", "timing.jsonl", *REPEATABLE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("evidence"))
    shutil.copytree(REPOSITORY / "params", project.params)
    (project.params / "config.yaml").write_text("benchmarks: [evidence]\ndevice: cpu\ncheckpoint_seconds: 0\n")
    (project.params / "benchmarks" / "evidence.yaml").write_text(TABLE)
    fetch(project, "digits")
    prepare(project, "digits")
    draw_partitions(project, "digits", "iid", [0])
    train(project)
    return project


@pytest.fixture
def project(trained, tmp_path):
    """A copy, to be damaged."""
    shutil.copytree(trained.root, tmp_path / "copy")
    return Project(tmp_path / "copy")


def benchmark_of(project):
    return resolve.benchmark(project, "evidence", "mini")


def train(project, arm=None):
    benchmark = benchmark_of(project)
    for job in benchmark.jobs():
        if arm in (None, job.arm.name):
            training.run_job(job, benchmark.seeds, resolve.config(project))


def folder_of(project, arm="fedavg"):
    return project.run("evidence", "mini", SCENARIO, arm, 0)


def ledger(project, arm="fedavg"):
    rows = evaluate_scenario(benchmark_of(project), SCENARIO).ledger
    (row,) = rows[rows.arm == arm].to_dict("records")
    return row


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flip(path, at=-3):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def remove(path):
    path.unlink()


def altered_digit(path):
    """Another number in a record: still JSON, still a plausible value."""
    text = path.read_text()
    at = text.index("0.") + 4
    path.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}")


def test_what_ends_a_run_has_the_digest_of_every_file_that_it_leaves(trained):
    folder = folder_of(trained)
    end = json.loads((folder / "end.json").read_text())
    left = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    left = {name for name in left if not name.startswith("checkpoints/")} - {"end.json", "progress.json"}
    assert {*LEFT} < left  # and the snapshots of the other rounds
    assert end["sha256"] == {name: sha256(folder / name) for name in left}
    (line,) = json.loads((folder.parent / "runs.json").read_text())
    assert line["sha256"] == {name: sha256(folder / name) for name in REPEATABLE[:3]}


def test_an_altered_model_changes_no_published_number(project, monkeypatch, capsys):
    """Four bytes of both models: the numbers are those of the record, and the ledger has both digests."""
    folder = folder_of(project)
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    before = {}
    for name in ("final.safetensors", "selected.safetensors"):
        before[name] = sha256(folder / name)
        content = bytearray((folder / name).read_bytes())
        content[-400:-396] = b"\x00\x00\x80\x7e"
        (folder / name).write_bytes(content)
    found = evaluate_scenario(benchmark_of(project), SCENARIO)
    values = found.evaluation[(found.evaluation.arm == "fedavg") & (found.evaluation.selection == "last")]
    values = dict(zip(values.metric, values.value, strict=True))
    assert values.pop("round") == 4
    assert values == {name: rows[-1]["metrics"][name] for name in values}
    assert "test_accuracy" in values
    row = ledger(project)
    for name, digest in before.items():
        assert f"{name}: altered: expected sha256 {digest}, found {sha256(folder / name)}" in row["error"]
    assert "fedavg" not in set(found.outcomes.arm)

    monkeypatch.setenv("HETEROBENCH_ROOT", str(project.root))
    arguments = ["--benchmark", "evidence", "--scenario", SCENARIO]
    assert cli.main(["evaluate", *arguments]) == 1
    assert before["final.safetensors"] in (told := capsys.readouterr().err)
    assert "heterobench train --benchmark evidence --preset mini" in told
    assert not (folder.parent / "runs.json").exists()  # so the next snakemake trains
    assert (folder_of(project, "scaffold").parent / "runs.json").is_file()
    assert cli.main(["train", *arguments, "--algorithm", "fedavg"]) == 0
    assert {name: sha256(folder / name) for name in before} == before
    assert cli.main(["evaluate", *arguments]) == 0


@pytest.mark.parametrize(
    ("name", "damage"), [*((name, flip) for name in LEFT), ("rounds.jsonl", cut), *((n, remove) for n in LEFT[3:])]
)
def test_damage_is_told_by_evaluation_and_mended_by_training(project, name, damage, caplog):
    folder = folder_of(project)
    before = {each: sha256(folder / each) for each in REPEATABLE}
    manifest = (folder.parent / "runs.json").read_bytes()
    damage(folder / name)
    problem = f"{name} is missing" if damage is remove else f"{name}: altered"
    row = ledger(project)
    assert problem in row["error"]
    assert row["status"] == ("missing" if name == "config.json" else "finished")
    train(project, "fedavg")
    assert f"{folder}: {problem}" in caplog.text or name == "config.json"  # which is known without the file
    assert "again" in caplog.text
    assert {each: sha256(folder / each) for each in REPEATABLE} == before
    assert (folder.parent / "runs.json").read_bytes() == manifest
    row = ledger(project)
    assert (row["status"], row["error"]) == ("finished", "")


def folder_in_its_place(path):
    path.unlink()
    path.mkdir()


def link_to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("damage", [folder_in_its_place, link_to_itself])
@pytest.mark.parametrize("name", ["config.json", "end.json", "rounds.jsonl", "progress.json", "final.safetensors"])
def test_what_stands_in_the_place_of_a_file_is_put_aside_and_the_run_made_anew(project, name, damage, caplog):
    folder = folder_of(project)
    before = {each: sha256(folder / each) for each in REPEATABLE}
    damage(folder / name)
    ledger(project)  # evaluation goes on
    train(project, "fedavg")
    assert name in caplog.text
    assert {each: sha256(folder / each) for each in REPEATABLE} == before
    assert os.path.lexists(folder.parent / "superseded" / folder.name / "unknown" / name)
    assert (ledger(project)["status"], ledger(project)["error"]) == ("finished", "")


def test_copies_of_models_made_by_hand_are_nobodys(project):
    """A file manager's copies beside the files: neither read, nor removed, nor taken for the last checkpoint."""
    folder = folder_of(project)
    (checkpoint,) = (folder / "checkpoints").glob("*.safetensors")
    copies = [
        checkpoint.with_name("round-copy.safetensors"),
        checkpoint.with_name(f"{checkpoint.stem} (copy).safetensors"),
    ]
    copies.append(folder / "snapshots" / "round-one.safetensors")
    for copy in copies:
        shutil.copy(checkpoint, copy)
    before = {each: sha256(folder / each) for each in REPEATABLE}
    remove(folder / "final.safetensors")
    train(project, "fedavg")
    assert {each: sha256(folder / each) for each in REPEATABLE} == before
    assert checkpoint.is_file()
    assert all(copy.is_file() for copy in copies)


@pytest.mark.parametrize("damage", [altered_digit, flip, cut])
def test_an_altered_end_ends_nothing(project, damage):
    folder = folder_of(project)
    before = {each: sha256(folder / each) for each in REPEATABLE}
    damage(folder / "end.json")
    row = ledger(project)
    assert row["status"] == "missing"
    assert row["error"].startswith("end.json: ")
    train(project, "fedavg")
    assert {each: sha256(folder / each) for each in REPEATABLE} == before
    assert ledger(project)["error"] == ""


def test_a_manifest_with_other_digests_is_told(project):
    path = folder_of(project).parent / "runs.json"
    (line,) = json.loads(path.read_text())
    line["sha256"]["final.safetensors"] = "0" * 64
    path.write_text(json.dumps([line]))
    assert (
        f"runs.json and end.json differ: final.safetensors: altered: expected sha256 {'0' * 64}"
        in ledger(project)["error"]
    )


@pytest.mark.parametrize("name", ["rounds.jsonl", "timing.jsonl", "snapshots/round-000001.safetensors"])
def test_what_was_altered_before_a_run_goes_on_is_not_gone_on_from(project, name, caplog):
    """A run that stops after two rounds, a changed number in what it has written, and the rest of its rounds."""
    folder = folder_of(project)
    before = {each: sha256(folder / each) for each in REPEATABLE}
    shutil.rmtree(folder)
    job, config = benchmark_of(project).job(SCENARIO, "fedavg"), resolve.config(project)
    with training.workplace(job, config) as place:
        assert training.run(job, 0, config, *place, 2) is None
    (altered_digit if name.endswith("jsonl") else flip)(folder / name)
    train(project, "fedavg")
    assert {each: sha256(folder / each) for each in REPEATABLE} == before
    assert "the run cannot go on from this checkpoint" in caplog.text
    assert name in caplog.text
    assert ledger(project)["error"] == ""


@pytest.mark.parametrize("table", ["evaluation", "curves", "ledger", "outcomes"])
def test_a_report_refuses_tables_that_were_altered_after_the_evaluation(project, monkeypatch, table):
    monkeypatch.setenv("HETEROBENCH_ROOT", str(project.root))
    assert cli.main(["evaluate", "--benchmark", "evidence", "--scenario", SCENARIO]) == 0
    benchmark = benchmark_of(project)
    report.read(benchmark)
    path = project.benchmark("evidence", "mini") / table / f"{SCENARIO}.parquet"
    expected, frame = sha256(path), pd.read_parquet(path)
    if table in ("evaluation", "curves"):
        frame.loc[0, "value"] = np.nextafter(frame.value[0], 1)
    elif table == "ledger":
        frame.loc[0, "status"] = "failed"
    else:
        frame["correct"] = [~np.asarray(correct) for correct in frame.correct]
    frame.to_parquet(path, index=False)
    with pytest.raises(RunError) as error:
        report.read(benchmark)
    assert f"{table}/{path.name}: altered: expected sha256 {expected}, found {sha256(path)}" in str(error.value)
    assert f"heterobench evaluate --benchmark evidence --preset mini --scenario {SCENARIO}" in str(error.value)


def with_rounds(project, rounds, partition="iid", until=None):
    text = TABLE.replace("rounds: 4", f"rounds: {rounds}").replace("    snapshots: 3\n", "")
    text = text.replace("partition: iid", f"partition: {partition}")
    (project.params / "benchmarks" / "evidence.yaml").write_text(text)
    job = resolve.benchmark(project, "evidence", "mini").jobs()[0]
    config = resolve.config(project)
    if until:
        with training.workplace(job, config) as place:
            assert training.run(job, 0, config, *place, until) is None
    else:
        training.run_job(job, [0], config)
    return job.run_folder(0)


def models(folder):
    return {name: load_file(folder / name)["1.weight"].tobytes() for name in REPEATABLE[1:3]}


def test_more_rounds_are_added_to_those_that_are_there(project, caplog):
    folder = with_rounds(project, 3)
    rounds, timing = ((folder / name).read_bytes() for name in ("rounds.jsonl", "timing.jsonl"))
    with caplog.at_level("INFO"):
        with_rounds(project, 5)
    assert (folder / "rounds.jsonl").read_bytes().startswith(rounds)
    assert (folder / "timing.jsonl").read_bytes().startswith(timing)  # the times of the first training
    assert [json.loads(line)["round"] for line in (folder / "timing.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert "3 -> 5 rounds" in caplog.text
    assert ledger(project)["error"] == ""
    whole = (folder / "rounds.jsonl").read_bytes(), models(folder)
    shutil.rmtree(folder.parent)
    with_rounds(project, 5)
    assert ((folder / "rounds.jsonl").read_bytes(), models(folder)) == whole


@pytest.mark.parametrize(("done", "told"), [(2, "8 -> 4 rounds: run"), (6, "left no checkpoint to go on from")])
def test_a_run_that_has_not_ended_may_be_asked_for_fewer_rounds(project, done, told, caplog):
    whole = with_rounds(project, 4)
    whole = (whole / "rounds.jsonl").read_bytes(), models(whole)
    shutil.rmtree(folder_of(project).parent)
    folder = with_rounds(project, 8, until=done)
    timing = (folder / "timing.jsonl").read_bytes()
    with caplog.at_level("INFO"):
        with_rounds(project, 4)
    assert told in caplog.text
    assert ((folder / "rounds.jsonl").read_bytes(), models(folder)) == whole
    assert (folder / "timing.jsonl").read_bytes().startswith(timing) == (done == 2)


def test_the_stages_of_a_stream_are_those_of_the_whole_run(project, caplog):
    draw_partitions(project, "digits", "class-incremental-5", [0])
    folder = with_rounds(project, 5, "class-incremental-5")
    with caplog.at_level("INFO"):
        with_rounds(project, 10, "class-incremental-5")
    assert "5 -> 10 rounds" in caplog.text
    assert "cannot go on: the partition's 5 stages divide the rounds among them" in caplog.text
    whole = (folder / "rounds.jsonl").read_bytes(), models(folder)
    shutil.rmtree(folder.parent)
    with_rounds(project, 10, "class-incremental-5")
    assert ((folder / "rounds.jsonl").read_bytes(), models(folder)) == whole


def test_a_run_whose_code_has_changed_does_not_go_on(project, monkeypatch, caplog):
    folder = with_rounds(project, 3)
    timing = (folder / "timing.jsonl").read_bytes()
    kept = json.loads((folder / "config.json").read_text())
    monkeypatch.setattr(training, "training_code", lambda *names: "0" * 16)
    with caplog.at_level("INFO"):
        with_rounds(project, 5)
    assert not (folder / "timing.jsonl").read_bytes().startswith(timing)
    assert f"code {kept['code']} -> {'0' * 16}" in caplog.text
    assert (folder.parent / "superseded" / "seed-0" / kept["run_id"] / "timing.jsonl").read_bytes() == timing


def test_as_many_records_of_other_runs_are_kept_as_was_asked_for(project, caplog):
    """Of five runs in one folder: that one, and the two before it; the others are removed, and not without a word."""
    ids = []
    with caplog.at_level("INFO"):
        for rounds in (1, 5, 4, 3, 2):  # fewer rounds are never a continuation
            folder = with_rounds(project, rounds)
            ids.append(json.loads((folder / "config.json").read_text())["run_id"])
            assert json.loads((folder / "end.json").read_text())["rounds"] == rounds
    kept = folder.parent / "superseded" / "seed-0"
    assert {path.name for path in kept.iterdir()} == set(ids[2:4])
    for gone in ids[:2]:
        assert f"{kept / gone}: removed" in caplog.text
    (project.params / "config.yaml").write_text("benchmarks: [evidence]\ndevice: cpu\nsuperseded: 0\n")
    with_rounds(project, 1)
    assert list(kept.iterdir()) == []


def test_provenance_of_another_run_or_an_altered_one_is_not_shown(project, monkeypatch):
    monkeypatch.setenv("HETEROBENCH_ROOT", str(project.root))
    assert cli.main(["evaluate", "--benchmark", "evidence", "--scenario", SCENARIO]) == 0
    assert len(report.read(benchmark_of(project)).provenance) == 2
    path = folder_of(project) / "provenance.json"
    path.write_text(path.read_text().replace('"dirty": ', '"dirty":  '))
    assert list(report.read(benchmark_of(project)).provenance) == [(SCENARIO, "scaffold", 0)]


def test_altered_data_are_neither_trained_nor_judged_on(project):
    path = project.prepared("digits") / "train_x.npy"
    flip(path)
    shutil.rmtree(folder_of(project))
    for use in (train, ledger):
        with pytest.raises(DataError, match=r"digits/train_x\.npy: altered: expected sha256"):
            use(project)
    with pytest.raises(DataError, match=r"train_x\.npy: altered"):
        draw_partitions(project, "digits", "iid", [0])
