"""Published numbers: what their entries must say, which of our scenarios they match, and the verdict."""

from __future__ import annotations

import csv
import io
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from heterobench import resolve
from heterobench.commands import listing
from heterobench.config.algorithm_file import Published, PublishedNumber
from heterobench.errors import ConfigurationError
from heterobench.keyed import generator
from heterobench.project import Project
from heterobench.report import latex, render
from heterobench.report.data import ReportData
from heterobench.report.sections import published as section

REPOSITORY = Project(Path(__file__).parents[2])
FILES = resolve.algorithm_files(REPOSITORY)
NUMBERS = [
    (name, entry, number) for name, file in FILES.items() for entry in file.published for number in entry.numbers
]

ENTRY = """
published:
  - setting: three rounds on digits
    source: somebody/somewhere, README.md
    evidence: third-party code
    model: mlp
    clients: 10
    schedule: full
    training: 1.0
    inputs: standardised
    augmentation: none
    budget: {rounds: 3, local_epochs: 2, batch_size: 16}
    hyperparameters: {lr: 0.1, momentum: 0.5}
    seeds: 3
    selection: last
    spread: standard deviation over seeds
    numbers:
      - {dataset: digits, partition: {scheme: dirichlet-by-class, options: {alpha: 0.5}}, value: 80.0, deviation: 1.5}
"""
PARTITION = """
title: Dirichlet, all examples for training
scheme: dirichlet-by-class
clients: 10
options: {alpha: 0.5}
minimum: 10
validation: 0
test: 0
"""
TABLE = """
title: A table
presets:
  small:
    seeds: 5
    scenarios: [{dataset: digits, model: mlp, partition: whole}]
    budget: {rounds: 3, local_epochs: 2, batch_size: 16}
    hyperparameters: {lr: 0.1, momentum: 0.5}
    algorithms: [fedavg]
"""
FEDAVG, BENCHMARK = "algorithms/fedavg.yaml", "benchmarks/table.yaml"


@pytest.fixture
def project(tmp_path):
    """The shipped parameter files; FedAvg has one published number, and one table has exactly its setting."""
    shutil.copytree(REPOSITORY.params, tmp_path / "params")
    path = tmp_path / "params" / FEDAVG
    path.write_text(path.read_text().split("\npublished:")[0] + ENTRY)
    (tmp_path / "params/partitions/whole.yaml").write_text(PARTITION)
    (tmp_path / "params" / BENCHMARK).write_text(TABLE)
    return Project(tmp_path)


def edit(project, file, old, new):
    path = project.params / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def table(project):
    return resolve.benchmark(project, "table", "small")


def refused(project) -> str:
    with pytest.raises(ConfigurationError) as error:
        table(project)
    return str(error.value)


def results(benchmark, accuracy=(0.80,), selection="last", tuning=None, arms=("fedavg",)):
    """What a report is made from, with these accuracies, one a seed, for each arm and scenario."""
    rows = [
        {"scenario": scenario.name, "arm": arm, "seed": seed, "selection": selection, "metric": "test_accuracy"}
        | {"value": value}
        for scenario in benchmark.scenarios
        for arm in arms
        for seed, value in enumerate(accuracy)
    ]
    return ReportData(benchmark, pd.DataFrame(rows), {}, pd.DataFrame(), {}, tuning or {})


def cells(data):
    """Column -> cell of the only row."""
    (made,) = section.tables(data)
    ((_, _, row),) = made.bodies
    return {column.key: cell for column, cell in zip(made.columns, row.cells, strict=True)}


def verdict(data) -> str:
    found = cells(data)
    return ": ".join(filter(None, (found["verdict"].text, found["because"].text)))


