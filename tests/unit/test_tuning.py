"""The tuning protocol: trials known beforehand and equal for all, a named rule, nothing chosen by the test set."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heterobench import resolve, search, tuning
from heterobench.commands.single import draw_partitions
from heterobench.config.algorithm_file import Range
from heterobench.config.schema import EarlyStopping, Tuning
from heterobench.data.prepare import prepare
from heterobench.data.versioned import obtain
from heterobench.errors import ConfigurationError, RunError
from heterobench.files import file_digest, read_json
from heterobench.project import Project
from heterobench.records.record import Record, seal
from heterobench.report.data import read_tuning
from heterobench.training import run_job
from heterobench.tuning import Score

REPOSITORY = Path(__file__).parents[2]
TABLE = """
title: Tuned
presets:
  mini:
    seeds: 1
    scenarios:
      - {dataset: digits, model: softmax, partition: iid}
    budget: {rounds: 6, local_epochs: 1, batch_size: 32}
    tuning: {trials: 3, seeds: [100, 101]}
    algorithms: [fedavg, fedprox, local-only]
"""
SCENARIO = "digits.iid.softmax.full"
LR = Range(low=0.01, high=1.0, scale="log")


# The trials


def test_a_range_is_uniform_on_its_scale():
    assert search.at(LR, 0.5) == 0.1
    assert search.at(LR, 0.0) == 0.01
    assert search.at(Range(low=1, high=3), 0.25) == 1.5
    assert search.at(Range(low=0.123456, high=0.2), 0.0) == 0.123456, "rounding does not leave the range"
    assert [search.at(["a", "b"], u) for u in (0.0, 0.49, 0.5, 0.99)] == ["a", "a", "b", "b"]


@pytest.mark.parametrize("draws", [1, 2, 7, 50])
def test_quantiles_are_a_latin_hypercube(draws):
    values = search.quantiles("lr", draws)
    assert sorted(int(u * draws) for u in values) == list(range(draws))
    assert values == search.quantiles("lr", draws)
    if draws > 2:
        assert values != search.quantiles("mu", draws)


def test_the_first_trial_is_the_defaults_and_the_others_differ():
    found = search.settings({"lr": LR, "mu": [0.1, 1.0]}, {"lr": 0.1, "mu": 0.1, "x": 3}, 6, "here")
    assert found[0] == {}
    assert len({json.dumps(setting) for setting in found}) == 6
    assert all(setting.keys() == {"lr", "mu"} for setting in found[1:])


def test_two_methods_try_the_same_step_sizes():
    one = search.settings({"lr": LR}, {"lr": 0.1}, 5, "")
    other = search.settings({"mu": [0.1, 1.0, 10.0], "lr": LR}, {"lr": 0.3, "mu": 1.0}, 5, "")
    assert [s["lr"] for s in one[1:]] == [s["lr"] for s in other[1:]]


def test_a_small_space_is_used_up_without_repetition():
    found = search.settings({"mu": [1, 2, 3, 4]}, {"mu": 1}, 4, "")
    assert sorted(setting["mu"] for setting in found[1:]) == [2, 3, 4]


@pytest.mark.parametrize(("space", "why"), [({"mu": [1, 2]}, "only 2 different"), ({}, "there is none")])
def test_a_space_that_is_too_small_is_an_error(space, why):
    with pytest.raises(ConfigurationError, match=why) as error:
        search.settings(space, {"mu": 1}, 3, "params/algorithms/x.yaml")
    assert str(error.value).startswith("params/algorithms/x.yaml: 3 trials")


# The rules


def rows(*values):
    names = ("validation_accuracy", "validation_loss", "test_accuracy")
    return [{"round": n + 1, "metrics": dict(zip(names, v, strict=True))} for n, v in enumerate(values)]


def test_a_run_counts_with_its_best_round_on_validation_data():
    curve = rows((0.5, 2.0, 0.9), (0.7, 1.5, 0.1), (0.7, 1.0, 0.2), (0.6, 0.5, 0.99))
    assert tuning.at_best_round(curve) == Score(0.7, 1.5)
    assert tuning.at_best_round(curve, until=1) == Score(0.5, 2.0)
    assert math.isnan(tuning.at_best_round(rows((math.nan, math.nan, 0.9))).value)


def test_equal_accuracy_is_decided_by_loss_then_by_number_and_failures_are_last():
    scores = [Score(math.nan), Score(0.9, 0.5), Score(0.9, 0.4), Score(0.9, 0.4), Score(0.8, 0.1)]
    assert tuning.best(scores, range(5)) == 2
    assert tuning.survivors(scores, 0.4) == [2, 3]
    assert tuning.survivors(scores, 0.41) == [1, 2, 3]
    with pytest.raises(RunError, match="no trial has a score"):
        tuning.best([Score(math.nan)], [0])


def test_early_stopping_cuts_inside_the_run_or_not_at_all():
    stopping = Tuning(trials=4, seeds=[1], early_stopping=EarlyStopping(after=0.3, keep=0.5))
    assert tuning.cut(stopping, 10) == 3
    assert tuning.cut(stopping, 2) == 1
    assert tuning.cut(stopping, 1) is None
    assert tuning.cut(Tuning(trials=4, seeds=[1]), 10) is None


# In a project


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tuned")
    shutil.copytree(REPOSITORY / "params", root / "params")
    for name in ("dvc.yaml", "dvc.lock"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    os.system(f"git init --quiet {root}")
    (root / "params/benchmarks/tuned.yaml").write_text(TABLE)
    (root / "params/config.yaml").write_text("benchmarks: [tuned]\n")
    project = Project(root)
    obtain(project, "digits")
    prepare(project, "digits")
    draw_partitions(project, "digits", "iid", [0, 100, 101])
    return project


@pytest.fixture
def project(prepared):
    yield prepared
    (prepared.params / "benchmarks/tuned.yaml").write_text(TABLE)
    shutil.rmtree(prepared.results / "tuned", ignore_errors=True)


def table(project, *edits):
    text = TABLE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    (project.params / "benchmarks/tuned.yaml").write_text(text)
    return resolve.benchmark(project, "tuned", "mini")


def tuned(benchmark, arm="fedavg"):
    return read_json(tuning.tune(benchmark, SCENARIO, arm, resolve.config(benchmark.project)))


def test_all_methods_have_the_same_number_of_trials_before_anything_runs(project):
    benchmark = table(project)
    trials = {arm.name: benchmark.trials(SCENARIO, arm.name) for arm in benchmark.arms}
    assert {len(jobs) for jobs in trials.values()} == {3}
    steps = {name: [job.hyperparameters.lr for job in jobs[:2]] for name, jobs in trials.items()}
    assert steps["fedavg"] == steps["fedprox"] == steps["local-only"]
    assert benchmark.all_seeds == (0, 100, 101)


def test_what_a_row_sets_is_not_searched(project):
    row = "[{algorithm: fedprox, hyperparameters: {mu: 0.5}}]"
    jobs = table(project, ("[fedavg, fedprox, local-only]", row)).trials(SCENARIO, "fedprox")
    assert {job.hyperparameters.mu for job in jobs} == {0.5}
    assert len({job.hyperparameters.lr for job in jobs}) == 3


def test_the_chosen_trial_has_the_best_validation_accuracy_and_the_table_runs_with_it(project):
    benchmark = table(project)
    answer = tuned(benchmark)
    scores = []
    for number, job in enumerate(benchmark.trials(SCENARIO, "fedavg")):
        records = [Record(job.run_folder(seed)) for seed in (100, 101)]
        assert all(record.finished and record.config["trial"] == number for record in records)
        best = [max(row["metrics"]["validation_accuracy"] for row in record.rounds) for record in records]
        scores.append(np.mean(best))
        assert answer["trials"][number]["score"] == pytest.approx(scores[-1], abs=1e-15)
        last = np.mean([record.rounds[-1]["metrics"]["test_accuracy"] for record in records])
        assert answer["trials"][number]["test"] == pytest.approx(last, abs=1e-15)
    assert scores[answer["chosen"]] == max(scores)
    job = tuning.final_job(benchmark, SCENARIO, "fedavg")
    assert job.trial is None
    assert job.hyperparameters.lr == answer["trials"][answer["chosen"]]["hyperparameters"]["lr"]
    run_job(job, [0], resolve.config(project))
    used = Record(job.run_folder(0)).config["configuration"]["algorithm"]["hyperparameters"]
    assert used["lr"] == job.hyperparameters.lr


def test_a_trial_that_is_best_on_the_test_set_alone_is_chosen_by_the_oracle_alone(project):
    """Invariant 6 of the significance card: the test set has no say in a legitimate choice."""
    answers = {}
    for rule in ("validation", "oracle"):
        benchmark = table(project, ("seeds: [100, 101]}", f"seeds: [100, 101], design: random, rule: {rule}}}"))
        tuned(benchmark)  # trains
        for number, job in enumerate(benchmark.trials(SCENARIO, "fedavg")):
            for seed in (100, 101):
                file = job.run_folder(seed) / "rounds.jsonl"
                lines = [json.loads(line) for line in file.read_text().splitlines()]
                for line in lines:
                    line["metrics"] |= {"validation_accuracy": 0.5 + 0.1 * (number == 1), "test_accuracy": 0.4}
                    line["metrics"]["test_accuracy"] += 0.5 * (number == 2)
                file.write_text("".join(json.dumps(line) + "\n" for line in lines))
                end = Record(file.parent).end
                about = {key: end[key] for key in ("rounds", "seconds", "selected_round")}
                seal(file.parent, end["status"], **about)  # a run that had these values from the beginning
        answers[rule] = tuned(benchmark)
    assert (answers["validation"]["chosen"], answers["validation"]["oracle"]) == (1, 2)
    for answer in answers.values():  # what the table runs with: no trial but the first runs with the defaults
        assert answer["hyperparameters"] == answer["trials"][answer["chosen"]]["hyperparameters"] != {}
    assert (answers["oracle"]["chosen"], answers["oracle"]["rule"]) == (2, "oracle")


def test_stopped_trials_end_early_and_the_others_have_the_bits_of_a_whole_run(project):
    whole = table(project)
    tuned(whole)
    bits = {
        n: (job.run_folder(100) / "rounds.jsonl").read_bytes() for n, job in enumerate(whole.trials(SCENARIO, "fedavg"))
    }
    shutil.rmtree(project.results / "tuned")
    halved = table(project, ("seeds: [100, 101]}", "seeds: [100, 101], early_stopping: {after: 0.5, keep: 0.4}}"))
    answer = tuned(halved)
    status = [trial["status"] for trial in answer["trials"]]
    assert sorted(status) == ["finished", "finished", "stopped"]
    for number, job in enumerate(halved.trials(SCENARIO, "fedavg")):
        found = (job.run_folder(100) / "rounds.jsonl").read_bytes()
        if status[number] == "stopped":
            assert bits[number].startswith(found)
            assert answer["trials"][number]["rounds"] == 3 == len(Record(job.run_folder(100)).rounds)
            assert number != answer["chosen"]
        else:
            assert found == bits[number]
    before = {path: path.stat().st_mtime_ns for path in project.results.rglob("*.safetensors")}
    assert tuned(halved) == answer, "a second time it says the same"
    models = [path for path in before if "checkpoints" not in path.parts]
    assert models
    assert all(path.stat().st_mtime_ns == before[path] for path in models), "and trains no finished run again"


def digests(project):
    """Of what tuning leaves, by place; without what has times in it."""
    folder = project.results / "tuned/mini/tuning"
    names = ("chosen.json", "config.json", "rounds.jsonl", "final.safetensors")
    files = [path for name in names for path in folder.rglob(name)]
    return {str(path.relative_to(folder)): file_digest(path) for path in files}


@pytest.mark.slow  # minutes
@pytest.mark.parametrize(
    "design",
    [
        "design: two-stage, early_stopping: {after: 0.34, keep: 0.5}",
        "design: optuna, optuna: {pruner: median, after: 0.1}",
        "design: optuna, optuna: {pruner: successive-halving, after: 0.1}",
    ],
)
def test_a_tuning_job_goes_on_after_sigkill_with_the_same_bits(project, design):
    """Killed again and again, a little later each time, until it is through."""
    text = TABLE.replace("trials: 3, seeds: [100, 101]", f"trials: 7, seeds: [100, 101], {design}")
    (project.params / "benchmarks/tuned.yaml").write_text(text)
    command = [sys.executable, "-m", "heterobench.cli", "tune", "--benchmark", "tuned", "--preset", "mini"]
    command += ["--scenario", SCENARIO, "--algorithm", "fedprox"]
    subprocess.run(command, cwd=project.root, check=True, capture_output=True)
    straight = digests(project)
    shutil.rmtree(project.results / "tuned")
    kills = 0
    for more in itertools.count(1):
        before = len(list(project.results.glob("tuned/mini/tuning/**/rounds.jsonl")))
        process = subprocess.Popen(command, cwd=project.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if len(list(project.results.glob("tuned/mini/tuning/**/rounds.jsonl"))) >= before + 3 * more:
                process.kill()
                kills += process.wait() == -signal.SIGKILL
            time.sleep(0.01)
        if process.returncode == 0:
            break
    assert kills > 0
    assert digests(project) == straight


def test_personal_models_have_a_test_score_too(project):
    answer = tuned(table(project), "local-only")
    assert all(0 < trial["test"] < 1 for trial in answer["trials"])


def test_a_trial_that_fails_is_told_of_and_not_chosen(project, monkeypatch):
    from heterobench import training

    benchmark = table(project)
    real = training.run

    def run(job, *arguments):
        if job.trial == 0:
            raise RunError("the disk is full")
        return real(job, *arguments)

    monkeypatch.setattr(training, "run", run)
    answer = tuned(benchmark)
    assert answer["trials"][0]["status"] == "failed"
    assert answer["trials"][0]["error"] == "RunError: the disk is full"
    assert answer["chosen"] != 0
    monkeypatch.setattr(training, "run", lambda *_: (_ for _ in ()).throw(RunError("no")))
    with pytest.raises(RunError, match=r"^fedavg on .*: no trial has a score: .*; trial 0: RunError: no$"):
        tuned(benchmark)


def test_a_choice_made_under_other_parameters_is_refused(project):
    benchmark = table(project)
    with pytest.raises(RunError, match=r"chosen\.json: no such file; .* heterobench tune"):
        tuning.final_job(benchmark, SCENARIO, "fedavg")
    tuned(benchmark)
    tuning.final_job(benchmark, SCENARIO, "fedavg")
    other = replace(benchmark, tuning=Tuning(trials=2, seeds=[100]))
    with pytest.raises(RunError, match="other parameters"):
        tuning.final_job(other, SCENARIO, "fedavg")


def test_an_altered_choice_is_refused_and_made_again_from_its_trials(project):
    benchmark = table(project, ("trials: 3", "trials: 2"), ("seeds: [100, 101]}", "seeds: [100]}"))
    tuned(benchmark)
    path = tuning.chosen_file(benchmark, SCENARIO, "fedavg")
    before, answer = path.read_bytes(), json.loads(path.read_text())
    times = {file: file.stat().st_mtime_ns for file in path.parent.rglob("rounds.jsonl")}
    answer["hyperparameters"] = {"lr": 0.123456}
    path.write_text(json.dumps(answer))
    with pytest.raises(RunError, match=r"chosen\.json: altered: expected content of sha256 .* heterobench tune"):
        tuning.final_job(benchmark, SCENARIO, "fedavg")
    with pytest.raises(RunError, match=r"chosen\.json: altered: expected content of sha256 .* heterobench tune"):
        read_tuning(benchmark)
    tuned(benchmark)
    assert path.read_bytes() == before
    assert {file: file.stat().st_mtime_ns for file in path.parent.rglob("rounds.jsonl")} == times


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (("trials: 3", "trials: 0"), ("tuning.trials", "greater than or equal to 1", "0")),
        (("trials: 3", "tries: 3"), ("unknown key 'tries'; did you mean 'trials'?",)),
        (("seeds: [100, 101]}", "seeds: [100, 100]}"), ("seeds: none of them twice",)),
        (("101]}", "101], rule: test}"), ("tuning.rule", "'validation' or 'oracle'", "'test'")),
        (
            ("101]}", "101], rule: oracle, early_stopping: {after: 0.5, keep: 0.5}}"),
            ("early_stopping: not with rule: oracle",),
        ),
        (("101]}", "101], early_stopping: {after: 1.0, keep: 0.5}}"), ("early_stopping.after", "less than 1")),
        (("101]}", "101], design: grid}"), ("tuning.design", "'two-stage', 'random' or 'optuna'", "'grid'")),
        (("101]}", "101], shared: [rl]}"), ("tuning.shared", "no algorithm here searches 'rl'; did you mean 'lr'?")),
        (("101]}", "101], shared: [lr, lr]}"), ("shared: none of them twice",)),
        (("101]}", "101], design: random, shared: [lr]}"), ("shared: not with design: random",)),
        (("101]}", "101], optuna: {pruner: none}}"), ("optuna: allowed with design: optuna alone", "two-stage")),
        (("101]}", "101], design: optuna, optuna: {pruner: best}}"), ("tuning.optuna.pruner", "'median'", "'best'")),
        (("101]}", "101], design: optuna, early_stopping: {after: 0.5, keep: 0.5}}"), ("early_stopping: not with",)),
        (("101]}", "101], design: optuna, rule: oracle}"), ("optuna.pruner: with rule: oracle", "must be none")),
    ],
)
def test_mistakes_are_named(project, edit, parts):
    with pytest.raises(ConfigurationError) as error:
        table(project, edit)
    assert str(error.value).startswith("params/benchmarks/tuned.yaml")
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("search_space", "part"),
    [
        ("{lr: {low: 1, high: 0.1}}", "low must be less than high (found 1 and 0.1)"),
        ("{lr: {low: 0, high: 0.1, scale: log}}", "low must be above 0"),
        ("{lr: {low: -1, high: 0.1}}", "lr: Input should be greater than 0 (found -1.0)"),
        ("{lr: []}", "at least 1 item"),
        ("{momentum: [0.5, 1.5]}", "momentum: Input should be less than 1 (found 1.5)"),
        ("{rl: [0.5]}", "unknown hyper-parameter 'rl'; did you mean 'lr'?"),
    ],
)
def test_a_wrong_search_space_is_named(project, search_space, part):
    file = project.params / "algorithms/fedavg.yaml"
    before = file.read_text()
    file.write_text(f"title: FedAvg\nreference: x\nsearch: {search_space}\n")
    try:
        with pytest.raises(ConfigurationError) as error:
            table(project)
    finally:
        file.write_text(before)
    assert "params/algorithms/fedavg.yaml: search" in str(error.value)
    assert part in str(error.value)
