"""Runs that diverge: made by a step size or a weight decay that no training survives, through the whole pipeline.

What a model of such a run says is known without the pipeline: numpy reads the saved parameters and multiplies.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from heterobench import resolve, training, tuning
from heterobench.commands import keep, watch
from heterobench.commands.single import draw_partitions
from heterobench.data.dataset import open_dataset
from heterobench.data.fetch import fetch
from heterobench.data.prepare import prepare
from heterobench.evaluation import evaluate_scenario
from heterobench.files import read_json
from heterobench.project import Project
from heterobench.records.record import Record
from heterobench.report import outputs
from heterobench.report.data import ReportData
from heterobench.report.missing import cube
from heterobench.report.pooling import answers
from heterobench.report.table import Source
from heterobench.report.write import write_tables
from heterobench.tracking.importer import read_entry

REPOSITORY = Path(__file__).parents[2]
TABLE = """
title: Hot
presets:
  mini:
    seeds: 2
    scenarios:
      - {dataset: digits, model: MODEL, partition: dirichlet-0.5, target: 0.9}
    budget: {rounds: 8, local_epochs: 1, batch_size: 32, evaluate_every: 2}
    metrics: [calibration, coherence, connectivity]
    snapshots: 2
    algorithms:
      - fedavg
      - {algorithm: fedavg, name: hot, title: Hot, hyperparameters: HOT}
      - {algorithm: local-only, name: own, title: Own, hyperparameters: HOT}
"""
AT_ONCE = ("mlp", "{lr: 1.0e+20}")
LATE = ("softmax", "{lr: 0.1, weight_decay: 1000.0}")  # every step multiplies the parameters by -99


def benchmark_of(root, setting, *edits):
    project = Project(root)
    shutil.copytree(REPOSITORY / "params", project.params)
    (project.params / "config.yaml").write_text("benchmarks: [hot]\ndevice: cpu\n")
    text = TABLE.replace("MODEL", setting[0]).replace("HOT", setting[1])
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    (project.params / "benchmarks" / "hot.yaml").write_text(text)
    benchmark = resolve.benchmark(project, "hot", "mini")
    fetch(project, "digits")
    prepare(project, "digits")
    draw_partitions(project, "digits", "dirichlet-0.5", benchmark.all_seeds)
    return benchmark


def trained(root, setting, *edits):
    benchmark = benchmark_of(root, setting, *edits)
    for job in benchmark.jobs():
        training.run_job(job, benchmark.seeds, resolve.config(benchmark.project))
    return benchmark


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("at-once"), AT_ONCE)


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("late"), LATE)


@pytest.fixture(scope="module")
def at_once_seen(at_once):
    return evaluate_scenario(at_once, scenario(at_once))


@pytest.fixture(scope="module")
def late_seen(late):
    return evaluate_scenario(late, scenario(late))


def told(benchmark, seen):
    """What a report is made from."""
    name = scenario(benchmark)
    return ReportData(benchmark, seen.evaluation, {name: seen.curves}, seen.ledger, {name: seen.outcomes}, {})


def scenario(benchmark):
    return benchmark.scenarios[0].name


def folder(benchmark, arm="hot", seed=0):
    return benchmark.project.run(benchmark.name, benchmark.preset, scenario(benchmark), arm, seed)


def values(evaluated, arm, selection, seed=0):
    rows = evaluated.evaluation
    rows = rows[(rows.arm == arm) & (rows.seed == seed) & (rows.selection == selection)]
    return dict(zip(rows.metric, rows.value, strict=True))


def ledger(evaluated, arm, seed=0):
    (row,) = evaluated.ledger[(evaluated.ledger.arm == arm) & (evaluated.ledger.seed == seed)].to_dict("records")
    return row


def finite(benchmark, name, arm="hot", seed=0):
    """bool: of a global model; bool [clients] of personal ones."""
    parts = load_file(folder(benchmark, arm, seed) / name)
    own = [np.isfinite(part).reshape(len(part), -1).all(axis=1) if arm == "own" else np.isfinite(part).all()
           for part in parts.values()]  # fmt: skip
    return np.logical_and.reduce(own)


def by_numpy(benchmark, name, arm="hot"):
    """Accuracy of a saved softmax model on the test set, in double precision."""
    parts = {key: value.astype(np.float64) for key, value in load_file(folder(benchmark, arm) / name).items()}
    weight = next(value for value in parts.values() if value.ndim == 2)
    bias = next(value for value in parts.values() if value.ndim == 1)
    data = open_dataset(benchmark.project, "digits").seen("standardised")
    x = (np.asarray(data.test_x, np.float64) / data.maximum - data.mean[0]) / data.std[0]
    logits = x.reshape(len(x), -1) @ weight.T + bias
    return float((logits.argmax(axis=1) == np.asarray(data.test_y)).mean())


# the record


def test_a_model_of_nans_has_no_accuracy(at_once):
    """argmax of NaN is class 0: such a model would have that class's share of the test set for its accuracy."""
    run = Record(folder(at_once))
    assert not finite(at_once, "final.safetensors")
    for name in ("test_accuracy", "validation_accuracy", "test_loss", "validation_loss"):
        assert math.isnan(run.rounds[-1]["metrics"][name])
    assert [row["round"] for row in run.rounds] == [1], "round 1 is not due, but there the run ends"
    assert (run.end["status"], run.end["diverged"], run.end["rounds"], run.end["rounds_left"]) == ("diverged", 1, 1, 7)
    assert not run.finished
    assert run.computed


