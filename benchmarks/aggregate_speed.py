"""How long, and with how much memory, the records of many runs become tables and curves.

    python benchmarks/aggregate_speed.py
    python benchmarks/aggregate_speed.py --rounds 200 --profile    # where the time goes

Writes the records of 1,000 runs (10 scenarios, 20 methods, 5 seeds), 100 rounds each, into a temporary project, made up
by a keyed generator and without models. One process then reads them, and makes the evaluation, the curves with their
intervals and the summary with its paired differences. The aim is 10 seconds and 1 GB for all of it, imports included.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
NAME = "made-up"
PARTITIONS = ["iid", "dirichlet-0.1", "dirichlet-0.5", "k-classes-2", "k-classes-3"]
MODELS, ARMS, SEEDS = ["mlp", "softmax"], 20, 5


def write_project(root: Path, rounds: int) -> int:
    """A project with a benchmark and the records of its runs; returns their number."""
    from heterobench import resolve
    from heterobench.project import Project

    shutil.copytree(REPOSITORY / "params", root / "params")
    (root / "params" / "config.yaml").write_text(f"benchmarks: [{NAME}]\ndevice: cpu\n")
    arms = [{"algorithm": "fedavg"}]
    arms += [
        {"algorithm": "fedprox", "name": f"fedprox-{n}", "hyperparameters": {"mu": 0.01 * n}} for n in range(1, ARMS)
    ]
    preset = {
        "seeds": SEEDS,
        "scenarios": [{"dataset": "digits", "model": MODELS, "partition": PARTITIONS}],
        "budget": {"rounds": rounds, "local_epochs": 1, "batch_size": 16},
        "target": 0.8,
        "algorithms": arms,
    }
    file = root / "params" / "benchmarks" / f"{NAME}.yaml"
    file.write_text(json.dumps({"title": "Made up", "presets": {"mini": preset}}))  # JSON is YAML
    benchmark = resolve.benchmark(Project(root), NAME, "mini")
    runs = [(job, seed) for job in benchmark.jobs() for seed in benchmark.seeds]
    for number, (job, seed) in enumerate(runs):
        write_record(job.run_folder(seed), number, rounds)
    return len(runs)


def write_record(folder: Path, number: int, rounds: int) -> None:
    """What `heterobench.records.recorder` leaves of a run, models aside."""
    import numpy as np

    from heterobench.files import write_json
    from heterobench.keyed import generator
    from heterobench.records import record

    at = np.arange(1, rounds + 1)
    random = generator(0, "made-up run", number)
    accuracy = np.clip(0.6 + 0.35 * random.random() - 0.6 * np.exp(-at / 8) + random.normal(0, 0.01, rounds), 0, 1)
    columns = {
        "test_accuracy": accuracy,
        "test_loss": 2.3 - 2 * accuracy,
        "validation_accuracy": np.clip(accuracy + random.normal(0, 0.01, rounds), 0, 1),
        "validation_loss": 2.3 - 2 * accuracy,
        "train_loss": 2.2 - 2 * accuracy,
        "bytes_up": 38_480.0 * at,
        "bytes_down": 38_480.0 * at,
        "gradient_examples": 1150.0 * at,
        "flops": 3.3e7 * at,
        "simulated_seconds": 1.5 * at,
    }
    seconds = np.cumsum(random.random(rounds))
    rows = [
        {"round": int(r), "metrics": {name: float(values[i]) for name, values in columns.items()}}
        for i, r in enumerate(at)
    ]
    clocks = [
        {
            "round": int(r),
            "seconds": float(seconds[i]),
            "evaluation": 0.1 * i,
            "time": 1.8e9,
            "joules": 30 * float(seconds[i]),
        }
        for i, r in enumerate(at)
    ]
    folder.mkdir(parents=True)
    text = "".join(record.line(row) for row in rows)
    (folder / record.ROUNDS).write_text(text)
    (folder / record.TIMING).write_text("".join(record.line(row) for row in clocks))
    write_json(folder / record.CONFIG, {"run_id": f"{number:016x}", "configuration": {"budget": {"rounds": rounds}}})
    write_json(folder / record.PROVENANCE, {"revision": "0" * 40, "dirty": False})
    best = int(at[np.argmax(columns["validation_accuracy"])])
    record.seal(folder, "finished", rounds=rounds, seconds=float(seconds[-1]), selected_round=best)


def aggregate(root: Path) -> dict[str, float]:
    """The measured work: seconds of its parts, and the sizes of what comes out."""
    began = time.perf_counter()
    import pandas as pd

    from heterobench import resolve
    from heterobench.longform import evaluate_records
    from heterobench.project import Project
    from heterobench.report.aggregate import aggregate
    from heterobench.report.curves import curves_of

    imported = time.perf_counter()
    benchmark = resolve.benchmark(Project(root), NAME, "mini")
    made = {scenario.name: evaluate_records(benchmark, scenario.name) for scenario in benchmark.scenarios}
    read = time.perf_counter()
    summary = aggregate(pd.concat([each.evaluation for each in made.values()], ignore_index=True), benchmark)
    summarised = time.perf_counter()
    curves = [found for each in made.values() for found in curves_of(each.curves).values()]
    drawn = time.perf_counter()
    assert len(curves) == len(benchmark.scenarios) * len(benchmark.arms)
    return {
        "imports": imported - began,
        "records to frames": read - imported,
        "summary": summarised - read,
        "curves": drawn - summarised,
        "values": sum(len(each.evaluation) for each in made.values()),
        "points": sum(len(each.curves) for each in made.values()),
        "rows of the summary": len(summary),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="of each of the 1,000 runs")
    parser.add_argument("--profile", action="store_true", help="print what takes the most time instead")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(aggregate(options.child)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "project"
        runs = write_project(root, options.rounds)
        if options.profile:
            with cProfile.Profile() as profile:
                aggregate(root)
            pstats.Stats(profile).sort_stats("cumulative").print_stats(40)
            return
        began = time.perf_counter()
        command = [sys.executable, __file__, "--child", str(root)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
        wall = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of that one child
    processor, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    for name, value in json.loads(result.stdout).items():
        print(f"{name:22}{value:12,.2f} s" if isinstance(value, float) else f"{name:22}{value:12,}")
    print(f"{runs:,} runs, {runs * options.rounds:,} round records: {wall:.2f} s, {peak:,.0f} MB")
    print(f"{processor:.2f} s of CPU: what a machine that does nothing else would need")


if __name__ == "__main__":
    main()
