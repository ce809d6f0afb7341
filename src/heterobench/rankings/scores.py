"""What every ranking rule reads and returns.

Input: `scores`, float [methods, tasks], where a task may be one (data set, seed) pair or one test sample.
Higher is better; `direction="min"` turns losses, errors and costs round.

An entry may be absent for two reasons that a rule must not mix up:

failed   the run was made and has no usable score (it diverged). Written as the worst infinity: -inf, or +inf
         where `direction="min"`. It counts as worse than every number and equal to other failures.
missing  the run was never made. Written as NaN. Nothing is done about it unless the caller says what:
         `missing="error"`     refuse, and name the entries (the default but for Plackett-Luce)
         `missing="drop"`      leave out, for all methods, each task that has a missing entry
         `missing="worst"`     count it as a failure
         `missing="observed"`  compare two methods on the tasks that both have (pairwise rules, Plackett-Luce);
                               right only where what is missing does not depend on the score it would have had
         `missing="median"`    the median of the task's observed scores (means only, Vote'n'Rank section 3)

Output: `Ranking`, which lists the missing and the failed entries and the tasks that it is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

MISSING = ("error", "drop", "worst", "observed", "median")
TOLERANCE = 1e-9  # relative to the largest value that a sum could have: what separates a tie from rounding


class Reading(TypedDict, total=False):
    """How a table is read; every rule takes these as keywords.

    weights    [tasks] finite, not negative, not all zero; how many votes a task has (default: one each)
    direction  "max" (default) or "min": what is better
    digits     scores are rounded to so many decimals before they are compared (default: not rounded), so that
               noise of 1e-7 does not decide a vote
    missing    see the module; each rule says which of the words it takes
    """

    weights: ArrayLike | None
    direction: str
    digits: int | None
    missing: str


@dataclass(frozen=True, eq=False)
class Table:
    """A table as the rules read it: `values` [methods, kept tasks], higher is better, -inf failed.

    NaN is left only under missing="observed". `tasks` are the kept columns of the input, `weights` theirs;
    `missing` and `failed` are (method, task) entries of the input.
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    tasks: tuple[int, ...]
    missing: tuple[tuple[int, int], ...]
    failed: tuple[tuple[int, int], ...]

    @property
    def votes(self) -> float:
        """Sum of the weights."""
        return float(self.weights.sum())


@dataclass(frozen=True, eq=False)
class Ranking:
    """What a rule says.

    rule     name of the rule
    scores   float [methods], higher is better, in the unit of the rule; -inf for a method that a mean cannot
             place because it failed
    ranks    int [methods], 1 is best; tied methods share the smallest rank (1, 2, 2, 4)
    elected  the methods that win: all of rank 1, but for Condorcet's rule, which may elect nobody
    tasks    the columns of the input that the ranking is over
    missing  (method, task) entries of the input that were NaN
    failed   (method, task) entries of the input that were the worst infinity
    """

    rule: str
    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]
    elected: tuple[int, ...]
    tasks: tuple[int, ...]
    missing: tuple[tuple[int, int], ...]
    failed: tuple[tuple[int, int], ...]

    @property
    def tiers(self) -> tuple[tuple[int, ...], ...]:
        """Methods from best to worst, the tied ones together."""
        return tuple(tuple(np.flatnonzero(self.ranks == rank).tolist()) for rank in np.unique(self.ranks))