def test_every_metric_of_a_diverged_model_is_nan_or_absent(at_once, at_once_seen):
    found = at_once_seen
    for arm in ("hot", "own"):
        for selection in ("last", "validation"):
            there = values(found, arm, selection)
            assert there.pop("round") == (1 if arm == "hot" else 2), "personal models are looked at when a round is due"
            assert "test_accuracy" in there
            assert "client_accuracy_mean" in there
            assert not [name for name, value in there.items() if math.isfinite(value)]
        assert "oracle" not in set(found.evaluation[found.evaluation.arm == arm].selection)
        run = values(found, arm, "run")
        assert run["rounds_to_target"] == math.inf, "it is known never to get there"
        for cost in ("bytes", "seconds"):
            assert math.isnan(run[cost]), "what it would have cost is not known"
    assert set(found.outcomes.arm) == {"fedavg"}
    assert ledger(found, "hot")["status"] == "diverged"
    assert ledger(found, "hot")["error"] == "diverged in round 1; 7 rounds after it not computed"
    assert ledger(found, "own")["error"].startswith("diverged in round 2 (the models of 10 clients); 6 rounds")
    assert ledger(found, "fedavg")["status"] == "finished"


def test_a_diverged_run_is_not_run_again_and_has_the_same_bits_every_time(at_once, tmp_path):
    before = {path: path.read_bytes() for path in sorted(folder(at_once).rglob("*")) if path.is_file()}
    job = at_once.job(scenario(at_once), "hot")
    training.run_job(job, at_once.seeds, resolve.config(at_once.project))
    assert before == {path: path.read_bytes() for path in sorted(folder(at_once).rglob("*")) if path.is_file()}
    again = benchmark_of(tmp_path, AT_ONCE)
    training.run_job(again.job(scenario(again), "hot"), [0], resolve.config(again.project))
    assert (folder(again) / "rounds.jsonl").read_bytes() == (folder(at_once) / "rounds.jsonl").read_bytes()


# a run that was good before


def test_the_model_selected_before_keeps_its_value_and_the_last_has_none(late, late_seen):
    run, found = Record(folder(late)), late_seen
    losses = {row["round"]: row["metrics"]["test_loss"] for row in run.rounds}
    first = min(round for round, loss in losses.items() if not math.isfinite(loss))
    assert 1 < first < 8
    assert list(losses)[-1] == first == run.end["diverged"]
    assert finite(late, "selected.safetensors")
    assert not finite(late, "final.safetensors")
    chosen = max((r for r in run.rounds if r["round"] < first), key=lambda r: r["metrics"]["validation_accuracy"])
    assert run.end["selected_round"] == chosen["round"] == values(found, "hot", "validation")["round"]
    assert values(found, "hot", "validation")["test_accuracy"] == by_numpy(late, "selected.safetensors")
    assert math.isnan(values(found, "hot", "last")["test_accuracy"])
    assert values(found, "hot", "last")["round"] == first
    assert values(found, "hot", "oracle")["test_accuracy"] == max(
        row["metrics"]["test_accuracy"] for row in run.rounds if row["round"] < first
    )
    assert set(found.outcomes.arm) == {"fedavg", "hot"}


def test_clients_whose_models_are_finite_keep_theirs(late, late_seen):
    """A client with few examples takes fewer steps, so that not all have diverged at the same time."""
    run, found = Record(folder(late, "own")), late_seen
    alive = finite(late, "final.safetensors", "own")
    assert 0 < alive.sum() < len(alive)
    assert run.end["status"] == "diverged"
    assert run.end["diverged_clients"] == (~alive).sum()
    assert run.end["rounds"] == 8, "the others go on"
    assert run.end["diverged"] < 8
    assert math.isnan(run.rounds[-1]["metrics"]["validation_accuracy"])
    assert finite(late, "selected.safetensors", "own").all()
    assert math.isfinite(values(found, "own", "validation")["test_accuracy"])
    last = values(found, "own", "last")
    assert all(math.isnan(last[name]) for name in ("test_accuracy", "client_accuracy_mean", "client_accuracy_min"))


