"""The accuracy that limits on global and local disparity leave: AGLFOP.

The accuracy and global and local fairness optimality problem of Hamman and Dutta (ICLR 2024, arXiv 2307.11333): the
least error of any classifier whose I(Z; prediction) and I(Z; prediction | S) stay under two limits, given how labels
depend on client S and group Z. The classifier may look at the true label, so this bounds what a model can do and trains
none. Deviation from the authors' program: theirs has the 4 confusion cells of each (client, group) as variables and a
general solver with a random start; here false negatives and false positives are the variables, and linear programs over
supporting hyperplanes of the convex limits (Veinott, Operations Research 15 (1967), 147) enclose the optimum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from heterobench.metrics.information import global_disparity, local_disparity, probabilities

TOLERANCE = 1e-6  # of the error
ITERATIONS = 1000
MOST = 1.0  # bits: a binary prediction tells no more


class AccuracyLimit(NamedTuple):
    """The optimum: `error` is attained by `rates` within the limits, and no error is below `bound`.

    `error` and `bound` are shares of all examples. `rates` float64 [clients, groups]: P(prediction = 1 | client,
    group), NaN for a pair without examples. `confusion` float64 [clients, groups, 2, 2], by label and prediction:
    shares of all examples, e.g. [..., 1, 0] the false negatives.
    """

    error: float
    bound: float
    rates: np.ndarray
    confusion: np.ndarray


def _with_predictions(positive: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Table [clients, groups, 2] of predictions from the shares predicted 1 and the shares at all."""
    return np.stack([members - positive, positive], axis=-1)


def _log_odds(positive: np.ndarray, members: np.ndarray) -> np.ndarray:
    """log2(positive / negative); 0 where there are no members, which have no effect."""
    held = members > 0
    safe = np.where(held, positive, 1)
    return np.log2(safe) - np.log2(np.where(held, members - positive, 1))


