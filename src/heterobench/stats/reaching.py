"""Cost to reach a target, with runs that never do.

Cost is whatever the curve is over: rounds, bytes, seconds, gradient evaluations. A run that does not reach the
target within its budget is censored there: it is known to need more, never left out.

Failed runs: an evaluation that is not finite never raises the best so far; a run whose cost is not finite (inf
or NaN) counts as not reached, censored at the budget it was given and not at the moment it broke.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from heterobench.stats.checks import array


class Reaching(NamedTuple):
    """Costs of n runs: share reached, median with the rest at +inf, mean of min(cost, horizon) and that horizon."""

    n: int
    n_reached: int
    fraction: float
    median: float
    restricted_mean: float
    horizon: float


class Survival(NamedTuple):
    """Kaplan-Meier steps: at `costs` [m] the share not yet there drops to `remaining` [m], standard error `std` [m]."""

    costs: np.ndarray
    remaining: np.ndarray
    std: np.ndarray

    @property
    def median(self) -> float:
        """Least cost by which half of the runs are there; inf where that is never seen."""
        # shares are products of fractions: one half can come out a rounding above one half
        there = np.flatnonzero(self.remaining <= 0.5 + 1e-12)
        return float(self.costs[there[0]]) if there.size else math.inf


def best_so_far(values: ArrayLike) -> np.ndarray:
    """Running maximum [n] of the validation metric, more is better; -inf before the first finite value."""
    given = array(values, "values", 1)
    return np.maximum.accumulate(np.where(np.isfinite(given), given, -np.inf))


def cost_to_target(costs: ArrayLike, values: ArrayLike, target: float) -> float:
    """Cost at which the best so far crosses `target`, linear between evaluations; inf when it never does.

    `costs` [n] increase strictly; `values` [n] are the validation metric there, more is better (negate a loss).
    A target met at the first finite evaluation costs that evaluation. Source: McMahan et al., AISTATS 2017,
    arXiv 1602.05629, section 3 (curves made monotone, then the crossing by interpolation).
    Raises ValueError for costs that do not increase, other lengths or a target that is not finite.
    """
    at, best = _curve(costs, values)
    if not math.isfinite(target):
        raise ValueError(f"target {target!r}: must be finite")
    reached = np.flatnonzero(best >= target)
    if reached.size == 0:
        return math.inf
    i = int(reached[0])
    if i == 0 or best[i - 1] == -np.inf:
        return float(at[i])
    return float(at[i - 1] + (target - best[i - 1]) / (best[i] - best[i - 1]) * (at[i] - at[i - 1]))


def log_cost_area(costs: ArrayLike, values: ArrayLike) -> float:
    """Mean of the best so far over log cost: its trapezoidal integral over log(last cost / first cost).

    Lies between the first and the best value. Evaluations before the first finite one make it NaN.
    Raises ValueError as `cost_to_target`, for fewer than two evaluations and for costs that are not positive.
    """
    at, best = _curve(costs, values)
    if at.size < 2 or at[0] <= 0:
        raise ValueError("costs: must be at least two, all positive, for an area over their logarithm")
    if best[0] == -np.inf:
        return math.nan
    steps = np.diff(np.log(at))
    return float(np.sum(steps * (best[1:] + best[:-1]) / 2) / steps.sum())


def summarise(costs: ArrayLike, budget: float) -> Reaching:
    """Summary of runs that all had the same `budget`; `costs` [n], not finite or above the budget = not reached.

    An even number of runs with a reached and a censored one in the middle has an infinite median.
    Raises ValueError for a budget that is not positive and finite or a negative cost.
    """
    given, reached = _runs(costs, np.full(np.shape(costs), budget))
    ordered = np.sort(np.where(reached, given, np.inf))
    n = ordered.size
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return Reaching(
        n, int(reached.sum()), float(reached.mean()), float(median), float(np.minimum(ordered, budget).mean()), budget
    )


def kaplan_meier(costs: ArrayLike, budgets: ArrayLike) -> Survival:
    """Share of runs not yet at the target, where budgets differ: product over costs of 1 - reached / still running.

    `costs` [n] as in `summarise`, `budgets` [n]. A run censored at a cost is still running there. Standard errors are
    Greenwood's, NaN where nobody remains. Steps only where a run got there: no run, no step.
    Source: Kaplan and Meier, JASA 53 (1958) 457. Raises ValueError as `summarise`, and for unequal lengths.
    """
    given, reached = _runs(costs, budgets)
    ends = np.where(reached, given, np.broadcast_to(np.asarray(budgets, dtype=np.float64), given.shape))
    steps = np.unique(given[reached])
    running = np.array([np.sum(ends >= step) for step in steps], dtype=np.float64)
    there = np.array([np.sum(reached & (given == step)) for step in steps], dtype=np.float64)
    remaining = np.cumprod(1 - there / running)
    with np.errstate(divide="ignore", invalid="ignore"):
        std = remaining * np.sqrt(np.cumsum(there / (running * (running - there))))
    return Survival(steps, remaining, std)


def restricted_mean(survival: Survival, horizon: float) -> float:
    """Area under the survival steps from 0 to `horizon`: the mean of min(cost, horizon).

    The horizon is fixed beforehand, at most the smallest budget: beyond it the share is a guess. With one budget it
    equals that of `summarise`. Raises ValueError for a horizon that is not positive and finite.
    """
    if not 0 < horizon < math.inf:
        raise ValueError(f"horizon {horizon!r}: must be positive and finite")
    inside = survival.costs < horizon
    edges = np.concatenate([[0.0], survival.costs[inside], [horizon]])
    return float(np.sum(np.diff(edges) * np.concatenate([[1.0], survival.remaining[inside]])))


def _curve(costs: ArrayLike, values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    at, best = array(costs, "costs", 1), best_so_far(values)
    if at.shape != best.shape:
        raise ValueError(f"values: must pair with costs, has {best.size} for {at.size}")
    if not np.all(np.isfinite(at)) or np.any(np.diff(at) <= 0):
        raise ValueError("costs: must be finite and increase strictly")
    return at, best


def _runs(costs: ArrayLike, budgets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    given, limits = array(costs, "costs", 1), array(budgets, "budgets", 1)
    if given.shape != limits.shape:
        raise ValueError(f"budgets: must pair with costs, has {limits.size} for {given.size}")
    if not np.all((limits > 0) & np.isfinite(limits)):
        raise ValueError(f"budgets: must be positive and finite, got {limits.tolist()}")
    if np.any(given < 0):
        raise ValueError(f"costs: must not be negative, least is {np.nanmin(given)}")
    return given, np.isfinite(given) & (given <= limits)
