"""Performance profiles: of costs relative to the best method, and of scores above a threshold.

Failed runs: a cost that is not finite is a target never reached: its ratio is infinite. A score that is not
finite is above no threshold. Both stay in the denominator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from heterobench.stats.checks import array, share
from heterobench.stats.intervals import LEVEL, t_quantile, wilson


def cost_ratios(costs: ArrayLike) -> np.ndarray:
    """Cost over the least cost of the task [methods, tasks]; inf where the method failed.

    `costs` [methods, tasks] are positive, in any unit that is the same within a task. A task that no method solves
    is infinite for all. Source: Dolan and Moré, Mathematical Programming 91 (2002) 201, section 2.
    Raises ValueError for a finite cost that is not positive.
    """
    given = array(costs, "costs", 2)
    reached = np.where(np.isfinite(given), given, np.inf)
    if np.any(reached <= 0):
        raise ValueError(f"costs: must be positive, least is {reached.min()}")
    least = reached.min(axis=0)
    return np.where(np.isfinite(reached), reached / np.where(np.isfinite(least), least, 1.0), np.inf)


def cost_profile(costs: ArrayLike, ratios: ArrayLike) -> np.ndarray:
    """rho [methods, len(ratios)]: share of tasks that a method solves within x times the least cost, x in `ratios`."""
    at = array(ratios, "ratios", 1)
    return np.mean(cost_ratios(costs)[:, :, None] <= at, axis=1)


def profile_score(costs: ArrayLike, largest: float = 4.0) -> np.ndarray:
    """Mean of rho over ratios from 1 to `largest` [methods], exact: 1 is "always the cheapest", 0 "never within".

    Integral of the step function, task by task: max(0, largest - ratio) / (largest - 1). The form of the score is
    that of AlgoPerf (Dahl et al., arXiv 2306.07179). Raises ValueError unless `largest` is finite and above 1.
    """
    if not 1 < largest < np.inf:
        raise ValueError(f"largest {largest!r}: must be finite and above 1")
    return np.mean(np.maximum(0.0, largest - cost_ratios(costs)) / (largest - 1), axis=1)


def score_profile(scores: Sequence[ArrayLike], thresholds: ArrayLike) -> np.ndarray:
    """Share of runs with a score above each threshold [len(thresholds)], mean over tasks.

    `scores` holds one array [runs] per task, more is better. Source: Agarwal et al., NeurIPS 2021,
    arXiv 2108.13264, section 4.2 (run-score distribution).
    """
    at = array(thresholds, "thresholds", 1)
    return _shares([one[None] for one in _tasks(scores)], at)[0]


def score_profile_band(
    scores: Sequence[ArrayLike],
    thresholds: ArrayLike,
    level: float = LEVEL,
) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise band (low, high) of `score_profile`, each [len(thresholds)]; for other runs of the same tasks.

    Of two intervals the wider at each end: Wilson's, which takes runs for independent and is of no zero width where
    all runs or none are above, and Student's over the runs' places, which are seeds that the tasks share. Failed runs
    are above nothing. Student's needs the same number of runs, two at least, in each task.
    """
    share(level, "level")
    at, tasks = array(thresholds, "thresholds", 1), _tasks(scores)
    shares = _shares([one[None] for one in tasks], at)[0]
    low, high = wilson(shares, len(tasks) ** 2 / sum(1 / one.size for one in tasks), level)
    if len({one.size for one in tasks}) == 1 and tasks[0].size > 1:
        by_run = np.mean([one[:, None] > at for one in tasks], axis=0)
        half = t_quantile(len(by_run) - 1, level) * by_run.std(axis=0, ddof=1) / np.sqrt(len(by_run))
        low, high = np.minimum(low, np.maximum(shares - half, 0)), np.maximum(high, np.minimum(shares + half, 1))
    return low, high


def _tasks(scores: Sequence[ArrayLike]) -> list[np.ndarray]:
    if len(scores) == 0:
        raise ValueError("scores: must hold at least one task")
    given = [array(one, f"scores[{i}]", 1) for i, one in enumerate(scores)]
    return [np.where(np.isfinite(one), one, -np.inf) for one in given]


def _shares(tasks: Sequence[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """[resamples, thresholds] from one [resamples, runs] per task."""
    above = [[np.mean(one > threshold, axis=1) for threshold in thresholds] for one in tasks]
    return np.mean(above, axis=0).T
