"""How a ranking moves when one task, one seed or one method is left out, for any rule.

The rule is any function of scores [methods, tasks] that returns a `Ranking`; bind its other arguments first
(`functools.partial`). Source of the advice: a Borda winner may change with the pool (Colombo et al., NeurIPS
2022, arXiv 2202.03799), a Nash average with a single task (Balduzzi et al., NeurIPS 2018, arXiv 1806.02643).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heterobench.rankings.scores import Ranking, competition_ranks

LEFT_OUT = ("task", "seed", "method")


@dataclass(frozen=True, eq=False)
class Stability:
    """What leaving out does.

    whole       the ranking of everything
    ranks       float [cases, methods]: ranks without task (seed, method) number `case`; NaN for the method that
                is left out, and in the whole row of a case that the rule refused
    tau         float [cases]: Kendall's tau-b between the ranks with and without, over the methods in both; NaN
                where one of the two ties all methods, and for a refused case
    new_winner  bool [cases]: whether other methods are elected than in the whole (those left out not counted);
                False for a refused case
    elected     for each case the methods that win, by their numbers in the whole; empty for a refused case
    refused     case -> the rule's own words
    """

    whole: Ranking
    ranks: NDArray[np.float64]
    tau: NDArray[np.float64]
    new_winner: NDArray[np.bool_]
    elected: tuple[tuple[int, ...], ...]
    refused: dict[int, str]

    @property
    def range(self) -> NDArray[np.float64]:
        """Best and worst rank [methods, 2] over all cases that were ranked and the whole."""
        ranks = np.vstack([self.whole.ranks, self.ranks])
        return np.stack([np.nanmin(ranks, axis=0), np.nanmax(ranks, axis=0)], axis=1)


def leave_one_out(
    rule: Callable[..., Ranking],
    scores: ArrayLike,
    out: str = "task",
    weights: ArrayLike | None = None,
    seeds_inside: bool = False,
) -> Stability:
    """Rank by `rule` with everything, and once without each task, seed or method.

    scores   float [methods, tasks], or [methods, tasks, seeds], of which the mean over seeds is ranked
             (`mean_over_seeds`); out="seed" needs the latter
    out      "task", "seed" or "method"
    weights  [tasks]; where given, the rule is called with weights=, those of the tasks that are in
    seeds_inside  True: the rule itself takes [methods, tasks, seeds], and no mean is formed for it

    A case that the rule refuses with a ValueError (a task without which strengths are not identifiable, say) is
    listed in `refused`. Raises ValueError for another word, a wrong shape, less than two of what is left out, and
    as the rule on the whole table.
    """
    values = np.asarray(scores, dtype=np.float64)
    if out not in LEFT_OUT:
        raise ValueError(f"out {out!r}: must be one of {', '.join(LEFT_OUT)}")
    if values.ndim not in (2, 3) or (out == "seed" and values.ndim == 2):
        raise ValueError(f"scores: shape {values.shape}, must be [methods, tasks] or [methods, tasks, seeds]")
    axis = {"method": 0, "task": 1, "seed": 2}[out]
    cases = values.shape[axis]
    if cases < 2:
        raise ValueError(f"scores: {cases} along the axis of {out}s; nothing can be left out")
    votes = None if weights is None else np.asarray(weights, dtype=np.float64)
    whole = _rank(rule, values, votes, seeds_inside)
    methods = len(values)
    ranks, tau = np.full((cases, methods), np.nan), np.full(cases, np.nan)
    new_winner, refused = np.zeros(cases, dtype=bool), {}
    elected: list[tuple[int, ...]] = [()] * cases
    for case in range(cases):
        kept = np.delete(np.arange(methods), case) if out == "method" else np.arange(methods)
        inside = np.delete(votes, case) if votes is not None and out == "task" else votes
        try:
            found = _rank(rule, np.delete(values, case, axis=axis), inside, seeds_inside)
        except ValueError as error:
            refused[case] = str(error)
            continue
        ranks[case, kept] = found.ranks
        tau[case] = kendall_tau(whole.ranks[kept], found.ranks)
        elected[case] = tuple(kept[list(found.elected)].tolist())
        new_winner[case] = set(elected[case]) != elected_among(whole, kept)
    return Stability(whole, ranks, tau, new_winner, tuple(elected), refused)


def mean_over_seeds(scores: ArrayLike) -> NDArray[np.float64]:
    """Mean [methods, tasks] over the seeds of [methods, tasks, seeds].

    A cell in which one seed failed (infinite) has failed, one in which a seed is missing (NaN) is missing; a
    known failure counts before what is missing. Raises ValueError for both infinities in one cell.
    """
    values = np.asarray(scores, dtype=np.float64)
    infinite = np.isinf(values)
    if (np.isposinf(values).any(axis=2) & np.isneginf(values).any(axis=2)).any():
        raise ValueError("scores: a cell has seeds of both infinities; a failure is the worst one")
    failure = np.where(infinite, values, 0.0).sum(axis=2)
    return np.where(infinite.any(axis=2), failure, np.where(infinite, 0.0, values).mean(axis=2))


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float:
    """Kendall's tau-b between two arrays of ranks; 1 the same order, -1 the reverse, NaN where one ties all."""
    from scipy.stats import kendalltau

    return float(kendalltau(first, second, variant="b").statistic)


def _rank(rule: Callable[..., Ranking], values: NDArray, weights: NDArray | None, seeds_inside: bool) -> Ranking:
    means = values if values.ndim == 2 or seeds_inside else mean_over_seeds(values)
    return rule(means) if weights is None else rule(means, weights=weights)


def elected_among(whole: Ranking, kept: NDArray[np.int64]) -> set[int]:
    """Whom the whole ranking puts first among `kept`: its winners that are kept, else the best of the others."""
    winners = set(whole.elected) & set(kept.tolist())
    if winners or not whole.elected:
        return winners
    return set(kept[competition_ranks(-whole.ranks[kept]) == 1].tolist())