def _global_slope(positive: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Derivative of I(Z; prediction) by the share predicted 1 in each (client, group), [clients, groups]."""
    in_group = _log_odds(positive.sum(axis=0), members.sum(axis=0))
    overall = _log_odds(positive.sum(), members.sum())
    return np.broadcast_to(in_group - overall, members.shape)


def _local_slope(positive: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Derivative of I(Z; prediction | S) by the share predicted 1 in each (client, group), [clients, groups]."""
    in_client = _log_odds(positive.sum(axis=1), members.sum(axis=1))
    return _log_odds(positive, members) - in_client[:, None]


def _equal_rates(cells: list[np.ndarray], members: np.ndarray) -> list[np.ndarray]:
    """Rows [clients, groups] whose product with the shares predicted 1 is zero: one rate in all `cells` (masks)."""
    held = [mask for mask in cells if members[mask].sum() > 0]
    return [held[0] / members[held[0]].sum() - mask / members[mask].sum() for mask in held[1:]]


def _masks(members: np.ndarray) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """For every group the cells it has in all clients, and for every client each of its cells alone."""
    cells = np.arange(members.size).reshape(members.shape)
    whole = [np.isin(cells, cells[:, group]) for group in range(members.shape[1])]
    return whole, [[cells == cell for cell in row] for row in cells]


def accuracy_limit(
    joint: np.ndarray, global_limit: float, local_limit: float, tolerance: float = TOLERANCE
) -> AccuracyLimit:
    """Least error under I(Z; prediction) <= `global_limit` and I(Z; prediction | S) <= `local_limit`, in bits.

    `joint` [clients, groups, 2], counts or probabilities of the LABEL (0, 1) in each client and group. A limit of zero
    is exact: rates are equal. The result is within `tolerance` of the optimum: error - bound <= tolerance. Raises
    ValueError for a negative limit or another shape, RuntimeError when the tolerance is not reached (which limits of
    under about 1e-7 bits, other than zero, may cause).
    """
    labels = probabilities(joint)
    if labels.shape[2] != 2:
        raise ValueError(f"joint: {labels.shape[2]} labels, must be 2 (0 and 1)")
    for name, limit in (("global_limit", global_limit), ("local_limit", local_limit)):
        if not limit >= 0:
            raise ValueError(f"{name}: {limit}, must be at least 0")
    members, wanted = labels.sum(axis=2), labels[:, :, 1]
    whole, alone = _masks(members)
    equal: list[np.ndarray] = []
    if global_limit == 0:
        equal += _equal_rates(whole, members)
    if local_limit == 0:
        for cells, total in zip(alone, members.sum(axis=1), strict=True):
            equal += _equal_rates(cells, members) if total > 0 else []
    limits = tuple(limit if limit > 0 else None for limit in (global_limit, local_limit))
    return _enclose(members, wanted, equal, limits, tolerance)


def _client_disparities(positive: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The part of each client in I(Z; prediction | S), float64 [clients]; their sum is the whole."""
    shares = members.sum(axis=1)
    tables = _with_predictions(positive, members)
    return np.array(
        [share * global_disparity(each[None]) if share > 0 else 0.0 for share, each in zip(shares, tables, strict=True)]
    )


class _Outer:
    """Linear programs whose optima bound the error from below.

    Columns: false negatives and false positives of each (client, group), then the part of each client in the local
    disparity. A part stays above its tangents and all together below the limit: tangents of single clients, which
    depend on two rates each, close in far faster than tangents of the sum. Parts are counted in units of the limit, so
    that the solver's tolerance is small beside a small limit.
    """

    def __init__(self, members: np.ndarray, wanted: np.ndarray, equal: list[np.ndarray], local_limit: float):
        self.members, self.wanted = members, wanted
        self.clients = len(members)
        total = np.concatenate([np.zeros(2 * members.size), np.ones(self.clients)])
        self.unit = local_limit
        self.rows, self.heights = [total], [1.0]
        self.equal = np.array([self._row(row) for row in equal]) if equal else None
        self.sums = [-(row * wanted).sum() for row in equal] or None
        most = np.concatenate([wanted.ravel(), (members - wanted).ravel(), np.full(self.clients, np.inf)])
        self.bounds = np.stack([np.zeros(len(most)), most], axis=1)

    def _row(self, slope: np.ndarray, client: int | None = None) -> np.ndarray:
        parts = np.zeros(self.clients)
        if client is not None:
            parts[client] = -self.unit
        return np.concatenate([-slope.ravel(), slope.ravel(), parts])  # a false negative predicts 1 less often

    def add(self, slope: np.ndarray, height: float, client: int | None = None) -> None:
        """slope . (shares predicted 1) <= height, plus the part of `client` in the local disparity."""
        row, height = self._row(slope, client), height - (slope * self.wanted).sum()
        scale = np.abs(row).max()
        self.rows.append(row / scale)
        self.heights.append(height / scale)

    def solve(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Least error, the shares predicted 1 [clients, groups] and the parts of the local disparity [clients]."""
        from scipy.optimize import linprog

        cells = self.members.size
        made = linprog(
            np.repeat([1.0, 0.0], [2 * cells, self.clients]),
            A_ub=np.array(self.rows),
            b_ub=np.array(self.heights),
            A_eq=self.equal,
            b_eq=self.sums,
            bounds=self.bounds,
            method="highs",
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )
        if not made.success:
            raise RuntimeError(f"linear program: {made.message}")
        missed, false = made.x[: 2 * cells].reshape(2, *self.members.shape)
        return float(made.fun), self.wanted - missed + false, self.unit * made.x[2 * cells :]


def _border(excess: Callable[[float], float]) -> float:
    """The share of the way from the centre (0) to the outer point (1) at which a limit is reached; 1 if never."""
    from scipy.optimize import brentq

    return 1.0 if excess(1.0) <= 0 else brentq(excess, 0.0, 1.0, xtol=1e-15, rtol=1e-14)


def _enclose(members, wanted, equal, limits, tolerance) -> AccuracyLimit:
    """Linear programs from below, feasible points from above, until they meet.

    Every program's optimum is joined to a centre inside all limits (one rate for everybody tells nothing about the
    group); where the line leaves a limit, the tangents there cut that optimum off. A limit of None is kept by `equal`.
    """
    global_limit, local_limit = limits
    centre = members * np.clip(wanted.sum(), 0.01, 0.99)
    outer = _Outer(members, wanted, equal, MOST if local_limit is None else local_limit)
    best, at, bound = np.inf, centre, 0.0
    for _ in range(ITERATIONS):
        bound, far, parts = outer.solve()

        def point(share: float, far: np.ndarray = far) -> np.ndarray:
            return np.clip(centre + share * (far - centre), 0, members)

        inside = 1.0
        if global_limit is not None:
            share = _border(lambda x, at=point: global_disparity(_with_predictions(at(x), members)) - global_limit)
            if share < 1:
                touch = point(share)
                slope = _global_slope(touch, members)
                outer.add(slope, (slope * touch).sum())
            inside = min(inside, share)
        if local_limit is not None:
            share = _border(lambda x, at=point: local_disparity(_with_predictions(at(x), members)) - local_limit)
            if share < 1:
                touch = point(share)
                slopes = _local_slope(touch, members)
                values = _client_disparities(touch, members) - (slopes * touch).sum(axis=1)
                for client in np.flatnonzero(values + (slopes * far).sum(axis=1) > parts):
                    alone = np.zeros_like(members)
                    alone[client] = slopes[client]
                    outer.add(alone, -values[client], client)
            inside = min(inside, share)
        inner = point(inside if inside == 1 else inside * (1 - 1e-12))  # a rounding error inside
        error = np.abs(inner - wanted).sum()
        if error < best:
            best, at = error, inner
        if best - bound <= tolerance:
            return _answer(float(best), float(max(0.0, bound)), at, members, wanted)
    raise RuntimeError(f"the optimum is only known to lie in [{bound:g}, {best:g}] after {ITERATIONS} programs")


def _answer(error, bound, positive, members, wanted) -> AccuracyLimit:
    """The cells of the confusion table: a cell with rate r and base rate b needs no more than |r - b| wrong."""
    rates = np.divide(positive, members, out=np.full(members.shape, np.nan), where=members > 0)
    missed, false = np.maximum(wanted - positive, 0), np.maximum(positive - wanted, 0)
    negatives = np.stack([members - wanted - false, false], axis=-1)
    return AccuracyLimit(
        error, bound, rates, np.stack([negatives, np.stack([missed, wanted - missed], axis=-1)], axis=-2)
    )
