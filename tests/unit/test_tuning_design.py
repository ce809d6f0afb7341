"""Designs of tuning: what each stage tries, and that more hyper-parameters are no worse luck."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from heterobench import keyed, resolve, search, training, tuning
from heterobench.config.algorithm_file import Range
from heterobench.errors import ConfigurationError
from heterobench.files import digest, read_json, write_json
from heterobench.project import Project
from heterobench.records import record

REPOSITORY = Path(__file__).parents[2]
LR = Range(low=0.01, high=0.5, scale="log")
TABLE = """
title: Tuned
presets:
  mini:
    seeds: 1
    scenarios:
      - {dataset: digits, model: softmax, partition: iid}
    budget: {rounds: 20, local_epochs: 1, batch_size: 32}
    hyperparameters: {lr: 0.1}
    tuning: {trials: 4, seeds: [100]}
    algorithms: [fedavg, fedprox, fedspeed, local-only]
"""
SCENARIO = "digits.iid.softmax.full"


# The settings


def test_the_first_stage_has_shared_values_alone_and_the_second_one_own_value_each():
    spaces = {"lr": LR, "a": [1, 2, 3, 4], "b": Range(low=0.0, high=1.0)}
    defaults = {"lr": 0.1, "a": 2, "b": 0.5}
    first = search.stage_one(spaces, ["lr"], defaults, 12)
    assert len(first) == 8
    assert first[0] == {}
    assert all(setting.keys() == {"lr"} for setting in first[1:])
    assert first == search.stage_one({"lr": LR}, ["lr"], {"lr": 0.1}, 12), "whatever else a method has"
    base = first[3]
    second = search.stage_two(spaces, ["lr"], defaults, base, 12, "")
    assert [sorted(setting) for setting in second] == [["a", "lr"], ["b", "lr"]] * 2
    assert all(setting["lr"] == base["lr"] for setting in second)
    assert all(setting.get("a") != 2 and setting.get("b") != 0.5 for setting in second)
    assert len({json.dumps(setting) for setting in second}) == 4


def test_values_of_an_own_hyperparameter_are_used_up_before_shared_ones_move():
    spaces, defaults = {"lr": LR, "flag": [True, False]}, {"lr": 0.1, "flag": True}
    second = search.stage_two(spaces, ["lr"], defaults, {"lr": 0.2}, 9, "")
    assert second[0] == {"lr": 0.2, "flag": False}
    assert all(setting.keys() == {"lr"} for setting in second[1:])
    assert len(second) == 3


@pytest.mark.parametrize("base", [0.01, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("trials", [4, 9])
def test_a_method_without_own_ones_stays_close_to_the_best(base, trials):
    """Within a tenth of the distance that the first stage's draws have on average, in logarithms, inside the range."""
    found = search.stage_two({"lr": LR}, ["lr"], {"lr": 0.1}, {"lr": base}, trials, "")
    draws = math.ceil(2 * trials / 3) - 1
    width = 0.1 * math.log(0.5 / 0.01) / draws
    assert len(found) == trials - draws - 1
    for setting in found:
        assert LR.low <= setting["lr"] <= LR.high
        assert abs(math.log(setting["lr"] / base)) < width + 0.01  # numbers of three digits


def test_no_setting_is_tried_twice_however_many_there_are():
    for base in ({}, {"lr": 0.1}, {"lr": 0.5}):
        first = search.stage_one({"lr": LR}, ["lr"], {"lr": 0.1}, 90)
        second = search.stage_two({"lr": LR}, ["lr"], {"lr": 0.1}, base, 90, "")
        assert len({setting.get("lr", 0.1) for setting in (*first, *second)}) == 90


@pytest.mark.parametrize("value", [0.01, 0.0321, 0.5])
def test_a_quantile_is_where_a_value_lies(value):
    assert search.at(LR, min(search.quantile(LR, value), 1 - 1e-12)) == pytest.approx(value, rel=5e-3)


def test_values_outside_of_a_range_lie_at_its_ends():
    assert (search.quantile(LR, 1e-9), search.quantile(LR, 7.0)) == (0.0, 1.0)


@pytest.mark.parametrize("spaces", [{}, {"lr": [0.1, 0.2]}, {"a": [1, 2]}])
def test_a_space_with_fewer_settings_than_trials_is_an_error(spaces):
    with pytest.raises(ConfigurationError, match=r"^here: 6 trials ask for a larger search space"):
        search.stage_two(spaces, ["lr"], {"lr": 0.1, "a": 1}, {}, 6, "here")


# Fairness