# entries ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "lr: 0.1, momentum",
            "lr: 0.1, momentun",
            ("numbers.0: hyperparameters", "'momentun'", "did you mean 'momentum'"),
        ),
        ("dataset: digits", "dataset: digit", ("numbers.0: dataset", "params/datasets/digit.yaml", "'digits'")),
        ("model: mlp", "model: mpl", ("published.0: model", "params/models/mpl.yaml", "'mlp'")),
        ("schedule: full", "schedule: ful", ("published.0: schedule", "params/schedules/ful.yaml", "'full'")),
        ("dirichlet-by-class,", "dirichlet,", ("numbers.0: partition: scheme", "'dirichlet'", "dirichlet-by-class")),
        ("alpha: 0.5", "beta: 0.5", ("numbers.0: partition: options", "'beta'", "alpha")),
        (
            "alpha: 0.5}",
            "alpha: 0.5}, changes: [{change: noise}]",
            ("partition: changes.0", "'noise'", "feature-noise"),
        ),
        ("deviation: 1.5", "deviation: 1.5, variant: fedadam", ("numbers.0: variant", "'fedadam'", "allowed: nothing")),
        ("selection: last", "selection: best", ("published.0.selection", "'oracle', 'last' or 'validation'", "'best'")),
        ("evidence: third-party code", "evidence: hearsay", ("published.0.evidence", "'official code'", "'hearsay'")),
        (
            "deviation: 1.5",
            "deviation: -1.5",
            ("published.0.numbers.0.deviation", "greater than or equal to 0", "-1.5"),
        ),
        ("deviation: 1.5", "deviaton: 1.5", ("published.0.numbers.0", "'deviaton'", "did you mean 'deviation'")),
        ("value: 80.0, ", "", ("published.0.numbers.0.value", "required")),
        ("rounds: 3", "rounds: 0", ("published.0.budget.rounds", "greater than or equal to 1", "0")),
    ],
)
def test_a_mistake_in_an_entry_names_file_key_and_value(project, old, new, words):
    edit(project, FEDAVG, old, new)
    found = refused(project)
    assert found.startswith("params/algorithms/fedavg.yaml: published")
    assert all(word in found for word in words), found


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("third-party code", "memory", ("numbers.0", "from memory is never a target", "target: false")),
        (", deviation: 1.5", "", ("numbers.0", "deviation above 0")),
        ("deviation: 1.5", "deviation: 0.0", ("numbers.0", "deviation above 0")),
        ("    spread: standard deviation over seeds\n", "", ("numbers.0", "standard deviation over seeds")),
        ("standard deviation over seeds", "half an interval", ("numbers.0", "standard deviation over seeds")),
        ("    seeds: 3\n", "", ("numbers.0", "seeds: a target needs")),
        ("    selection: last\n", "", ("numbers.0", "selection: a target needs")),
        ("    inputs: standardised\n", "", ("numbers.0", "inputs: a target needs")),
        ("    model: mlp\n", "", ("numbers.0", "model: a target needs", "lacking")),
        ("deviation: 1.5", "deviation: 1.5, target: false", ("numbers.0", "target: false needs a reason")),
        ("deviation: 1.5", "deviation: 1.5, reason: why not", ("numbers.0", "a reason needs target: false")),
    ],
)
def test_a_target_has_evidence_and_a_known_setting(project, old, new, words):
    edit(project, FEDAVG, old, new)
    found = refused(project)
    assert found.startswith("params/algorithms/fedavg.yaml: published.0")
    assert all(word in found for word in words), found


def test_what_is_no_target_may_leave_out_what_is_not_known(project):
    path = project.params / FEDAVG
    head = path.read_text().split("\npublished:")[0]
    path.write_text(
        f"{head}\npublished:\n  - {{setting: s, source: a talk, evidence: memory, target: false, reason: from memory,\n"
        "     numbers: [{dataset: digits, value: 81}]}\n"
    )
    (arm,) = table(project).arms
    assert arm.published[0].reason_of(arm.published[0].numbers[0]) == "from memory"


def test_a_number_of_its_own_reason_keeps_it(project):
    edit(project, FEDAVG, "    model: mlp", "    target: false\n    reason: of all\n    model: mlp")
    edit(project, FEDAVG, "deviation: 1.5", "deviation: 1.5, target: false, reason: its own")
    ((entry,),) = (arm.published for arm in table(project).arms)
    assert entry.reason_of(entry.numbers[0]) == "its own"


def test_a_variant_has_its_own_numbers_and_no_others():
    file = FILES["fedopt"]
    by_variant = {key: resolve.published_for(file, key) for key in (None, *file.variants)}
    assert by_variant[None] == by_variant["fedavgm"] == ()
    found = {key: [n.value for e in entries for n in e.numbers] for key, entries in by_variant.items()}
    assert found["fedadam"] == [98.46, 18.86]
    assert sum(map(len, found.values())) == sum(len(e.numbers) for e in file.published)


# what ships ---------------------------------------------------------------------------------------------------------


def test_no_number_from_memory_and_none_without_deviation_is_a_target():
    for name, entry, number in NUMBERS:
        if entry.reason_of(number):
            continue
        assert entry.evidence != "memory", name
        assert number.deviation > 0, name
        assert entry.spread == "standard deviation over seeds", name