def table(
    scores: ArrayLike,
    *,
    allowed: tuple[str, ...],
    weights: ArrayLike | None = None,
    direction: str = "max",
    digits: int | None = None,
    missing: str = "error",
) -> Table:
    """Check `scores` and turn them into what the rules read; `allowed` are the words for `missing`.

    Raises ValueError, naming the argument, for a wrong shape, fewer than two methods, no task left, an infinity
    on the good side, wrong weights, an unknown word, and missing entries that nothing was said about.
    """
    values = np.array(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 1:
        raise ValueError(f"scores: shape {values.shape}, must be [methods, tasks] with two methods and a task or more")
    if direction not in ("max", "min"):
        raise ValueError(f"direction {direction!r}: must be max or min")
    if missing not in allowed:
        raise ValueError(f"missing {missing!r}: this rule takes {', '.join(allowed)}")
    if direction == "min":
        values = -values
    if np.isposinf(values).any():
        raise ValueError(f"scores: {entries(np.isposinf(values))} infinitely good; a failure is the worst infinity")
    if digits is not None:
        values = np.round(values, digits)
    absent, failed = np.isnan(values), np.isneginf(values)
    votes = _weights(weights, values.shape[1])
    kept = np.arange(values.shape[1])
    if absent.any():
        values, kept = _without_missing(values, absent, missing)
    if not votes[kept].sum() > 0:
        raise ValueError(f"scores: no task with a weight is left under missing={missing!r}")
    return Table(values[:, kept], votes[kept], tuple(kept.tolist()), _pairs(absent), _pairs(failed))


def _weights(weights: ArrayLike | None, tasks: int) -> NDArray[np.float64]:
    if weights is None:
        return np.ones(tasks)
    votes = np.array(weights, dtype=np.float64)
    if votes.shape != (tasks,):
        raise ValueError(f"weights: shape {votes.shape}, must be [tasks] = ({tasks},)")
    if not np.isfinite(votes).all() or (votes < 0).any() or not votes.any():
        raise ValueError("weights: must be finite, not negative and not all zero")
    return votes


def _without_missing(values, absent, missing):
    everything = np.arange(values.shape[1])
    if missing == "error":
        raise ValueError(f"scores: {entries(absent)} missing (NaN); say what they count as with missing=")
    if missing == "drop":
        return values, np.flatnonzero(~absent.any(axis=0))
    if missing == "worst":
        return np.where(absent, -np.inf, values), everything
    if absent.all(axis=1).any():
        raise ValueError(f"scores: methods {np.flatnonzero(absent.all(axis=1)).tolist()} have no score at all")
    if missing == "observed":
        return values, everything
    if absent.all(axis=0).any():
        raise ValueError(f"scores: tasks {np.flatnonzero(absent.all(axis=0)).tolist()} have no score, so no median")
    return np.where(absent, np.nanmedian(values, axis=0), values), everything


def _pairs(mask: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    return tuple((int(i), int(t)) for i, t in np.argwhere(mask))


def entries(mask: NDArray[np.bool_]) -> str:
    """The (method, task) entries of a mask in words, at most five of them."""
    pairs = _pairs(mask)
    more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
    return f"(method, task) {', '.join(map(str, pairs[:5]))}{more}"


def ranking(
    rule: str, scores: NDArray[np.float64], source: Table, tolerance: float, elected: NDArray[np.bool_] | None = None
) -> Ranking:
    """`Ranking` of methods by `scores` [methods], higher is better; see `competition_ranks` for `tolerance`.

    `elected` [methods] says who wins where that is not everybody of rank 1.
    """
    ranks = competition_ranks(scores, tolerance)
    winners = np.flatnonzero(ranks == 1 if elected is None else elected)
    return Ranking(
        rule, np.array(scores, np.float64), ranks, tuple(winners.tolist()), source.tasks, source.missing, source.failed
    )


def competition_ranks(scores: ArrayLike, tolerance: float = 0.0) -> NDArray[np.int64]:
    """Ranks [methods], 1 for the highest score; tied methods share the smallest rank (1, 2, 2, 4).

    Two methods are tied where sorted neighbours from one to the other differ by `tolerance` at most.
    """
    scores = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    sorted_ = scores[order]
    above, below = sorted_[:-1], sorted_[1:]
    with np.errstate(invalid="ignore"):  # -inf minus -inf, which the first half of the test settles
        apart = ~((above == below) | (above - below <= tolerance))
    first = np.concatenate([[True], apart])
    positions = np.arange(1, len(scores) + 1)
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[order] = np.maximum.accumulate(np.where(first, positions, 1))
    return ranks


def wins(source: Table) -> NDArray[np.float64]:
    """Votes [methods, methods]: the weight of the tasks on which the row's method beats the column's.

    A tie and a task that one of the two lacks are no vote for either.
    """
    values = source.values
    return np.einsum("ijt,t->ij", values[:, None, :] > values[None, :, :], source.weights)
