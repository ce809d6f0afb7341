"""Where things are. One object names every path of the project, so that no other module spells one out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from heterobench.errors import ConfigurationError


@dataclass(frozen=True)
class Project:
    """A folder that holds ``params/config.yaml``: a clone of the repository, or a miniature of it in a test."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The project around `start` (default: ``HETEROBENCH_ROOT``, else the working directory)."""
        start = Path(start or os.environ.get("HETEROBENCH_ROOT") or Path.cwd()).resolve()
        for folder in (start, *start.parents):
            if (folder / "params" / "config.yaml").is_file():
                return cls(folder)
        raise ConfigurationError(
            f"no params/config.yaml in {start} or above it: run this inside a clone of heterobench, "
            "or name one with HETEROBENCH_ROOT"
        )

    @property
    def params(self) -> Path:
        return self.root / "params"

    @property
    def results(self) -> Path:
        return self.root / "results"

    def raw(self, dataset: str) -> Path:
        """Files as published, owned by DVC."""
        return self.root / "data" / "raw" / dataset

    def prepared(self, dataset: str) -> Path:
        """Memory-mapped arrays and their manifest, owned by Snakemake (like everything below)."""
        return self.root / "data" / "prepared" / dataset

    def partition_store(self, dataset: str) -> Path:
        """Partitions under their content hash; a file here is written once and never changed."""
        return self.root / "data" / "partitions" / dataset

    def partition_manifest(self, dataset: str, partition: str, seed: int) -> Path:
        """Small file that names the stored partition drawn for one seed."""
        return self.results / "partitions" / dataset / partition / f"seed-{seed}.json"

    def partition_picture(self, dataset: str, partition: str) -> Path:
        return self.results / "partitions" / dataset / f"{partition}.svg"

    def benchmark(self, benchmark: str, preset: str) -> Path:
        return self.results / benchmark / preset

    def scores(self, kind: str, benchmark: str, preset: str) -> Path:
        """Small files that DVC compares between git revisions; `kind`: metrics or curves, as dvc.yaml lists them."""
        return self.root / "scores" / kind / benchmark / preset

    def runs(self, benchmark: str, preset: str, scenario: str, arm: str) -> Path:
        return self.benchmark(benchmark, preset) / "runs" / scenario / arm

    def tuning(self, benchmark: str, preset: str, scenario: str, arm: str) -> Path:
        """The trials of an arm in a scenario, and ``chosen.json``: what was tried and which was best."""
        return self.benchmark(benchmark, preset) / "tuning" / scenario / arm

    def trial(self, benchmark: str, preset: str, scenario: str, arm: str, number: int) -> Path:
        return self.tuning(benchmark, preset, scenario, arm) / f"trial-{number}"

    def run(self, benchmark: str, preset: str, scenario: str, arm: str, seed: int) -> Path:
        return self.runs(benchmark, preset, scenario, arm) / f"seed-{seed}"