def test_the_primary_target_is_complete():
    """Three data sets, five splits, four methods; one class per client and three suspected cells are no targets."""
    mine = [(n, e, x) for n, e, x in NUMBERS if e.source.startswith("flwrlabs/flower, baselines/niid_bench")]
    assert len(mine) == 60 == len({(n, x.dataset, str(x.partition)) for n, e, x in mine})
    skipped = {
        (n, x.dataset, x.partition.scheme, x.partition.options.get("classes_per_client"))
        for n, e, x in mine
        if e.reason_of(x)
    }
    one = {(n, d, "k-classes", 1) for n, _, _ in mine for d in ("mnist", "fashion-mnist", "cifar10")}
    suspected = {("scaffold", "fashion-mnist", "k-classes", 2), ("fednova", "mnist", "dirichlet-by-class", None)}
    assert skipped == one | suspected


def test_chance_is_never_a_target():
    """A method at the accuracy of guessing has failed or was broken: 10 classes, 10 %."""
    at_chance = [(entry, number) for _, entry, number in NUMBERS if number.value <= 11]
    assert at_chance
    assert all(entry.reason_of(number) for entry, number in at_chance)


def test_the_published_deviation_is_a_sample_deviation_over_three_seeds():
    """33.80 +- 41.22 with runs at chance (10, 10, x): only the n - 1 form over three runs gives both numbers."""
    ((entry, number),) = [(e, x) for n, e, x in NUMBERS if n == "scaffold" and x.deviation == 41.22]
    runs = [10.0, 10.0, 3 * number.value - 20.0]
    assert entry.seeds == len(runs)
    assert np.std(runs, ddof=1) == pytest.approx(number.deviation, abs=0.005)
    assert abs(np.std(runs, ddof=0) - number.deviation) > 5


# matching -----------------------------------------------------------------------------------------------------------


def test_equal_settings_match_without_a_difference(project):
    assert verdict(results(table(project))) == "reproduced"


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (BENCHMARK, "model: mlp", "model: softmax", "net softmax (mlp)"),
        (BENCHMARK, "partition: whole", "partition: whole, schedule: sample-10", "schedule sample-10 (full)"),
        (BENCHMARK, "rounds: 3", "rounds: 4", "rounds 4 (3)"),
        (BENCHMARK, "local_epochs: 2", "local_epochs: 1", "local epochs 1 (2)"),
        (BENCHMARK, "batch_size: 16", "batch_size: 32", "batch size 32 (16)"),
        (BENCHMARK, "momentum: 0.5", "momentum: 0.4", "momentum 0.4 (0.5)"),
        (BENCHMARK, "momentum: 0.5", "momentum: 0.5, server_lr: 0.3", "server_lr 0.3 (1)"),
        (FEDAVG, "momentum: 0.5", "momentum: [0.6, 0.7]", "momentum 0.5 (one of 0.6, 0.7)"),
        (FEDAVG, ", momentum: 0.5", "", "momentum 0.5 (0)"),
        (FEDAVG, "inputs: standardised", "inputs: unit interval", "inputs standardised (unit interval)"),
        (FEDAVG, "augmentation: none", "augmentation: crops and flips", "augmentation none (crops and flips)"),
        (
            FEDAVG,
            "deviation: 1.5",
            "deviation: 1.5, augmentation: crops and flips",
            "augmentation none (crops and flips)",
        ),
        (FEDAVG, "training: 1.0", "training: 0.8", "training share 1 (0.8)"),
        (
            "partitions/whole.yaml",
            "test: 0",
            "test: 0.1",
            "training share 0.9 (1)",
        ),
        (FEDAVG, "    model: mlp\n", "    lacking: [VGG-9]\n", "not offered here: VGG-9"),
        (FEDAVG, "deviation: 1.5", "deviation: 1.5, lacking: [random flips]", "not offered here: random flips"),
    ],
)
def test_a_setting_that_differs_is_named(project, file, old, new, words):
    edit(project, file, old, new)
    assert verdict(results(table(project))) == f"not comparable: {words}"


