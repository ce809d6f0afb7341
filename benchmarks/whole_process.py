"""Whole processes, timed from outside with hyperfine (https://github.com/sharkdp/hyperfine, Debian package hyperfine).

Start-up is what a job costs before its first step: Python, torch, parameter files, data. Every training command runs in
a scratch project whose results are removed before each run; a round's cost is the difference of two commands that
differ in their number of rounds only.

    python benchmarks/whole_process.py [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ROUNDS = {"one": 1, "many": 101}
BENCHMARK = """
title: Whole processes
presets:
  mini:
    seeds: 1
    scenarios:
      - {{dataset: digits, model: mlp, partition: iid}}
    budget: {{rounds: {rounds}, local_epochs: 1, batch_size: 16, evaluate_every: {rounds}}}
    algorithms: [fedavg]
"""


def project(root: Path) -> None:
    """Prepared data, a drawn partition, and one benchmark for each number of rounds."""
    shutil.copytree(REPOSITORY / "params", root / "params")
    (root / "params/config.yaml").write_text("preset: mini\nbenchmarks: [one]\ndevice: cpu\n")
    for name, rounds in ROUNDS.items():
        (root / f"params/benchmarks/{name}.yaml").write_text(BENCHMARK.format(rounds=rounds))
    for command in (["-m", "heterobench.data.fetch", "digits"], ["-m", "heterobench.cli", "prepare", "digits"]):
        subprocess.run([sys.executable, *command], cwd=root, check=True, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "heterobench.cli", "partition", "digits", "iid"]
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="runs of each command, after one that warms up")
    options = parser.parse_args()
    if shutil.which("hyperfine") is None:
        raise SystemExit("hyperfine is not installed (Debian: apt install hyperfine)")
    job = f"{sys.executable} -m heterobench.cli train --scenario digits.iid.mlp.full --algorithm fedavg --benchmark"
    commands = {
        "python": f"{sys.executable} -c pass",
        "import torch": f"{sys.executable} -c 'import torch'",
        "heterobench list": f"{sys.executable} -m heterobench.cli list algorithms",
        "job of 1 round": f"{job} one",
        f"job of {ROUNDS['many']} rounds": f"{job} many",
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        project(root)
        call = ["hyperfine", "--style", "none", "--warmup", "1", "--runs", str(options.runs)]
        call += ["--prepare", "rm -rf results/one results/many", "--export-json", "times.json", *commands.values()]
        subprocess.run(call, cwd=root, check=True)
        results = json.loads((root / "times.json").read_text())["results"]
    medians = {}
    for name, result in zip(commands, results, strict=True):
        medians[name] = result["median"]
        print(f"{name:20} {result['median']:7.3f} s   {result['min']:7.3f} - {result['max']:.3f}")
    one, many = list(medians.values())[-2:]
    print(f"{'start-up of a job':20} {one - (each := (many - one) / (ROUNDS['many'] - 1)):7.3f} s")
    print(f"{'a round':20} {each:7.4f} s (10 clients, MLP on digits, batch 16)")


if __name__ == "__main__":
    main()