def test_outputs_that_are_not_finite_are_enough(tmp_path):
    """Parameters of 1e20 in two layers are numbers; what they make of an example is beyond single precision."""
    slow = [("rounds: 8", "rounds: 10"), ("batch_size: 32", "batch_size: 2000")]  # one step a round
    benchmark = benchmark_of(tmp_path, ("mlp", LATE[1]), *slow)
    training.run_job(benchmark.job(scenario(benchmark), "hot"), [0], resolve.config(benchmark.project))
    end = Record(folder(benchmark)).end
    assert finite(benchmark, "final.safetensors")
    assert (end["status"], end["diverged"], end["rounds"], end["rounds_left"]) == ("diverged", 10, 10, 0)
    assert end["selected_round"] < 10
    found = evaluate_scenario(benchmark, scenario(benchmark))
    last = values(found, "hot", "last")
    assert not [name for name, value in last.items() if "accuracy" in name and math.isfinite(value)]
    assert math.isfinite(values(found, "hot", "run")["bytes"]), "all rounds were computed"


@pytest.mark.parametrize("setting", [AT_ONCE, LATE])
def test_without_validation_examples_the_last_finite_round_is_the_selected_one(tmp_path, setting):
    """No examples and no answers are both NaN in the record, and mean different things."""
    benchmark = benchmark_of(tmp_path, setting)
    file = benchmark.project.params / "partitions" / "dirichlet-0.5.yaml"
    file.write_text(file.read_text().replace("validation: 0.1", "validation: 0.0"))
    benchmark = resolve.benchmark(benchmark.project, "hot", "mini")
    draw_partitions(benchmark.project, "digits", "dirichlet-0.5", benchmark.seeds)
    for arm in ("hot", "fedavg"):
        training.run_job(benchmark.job(scenario(benchmark), arm), [0], resolve.config(benchmark.project))
    assert all(math.isnan(row["metrics"]["validation_accuracy"]) for row in Record(folder(benchmark)).rounds)
    assert Record(folder(benchmark, "fedavg")).end["selected_round"] == 8
    assert Record(folder(benchmark, "fedavg")).finished
    rounds = [row["round"] for row in Record(folder(benchmark)).rounds]
    assert Record(folder(benchmark)).end["selected_round"] == (rounds[-2] if setting == LATE else 1)
    assert finite(benchmark, "selected.safetensors") == (setting == LATE)


@pytest.mark.parametrize("at", [2, 4])
def test_a_killed_run_diverges_with_the_bits_of_the_straight_one(late, tmp_path, at):
    benchmark = benchmark_of(tmp_path, LATE)
    job, config = benchmark.job(scenario(benchmark), "own"), resolve.config(benchmark.project)
    with training.workplace(job, config) as place:
        assert training.run(job, 0, config, *place, at) is None
        assert training.run(job, 0, config, *place) is not None
    for name in ("rounds.jsonl", "final.safetensors", "selected.safetensors"):
        assert (folder(benchmark, "own") / name).read_bytes() == (folder(late, "own") / name).read_bytes()
    straight, resumed = Record(folder(late, "own")).end, Record(folder(benchmark, "own")).end
    assert {**straight, "seconds": 0, "sha256": 0} == {**resumed, "seconds": 0, "sha256": 0}  # of times as well


# workers and stacked clients


@pytest.mark.parametrize("more", ["workers: 2", "executor: vmap"])
def test_every_executor_says_the_same(late, tmp_path, more):
    benchmark = benchmark_of(tmp_path, LATE)
    (benchmark.project.params / "config.yaml").write_text(f"benchmarks: [hot]\ndevice: cpu\n{more}\n")
    for arm in ("hot", "own"):
        job = benchmark.job(scenario(benchmark), arm)
        training.run_job(job, [0], resolve.config(benchmark.project))
        one, other = Record(folder(late, arm)).end, Record(folder(benchmark, arm)).end
        for key in ("status", "diverged", "rounds", "rounds_left", "diverged_clients", "selected_round"):
            assert one.get(key) == other.get(key), key


# tuning


TRIALS = "    tuning: {trials: 2, seeds: [100], design: random"  # which tries all that is searched together
EARLY = "validation, early_stopping: {after: 0.2, keep: 0.5}"  # the trial has ended by itself before it is stopped