def test_a_net_that_sees_pixels_in_the_unit_interval_is_the_net_that_its_file_names(project):
    """Same architecture under another name: only what it sees counts, and that as the file says."""
    text = (project.params / "models" / "mlp.yaml").read_text()
    (project.params / "models" / "raw.yaml").write_text(f"{text}inputs: unit interval\n")
    edit(project, BENCHMARK, "model: mlp", "model: raw")
    assert verdict(results(table(project))) == "not comparable: inputs unit interval (standardised)"
    edit(project, FEDAVG, "inputs: standardised", "inputs: unit interval")
    assert verdict(results(table(project))) == "reproduced"
    edit(project, "models/raw.yaml", "hidden: [64]", "hidden: [32]")
    assert verdict(results(table(project))) == "not comparable: net raw (mlp)"


@pytest.mark.parametrize(("preset", "cells"), [("paper", 40), ("fashion", 12), ("gpu", 60)])
def test_the_published_table_is_run_in_its_own_setting(preset, cells):
    """Nothing stands between our cells and those of Flower's table."""
    benchmark = resolve.benchmark(REPOSITORY, "published-niid", preset)
    found = []
    for job in benchmark.jobs():
        seen = section.our_inputs(REPOSITORY, job.scenario)
        for entry, number in section.matching(job.scenario, job.arm):
            if "niid_bench" in entry.source:
                found.append(section.setting_differences(job, entry, number, seen, {}))
    assert found == [[]] * cells


def test_all_differences_are_named(project):
    edit(project, BENCHMARK, "rounds: 3", "rounds: 4")
    edit(project, BENCHMARK, "momentum: 0.5", "momentum: 0.4")
    assert verdict(results(table(project))) == "not comparable: rounds 4 (3); momentum 0.4 (0.5)"


def test_the_best_of_some_rounds_is_not_the_best_of_all(project):
    edit(project, FEDAVG, "selection: last", "selection: oracle")
    assert verdict(results(table(project), selection="oracle")) == "reproduced"
    edit(project, BENCHMARK, "batch_size: 16", "batch_size: 16, evaluate_every: 3")
    assert "rounds between evaluations 3 (1)" in verdict(results(table(project), selection="oracle"))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (FEDAVG, "dataset: digits", "dataset: mnist"),
        (FEDAVG, "dirichlet-by-class,", "dirichlet-by-class-uncapped,"),
        (FEDAVG, "alpha: 0.5", "alpha: 0.1"),
        (FEDAVG, "alpha: 0.5}", "alpha: 0.5}, changes: [{change: feature-noise, options: {sigma: 1}}]"),
        (FEDAVG, "clients: 10", "clients: 100"),
        (FEDAVG, ", partition: {scheme: dirichlet-by-class, options: {alpha: 0.5}}", ", lacking: [noise]"),
        (BENCHMARK, "algorithms: [fedavg]", "algorithms: [fedavgm]"),
    ],
)
def test_another_data_set_partition_or_algorithm_is_not_shown(project, file, old, new):
    edit(project, file, old, new)
    (made,) = section.tables(results(table(project), arms=[arm.name for arm in table(project).arms]))
    assert made.bodies == []
    assert "No published number" in made.empty


def test_partitions_are_compared_by_what_they_do(project):
    """Another name and title, another way to write the same options: the same procedure."""
    edit(project, FEDAVG, "{scheme: dirichlet-by-class, options: {alpha: 0.5}}", "{scheme: shards}")
    edit(project, "partitions/whole.yaml", "scheme: dirichlet-by-class", "scheme: shards")
    edit(project, "partitions/whole.yaml", "{alpha: 0.5}", "{shards_per_client: 2}")  # which is the default
    assert verdict(results(table(project))) == "reproduced"


def test_one_of_several_values_matches(project):
    edit(project, FEDAVG, "momentum: 0.5", "momentum: [0.4, 0.5]")
    assert verdict(results(table(project))) == "reproduced"


def test_a_tuned_table_says_which_values_were_tuned(project):
    edit(project, BENCHMARK, "    algorithms", "    tuning: {trials: 2, seeds: [7]}\n    algorithms")
    made = table(project)
    key = (made.scenarios[0].name, "fedavg")
    assert verdict(results(made)) == "not comparable: hyper-parameters: not tuned yet"
    tuned = verdict(results(made, tuning={key: {"hyperparameters": {"lr": 0.25}}}))
    assert tuned == "not comparable: tuned lr 0.25 (0.1)"
    assert verdict(results(made, tuning={key: {"hyperparameters": {}}})) == "reproduced"


