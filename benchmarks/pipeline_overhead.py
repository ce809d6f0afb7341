"""What the pipeline costs beside training: seconds of workflow, start-up, reports and tracking for each run.

Runs the whole workflow (default: the mini preset of params/config.yaml) in a fresh copy of this checkout, on one
core, and subtracts the seconds that the records say were spent in training (local steps, aggregation, and the
evaluations between rounds).

    python benchmarks/pipeline_overhead.py [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from heterobench.records.record import END, Record

ROOT = Path(__file__).parents[1]


def copy(target: Path) -> None:
    """The files that git tracks or would track, as they are in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)


def measure(folder: Path) -> None:
    """Run the workflow in `folder` on one core and print the sums."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all"], cwd=folder, check=True)
    wall = time.perf_counter() - began
    last = [Record(end.parent).timing[-1] for end in folder.glob(f"results/*/*/runs/*/*/seed-*/{END}")]
    training, evaluation = (sum(row[key] for row in last) for key in ("seconds", "evaluation"))
    overhead = wall - training - evaluation
    print(f"runs                      {len(last):8d}")
    print(f"wall time of the workflow {wall:8.1f} s")
    print(f"training                  {training:8.1f} s")
    print(f"evaluation between rounds {evaluation:8.1f} s")
    print(f"overhead                  {overhead:8.1f} s = {overhead / len(last):.2f} s a run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="use this (new) folder and keep it")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True)
        copy(options.keep)
        measure(options.keep)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy(Path(folder))
        measure(Path(folder))


if __name__ == "__main__":
    main()
