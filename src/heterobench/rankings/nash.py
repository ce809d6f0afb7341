"""Nash averaging: methods are scored against the mixture of tasks that is hardest for them.

Source: Balduzzi, Tuyls, Perolat, Graepel, Re-evaluating Evaluation, NeurIPS 2018, arXiv 1806.02643; methods
against tasks in its appendix D. Among the equilibria of the zero-sum game the one of maximum entropy is taken,
which is unique and does not change with copies of a task or a method.

The average is adversarial: a single task on which everybody is bad, broken or noisy ones included, may get all
the weight. Look at the mixture and leave tasks out (`stability`). The answer is not continuous in the scores.

The entropy programs are solved on the face of optimal mixtures: linear programs find which entries are zero in
every optimal mixture; on the others the solution is p_k proportional to exp(-sum_r l_r M_rk) with l >= 0
minimising the smooth convex dual log sum_k exp(-sum_r l_r M_rk) (`max_entropy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heterobench.rankings.scores import Ranking, Reading, Table, entries, ranking, table

TIE = 1e-6  # methods whose skills differ by less are tied: all that are in the equilibrium share its value
_RELAXED = 1e-9  # how far a linear program may leave the optimum, so that rounding leaves it feasible
_ROUNDING = 1e-13  # what rounding leaves of the value of a dual: a step that loses no more is no worse
_ZERO = 1e-6  # an entry that is smaller in all optimal mixtures is zero in them


@dataclass(frozen=True, eq=False)
class NashAverage(Ranking):
    """A `Ranking` by skill (`scores`, in normalised units, [methods]).

    tasks            the tasks with a difference between methods; the others say nothing and are left out
    method_mixture   float [methods], sums to 1: the equilibrium of the player who picks methods
    task_mixture     float [kept tasks], sums to 1: the equilibrium of the player who picks tasks
    difficulty       float [kept tasks]: minus what the mixture of methods gets on the task
    value            what the mixtures get against each other
    """

    method_mixture: NDArray[np.float64]
    task_mixture: NDArray[np.float64]
    difficulty: NDArray[np.float64]
    value: float


def nash_average(
    scores: ArrayLike, anchors: tuple[ArrayLike, ArrayLike] | None = None, **reading: Unpack[Reading]
) -> NashAverage:
    """Maximum-entropy Nash averaging of methods against tasks; `scores` [methods, tasks].

    Each task is normalised to (score - low) / (high - low), with the least and the largest score of the pool or,
    so that one bad method does not rescale a task, with `anchors` = (low, high), scalars or [tasks], in the
    direction of the input (chance and the best known result, say); low is the worse. With anchors a failure gets
    the worse of 0 and the least normalised score of its task; without them it has no place on the scale and is an
    error. A task on which all methods are equal is left out. `missing`: error, drop, worst. Weights of tasks are
    what is solved for: `weights` may only be None. Raises ValueError as said, for tasks that all have been left
    out, anchors in the wrong order, and as `scores.table`; RuntimeError where no equilibrium within 1e-6 is found.
    """
    if reading.get("weights") is not None:
        raise ValueError("weights: Nash averaging finds the weights of the tasks, none may be given")
    source = table(scores, allowed=("error", "drop", "worst"), **reading)
    values = source.values
    differs = (values != values[0]).any(axis=0)
    if not differs.any():
        raise ValueError("scores: no task on which the methods differ")
    payoff = _normalised(source, _anchors(anchors, np.shape(scores)[1], reading.get("direction", "max")))[:, differs]
    value = _value(payoff)
    tasks = max_entropy(payoff - value)
    methods = max_entropy((value - payoff).T)
    skill, against = payoff @ tasks, payoff.T @ methods
    if skill.max() - against.min() > 1e-6:
        raise RuntimeError(f"no equilibrium was found: duality gap {skill.max() - against.min():.1e} above 1e-6")
    found = dict(vars(ranking("nash averaging", skill, source, TIE)))
    found["tasks"] = tuple(task for task, keep in zip(source.tasks, differs, strict=True) if keep)
    return NashAverage(**found, method_mixture=methods, task_mixture=tasks, difficulty=-against, value=value)


def nash_against_each_other(wins: ArrayLike, clip: float = 1e-3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Maximum-entropy Nash average of methods against methods: (mixture [methods], average [methods]).

    `wins` [methods, methods]: probability that the row's method beats the column's, wins + wins.T = 1; clipped to
    [clip, 1 - clip]. The game is the antisymmetric log odds; the average is what a method gets against the
    mixture, 0 for those in it. Raises ValueError for probabilities that do not add up or a clip outside (0, 0.5).
    """
    probabilities = np.array(wins, dtype=np.float64)
    square = probabilities.ndim == 2 and probabilities.shape[0] == probabilities.shape[1] and probabilities.size
    if not square or not np.allclose(probabilities + probabilities.T, 1, atol=1e-9):
        raise ValueError("wins: must be [methods, methods] with wins + wins.T = 1 (a half on the diagonal)")
    if not 0 < clip < 0.5:
        raise ValueError(f"clip {clip}: must be above 0 and below 0.5")
    clipped = np.clip(probabilities, clip, 1 - clip)
    return antisymmetric_nash(np.log(clipped / clipped.T))


