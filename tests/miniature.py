"""The smallest project that the whole pipeline runs on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SETTING = """
title: Miniature
presets:
  mini:
    seeds: 2
    scenarios:
      - {dataset: digits, model: softmax, partition: [dirichlet-0.1, iid], schedule: full}
    budget: {rounds: 15, local_epochs: 2, batch_size: 16}
    tuning: {trials: 2, seeds: [7]}
    algorithms: [scaffold, local-only]
"""


def miniature(root: Path) -> Path:
    """A project of its own: the repository's workflow and parameters, one small benchmark."""
    for name in ("workflow", "profiles", "params", ".dvc"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    for name in ("Snakefile", "dvc.yaml", "dvc.lock", ".gitignore"):
        shutil.copy(REPOSITORY / name, root / name)
    (root / "params/benchmarks/miniature.yaml").write_text(SETTING)
    (root / "params/config.yaml").write_text("preset: mini\nbenchmarks: [miniature]\ncheckpoint_seconds: 0\n")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HETEROBENCH", "MLFLOW"))}
    return clean | {"PATH": path}


def snakemake(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run snakemake in a project, from this Python's environment; its messages stand in `stdout`."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=root,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