# the verdict --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "word"), [(0.83, "reproduced"), (0.77, "reproduced"), (0.8301, "differs"), (0.7699, "differs")]
)
def test_two_published_deviations_are_the_boundary(project, ours, word):
    found = cells(results(table(project), [ours] * 5))
    assert found["verdict"].text == word
    assert found["tolerance"].value == 3.0
    assert found["difference"].value == pytest.approx(100 * ours - 80)


def test_our_spread_has_no_say_in_the_verdict_and_stands_beside_it(project):
    """Runs far apart around the same mean: the verdict stays, the standard error of the difference grows."""
    near, far = (cells(results(table(project), [0.84 - step, 0.84, 0.84, 0.84, 0.84 + step])) for step in (0.001, 0.1))
    assert near["verdict"].text == far["verdict"].text == "differs"
    assert near["error"].value < 4 < far["error"].value  # the interval of the means holds the difference, 4 points
    expected = 2 * math.sqrt(1.5**2 / 3 + np.var([74, 84, 84, 84, 94], ddof=1) / 5)
    assert far["error"].value == pytest.approx(expected)


def test_a_tolerance_of_its_own_replaces_the_rule(project):
    edit(project, FEDAVG, "deviation: 1.5", "deviation: 1.5, tolerance: 4")
    assert verdict(results(table(project), [0.84])) == "reproduced"
    assert verdict(results(table(project), [0.8401])) == "differs"


@pytest.mark.parametrize(
    ("reason", "differences", "ours", "words"),
    [
        ("from memory", ["rounds 4 (3)"], 80.0, "shown only: from memory"),
        ("", ["rounds 4 (3)"], math.nan, "not comparable: rounds 4 (3)"),
        ("", [], math.nan, "not run"),
        ("", [], 80.0, "reproduced"),
        ("", [], 90.0, "differs"),
    ],
)
def test_the_first_rule_that_applies_decides(reason, differences, ours, words):
    made = section.judge(reason, differences, ours, 80.0, 3.0)
    assert ": ".join(filter(None, made)) == words


@pytest.mark.parametrize("lost", [{0}, {1, 3}, {0, 1, 2, 3, 4}])
def test_the_mean_of_the_runs_that_did_not_diverge_reproduces_nothing(project, lost):
    data = results(table(project), [math.nan if seed in lost else 0.80 for seed in range(5)])
    name = data.benchmark.scenarios[0].name
    ledger = [
        {"scenario": name, "arm": "fedavg", "seed": seed, "dirty": False}
        | {"status": "diverged" if seed in lost else "finished"}
        for seed in range(5)
    ]
    runs = "1 run" if len(lost) == 1 else f"{len(lost)} runs"
    assert verdict(replace(data, ledger=pd.DataFrame(ledger))) == f"differs: {runs} of ours diverged"


def test_a_setting_of_ours_without_a_run_is_not_run(project):
    edit(project, BENCHMARK, "algorithms: [fedavg]", "algorithms: [fedavg, centralised]")
    data = results(table(project), arms=("centralised",))
    found = cells(data)
    assert found["verdict"].text == "not run"
    assert found["ours"].n_finite == 0
    assert not math.isfinite(found["ours"].value)


def test_means_are_over_the_runs_that_are_there(project):
    found = cells(results(table(project), [0.80, 0.82, math.nan]))
    assert found["verdict"].text == "reproduced"
    assert (found["ours"].value, found["ours"].runs) == (pytest.approx(81.0), "2/5")


def test_ours_is_chosen_as_theirs(project):
    edit(project, FEDAVG, "selection: last", "selection: oracle")
    assert verdict(results(table(project), selection="last")) == "not run"
    assert verdict(results(table(project), selection="oracle")) == "reproduced"


def test_most_honest_repetitions_pass():
    """As the module says: with three published runs and five of ours nearly 89 of 100 are called reproduced."""
    count = 40_000
    draws = generator(0, "test").normal(size=(count, 8))
    theirs, ours = draws[:, :3], draws[:, 3:].mean(1)
    entry = Published.model_construct(spread="standard deviation over seeds")
    words = [
        section.judge("", [], our, their, section.tolerance(entry, PublishedNumber.model_construct(deviation=s))).word
        for our, their, s in zip(ours, theirs.mean(1), theirs.std(1, ddof=1), strict=True)
    ]
    t = 2 / math.sqrt(1 / 3 + 1 / 5)
    expected = t / math.sqrt(2 + t**2)
    assert round(expected, 2) == 0.89
    error = math.sqrt(expected * (1 - expected) / count)
    assert words.count("reproduced") / count == pytest.approx(expected, abs=5 * error)


