"""From records and models to tables: equal to direct computation, and never stopped by what is missing."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from heterobench import resolve, training
from heterobench.commands.single import draw_partitions
from heterobench.config.schema import Budget
from heterobench.data.dataset import open_dataset
from heterobench.data.fetch import fetch
from heterobench.data.prepare import prepare
from heterobench.errors import ConfigurationError
from heterobench.evaluation import evaluate_scenario, write_evaluation
from heterobench.files import file_digest, read_json, write_json
from heterobench.longform import evaluate_records
from heterobench.measures import coherence, reading
from heterobench.measures.context import EvaluatedModel, EvaluationData
from heterobench.metrics import calibration
from heterobench.metrics.temperature import fit_temperature
from heterobench.opening import Opened
from heterobench.partition.store import open_partition
from heterobench.project import Project
from heterobench.records import record, saved_model
from heterobench.records.recorder import Recorder
from heterobench.report import data as report
from heterobench.report.aggregate import aggregate

REPOSITORY = Path(__file__).parents[2]
TABLE = """
title: Evaluated
presets:
  mini:
    seeds: 2
    scenarios:
      - {dataset: digits, model: softmax, partition: dirichlet-0.5, target: 0.5}
    budget: {rounds: 7, local_epochs: 1, batch_size: 32, evaluate_every: 2}
    hyperparameters: {lr: 0.1}
    metrics: [calibration, coherence, landscape, connectivity, fairness, corrected-labels]
    snapshots: 3
    algorithms: [fedavg, scaffold, local-only]
