"""Vote'n'Rank: tasks are voters, methods candidates, weights of tasks numbers of votes.

Source: Rofin et al., Vote'n'Rank: Revision of Benchmarking with Social Choice Theory, EACL 2023, arXiv
2210.05769. `EIGHT` holds the eight rules by name; the means and the optimality gap are what they are compared
with. Ties within a task follow the source, rule by rule: plurality, Borda and threshold give tied methods the
worst of their places (`worst_places`), Dowdall the best (`best_places`), the pairwise rules no vote.

Sums of weights are compared up to `scores.TOLERANCE` of all votes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heterobench.rankings.scores import TOLERANCE, Ranking, Reading, Table, ranking, table, wins

_PLACED = ("error", "drop", "worst")
_PAIRED = (*_PLACED, "observed")
_MEAN = (*_PLACED, "median")


def best_places(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places [methods, tasks] with ties on the best of theirs: 1 + how many are better."""
    return 1 + (values[None, :, :] > values[:, None, :]).sum(axis=1)


def worst_places(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places [methods, tasks] with ties on the worst of theirs: how many are as good or better, oneself included."""
    return (values[None, :, :] >= values[:, None, :]).sum(axis=1)


def majority(votes: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Majority graph [methods, methods] from `scores.wins`: 1 the row beats the column, 0.5 even, 0 is beaten.

    The diagonal is 1, so that a row of ones is a Condorcet winner.
    """
    lead = votes - votes.T
    graph = np.where(lead > tolerance, 1.0, np.where(lead < -tolerance, 0.0, 0.5))
    np.fill_diagonal(graph, 1.0)
    return graph


def mean(scores: ArrayLike, **reading: Unpack[Reading]) -> Ranking:
    """Weighted arithmetic mean; a method that failed on a task with weight is last. `missing`: also median."""
    source = table(scores, allowed=_MEAN, **reading)
    means = _average(source.values, source)
    return ranking("mean", means, source, _size_tolerance(source.values))


def geometric_mean(scores: ArrayLike, **reading: Unpack[Reading]) -> Ranking:
    """Weighted geometric mean of positive scores; a method that failed on a task with weight is last.

    `missing`: also median. Raises ValueError for a score that is not positive, so for any cost.
    """
    source = table(scores, allowed=_MEAN, **reading)
    finite = np.isfinite(source.values)
    if (source.values[finite] <= 0).any():
        raise ValueError("scores: the geometric mean needs positive scores for which higher is better")
    logs = np.log(np.where(finite, source.values, 1.0))
    means = np.exp(_average(np.where(finite, logs, -np.inf), source))
    failed = ~finite[:, source.weights > 0].all(axis=1)
    return ranking("geometric mean", np.where(failed, -np.inf, means), source, _size_tolerance(source.values))


def optimality_gap(scores: ArrayLike, gamma: float, **reading: Unpack[Reading]) -> Ranking:
    """Weighted mean of min(score, gamma) - gamma: how far below `gamma`, a score seen as good enough.

    `gamma` is in the direction of the input. Deviation from the published code: a missing entry is not counted as
    a gap of zero, which would be the best there is. Raises ValueError for a gamma that is not finite.
    """
    source = table(scores, allowed=_PLACED, **reading)
    if not np.isfinite(gamma):
        raise ValueError(f"gamma {gamma!r}: must be finite")
    target = -gamma if reading.get("direction") == "min" else gamma
    gaps = np.minimum(source.values, target) - target
    tolerance = _size_tolerance(np.append(source.values, target))
    return ranking("optimality gap", _average(gaps, source), source, tolerance)


def plurality(scores: ArrayLike, **reading: Unpack[Reading]) -> Ranking:
    """Votes of the tasks on which a method alone is best; a task with a tied top gives its vote to nobody."""
    source = table(scores, allowed=_PLACED, **reading)
    return ranking("plurality", (worst_places(source.values) <= 1) @ source.weights, source, _tolerance(source))


def borda(scores: ArrayLike, **reading: Unpack[Reading]) -> Ranking:
    """Borda as Vote'n'Rank has it: methods - worst place, so that ties cost points (compare `borda.borda`)."""
    source = table(scores, allowed=_PLACED, **reading)
    return ranking("vote'n'rank borda", _borda(source.values, source), source, _tolerance(source))


def dowdall(scores: ArrayLike, **reading: Unpack[Reading]) -> Ranking:
    """Sum of votes / best place, so that ties are rewarded."""
    source = table(scores, allowed=_PLACED, **reading)
    return ranking("dowdall", (1 / best_places(source.values)) @ source.weights, source, _tolerance(source))


def threshold(scores: ArrayLike, **reading: Unpack[Reading]) -> Ranking:
    """Election: of the methods least often last, those least often last but one, and so on up to place 2.

    Places are the worst places in the whole pool; they are not counted again among the survivors.
    """
    source = table(scores, allowed=_PLACED, **reading)
    places = worst_places(source.values)
    alive = np.ones(len(places), dtype=bool)
    for step in range(len(places), 1, -1):
        spared = np.where(alive, (places != step) @ source.weights, -np.inf)
        alive = spared >= spared.max() - _tolerance(source)
    return _election("threshold", alive, source)


def baldwin(scores: ArrayLike, **reading: Unpack[Reading]) -> Ranking:
    """Election: drop all methods with the least Borda count, count again among the rest, until all are equal."""
    source = table(scores, allowed=_PLACED, **reading)
    alive = np.arange(len(source.values))
    while True:
        counts = _borda(source.values[alive], source)
        if counts.max() - counts.min() <= _tolerance(source):
            return _election("baldwin", np.isin(np.arange(len(source.values)), alive), source)
        alive = alive[counts > counts.min() + _tolerance(source)]


def condorcet(scores: ArrayLike, **reading: Unpack[Reading]) -> Ranking:
    """Election: the method that beats each other one by majority, or nobody. `missing`: also observed."""
    source = table(scores, allowed=_PAIRED, **reading)
    return _election("condorcet", (_majority(source) == 1).all(axis=1), source)


def copeland(scores: ArrayLike, kind: str = "difference", **reading: Unpack[Reading]) -> Ranking:
    """How many methods one beats by majority, minus how many beat it. `missing`: also observed.

    `kind`: "difference" (as described); "lower", only the methods beaten; "upper", minus those that beat it;
    "lower_with_ties", the methods beaten and half of those even with it. Raises ValueError for another kind.
    """
    source = table(scores, allowed=_PAIRED, **reading)
    graph = _majority(source)
    beats = (graph == 1).sum(axis=1) - 1
    loses = (graph == 0).sum(axis=1)
    kinds = {
        "difference": beats - loses,
        "lower": beats,
        "upper": -loses,
        "lower_with_ties": graph.sum(axis=1) - 1,
    }
    return ranking("copeland", _chosen(kinds, kind), source, TOLERANCE)


def minimax(scores: ArrayLike, kind: str = "winning_votes", **reading: Unpack[Reading]) -> Ranking:
    """Minus the worst that any single opponent does to a method. `missing`: also observed.

    `kind` is what an opponent does: "winning_votes", its votes where it beats the method, else 0; "margins", its
    votes minus the method's; "pairwise_opposition", its votes. Raises ValueError for another kind.
    """
    source = table(scores, allowed=_PAIRED, **reading)
    votes = wins(source)
    kinds = {
        "winning_votes": np.where(votes - votes.T > _tolerance(source), votes, 0.0),
        "margins": votes - votes.T,
        "pairwise_opposition": votes,
    }
    against = _chosen(kinds, kind).copy()
    np.fill_diagonal(against, -np.inf)
    return ranking("minimax", 0.0 - against.max(axis=0), source, _tolerance(source))


EIGHT: dict[str, Callable[..., Ranking]] = {
    "plurality": plurality,
    "borda": borda,
    "dowdall": dowdall,
    "threshold": threshold,
    "baldwin": baldwin,
    "condorcet": condorcet,
    "copeland": copeland,
    "minimax": minimax,
}


def two_step(
    rule: Callable[..., Ranking],
    scores: ArrayLike,
    groups: Sequence[Sequence[int]],
    *,
    weights: ArrayLike | None = None,
    group_weights: ArrayLike | None = None,
    **reading: Unpack[Reading],
) -> Ranking:
    """`rule` within each group of tasks, then the same rule over the groups with its own scores as the table.

    `groups` hold task numbers, each task in exactly one; `weights` [tasks], `group_weights` [groups]. A method
    without any observed score in a group is missing in the second table, which counts as `missing` says. The
    result speaks of groups as its tasks. Raises ValueError for groups that are no partition, and as the rule.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or sorted(t for group in groups for t in group) != list(range(values.shape[1])):
        raise ValueError("groups: each task must be in exactly one group")
    votes = np.ones(values.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    missing = reading.get("missing", "error")
    columns = []
    for group in map(list, groups):
        absent = np.isnan(values[:, group]).all(axis=1)
        present = np.where(absent[:, None], np.nan, values[:, group])
        kept = ~absent if missing in ("observed", "median") else np.ones(len(values), dtype=bool)
        column = np.full(len(values), np.nan)
        column[kept] = rule(present[kept], weights=votes[group], **reading).scores
        columns.append(column)
    return rule(np.stack(columns, axis=1), weights=group_weights, missing=missing)


@dataclass(frozen=True, eq=False)
class CondorcetWeights:
    """Answer of `condorcet_weights`.

    feasible  whether some allowed weights leave the target unbeaten (a weak Condorcet winner)
    weights   float [tasks], those with the largest margin, summing to 1; None where the constraints contradict
              each other or the target is always beaten
    margin    the least lead of the target over another method, as a share of the votes, under the best allowed
              weights; above 0 the target beats everybody, below 0 somebody beats it; NaN where the constraints
              contradict each other
    """

    feasible: bool
    weights: NDArray[np.float64] | None
    margin: float


def condorcet_weights(
    scores: ArrayLike,
    target: int,
    *,
    lower: ArrayLike = 0.0,
    upper: ArrayLike = 1.0,
    constraints: Sequence[tuple[ArrayLike, float]] = (),
    direction: str = "max",
    digits: int | None = None,
    missing: str = "error",
) -> CondorcetWeights:
    """Weights of tasks under which `target` wins against each other method, if there are any.

    The source asks for w >= 0, sum w = 1 with, for each other method j, sum over tasks of
    w_t ([s_j > s_target] - [s_target > s_j]) <= 0. Here the linear program maximises the least lead, so that a
    strict winner is found where there is one; the weights exist just when that lead is not negative.
    `lower`, `upper`: bounds on weights (scalar or [tasks]); `constraints`: pairs (a [tasks], b) for a @ w <= b.
    `missing`: error, worst, observed; "drop" is refused, since weights of dropped tasks would mean nothing.
    Raises ValueError for a target that is no method or for wrong bounds, and as `scores.table`.
    """
    from scipy.optimize import linprog

    source = table(scores, allowed=("error", "worst", "observed"), direction=direction, digits=digits, missing=missing)
    methods, tasks = source.values.shape
    if not 0 <= target < methods:
        raise ValueError(f"target {target}: must be from 0 to {methods - 1}")
    low, high = (np.broadcast_to(np.asarray(bound, dtype=np.float64), (tasks,)) for bound in (lower, upper))
    if not ((low >= 0) & (low <= high)).all():
        raise ValueError("lower, upper: bounds of weights must hold 0 <= lower <= upper")
    own, others = source.values[target], np.delete(source.values, target, axis=0)
    behind = (others > own).astype(float) - (others < own)
    rows = np.hstack([behind, np.ones((methods - 1, 1))])  # w @ behind_j + margin <= 0
    extra = [np.append(np.asarray(a, dtype=np.float64), 0.0) for a, _ in constraints]
    solution = linprog(
        np.append(np.zeros(tasks), -1.0),
        A_ub=np.vstack([rows, *extra]),
        b_ub=np.concatenate([np.zeros(methods - 1), [b for _, b in constraints]]),
        A_eq=np.append(np.ones(tasks), 0.0)[None, :],
        b_eq=[1.0],
        bounds=[*zip(low, high, strict=True), (-1.0, 1.0)],
        method="highs",
    )
    if solution.status == 2:
        return CondorcetWeights(False, None, float("nan"))
    if solution.status != 0:
        raise RuntimeError(f"the linear program of the Condorcet weights was not solved: {solution.message}")
    margin = float(solution.x[-1])
    feasible = margin >= -TOLERANCE
    return CondorcetWeights(feasible, np.array(solution.x[:-1]) if feasible else None, margin)


def _borda(values: NDArray[np.float64], source: Table) -> NDArray[np.float64]:
    return (len(values) - worst_places(values)) @ source.weights


def _majority(source: Table) -> NDArray[np.float64]:
    return majority(wins(source), _tolerance(source))


def _election(rule: str, elected: NDArray[np.bool_], source: Table) -> Ranking:
    return ranking(rule, elected.astype(float), source, 0.0, elected)


def _average(values: NDArray[np.float64], source: Table) -> NDArray[np.float64]:
    counted = source.weights > 0  # a failure on a task without weight would be 0 * inf
    return values[:, counted] @ source.weights[counted] / source.votes


def _chosen(kinds: dict[str, NDArray], kind: str) -> NDArray:
    if kind not in kinds:
        raise ValueError(f"kind {kind!r}: must be one of {', '.join(kinds)}")
    return kinds[kind]


def _tolerance(source: Table) -> float:
    return TOLERANCE * source.votes


def _size_tolerance(values: NDArray[np.float64]) -> float:
    return TOLERANCE * float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
