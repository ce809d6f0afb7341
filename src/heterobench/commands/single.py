"""Single steps without Snakemake: draw partitions, do one run."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from heterobench import resolve
from heterobench.config.reading import check_name, load, parse_yaml
from heterobench.config.schema import ArmEntry, PartitionFile
from heterobench.config.strict import build
from heterobench.data.dataset import open_dataset
from heterobench.data.prepare import prepare
from heterobench.data.versioned import obtain
from heterobench.errors import ConfigurationError
from heterobench.partition.store import load_shown, make, read_manifest
from heterobench.project import Project


def draw_partitions(project: Project, dataset: str, partition: str, seeds: list[int]) -> list[Path]:
    """Draw and store a partition of a prepared data set for each seed; returns the manifests' paths."""
    file = load(project, "partitions", partition, PartitionFile)
    data = open_dataset(project, dataset, verify=True)
    inputs = data.train_x if data.kind != "tokens" else None  # numbers of symbols have no mean
    make(project, dataset, data.hash, data.train_y, len(data.classes), file, partition, seeds, data.train, inputs)
    return [project.partition_manifest(dataset, partition, seed) for seed in seeds]


def draw_pictures(project: Project, dataset: str, partitions: list[str], seed: int) -> list[Path]:
    """Draw stored partitions, as they were drawn for `seed`; returns the pictures' paths."""
    from heterobench.partition.picture import draw_picture

    check_name(project, "datasets", dataset, "command line")
    paths = []
    for name in partitions:
        title = load(project, "partitions", name, PartitionFile).title
        paths.append(project.partition_picture(dataset, name))
        shown = load_shown(project.root / read_manifest(project, dataset, name, seed)["file"])
        draw_picture(title=f"{title} ({dataset}, seed {seed})", path=paths[-1], **shown)
    return paths


def settings(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; values are read as YAML."""
    result = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {pair}: expected NAME=VALUE")
        result[name] = parse_yaml(value, f"--set {pair}")
    return result


def run_single(project: Project, options: argparse.Namespace) -> None:
    """One run from the command line's options, under results/single/; prints its record's last line and place."""
    arm = resolve.resolve_arm(
        resolve.algorithm_files(project),
        build(ArmEntry, {"algorithm": options.algorithm, "hyperparameters": settings(options.set)}, "command line"),
        "--algorithm",
    )
    budget = {name: getattr(options, name) for name in ("rounds", "local_epochs", "batch_size", "evaluate_every")}
    names = {name: getattr(options, name) for name in ("dataset", "partition", "model", "schedule")}
    scenario = resolve.scenario(project, names, budget, {}, None, "command line")
    job = resolve.Job(project, "single", "command-line", scenario, arm, "command line")
    job.check()  # a mistake is told before anything is computed

    if not (project.prepared(options.dataset) / "manifest.json").is_file():
        obtain(project, options.dataset)
        prepare(project, options.dataset)
    draw_partitions(project, options.dataset, options.partition, [options.seed])

    from heterobench.records.record import Record
    from heterobench.training import run_job

    run_job(job, [options.seed], resolve.config(project))
    folder = job.run_folder(options.seed)
    last, end = Record(folder).rounds[-1], Record(folder).end
    for name, value in last["metrics"].items():
        print(f"{name:22} {value:.6g}")
    if "diverged" in end:
        print(f"diverged in round {end['diverged']}: from there on its model is not finite, and has no scores")
    print(f"record of {last['round']} rounds: {folder.relative_to(project.root)}", flush=True)
    # in a process of its own: training never loads the tracker, and a dead one changes nothing here
    subprocess.run([sys.executable, "-m", "heterobench.cli", "track"], cwd=project.root, check=False)