"""
SCENARIO = "digits.dirichlet-0.5.softmax.full"
EVALUATED = (2, 4, 6, 7)


def benchmark_of(project, *edits):
    text = TABLE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    (project.params / "benchmarks" / "evaluated.yaml").write_text(text)
    return resolve.benchmark(project, "evaluated", "mini")


def train(benchmark):
    for job in benchmark.jobs():
        training.run_job(job, benchmark.seeds, resolve.config(benchmark.project))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("evaluated"))
    shutil.copytree(REPOSITORY / "params", project.params)
    (project.params / "config.yaml").write_text("benchmarks: [evaluated]\ndevice: cpu\n")
    benchmark = benchmark_of(project)
    fetch(project, "digits")
    prepare(project, "digits")
    draw_partitions(project, "digits", "dirichlet-0.5", benchmark.seeds)
    train(benchmark)
    return benchmark


@pytest.fixture(scope="module")
def whole(trained):
    return evaluate_scenario(trained, SCENARIO)


@pytest.fixture
def damaged(trained, tmp_path):
    """The benchmark in a copy of its project, to be damaged."""
    shutil.copytree(trained.project.root, tmp_path / "copy")
    return replace(trained, project=Project(tmp_path / "copy"))


def run_of(benchmark, arm="fedavg", seed=0):
    return benchmark.project.run(benchmark.name, benchmark.preset, SCENARIO, arm, seed)


def values(evaluated, arm, seed, selection):
    rows = evaluated.evaluation
    rows = rows[(rows.arm == arm) & (rows.seed == seed) & (rows.selection == selection)]
    assert rows.metric.is_unique
    return dict(zip(rows.metric, rows.value, strict=True))


def entry(evaluated, arm, seed):
    (row,) = evaluated.ledger[(evaluated.ledger.arm == arm) & (evaluated.ledger.seed == seed)].to_dict("records")
    return row


def others(frame, arm="fedavg", seed=0):
    return frame[(frame.arm != arm) | (frame.seed != seed)].reset_index(drop=True)


def judged(benchmark, seed=0):
    """What models are judged on, and a saved model by arm and file."""
    dataset = open_dataset(benchmark.project, "digits")
    task = training.classification(benchmark.job(SCENARIO, "fedavg"), dataset, "cpu")
    partition, _ = open_partition(benchmark.project, "digits", "dirichlet-0.5", seed)
    data = EvaluationData.of(task, Opened(dataset).federation(partition, seed), seed, dataset)
    return data, lambda arm, name: saved_model.load(run_of(benchmark, arm, seed) / name, task.layout)


# what is computed


def test_the_four_tables_hold_every_run(trained, whole):
    runs = [(arm.name, seed) for arm in trained.arms for seed in trained.seeds]
    ledger = whole.ledger
    assert tuple(ledger.columns) == report.LEDGER
    assert (reading.FINISHED, reading.FAILED, reading.MISSING) == (report.FINISHED, report.FAILED, report.MISSING)
    assert list(zip(ledger.arm, ledger.seed, strict=True)) == runs
    assert set(ledger.status) == {"finished"}
    assert set(ledger.error) == {""}
    for arm, seed in runs:
        config = read_json(run_of(trained, arm, seed) / record.CONFIG)
        row = entry(whole, arm, seed)
        assert row["run_id"] == config["run_id"]
        assert (trained.project.root / row["folder"] / record.CONFIG).is_file()
    for frame in (whole.evaluation, whole.curves):
        assert list(dict.fromkeys(zip(frame.arm, frame.seed, strict=True))) == runs
    assert list(zip(whole.outcomes.arm, whole.outcomes.seed, strict=True)) == runs[:4]  # personal models have none


def test_written_tables_are_what_a_report_reads(damaged, whole):
    paths, told = write_evaluation(damaged, SCENARIO)
    assert [path.parent.name for path in paths] == ["evaluation", "curves", "ledger", "outcomes", "evaluated"]
    assert told == []
    found = report.read(damaged)
    pd.testing.assert_frame_equal(found.evaluation, whole.evaluation)
    pd.testing.assert_frame_equal(found.curves[SCENARIO], whole.curves)
    pd.testing.assert_frame_equal(found.ledger, whole.ledger)
    kept = found.outcomes[SCENARIO]
    assert [list(row) for row in kept.correct] == [list(row) for row in whole.outcomes.correct]


def test_accuracies_are_those_of_the_record_to_the_last_bit(trained, whole):
    for arm in ("fedavg", "scaffold"):
        for seed in trained.seeds:
            run = record.Record(run_of(trained, arm, seed))
            by_round = {row["round"]: row["metrics"] for row in run.rounds}
            for selection, round in (("last", 7), ("validation", run.end["selected_round"])):
                found = values(whole, arm, seed, selection)
                assert found["round"] == round
                for name in ("test_accuracy", "test_loss", "validation_accuracy"):
                    assert found[name] == by_round[round][name]


def test_calibration_of_a_run_is_that_of_its_models_logits(trained, whole):
    data, model = judged(trained)
    test, pool, rows = data.federation.global_test, data.federation.pool, data.federation.all_validation
    for selection, name in (("last", record.FINAL), ("validation", record.SELECTED)):
        weight, bias = data.task.layout.split(model("scaffold", name)).values()
        logits = (test.x.flatten(1) @ weight.T + bias).numpy()
        found = values(whole, "scaffold", 0, selection)
        labels = test.y.numpy()
        p = np.exp(calibration.log_softmax(logits))
        assert found["nll"] == pytest.approx(calibration.negative_log_likelihood(p, labels), rel=1e-5)
        assert found["brier"] == pytest.approx(calibration.brier(p, labels), rel=1e-5)
        assert found["ece"] == pytest.approx(calibration.expected_calibration_error(p, labels), abs=1e-5)
        fit = fit_temperature((pool.x[rows].flatten(1) @ weight.T + bias).numpy(), pool.y[rows].numpy())
        assert found["temperature"] == pytest.approx(fit.value, rel=1e-3)


def test_outcomes_are_the_selected_models(whole):
    for arm, seed, correct in zip(*(whole.outcomes[name] for name in ("arm", "seed", "correct")), strict=True):
        assert correct.dtype == bool
        assert correct.mean() == values(whole, arm, seed, "validation")["test_accuracy"]


def test_groups_that_look_around_a_model_are_of_the_last_one_only(whole):
    last, selected = (values(whole, "scaffold", 1, selection) for selection in ("last", "validation"))
    more = last.keys() - selected.keys()
    assert {"zeta_squared", "hessian_trace", "barrier", "train_m_coherence"} < more
    assert selected.keys() - last.keys() == set()
    assert not more & values(whole, "local-only", 1, "last").keys()
    assert values(whole, "fedavg", 0, "last")["barrier"] == 0
    assert not [name for name in last if "corrected" in name or "parity" in name]  # digits have neither


def test_coherence_along_the_way_is_that_of_the_kept_models(trained, whole):
    data, model = judged(trained)
    curves = whole.curves[(whole.curves.arm == "scaffold") & (whole.curves.seed == 0)]
    along = curves[curves.metric.isin(coherence.NAMES)]
    assert sorted(set(along["round"])) == [2, 6, 7]
    for round, rows in along.groupby("round"):
        theta = model("scaffold", f"{record.SNAPSHOTS}/round-{round:06d}.safetensors")
        direct = coherence.measure(EvaluatedModel(data, theta))
        assert dict(zip(rows.metric, rows.value, strict=True)) == direct
    last = values(whole, "scaffold", 0, "last")
    assert {name: last[name] for name in coherence.NAMES} == direct


def test_curves_hold_every_value_of_a_record(trained, whole):
    rows = whole.curves[(whole.curves.arm == "fedavg") & (whole.curves.seed == 1)]
    found = {
        (r, m): v for r, m, v in zip(rows["round"], rows.metric, rows.value, strict=True) if m not in coherence.NAMES
    }
    run = record.Record(run_of(trained, "fedavg", 1))
    assert found == {(row["round"], m): v for row in run.rounds for m, v in row["metrics"].items()}


def test_the_target_is_one_of_validation_accuracy(trained, whole):
    for arm in ("fedavg", "local-only"):
        rows = record.Record(run_of(trained, arm)).rounds
        best, before, at = -math.inf, None, math.inf
        for row in rows:
            value = max(best, row["metrics"]["validation_accuracy"])
            if value >= 0.5:
                start = rows[0]["round"] if before is None else before
                share = 1 if before is None else (0.5 - best) / (value - best)
                at = start + share * (row["round"] - start)
                break
            best, before = value, row["round"]
        assert math.isfinite(at)
        assert values(whole, arm, 0, "run")["rounds_to_target"] == pytest.approx(at)


def test_records_alone_give_what_needs_no_model(trained, whole):
    found = evaluate_records(trained, SCENARIO)
    pd.testing.assert_frame_equal(found.ledger, whole.ledger)
    assert len(found.outcomes) == 0
    for selection in ("last", "validation", "run", "oracle"):
        some, all_ = (values(each, "fedavg", 0, selection) for each in (found, whole))
        assert some
        assert some.items() <= all_.items()


def test_without_groups_only_what_is_always_measured(trained):
    found = evaluate_scenario(replace(trained, metrics=()), SCENARIO)
    names = values(found, "fedavg", 0, "last").keys()
    assert {name for name in names if not name.startswith("client_")} == {
        "test_accuracy",
        "test_loss",
        "validation_accuracy",
        "round",
    }
    assert not set(found.curves.metric) & set(coherence.NAMES)


# what is missing


def edit_rounds(folder, change):
    """Another rounds.jsonl, as a run of another version might leave it."""
    lines = [json.loads(line) for line in (folder / record.ROUNDS).read_text().splitlines()]
    (folder / record.ROUNDS).write_text("".join(json.dumps(row) + "\n" for row in change(lines)))
    seal_again(folder)
    (folder.parent / "runs.json").unlink(missing_ok=True)


def seal_again(folder):
    end = record.Record(folder).end
    record.seal(folder, end.pop("status"), **{key: value for key, value in end.items() if key != "sha256"})


def without(name, rounds=EVALUATED):
    def change(lines):
        for line in lines:
            if line["round"] in rounds:
                del line["metrics"][name]
        return lines

    return change


def fail(folder):
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("what went wrong\nand more of it") from None
    except ValueError:
        import traceback

        record.seal(folder, "failed", error=traceback.format_exc())


def listed_as_failed(folder):
    shutil.rmtree(folder)
    lines = [{"seed": 0, "failed": "RunError: no client can train\nsecond line"}, {"seed": 1, "run_id": "x"}]
    write_json(folder.parent / "runs.json", lines)


@pytest.mark.parametrize(
    ("damage", "status", "error"),
    [
        (shutil.rmtree, "missing", "no record"),
        (lambda f: (f / record.END).unlink(), "missing", "not finished: 7 of 7 rounds"),
        (
            lambda f: [(f / name).unlink() for name in (record.END, record.ROUNDS)],
            "missing",
            "not finished: 0 of 7 rounds",
        ),
        (lambda f: record.seal(f, "stopped", rounds=2), "missing", "not finished: 7 of 7"),
        (lambda f: (f / record.END).write_text("{"), "missing", "end.json: damaged: not a JSON object"),
        (lambda f: write_json(f / record.END, {"status": "finished"}), "missing", "end.json: damaged"),
        (lambda f: (f / record.CONFIG).write_text("[]"), "missing", "config.json: altered: expected sha256"),
        (lambda f: (f / record.CONFIG).unlink(), "missing", "config.json is missing"),
        (fail, "failed", "ValueError: what went wrong"),
        (listed_as_failed, "failed", "RunError: no client can train"),
    ],
)
def test_runs_that_are_not_finished_have_no_values_and_stop_nothing(damaged, whole, damage, status, error):
    damage(run_of(damaged))
    found = evaluate_scenario(damaged, SCENARIO)
    row = entry(found, "fedavg", 0)
    assert (row["status"], row["error"][: len(error)]) == (status, error)
    assert "\n" not in row["error"]
    assert values(found, "fedavg", 0, "last") == {}
    pd.testing.assert_frame_equal(
        others(found.curves), whole.curves[lambda c: (c.arm != "fedavg") | (c.seed != 0)].reset_index(drop=True)
    )
    pd.testing.assert_frame_equal(others(found.ledger), others(whole.ledger))
    gone = others(whole.evaluation)  # barriers to the baseline's model of that seed go with it
    barrier = gone.metric.str.contains("barrier") & (gone.seed == 0)
    pd.testing.assert_frame_equal(others(found.evaluation), gone[~barrier].reset_index(drop=True))


@pytest.mark.parametrize(
    ("damage", "error", "lost"),
    [
        (
            lambda f: (f / record.FINAL).unlink(),
            "final.safetensors is missing",
            {"last": {"ece", "client_accuracy_mean", "zeta_squared"}},
        ),
        (
            lambda f: (f / record.SELECTED).write_bytes(b"nothing"),
            "selected.safetensors: altered: expected sha256",
            {"validation": {"ece", "client_accuracy_mean"}},
        ),
        (
            lambda f: edit_rounds(f, without("validation_loss")),
            "rounds.jsonl: no validation_loss",
            {},
        ),
        (
            lambda f: edit_rounds(f, without("validation_accuracy")),
            "rounds.jsonl: no validation_accuracy",
            {"last": {"validation_accuracy"}, "run": {"rounds_to_target", "bytes_to_target"}},
        ),
        (
            lambda f: edit_rounds(f, without("test_accuracy", (2, 6))),
            "rounds.jsonl: no test_accuracy in 2 of 4 rounds",
            {},
        ),
        (
            lambda f: edit_rounds(f, lambda lines: [lines[0], "no object", *lines[1:]]),
            "rounds.jsonl: not the lines of ascending rounds",
            {"run": {"rounds", "bytes_up"}},
        ),
        (
            lambda f: (f / record.TIMING).unlink(),
            "timing.jsonl is missing",
            {"run": {"seconds", "seconds_to_target"}},
        ),
        (lambda f: (f / record.ROUNDS).unlink(), "rounds.jsonl is missing", {"run": {"rounds", "bytes_up"}}),
        (lambda f: (f / record.PROVENANCE).unlink(), "provenance.json is missing", {}),
        (lambda f: record.snapshot(f, 6).unlink(), "snapshots/round-000006.safetensors is missing", {}),
    ],
)
def test_what_was_removed_from_a_record_is_told_and_the_rest_is_there(damaged, whole, damage, error, lost):
    damage(run_of(damaged, "scaffold"))
    found = evaluate_scenario(damaged, SCENARIO)
    row = entry(found, "scaffold", 0)
    assert row["status"] == "finished"
    assert row["error"].startswith(error)
    for selection in ("last", "validation", "run"):
        before, after = (values(each, "scaffold", 0, selection) for each in (whole, found))
        gone = before.keys() - after.keys()
        assert lost.get(selection, set()) <= gone
        if not lost:
            assert gone == set()
        assert {name: after[name] for name in after} == {name: before[name] for name in after}
    pd.testing.assert_frame_equal(others(found.evaluation, "scaffold"), others(whole.evaluation, "scaffold"))


def test_a_model_that_is_gone_leaves_its_rounds_scores(damaged, whole):
    (run_of(damaged) / record.FINAL).unlink()
    found, before = (values(each, "fedavg", 0, "last") for each in (evaluate_scenario(damaged, SCENARIO), whole))
    assert set(found) == {"test_accuracy", "test_loss", "validation_accuracy", "round"}
    assert found.items() <= before.items()


def test_a_model_of_another_net_is_told(damaged):
    folder, (data, model) = run_of(damaged, "scaffold"), judged(damaged)
    nine = replace(data.task.layout, shapes=(torch.Size([9, 64]), torch.Size([9])))
    saved_model.save(folder / record.FINAL, nine, model("scaffold", record.FINAL)[: sum(nine.sizes)], {})
    seal_again(folder)
    (folder.parent / "runs.json").unlink()
    error = entry(evaluate_scenario(damaged, SCENARIO), "scaffold", 0)["error"]
    assert error == "final.safetensors: 585 parameters, but the net has 650"


def test_removed_values_are_no_points_of_a_curve(damaged, whole):
    edit_rounds(run_of(damaged), without("test_loss", (4,)))
    curves = evaluate_records(damaged, SCENARIO).curves
    of = curves[(curves.arm == "fedavg") & (curves.seed == 0) & (curves.metric == "test_loss")]
    assert list(of["round"]) == [2, 6, 7]


def test_values_that_are_not_finite_are_points(damaged):
    def diverged(lines):
        lines[1]["metrics"]["test_loss"] = "NaN"
        lines[2]["metrics"]["test_loss"] = "Infinity"
        return lines

    edit_rounds(run_of(damaged), diverged)
    curves = evaluate_records(damaged, SCENARIO).curves
    of = curves[(curves.arm == "fedavg") & (curves.seed == 0) & (curves.metric == "test_loss")].value.to_numpy()
    assert np.isnan(of[1])
    assert of[2] == math.inf


def test_a_partition_that_is_damaged_stops_no_other_seed(damaged, whole):
    partition = damaged.scenarios[0].partition
    damaged.project.partition_manifest("digits", partition, 1).write_text("{}")
    found = evaluate_scenario(damaged, SCENARIO)
    assert "seed-1.json: altered or damaged" in entry(found, "fedavg", 1)["error"]
    assert values(found, "fedavg", 0, "last") == values(whole, "fedavg", 0, "last")
    assert "brier" not in values(found, "fedavg", 1, "last")  # nothing that needs the partition


def test_nothing_at_all(damaged, whole):
    shutil.rmtree(damaged.project.results / "evaluated")
    found = evaluate_scenario(damaged, SCENARIO)
    assert set(found.ledger.status) == {"missing"}
    for name in ("evaluation", "curves", "outcomes"):
        empty, full = getattr(found, name), getattr(whole, name)
        assert len(empty) == 0
        assert list(empty.columns) == list(full.columns)
        both = pd.concat([empty, full], ignore_index=True)
        assert list(both.dtypes) == list(full.dtypes)
    write_evaluation(damaged, SCENARIO)
    assert len(report.read(damaged).ledger) == 6


def test_the_line_that_says_what_went_wrong():
    assert (
        reading.error_line("Traceback (most recent call last):\n  File x\n    f()\na.b.RunError: why\nmore\n")
        == "RunError: why"
    )
    assert reading.error_line("MemoryError") == "MemoryError"
    assert reading.error_line("") == "failed, and left no message"


def test_a_metric_of_one_scenario_has_no_rows_in_another(trained, whole):
    here = trained.scenarios[0]
    two = replace(trained, scenarios=(here, replace(here, partition="iid")))
    there = whole.evaluation.assign(scenario=two.scenarios[1].name)
    there = there[there.metric != "brier"]
    table = aggregate(pd.concat([whole.evaluation, there]), two)
    counts = table[table.metric == "brier"].scenario.value_counts().to_dict()
    assert counts == {SCENARIO: 6}  # two selections of three arms
    alone = aggregate(whole.evaluation, two)  # a scenario without any run has all its cells, empty
    assert (alone[alone.scenario == two.scenarios[1].name].n == 0).all()
    assert (alone.scenario.value_counts() == len(alone) / 2).all()


# models along the way


@pytest.mark.parametrize(
    ("rounds", "every", "count", "kept"),
    [
        (30, 1, 5, {1, 8, 15, 23, 30}),
        (7, 2, 2, {2, 7}),
        (7, 2, 3, {2, 6, 7}),
        (7, 2, 9, {2, 4, 6, 7}),
        (3, 5, 2, {3}),
        (10, 1, 0, set()),
    ],
)
def test_rounds_whose_models_are_kept(rounds, every, count, kept):
    budget = Budget(rounds=rounds, batch_size=1, evaluate_every=every)
    assert training.snapshot_rounds(budget, count) == kept


def files(folder):
    """Every file of a record that must not depend on how a run was computed."""
    return {name: file_digest(folder / name) for name in (record.ROUNDS, record.FINAL, record.SELECTED)}


def bits(folder):
    """The same, less the identity of the run that models carry with them."""
    models = {name: load_file(folder / name) for name in (record.FINAL, record.SELECTED)}
    return (folder / record.ROUNDS).read_bytes(), {
        (name, key): tensor.numpy().tobytes() for name, model in models.items() for key, tensor in model.items()
    }


def test_snapshots_change_no_other_bit_and_make_another_run(damaged):
    before = {(arm.name, seed): bits(run_of(damaged, arm.name, seed)) for arm in damaged.arms for seed in damaged.seeds}
    ids = {key: read_json(run_of(damaged, *key) / record.CONFIG)["run_id"] for key in before}
    plain = benchmark_of(damaged.project, ("    snapshots: 3\n", ""))
    train(plain)
    for key, kept in before.items():
        assert bits(run_of(plain, *key)) == kept
        assert not (run_of(plain, *key) / record.SNAPSHOTS).exists()
        assert read_json(run_of(plain, *key) / record.CONFIG)["run_id"] != ids[key]
    train(benchmark_of(damaged.project))  # asked for again: trained again, as they are not there
    for (arm, seed), identity in ids.items():
        folder = run_of(damaged, arm, seed)
        assert read_json(folder / record.CONFIG)["run_id"] == identity
        assert list(record.snapshots(folder)) == ([] if arm == "local-only" else [2, 6, 7])


def test_the_last_snapshot_is_the_last_model(trained):
    data, model = judged(trained)
    kept = {
        round: model("scaffold", str(path)) for round, path in record.snapshots(run_of(trained, "scaffold")).items()
    }
    assert torch.equal(kept[7], model("scaffold", record.FINAL))
    assert not torch.equal(kept[2], kept[6])
    rows = {row["round"]: row["metrics"] for row in record.Record(run_of(trained, "scaffold")).rounds}
    for round, theta in kept.items():
        scores = data.task.scores(theta, data.federation.global_test.chunks())
        assert float(scores["accuracy"].double().mean()) == rows[round]["test_accuracy"]


@pytest.mark.parametrize("killed_at", [2, 3, 6, 7])
@pytest.mark.parametrize("checkpoints", [0, 3600])
def test_a_killed_run_keeps_the_models_of_the_straight_one(damaged, monkeypatch, killed_at, checkpoints):
    """The process ends right after round `killed_at` was recorded; with and without a checkpoint to go on from."""
    folder = run_of(damaged, "scaffold")
    straight = {path: file_digest(path) for path in record.snapshots(folder).values()} | files(folder)
    shutil.rmtree(folder)
    config = resolve.config(damaged.project, checkpoint_seconds=checkpoints)
    job, told = damaged.job(SCENARIO, "scaffold"), Recorder.progress

    class Killed(BaseException):
        pass

    def kill(self, round, *rest):
        if round == killed_at:
            raise Killed
        told(self, round, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "progress", kill)
        with pytest.raises(Killed):
            training.run_job(job, [0], config)
    assert not record.Record(folder).finished
    training.run_job(job, [0], config)
    assert {path: file_digest(path) for path in record.snapshots(folder).values()} | files(folder) == straight


def test_trials_of_tuning_keep_no_models(trained):
    tuned = benchmark_of(
        trained.project, ("    snapshots: 3\n", "    snapshots: 3\n    tuning: {trials: 2, seeds: [100]}\n")
    )
    assert tuned.job(SCENARIO, "fedavg").snapshots == 3
    assert {job.snapshots for job in tuned.trials(SCENARIO, "fedavg")} == {0}
    benchmark_of(trained.project)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[calibration,",
            "[calibratoin,",
            "presets.mini.metrics: no group of metrics 'calibratoin'; did you mean 'calibration'",
        ),
        ("snapshots: 3", "snapshots: 1", "snapshots: must be 0, or at least 2"),
        ("snapshots: 3", "snapshots: -1", "snapshots: Input should be greater than or equal to 0"),
    ],
)
def test_mistakes_are_told_before_anything_runs(trained, old, new, message):
    with pytest.raises(ConfigurationError) as error:
        benchmark_of(trained.project, (old, new))
    assert "params/benchmarks/evaluated.yaml" in str(error.value)
    assert message in str(error.value)
    benchmark_of(trained.project)
