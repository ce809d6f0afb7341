"""Every data set that a mirror can hold: raw files, preparation, partition, a short FedAvg run, evaluation.

Needs the setting HETEROBENCH_MIRROR, a folder or URL prefix with the published files.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from heterobench import resolve
from heterobench.commands.single import draw_partitions
from heterobench.data.dataset import open_dataset
from heterobench.data.fetch import MIRROR, fetch
from heterobench.data.prepare import prepare
from heterobench.evaluation import evaluate_scenario
from heterobench.project import Project
from heterobench.training import run_job

REPOSITORY = Path(__file__).parents[2]

# data set -> model, partition
SETS = {
    "mnist": ("softmax", "dirichlet-0.5"),
    "fashion-mnist": ("softmax", "shards-2-clients-100"),
    "cifar10": ("softmax", "dirichlet-0.1"),
    "mnist-by-writer": ("softmax", "by-writer-40"),
    "digits-domains": ("softmax", "by-domain"),
    "usps": ("mlp", "iid"),
    "pneumoniamnist": ("softmax", "dirichlet-0.5"),
    "office-caltech10-surf": ("logistic", "by-domain"),
    "uci-har": ("cnn1d", "by-subject-10"),
    "fsdd": ("lenet", "by-speaker"),
    "tinyshakespeare": ("char-lstm-small", "by-role-20"),
    "adult": ("logistic", "by-workclass"),
    "compas": ("logistic", "by-race"),
    "german-credit": ("mlp-table", "by-sex"),
}
BENCHMARK = """
title: One real data set
presets:
  mini:
    seeds: 1
    scenarios:
      - {{dataset: {dataset}, model: {model}, partition: {partition}}}
    budget: {{rounds: 2, local_epochs: 1, batch_size: 32}}
    hyperparameters: {{lr: 0.05}}
    algorithms: [fedavg]
"""


@pytest.mark.slow
@pytest.mark.skipif(MIRROR not in os.environ, reason=f"{MIRROR} is not set: the published files are not at hand")
@pytest.mark.parametrize("name", SETS)
def test_from_published_files_to_scores(name, tmp_path):
    model, partition = SETS[name]
    project = Project(tmp_path)
    shutil.copytree(REPOSITORY / "params", project.params)
    text = BENCHMARK.format(dataset=name, model=model, partition=partition)
    (project.params / "benchmarks" / "one.yaml").write_text(text)
    (project.params / "config.yaml").write_text("benchmarks: [one]\ndevice: cpu\n")
    fetch(project, name)
    prepare(project, name)
    dataset = open_dataset(project, name, verify=True)

    draw_partitions(project, name, partition, [0])
    benchmark = resolve.benchmark(project, "one", "mini")
    (scenario,) = benchmark.scenarios
    run_job(benchmark.job(scenario.name, "fedavg"), [0], resolve.config(project))
    table, curves, ledger, outcomes = evaluate_scenario(benchmark, scenario.name)

    scores = table[table.selection == "last"].set_index("metric")["value"]
    assert 0 <= scores["test_accuracy"] <= 1
    assert list(zip(ledger.status, ledger.error, strict=True)) == [("finished", "")]
    assert [len(correct) for correct in outcomes.correct] == [len(dataset.test_y)]
    loss = curves[curves.metric == "train_loss"].sort_values("round")["value"].to_numpy()
    assert len(loss) == 2
    assert np.isfinite(loss).all()
    assert loss[1] < loss[0]  # two rounds of small steps on thousands of examples: it learns
    assert len(dataset.test_y) > 0
