"""Borda's count, at one level (tasks or instances alike) and at two (instances within tasks).

Source: Colombo, Noiry, Irurozki, Clemencon, What are the Best Systems? New Perspectives on NLP Benchmarking,
NeurIPS 2022, arXiv 2202.03799. Deviation from the published code: tied methods share the mean of their points
there where the code lets the order of the rows decide.

The count depends on the pool: adding a weak method may change who wins. Give the pool with the ranking, and
leave methods out (`stability`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heterobench.rankings.scores import TOLERANCE, Ranking, Reading, Table, ranking, table

_MISSING = ("error", "drop", "worst")


def points(values: ArrayLike) -> NDArray[np.float64]:
    """Points [methods, tasks]: how many methods are worse, and half of those that are tied, task by task.

    0 is worst, methods - 1 best; a task gives away methods * (methods - 1) / 2 points whatever the ties.
    """
    from scipy.stats import rankdata

    return rankdata(np.asarray(values, dtype=np.float64), method="average", axis=0) - 1


def borda(scores: ArrayLike, **reading: Unpack[Reading]) -> Ranking:
    """One-level Borda: the weighted sum of a method's points over all tasks; `scores` [methods, tasks].

    With one column for each (instance, task) pair this is the count that pools instances, in which a task weighs
    as much as it has instances. `missing`: error, drop, worst. Errors: see `scores.table`.
    """
    source = table(scores, allowed=_MISSING, **reading)
    return ranking("borda", points(source.values) @ source.weights, source, _tolerance(source))


def two_level_borda(
    tasks: Sequence[ArrayLike],
    *,
    weights: ArrayLike | None = None,
    direction: str = "max",
    digits: int | None = None,
    missing: str = "error",
) -> Ranking:
    """Two-level Borda: the points of the methods' counts over the instances of each task, summed over tasks.

    `tasks` holds one [methods, instances] array a task, over the same methods; `weights` [tasks]. Each task has
    the same say however many instances it has. `missing`: error, worst, and drop, which leaves out the instance
    (not the task). Columns in the result count instances through all tasks, in their order. Raises ValueError for
    no task, other methods in one of them, and as `scores.table`.
    """
    arrays = [np.asarray(task, dtype=np.float64) for task in tasks]
    if not arrays or any(array.ndim != 2 or array.shape[0] != arrays[0].shape[0] for array in arrays):
        shapes = [array.shape for array in arrays]
        raise ValueError(f"tasks: shapes {shapes}, must be [methods, instances] with the same methods in each")
    read = [table(array, allowed=_MISSING, direction=direction, digits=digits, missing=missing) for array in arrays]
    counts = np.stack([points(part.values).sum(axis=1) for part in read], axis=1)
    level = table(counts, allowed=("error",), weights=weights)
    starts = np.cumsum([0, *[array.shape[1] for array in arrays[:-1]]]).tolist()
    source = Table(
        level.values,
        level.weights,
        tuple(start + t for start, part in zip(starts, read, strict=True) for t in part.tasks),
        tuple((i, start + t) for start, part in zip(starts, read, strict=True) for i, t in part.missing),
        tuple((i, start + t) for start, part in zip(starts, read, strict=True) for i, t in part.failed),
    )
    return ranking("two-level borda", points(counts) @ level.weights, source, _tolerance(level))


def _tolerance(source: Table) -> float:
    return TOLERANCE * source.votes * len(source.values)