def antisymmetric_nash(game: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Maximum-entropy p with game @ p <= 0, and game @ p; `game` [methods, methods] is antisymmetric.

    Raises ValueError for another game.
    """
    game = np.array(game, dtype=np.float64)
    if game.ndim != 2 or game.shape[0] != game.shape[1] or not np.allclose(game, -game.T, atol=1e-9):
        raise ValueError("game: must be antisymmetric [methods, methods]")
    mixture = max_entropy(game)
    return mixture, game @ mixture


def max_entropy(excess: NDArray[np.float64]) -> NDArray[np.float64]:
    """The p of largest entropy in the simplex with `excess` [rows, entries] @ p <= 0, which must have a solution.

    Newton's method on the dual with a barrier: log sum_k exp(-sum_r l_r M_rk) + mu sum_r (l_r - log l_r), for mu
    from 1 to 1e-10. Its solution leaves the constraints by mu at most. Raises RuntimeError where no p within 1e-6
    of the constraints is found.
    """
    support = _support(excess)
    inner = excess[:, support]
    multipliers = np.ones(len(inner))
    for barrier in 10.0 ** -np.arange(0, 10.5, 0.5):
        multipliers = _centre(inner, multipliers, float(barrier))
    mixture = np.zeros(excess.shape[1])
    mixture[support] = _dual(inner, multipliers, 0.0)[1]
    worst = float((excess @ mixture).max())
    if worst > 1e-6:
        raise RuntimeError(f"the maximum-entropy mixture was not found: a constraint is violated by {worst:.1e}")
    return mixture


def _dual(inner: NDArray, multipliers: NDArray, barrier: float) -> tuple[float, NDArray[np.float64]]:
    """Value of the dual with its barrier, and the p that belongs to the multipliers."""
    logits = -multipliers @ inner
    top = logits.max()
    terms = np.exp(logits - top)
    value = top + np.log(terms.sum()) + barrier * (multipliers - np.log(multipliers)).sum()
    return float(value), terms / terms.sum()


def _centre(inner: NDArray, multipliers: NDArray, barrier: float) -> NDArray[np.float64]:
    """Multipliers [rows] at the minimum of the dual for one barrier, by damped Newton steps from those given."""
    for _ in range(200):
        value, p = _dual(inner, multipliers, barrier)
        expected = inner @ p
        # in units of the multipliers themselves, whose sizes differ by many powers of ten
        slope = multipliers * (-expected + barrier * (1 - 1 / multipliers))
        scaled = multipliers[:, None] * (inner - expected[:, None])
        hessian = (scaled * p) @ scaled.T + barrier * np.eye(len(slope))
        try:
            step = -np.linalg.solve(hessian, slope)
        except np.linalg.LinAlgError:  # copies of a constraint, and the barrier too small to tell them apart
            step = -np.linalg.lstsq(hessian, slope)[0]
        decrease = -slope @ step
        if decrease <= 1e-9 * barrier:
            break
        length = min(1.0, 0.9 / max(-step.min(), 1e-300))
        while length > 1e-9:
            moved = multipliers * (1 + length * step)
            if _dual(inner, moved, barrier)[0] <= value - 1e-4 * length * decrease + _ROUNDING:
                break
            length /= 2
        multipliers = moved
    return multipliers


def _anchors(anchors, tasks: int, direction: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Anchors as (low, high) [tasks] of the input for which higher is better."""
    if anchors is None:
        return None
    bounds = [np.asarray(anchor, dtype=np.float64) for anchor in anchors]
    if len(bounds) != 2 or any(bound.shape not in ((), (tasks,)) for bound in bounds):
        raise ValueError(f"anchors: must be (low, high), scalars or [tasks] = ({tasks},)")
    low, high = (np.broadcast_to(bound if direction == "max" else -bound, (tasks,)) for bound in bounds)
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise ValueError("anchors: must be finite, and low worse than high for each task")
    return low, high


def _normalised(source: Table, anchors: tuple[NDArray, NDArray] | None) -> NDArray[np.float64]:
    values = source.values
    failed = np.isneginf(values)
    if anchors is None:
        if failed.any():
            raise ValueError(f"scores: {entries(failed)} failed, which has no place on the pool's scale; give anchors")
        low, high = values.min(axis=0), values.max(axis=0)
        return (values - low) / np.where(high > low, high - low, 1.0)
    low, high = (anchor[list(source.tasks)] for anchor in anchors)
    scaled = (values - low) / (high - low)
    floor = np.minimum(0.0, np.where(failed, np.inf, scaled).min(axis=0))
    return np.where(failed, floor, scaled)


def _value(payoff: NDArray[np.float64]) -> float:
    """Value of the game for the player who picks rows: max over x of min over columns of payoff.T @ x."""
    rows, columns = payoff.shape
    found = _linear(
        np.append(np.zeros(rows), -1.0),
        np.hstack([-payoff.T, np.ones((columns, 1))]),
        np.zeros(columns),
        np.append(np.ones(rows), 0.0),
        [(0, None)] * rows + [(None, None)],
    )
    return float(found[-1])


def _support(excess: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which entries are above zero in some p of the simplex with excess @ p <= 0.

    Each program looks for as much mass as there can be on the entries not found yet, until there is none.
    """
    rows, entries = excess.shape
    positive = np.zeros(entries, dtype=bool)
    while not positive.all():
        aim = np.where(positive, 0.0, -1.0)
        p = _linear(aim, excess, np.full(rows, _RELAXED), np.ones(entries), [(0, None)] * entries)
        if not (p[~positive] > _ZERO).any():
            break
        positive |= p > _ZERO
    return positive


def _linear(aim, above, limit, total, bounds) -> NDArray[np.float64]:
    """The x that minimises aim @ x under above @ x <= limit and total @ x = 1."""
    from scipy.optimize import linprog

    found = linprog(aim, A_ub=above, b_ub=limit, A_eq=total[None, :], b_eq=[1.0], bounds=bounds, method="highs")
    if found.status != 0:
        raise RuntimeError(f"a linear program of the game was not solved: {found.message}")
    return found.x
