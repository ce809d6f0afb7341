"""Learning curves as numbers: means over seeds with their intervals, from the long-form curves of a scenario."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from heterobench.stats.intervals import mean_interval

SENT, SPENT = ("bytes_up", "bytes_down"), "simulated_seconds"


@dataclass(frozen=True)
class Curve:
    """Mean over seeds of one arm in one scenario, in % or as it is stored.

    `rounds`, `megabytes` (up and down, over all clients since the start), `seconds` (on the simulated clock, NaN
    where there is none), `mean`, `low`, `high`: [T]. A NaN in `mean` stands where a seed's value is not finite: no mean
    is drawn over the seeds that are left.
    """

    rounds: np.ndarray
    megabytes: np.ndarray
    seconds: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def curves_of(frame: pd.DataFrame, metric: str = "test_accuracy", scale: float = 100) -> dict[str, Curve]:
    """Arm -> its curve, of one scenario; arms without the metric are left out."""
    metrics = frame["metric"]
    wanted, sent, spent = frame[metrics == metric], frame[metrics.isin(SENT)], frame[metrics == SPENT]
    total = sent.groupby(["arm", "round", "seed"], sort=False)["value"].sum()
    bytes_of = dict(list(total.groupby(["arm", "round"]).mean().groupby("arm")))
    seconds_of = dict(list(spent.groupby(["arm", "round"])["value"].mean().groupby("arm")))
    return {str(arm): _curve(of, bytes_of.get(arm), seconds_of.get(arm), scale) for arm, of in wanted.groupby("arm")}


def _curve(of: pd.DataFrame, sent: pd.Series | None, spent: pd.Series | None, scale: float) -> Curve:
    """`of`: values of one arm and metric; `sent`, `spent`: means over seeds, indexed by (arm, round)."""
    table = of.pivot(index="round", columns="seed", values="value").sort_index()
    rows = [mean_interval(row) for row in table.to_numpy() * scale]
    whole = [row.n_finite == table.shape[1] for row in rows]
    pick = lambda key: np.array(  # noqa: E731
        [getattr(row, key) if ok else math.nan for row, ok in zip(rows, whole, strict=True)]
    )

    def along(means: pd.Series | None) -> np.ndarray:
        if means is None:
            return np.full(len(table), math.nan)
        return means.droplevel("arm").reindex(table.index).to_numpy(float)

    return Curve(
        table.index.to_numpy(float),
        along(sent) / 1e6,
        along(spent),
        pick("mean"),
        pick("low"),
        pick("high"),
        table.shape[1],
    )