# the table ----------------------------------------------------------------------------------------------------------


def test_the_row_shows_both_sides(project):
    found = cells(results(table(project), [0.79, 0.80, 0.81, 0.80, 0.80]))
    expected = {"ours": 80.0, "theirs": 80.0, "difference": 0.0, "tolerance": 3.0}
    assert {key: found[key].value for key in expected} == pytest.approx(expected, abs=1e-9)
    assert found["ours"].half == pytest.approx(np.std([79, 80, 81, 80, 80], ddof=1))
    assert found["theirs"].half == 1.5
    assert (found["ours"].n, found["theirs"].n) == (5, 3)
    source = found["ours"].of[0]
    assert source == ("digits.whole.mlp.full", "fedavg", "last", "test_accuracy")


def test_each_entry_is_explained_once(project):
    edit(project, FEDAVG, "selection: last", "note: A note.\n    selection: last")
    edit(project, BENCHMARK, "partition: whole", "partition: [whole, dirichlet-0.5]")
    (made,) = section.tables(results(table(project)))
    assert [row.marks for _, _, row in made.bodies] == [("1",), ("1",)]
    assert len(made.footnotes) == 1
    assert all(
        word in made.footnotes[0][1] for word in ("three rounds on digits", "last round", "third-party code", "A note.")
    )


@pytest.mark.parametrize("form", [render.to_markdown, latex.to_latex, render.to_html, render.to_html_fragment])
def test_every_form_says_the_verdict(project, form):
    (made,) = section.tables(results(table(project), [0.84] * 5))
    text = form(made)
    assert "differs" in text
    assert "somebody/somewhere" in text
    assert "80.00" in text


def test_the_csv_holds_the_words(project):
    (made,) = section.tables(results(table(project), [0.84] * 5))
    rows = {row["column"]: row for row in csv.DictReader(io.StringIO(render.to_csv(made)))}
    assert float(rows["theirs"]["value"]) == 80.0
    assert "differs" in rows["verdict"].values()


@pytest.mark.parametrize("form", [render.to_csv, render.to_markdown, latex.to_latex, render.to_html_fragment])
def test_without_a_published_number_there_is_one_sentence(project, form):
    edit(project, BENCHMARK, "partition: whole", "partition: iid")
    (made,) = section.tables(results(table(project)))
    assert made.sections == ()
    assert made.notes == ()
    assert ("No published number" in form(made)) == (form is not render.to_csv)


def test_the_names_are_known_from_the_configuration(project):
    made = table(project)
    assert [t.name for t in section.tables(results(made))] == list(section.table_names(made))
    assert list(section.figures(results(made))) == list(section.figure_names(made))


def test_the_shipped_table_with_the_published_splits_shows_them_all():
    """Fashion-MNIST and CIFAR-10 of `label-skew`: four published splits, by four methods, from two sources."""
    made = resolve.benchmark(REPOSITORY, "label-skew", "paper")
    shown = {s.name: [(a.name, n.value) for a in made.arms for _, n in section.matching(s, a)] for s in made.scenarios}
    assert shown["fashion-mnist.dirichlet-0.5.lenet.full"] == [
        *(("fedavg", 88.09), ("fedprox", 88.15), ("scaffold", 88.44), ("fednova", 88.22))
    ]
    assert shown["cifar10.dirichlet-0.5.lenet.full"][:2] == [("fedavg", 62.47), ("fedavg", 68.2)]
    assert shown["cifar10.dirichlet-0.1.lenet.full"] == [
        ("fedavg", 84.0),
        ("fedprox", 84.4),
        ("scaffold", 85.5),
        ("fednova", 84.4),
    ]


def test_the_listing_has_every_number_with_its_evidence():
    header, rows = listing.KINDS["published"](REPOSITORY)
    assert len(rows) == len(NUMBERS)
    listed = [dict(zip(header, row, strict=True)) for row in rows]
    targets = [row for row in listed if row["use"] == "target"]
    assert len(targets) == sum(not entry.reason_of(number) for _, entry, number in NUMBERS)
    shown = {"algorithm": "fedavg", "dataset": "mnist", "partition": "dirichlet-by-class, alpha = 0.5"}
    shown |= {"accuracy (%)": "98.89 ± 0.07", "evidence": "third-party code"}
    assert any(shown.items() <= row.items() for row in targets)