@pytest.mark.parametrize(
    ("rule", "setting"), [("validation", AT_ONCE), ("validation", LATE), ("oracle", LATE), (EARLY, AT_ONCE)]
)
def test_tuning_never_chooses_a_trial_that_diverges(tmp_path, rule, setting):
    """Not even beside a step size that is too small to learn anything."""
    benchmark = benchmark_of(tmp_path, setting)
    project, space = benchmark.project, setting[1].strip("{}").replace(": ", ": [").replace(",", "],") + "]"
    rows = TABLE[TABLE.index("      - {algorithm: fedavg,") :].replace("HOT", setting[1])
    for file, old, new in (
        ("benchmarks/hot.yaml", rows, ""),
        ("algorithms/fedavg.yaml", "lr: {low: 0.01, high: 0.5, scale: log}", space.replace(", ", "\n  ")),
        ("benchmarks/hot.yaml", "    metrics:", "    hyperparameters: {lr: 1.0e-9}\n    metrics:"),
        ("benchmarks/hot.yaml", "    metrics:", f"{TRIALS}, rule: {rule}}}\n    metrics:"),
    ):
        text = (project.params / file).read_text()
        assert old in text
        (project.params / file).write_text(text.replace(old, new, 1))
    benchmark = resolve.benchmark(project, "hot", "mini")
    draw_partitions(project, "digits", "dirichlet-0.5", [100])
    found = read_json(tuning.tune(benchmark, scenario(benchmark), "fedavg", resolve.config(project)))
    good, bad = found["trials"]
    assert (found["chosen"], found["oracle"]) == (0, 0)
    assert (good["status"], bad["status"]) == ("finished", "diverged")
    assert bad["score"] == bad["test"] == bad["validation"] == "NaN"


# what reads them


def test_tables_say_it(late, late_seen):
    write_tables(told(late, late_seen), ())
    table = lambda name, form: outputs.table_file(late, name, form).read_text()  # noqa: E731
    line = next(line for line in table("accuracy", "md").splitlines() if line.startswith("| Hot"))
    assert "has diverged since" in table("accuracy", "md")
    assert "<sup>e</sup>" in line
    assert "0/2" in next(line for line in table("accuracy-last", "md").splitlines() if line.startswith("| Hot"))
    assert "0/2" in next(line for line in table("runs", "md").splitlines() if line.startswith("| Hot"))
    assert table("missing-runs", "md").count("diverged in round") == 4


def test_where_all_runs_diverge_there_is_a_report_all_the_same(tmp_path):
    edits = [
        ("      - fedavg\n", f"      - {{algorithm: fedavg, hyperparameters: {AT_ONCE[1]}}}\n"),
        ("seeds: 2", "seeds: 1"),
    ]
    benchmark = trained(tmp_path, AT_ONCE, *edits)
    data = told(benchmark, evaluate_scenario(benchmark, scenario(benchmark)))
    write_tables(data, ())
    for name in ("accuracy", "accuracy-last"):
        rows = [line for line in outputs.table_file(benchmark, name, "md").read_text().splitlines() if "0/1" in line]
        assert len(rows) == 3
        assert not any("**" in row for row in rows)
    assert not cube(data, "validation", "test_accuracy").scenarios


def test_rankings_count_it_by_the_rule(late, late_seen):
    data = told(late, late_seen)
    kept, lost = cube(data, "validation", "test_accuracy"), cube(data, "last", "test_accuracy")
    assert not kept.filled
    assert np.isfinite(kept.observed[1]).all()
    assert {(one.arm, one.seed, one.why) for one in lost.filled} == {("hot", 0, "diverged"), ("hot", 1, "diverged")}
    assert np.isnan(lost.observed[1]).all()
    assert (lost.values[1] == lost.values[0]).all()
    reached = cube(data, "run", "rounds_to_target")
    assert np.isinf(reached.values[1]).all()
    assert not answers(data).filled


def test_answers_of_a_run_without_a_finite_model_are_all_wrong(at_once, at_once_seen):
    data = told(at_once, at_once_seen)
    assert {(one.arm, one.seed, one.value, one.why) for one in answers(data).filled} == {
        ("hot", seed, 0.0, "diverged") for seed in (0, 1)
    }
    cell = data.cells[Source(scenario(at_once), "hot", "validation", "test_accuracy")]
    assert (cell["best"], cell["n"], cell["n_finite"]) == (False, 2, 0)


def test_progress_tracker_and_kept_tables_say_it(late, tmp_path):
    rows = {row["arm"]: row for row in watch.read_progress(late.project.results, {}) if row["seed"] == 0}
    assert watch.state(rows["hot"], rows["hot"]["updated"]) == "diverged"
    assert "2 of 6 finished" in watch.summary(list(watch.read_progress(late.project.results, {})), 0.0, 6)
    entry = read_entry(folder(late))
    assert entry.status == "FAILED"
    assert entry.tags["status"] == "diverged"
    assert entry.tags["diverged"] == str(Record(folder(late)).end["diverged"])
    kept = {(row["algorithm"], row["seed"]): row for row in keep.records(late)}
    assert kept["hot", "0"]["status"] == "diverged"
    assert len(kept["hot", "0"]["model"]) == 64
