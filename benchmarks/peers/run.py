"""Seconds a round of heterobench and of other frameworks, each in its own environment, on the same jobs and machine.

Every contender runs as a process of its own through its adapter (`*_job.py`), with one thread a process and, where it
offers that, two processes; all of them train the same nets on the same data (`jobs.py`). Contenders take turns, so
that a ratio is taken between runs close in time. Start-up counts from the launch of Python to the end of the first
round, which is not timed; it holds the imports, the making of the data, and the starting of processes.

    python benchmarks/peers/run.py --environments FOLDER [--jobs lenet mlp] [--rounds 3] [--repeats 3]

The environments are made in FOLDER on first use, about 1.5 GB each. A contender that cannot be installed, or cannot do
the job, stays in the table with the reason. heterobench runs in the environment of the Python that runs this file.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"
# environment -> one list of pip's arguments for each call; BlazeFL says that it needs Python 3.12, and 2.0.3 is the
# last version that also works with 3.11 (3.0 needs 3.14)
ENVIRONMENTS = {
    "pfl": [[TORCH, "pfl==0.6.0"]],
    "flwr": [[TORCH, "flwr[simulation]==1.41.0"]],
    "blazefl": [[TORCH, "numpy==2.4.6", "tqdm==4.70.1"], ["--ignore-requires-python", "--no-deps", "blazefl==2.0.3"]],
    "fedlab": [[TORCH, "torchvision==0.28.0", "fedlab==1.3.0"]],
}


class Contender(NamedTuple):
    """An adapter in one of its modes; `environment` is empty for the Python that runs this file."""

    environment: str
    script: str
    mode: str = ""


OURS = "heterobench"
CONTENDERS = {
    OURS: Contender("", "heterobench_job.py"),
    "pfl, 2 processes": Contender("pfl", "pfl_job.py"),
    "flower, 2 actors": Contender("flwr", "flower_job.py"),
    "blazefl, 2 processes": Contender("blazefl", "blazefl_job.py", "processes"),
    "blazefl, 2 threads": Contender("blazefl", "blazefl_job.py", "threads"),
    "blazefl, serial": Contender("blazefl", "blazefl_job.py", "serial"),
    "fedlab, 2 processes": Contender("fedlab", "fedlab_job.py", "processes"),
    "fedlab, serial": Contender("fedlab", "fedlab_job.py", "serial"),
}


class Failed(Exception):
    """A contender that could not be installed or run; its text is the reason."""


def reason(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def environment(folder: Path, name: str) -> Path:
    """The Python of an environment, made on first use."""
    home, calls = folder / name, ENVIRONMENTS[name]
    python, made = home / "bin" / "python", home / "made.json"
    if made.exists() and json.loads(made.read_text()) == calls:
        return python
    print(f"making the environment {name} ...", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
    for arguments in calls:
        pip = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", *arguments]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"not installed: {reason(done.stderr)}")
    made.write_text(json.dumps(calls))
    return python


def run(python: Path, contender: Contender, job: str, rounds: int, limit: float) -> dict:
    """The report of one run."""
    arguments = [python, HERE / contender.script, job, str(rounds), f"--mode={contender.mode}"]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*arguments, f"--launched={time.time()}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Failed(f"not done after {limit:.0f} s") from None
    if process.returncode:
        raise Failed(f"failed: {reason(errors)}")
    return json.loads(output.splitlines()[-1])


def compare(pythons: dict[str, Path | Failed], job: str, options: argparse.Namespace) -> None:
    """Measure one job and print its table; a contender counts with the runs that it finished."""
    reports: dict[str, list[dict | Failed]] = {name: [] for name in options.contenders}
    for _ in range(options.repeats):
        for name, done in reports.items():
            try:
                if isinstance(pythons[name], Failed):
                    raise pythons[name]
                done.append(run(pythons[name], CONTENDERS[name], job, options.rounds, options.limit))
            except Failed as error:
                done.append(error)
    print(f"\n{job}: {options.repeats} runs of {options.rounds} rounds each")
    print(f"{'contender':22} {'start-up':>9} {'s a round':>10} {'ratio':>7}  lowest-highest  loss")
    versions = {}
    for name, done in reports.items():
        print(f"{name:22} " + row(done, reports.get(OURS, [])))
        versions |= {key: v for report in done if isinstance(report, dict) for key, v in report["versions"].items()}
    print("versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())), flush=True)


def row(done: list[dict | Failed], ours: list[dict | Failed]) -> str:
    """A contender's numbers: medians, and ratios to our run of the same turn."""
    good, failed = ([r for r in done if isinstance(r, kind)] for kind in (dict, Failed))
    if not good:
        return f"not run: {failed[0]}"
    seconds = statistics.median(statistics.median(report["seconds_per_round"]) for report in good)
    line = f"{statistics.median(report['start_up'] for report in good):9.1f} {seconds:10.3f}"
    turns = [(a, b) for a, b in zip(done, ours, strict=False) if isinstance(a, dict) and isinstance(b, dict)]
    if turns:
        ratios = [
            statistics.median(a["seconds_per_round"]) / statistics.median(b["seconds_per_round"]) for a, b in turns
        ]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        line += f" {statistics.median(ratios):7.2f}  {spread:14}"
    line += "  {:.4f} -> {:.4f}".format(*good[0]["loss"])
    return line + (f"  ({len(failed)} of {len(done)} runs failed: {failed[0]})" if failed else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", type=Path, required=True, help="folder of the peers' environments")
    parser.add_argument("--jobs", nargs="+", choices=["lenet", "mlp"], default=["lenet", "mlp"])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of one run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender, interleaved")
    parser.add_argument("--limit", type=float, default=180, help="seconds after which a run is given up")
    options = parser.parse_args()
    made: dict[str, Path | Failed] = {"": Path(sys.executable)}
    for name in dict.fromkeys(CONTENDERS[contender].environment for contender in options.contenders):
        if name not in made:
            try:
                made[name] = environment(options.environments.resolve(), name)
            except Failed as error:
                made[name] = error
    pythons = {name: made[CONTENDERS[name].environment] for name in options.contenders}
    for job in options.jobs:
        compare(pythons, job, options)


if __name__ == "__main__":
    main()
