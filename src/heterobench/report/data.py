"""Everything that a report is made from, read once from the results of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from heterobench.errors import RunError
from heterobench.report import outputs
from heterobench.report.aggregate import aggregate
from heterobench.resolve import Benchmark


@dataclass(frozen=True)
class ReportData:
    """What the sections of a report draw on; each reads, none changes anything.

    evaluation: long form, a row per scenario, arm, seed, selection and metric, in the units of the records.
    curves: scenario -> long form, a row per arm, seed, round and metric.
    ledger: a row for each run that the benchmark asks for, also for those that are not there: scenario, arm, seed,
    status (finished, failed, missing), run_id, error, revision, dirty, folder.
    outcomes: scenario -> a row per arm and seed with `correct`, whether each example of the global test set was right
    (bool [n]), for the validation-selected model; arms without a global model have none.
    tuning: (scenario, arm) -> what the tuning protocol tried and chose; empty where nothing was tuned.
    """

    benchmark: Benchmark
    evaluation: pd.DataFrame
    curves: Mapping[str, pd.DataFrame]
    ledger: pd.DataFrame
    outcomes: Mapping[str, pd.DataFrame]
    tuning: Mapping[tuple[str, str], dict[str, Any]]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per scenario, arm, selection and metric (`heterobench.report.aggregate.aggregate`)."""
        return aggregate(self.evaluation, self.benchmark)


def read_parquet(path: Path, benchmark: Benchmark) -> pd.DataFrame:
    """Raises RunError where the file is missing."""
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        shown = path.relative_to(benchmark.project.root)
        raise RunError(f"{shown}: no such file; let snakemake evaluate the runs first") from None
