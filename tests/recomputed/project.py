"""A small benchmark that was really run, for tests that compute its numbers again by themselves.

Two scenarios: digits, softmax regression, 25 clients of which some come, every round evaluated; and made-up credits
with two classes and two protected attributes, everybody comes, some rounds evaluated. Batches hold all of a client's
examples, so that local training is gradient descent, and has a closed form.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from heterobench import resolve, training
from heterobench.commands.single import draw_partitions
from heterobench.data.fetch import fetch
from heterobench.data.prepare import prepare
from heterobench.evaluation import write_evaluation
from heterobench.files import file_digest
from heterobench.project import Project
from heterobench.resolve import Benchmark

REPOSITORY = Path(__file__).parents[2]
GIVEN = "HETEROBENCH_TESTS_RECOMPUTED"  # environment variable: a project of `make`, to be copied instead of made anew
NAME, PRESET = "recomputed", "mini"
DIGITS, CREDITS = "digits.skewed.softmax.some", "credits.few.softmax.all"
SEEDS = (0, 1, 2)
LOST = (CREDITS, "wild", 0)  # a run whose record is removed before it is evaluated
RATE = {"fedavg": 0.5, "still": 1e-9, "wild": 8.0, "local-only": 0.5}  # step sizes of the arms
ROUNDS = {DIGITS: 10, CREDITS: 8}
EVALUATED = {DIGITS: tuple(range(1, 11)), CREDITS: (3, 6, 8)}
EPOCHS = 2
TARGET = {DIGITS: 0.85, CREDITS: 0.65}
SPEED, DOWN, UP, SERVER = 100.0, 1e4, 5e3, 0.25  # of the clock: examples, bytes and bytes per second; seconds
SHARE = 0.3  # of the clients that come in a round, on digits

TABLE = f"""
title: Recomputed
presets:
  mini:
    seeds: {list(SEEDS)}
    scenarios:
      - dataset: digits
        model: softmax
        partition: skewed
        schedule: some
        target: {TARGET[DIGITS]}
        budget: {{rounds: {ROUNDS[DIGITS]}}}
      - dataset: credits
        model: softmax
        partition: few
        schedule: all
        target: {TARGET[CREDITS]}
        budget: {{rounds: {ROUNDS[CREDITS]}, evaluate_every: 3}}
    budget: {{local_epochs: {EPOCHS}, batch_size: 100000}}
    metrics: [calibration, fairness]
    snapshots: 10
    algorithms:
      - {{algorithm: fedavg, hyperparameters: {{lr: {RATE["fedavg"]}}}}}
      - {{algorithm: fedavg, name: still, title: Still, hyperparameters: {{lr: {RATE["still"]}}}}}
      - {{algorithm: fedavg, name: wild, title: Wild, hyperparameters: {{lr: {RATE["wild"]}}}}}
      - {{algorithm: local-only, hyperparameters: {{lr: {RATE["local-only"]}}}}}
"""
CLOCK = f"""
clock:
  examples_per_second: {{median: {SPEED}}}
  downlink_bytes_per_second: {{median: {DOWN}}}
  uplink_bytes_per_second: {{median: {UP}}}
  server_seconds: {SERVER}
"""
FILES = {
    "benchmarks/recomputed.yaml": TABLE,
    "config.yaml": "preset: mini\nbenchmarks: [recomputed]\ndevice: cpu\n",
    "schedules/some.yaml": f"title: some\nparticipation: {SHARE}{CLOCK}",
    "schedules/all.yaml": f"title: everybody{CLOCK}",
    "partitions/skewed.yaml": (
        "title: skewed\nscheme: dirichlet-by-class\nclients: 25\noptions: {alpha: 0.3}\n"
        "minimum: 8\nvalidation: 0.1\ntest: 0.3\n"
    ),
    "partitions/few.yaml": (
        "title: few\nscheme: quantity-log-normal\nclients: 6\noptions: {sigma: 0.8}\n"
        "minimum: 20\nvalidation: 0.1\ntest: 0.4\n"
    ),
}


def credits_file(folder: Path) -> Path:
    """600 made-up credits in the format of the German Credit data, worse ones for the young and for long durations."""
    random = np.random.default_rng(11)
    codes = {1: 4, 3: 5, 4: 10, 6: 5, 7: 5, 9: 4, 10: 3, 12: 4, 14: 3, 15: 3, 17: 4, 19: 2, 20: 2}
    names = {3: "01234", 4: ("0", "1", "2", "3", "4", "5", "6", "8", "9", "10")}
    lines = []
    for _ in range(600):
        months, age = int(random.integers(4, 73)), int(random.integers(19, 45))
        cells = {2: months, 5: int(random.integers(250, 18000)), 8: int(random.integers(1, 5))}
        cells |= {
            11: int(random.integers(1, 5)),
            13: age,
            16: int(random.integers(1, 5)),
            18: int(random.integers(1, 3)),
        }
        for field, count in codes.items():
            code = int(random.integers(count))
            cells[field] = f"A{field}{names.get(field, '123456')[code]}"
        woman = cells[9] == "A92"
        risk = 0.05 * (months - 38) + 0.8 * (age <= 25) + 0.9 * woman + random.logistic()
        cells[21] = 2 if risk > 0.6 else 1
        lines.append(" ".join(str(cells[field]) for field in range(1, 22)))
    path = folder / "german.data"
    path.write_text("\n".join(lines) + "\n")
    return path


def credits_entry(file: Path) -> dict:
    """A data set's parameter file for `credits_file`."""
    yaml = YAML(typ="safe")
    entry = yaml.load(REPOSITORY / "params/datasets/german-credit.yaml")
    download = {"path": file.name, "sha256": file_digest(file), "bytes": file.stat().st_size}
    entry |= {
        "title": "Credits",
        "forms": [{"name": "made-up", "downloads": [download | {"sources": [{"mirror": file.name}]}]}],
    }
    del entry["samples"]
    return entry


def of(folder: Path) -> Benchmark:
    """The benchmark of a project that `make` has made."""
    return resolve.benchmark(Project(folder), NAME, PRESET)


def make(root: Path, monkeypatch) -> Benchmark:
    """The benchmark, trained in a project of its own."""
    project = Project(root / "project")
    shutil.copytree(REPOSITORY / "params", project.params)
    for path, text in FILES.items():
        (project.params / path).write_text(text)
    mirror = root / "mirror"
    mirror.mkdir()
    YAML().dump(credits_entry(credits_file(mirror)), project.params / "datasets/credits.yaml")
    monkeypatch.setenv("HETEROBENCH_MIRROR", str(mirror))
    for dataset, partition in (("digits", "skewed"), ("credits", "few")):
        fetch(project, dataset)
        prepare(project, dataset)
        draw_partitions(project, dataset, partition, SEEDS)
    benchmark = of(project.root)
    config = resolve.config(project)
    for job in benchmark.jobs():
        training.run_job(job, benchmark.seeds, config)
    shutil.rmtree(project.run(NAME, PRESET, *LOST))
    return benchmark


def evaluate(benchmark: Benchmark) -> None:
    for scenario in (DIGITS, CREDITS):
        write_evaluation(benchmark, scenario)