def simulation():
    spec = importlib.util.spec_from_file_location("tuning_designs", REPOSITORY / "benchmarks/tuning_designs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("knobs", [1, 3])
@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_useless_hyperparameters_cost_no_more_than_noise(knobs, noise):
    """The bound is the standard error of a table's own difference: five paired seeds, each run with this noise."""
    table = noise * math.sqrt(2 / 5)
    mean, error, worse, _ = simulation().summary("two-stage", 4, knobs, noise, 400)
    assert mean - 1.96 * error > -table
    # 2.5 % of tables say so by chance alone: one-sided binomial bound at one in a thousand, with as much again
    assert worse < 2 * (0.025 + 3.1 * math.sqrt(0.025 * 0.975 / 400))


def test_joint_draws_punish_hyperparameters():
    """What the design is there for: by the same rule and simulation."""
    mean, error, worse, _ = simulation().summary("random", 4, 3, 0.3, 400)
    assert mean + 3 * error < -0.3 * math.sqrt(2 / 5)
    assert worse > 0.025 + 3.1 * math.sqrt(0.025 * 0.975 / 400)


@pytest.fixture
def project(tmp_path):
    shutil.copytree(REPOSITORY / "params", tmp_path / "params")
    (tmp_path / "dvc.yaml").write_text((REPOSITORY / "dvc.yaml").read_text())
    (tmp_path / "params/config.yaml").write_text("benchmarks: [tuned]\n")
    (tmp_path / "params/benchmarks/tuned.yaml").write_text(TABLE)
    return Project(tmp_path)


def table(project, *edits):
    text = TABLE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    (project.params / "benchmarks/tuned.yaml").write_text(text)
    return resolve.benchmark(project, "tuned", "mini")


@pytest.fixture
def answers(monkeypatch):
    """Closed-form learning curves in place of training: the simulated surface is the truth that a test knows.

    FedProx has FedAvg's best step size, and a large mu harms; `surface` sets the optimum of each scenario.
    """
    surface = {"optimum": 0.1, "noise": 0.0, "key": 0, "ran": []}

    def accuracy(values):
        harm = max(0.0, math.log10(values.get("mu", 0.001) / 0.01))
        return 0.9 - 0.1 * math.log10(values["lr"] / surface["optimum"]) ** 2 - 0.1 * harm**2

    def run(job, seed, config, dataset, task, device, until=None):
        folder, values = job.run_folder(seed), job.hyperparameters.model_dump()
        rounds = job.scenario.budget.rounds
        run_id = digest(values)
        whole = folder / "end.json"
        if (
            whole.is_file()
            and read_json(whole)["status"] == "finished"
            and read_json(folder / "config.json")["run_id"] == run_id
        ):
            return
        surface["ran"].append((job.trial, until))
        last = rounds if until is None else until
        noise = surface["noise"] * float(keyed.generator(surface["key"], json.dumps(values)).normal())
        reached = accuracy(values)
        lines = [
            {"round": r, "metrics": {"validation_accuracy": (reached + noise) * r / rounds, "test_accuracy": reached}}
            for r in range(1, last + 1)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_json(folder / "config.json", {"run_id": run_id})
        whole.unlink(missing_ok=True)
        if last == rounds:
            record.seal(folder, "finished", rounds=rounds)

    monkeypatch.setattr(training, "run", run)
    monkeypatch.setattr(training, "workplace", lambda *_: contextlib.nullcontext((None, None, "cpu")))
    return surface | {"accuracy": accuracy, "surface": surface}


def tuned(benchmark, arm, **more):
    return read_json(tuning.tune(benchmark, SCENARIO, arm, resolve.config(benchmark.project), **more))


def test_fedprox_is_not_below_fedavg_by_more_than_noise(project, answers):
    """FedProx at its default is FedAvg here: over scenarios their mean difference is within the noise of a table."""
    benchmark, noise, found = table(project), 0.005, []
    surface = answers["surface"]
    surface["noise"] = noise
    for scenario in range(25):
        surface |= {"key": scenario, "optimum": 10 ** float(keyed.generator(scenario, "best").uniform(-2, -0.3))}
        reached = {}
        for arm in ("fedavg", "fedprox"):
            answer = tuned(benchmark, arm)
            reached[arm] = answer["trials"][answer["chosen"]]["test"]
            shutil.rmtree(project.results)
        found.append(reached["fedprox"] - reached["fedavg"])
    assert np.mean(found) > -noise * math.sqrt(2 / 5), f"{np.mean(found):+.4f}"


def test_every_shared_draw_is_tried_with_own_values_at_their_defaults(project, answers):
    """Else a method's step sizes are searched with the luck of its other values."""
    benchmark = table(project)
    neutral = {"fedavg": {}, "fedprox": {"mu": 0.01}, "fedspeed": {"alpha": 0.1, "rho": 0.1}, "local-only": {}}
    steps = {}
    for arm, own in neutral.items():
        trials = tuned(benchmark, arm)["trials"]
        at_defaults = [t["hyperparameters"] for t in trials if own.items() <= t["hyperparameters"].items()]
        steps[arm] = [values["lr"] for values in at_defaults][:3]
        assert len(trials) == 4, "as many for every method"
    assert all(len(values) == 3 and values == steps["fedavg"] for values in steps.values()), steps


def test_the_second_stage_is_around_the_best_of_the_first(project, answers):
    benchmark = table(project, ("trials: 4", "trials: 9"))
    answers["surface"]["optimum"] = 0.02
    answer = tuned(benchmark, "fedprox")
    trials = answer["trials"]
    assert [trial["stage"] for trial in trials] == [1] * 6 + [2] * 3
    first = [trial["hyperparameters"] for trial in trials[:6]]
    best = max(first, key=answers["accuracy"])
    assert {trial["hyperparameters"]["lr"] for trial in trials[6:]} == {best["lr"]}
    assert sorted(trial["hyperparameters"]["mu"] for trial in trials[6:]) == [0.001, 0.1, 1.0]
    every = [trial["hyperparameters"] for trial in trials]
    assert answer["chosen"] == max(range(9), key=lambda n: (answers["accuracy"](every[n]), -n))
    assert answer["design"] == "two-stage"


def test_a_row_with_its_own_step_size_spends_all_on_its_own_values(project, answers):
    trials = tuned(
        table(project, ("fedspeed", "{algorithm: diloco, hyperparameters: {lr: 0.001}}"), ("trials: 4", "trials: 3")),
        "diloco",
    )["trials"]
    assert [trial["stage"] for trial in trials] == [1, 2, 2]
    assert [trial["hyperparameters"].keys() for trial in trials] == [{"server_lr"}] * 3


def test_the_second_stage_is_compared_with_the_best_of_the_first_at_the_cut(project, answers):
    """The best half goes on: 3 of 6 in the first stage; of 3 and the best before them 2, itself among them."""
    cut = ("seeds: [100]}", "seeds: [100], early_stopping: {after: 0.25, keep: 0.5}}")
    benchmark = table(project, ("trials: 4", "trials: 9"), cut)
    answers["surface"]["optimum"] = 0.02
    answer = tuned(benchmark, "fedprox")
    status = [trial["status"] for trial in answer["trials"]]
    values = [trial["hyperparameters"] for trial in answer["trials"]]
    going = sorted(range(6), key=lambda n: (-answers["accuracy"](values[n]), n))[:3]
    later = sorted((going[0], 6, 7, 8), key=lambda n: (-answers["accuracy"](values[n]), n))[:2]
    assert going[0] in later, "an equal of the first stage is before the second"
    assert {n for n, each in enumerate(status) if each == "finished"} == {*going, *later}
    assert all(trial["rounds"] == (20 if trial["status"] == "finished" else 5) for trial in answer["trials"])


@pytest.mark.parametrize("rule", ["validation", "oracle"])
def test_the_second_stage_is_around_what_the_rule_of_the_table_chooses(project, answers, rule):
    """Validation scores say nothing here, so the two rules disagree."""
    answers["surface"] |= {"optimum": 0.02, "noise": 0.3, "key": 3}
    benchmark = table(project, ("trials: 4, seeds: [100]", f"trials: 9, seeds: [100], rule: {rule}"))
    trials = tuned(benchmark, "fedprox")["trials"]
    kinds = {kind: max(trials[:6], key=lambda trial: trial[kind])["trial"] for kind in ("validation", "test")}
    assert kinds["validation"] != kinds["test"]
    base = trials[kinds["validation" if rule == "validation" else "test"]]["hyperparameters"]
    assert {trial["hyperparameters"]["lr"] for trial in trials[6:]} == {base["lr"]}


def test_a_job_that_was_killed_says_the_same(project, answers, monkeypatch):
    """Killed early, in the middle and near the end of its trials, in each design."""
    pytest.importorskip("optuna")
    designs = [
        ("early_stopping: {after: 0.25, keep: 0.5}", "two-stage"),
        ("design: random", "random"),
        ("design: optuna", "optuna"),
        ("design: optuna, optuna: {pruner: successive-halving, after: 0.1}", "optuna"),
    ]
    answers["surface"] |= {"optimum": 0.03, "noise": 0.01}
    for text, design in designs:
        benchmark = table(project, ("trials: 4, seeds: [100]", f"trials: 8, seeds: [100], {text}"))
        straight = tuned(benchmark, "fedprox")
        assert straight["design"] == design
        calls = len(answers["surface"]["ran"])
        shutil.rmtree(project.results)
        real = training.run
        for stop in range(calls // 4, calls, calls // 3):
            left = [stop]

            def killed(*arguments, left=left, real=real):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return real(*arguments)

            monkeypatch.setattr(training, "run", killed)
            with contextlib.suppress(KeyboardInterrupt):
                tuned(benchmark, "fedprox")
            monkeypatch.setattr(training, "run", real)
            assert tuned(benchmark, "fedprox") == straight
            shutil.rmtree(project.results)
        answers["surface"]["ran"].clear()


# Optuna


OPTUNA = ("trials: 4, seeds: [100]", "trials: 12, seeds: [100], design: optuna, optuna: {pruner: none}")


def test_optuna_begins_with_the_first_stage_and_goes_on_with_tpe(project, answers):
    """The proposals are those of Optuna itself, asked and told by hand."""
    optuna = pytest.importorskip("optuna")
    benchmark = table(project, OPTUNA)
    answers["surface"]["optimum"] = 0.03
    trials = tuned(benchmark, "fedprox")["trials"]
    assert [trial["stage"] for trial in trials] == [1] * 8 + [2] * 4
    paired = [trial["hyperparameters"]["lr"] for trial in tuned(benchmark, "fedavg")["trials"][:8]]
    assert [trial["hyperparameters"] for trial in trials[:8]] == [{"lr": lr, "mu": 0.01} for lr in paired]
    seed = keyed.integer(0, f"optuna tuned {SCENARIO} fedprox", 100) % 2**32
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=8)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    spaces = {
        "lr": optuna.distributions.FloatDistribution(0.01, 0.5, log=True),
        "mu": optuna.distributions.CategoricalDistribution([0.001, 0.01, 0.1, 1.0]),
    }
    for number, trial in enumerate(trials):
        if number < 8:
            study.enqueue_trial(trial["hyperparameters"])
        asked = study.ask(spaces)
        assert asked.params["mu"] == trial["hyperparameters"]["mu"]
        assert asked.params["lr"] == pytest.approx(trial["hyperparameters"]["lr"], rel=5e-3)
        study.tell(asked, answers["accuracy"](trial["hyperparameters"]))


def test_the_median_pruner_ends_what_is_below_the_median(project, answers):
    """Here curves are lines, so a trial is below the median at every check exactly where it is at its end."""
    pytest.importorskip("optuna")
    text = OPTUNA[1].replace("pruner: none", "pruner: median, after: 0.2")
    answer = tuned(table(project, (OPTUNA[0], text)), "fedprox")
    accuracy = [answers["accuracy"](trial["hyperparameters"]) for trial in answer["trials"]]
    # the pruner compares with trials that reached the check: those that were ended there as well
    for number, trial in enumerate(answer["trials"]):
        below = number >= 8 and accuracy[number] < np.median(accuracy[:number])
        assert (trial["status"] == "stopped") == below, (number, accuracy)
        assert trial["rounds"] < 20 if below else trial["rounds"] == 20
    assert answer["trials"][answer["chosen"]]["status"] == "finished"
    assert "stopped" in {trial["status"] for trial in answer["trials"]}


def test_a_default_outside_of_the_space_is_a_trial_and_none_of_optunas_matter(project, answers):
    pytest.importorskip("optuna")
    trials = tuned(table(project, OPTUNA, ("{lr: 0.1}", "{lr: 0.9, mu: 0.05}")), "fedprox")["trials"]
    assert trials[0]["hyperparameters"] == {"lr": 0.9, "mu": 0.05}
    assert len(trials) == 12
    assert all(0.01 <= trial["hyperparameters"]["lr"] <= 0.5 for trial in trials[1:])
    assert all(trial["hyperparameters"]["mu"] in (0.001, 0.01, 0.1, 1.0) for trial in trials[8:])


def test_optuna_tries_nothing_twice_and_ends_where_nothing_is_left(project, answers):
    pytest.importorskip("optuna")
    """Four values, with as many trials, the last of them TPE's, and with more."""
    row = ("fedspeed", "{algorithm: fedprox, name: fixed, hyperparameters: {lr: 0.1}}")
    for trials in (4, 12):
        edit = (OPTUNA[0], OPTUNA[1].replace("trials: 12", f"trials: {trials}"))
        found = tuned(table(project, edit, row), "fixed")["trials"]
        assert sorted(trial["hyperparameters"]["mu"] for trial in found) == [0.001, 0.01, 0.1, 1.0]
        shutil.rmtree(project.results)


def test_optuna_is_imported_where_a_table_asks_for_it_alone():
    code = "import sys, heterobench.tuning, heterobench.resolve; print('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
