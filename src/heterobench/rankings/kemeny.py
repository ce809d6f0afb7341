"""Kemeny's consensus, exactly: the orders that disagree with the tasks on the least weight of pairs.

Sources: Kemeny, Mathematics without Numbers, Daedalus 88 (1959), 577; as an aggregation of benchmarks Colombo et
al., NeurIPS 2022, arXiv 2202.03799. The minimum is found by dynamic programming over the sets of methods that
come first, as Held and Karp (J. SIAM 10, 1962, 196) do for tours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heterobench.rankings.scores import TOLERANCE, Ranking, Reading, ranking, table, wins

LARGEST = 16  # methods: 2^16 sets of them, about a second and 40 MB


@dataclass(frozen=True, eq=False)
class Kemeny(Ranking):
    """A `Ranking` by the mean place over all optimal orders (`scores` is minus that place, the first being 1).

    distance  K of an optimal order: the summed weight of (task, pair) where the task puts strictly first the one
              that the order puts second
    optima    how many orders have that distance; methods that swap places among them share the mean place
    order     the first optimal order by the methods' numbers, best first
    """

    distance: float
    optima: int
    order: tuple[int, ...]


def kemeny(scores: ArrayLike, **reading: Unpack[Reading]) -> Kemeny:
    """Kemeny's consensus of the tasks' orders of the methods; `scores` [methods, tasks].

    Minimises K(order) = sum over a before b of W[b, a], with W[i, j] the weight of the tasks on which i beats j;
    a tie in a task costs nothing either way. Time and memory grow as 2^methods * methods. `missing`: error, drop,
    worst, observed (W over the tasks that both have). Raises ValueError for more than `LARGEST` methods, and as
    `scores.table`.
    """
    source = table(scores, allowed=("error", "drop", "worst", "observed"), **reading)
    methods = len(source.values)
    if methods > LARGEST:
        raise ValueError(f"scores: {methods} methods; the exact consensus is for {LARGEST} at most, use borda")
    search = _Search(wins(source), TOLERANCE * source.votes * methods**2)
    places = search.mean_places()
    found = ranking("kemeny", -places, source, TOLERANCE * methods)
    return Kemeny(**vars(found), distance=search.distance, optima=search.optima, order=search.first_order())


def kendall_cost(order: ArrayLike, votes: ArrayLike) -> float:
    """K of an order (method numbers, best first) against `votes` [methods, methods] as `scores.wins` gives them."""
    order, votes = np.asarray(order), np.asarray(votes, dtype=np.float64)
    return float(np.triu(votes[np.ix_(order, order)].T, 1).sum())


class _Search:
    """The table over sets of methods; a set is the integer whose bits are its members."""

    def __init__(self, votes: NDArray[np.float64], tolerance: float) -> None:
        self.methods = len(votes)
        self.tolerance = tolerance
        self.full = (1 << self.methods) - 1
        self.sets = np.arange(1 << self.methods)
        self.size = np.array([int(s).bit_count() for s in self.sets])
        member = (self.sets[:, None] >> np.arange(self.methods)) & 1
        # cost of putting i right after set S: the votes of everybody who then comes later against i
        self.cost = (1 - member) @ votes
        self.member = member.astype(bool)
        self._tabulate()

    @property
    def distance(self) -> float:
        return float(self.before[self.full])

    @property
    def optima(self) -> int:
        return int(self.ways_before[self.full])

    def _tabulate(self) -> None:
        """Least cost of the members' part (`before`) and of the rest (`after`), and how many orders attain it."""
        count = len(self.sets)
        self.before, self.after = np.full(count, np.inf), np.full(count, np.inf)
        self.ways_before, self.ways_after = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.before[0] = self.after[self.full] = 0.0
        self.ways_before[0] = self.ways_after[self.full] = 1
        for size in range(self.methods):
            layer = self.sets[self.size == size + 1]
            previous, steps = self._into(layer)
            self._fill(layer, self.before, self.ways_before, previous, steps)
        for size in reversed(range(self.methods)):
            layer = self.sets[self.size == size]
            following = layer[:, None] | (1 << np.arange(self.methods))
            steps = np.where(self.member[layer], np.inf, self.cost[layer])
            self._fill(layer, self.after, self.ways_after, following, steps)

    def _into(self, layer: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        methods = np.arange(self.methods)
        previous = layer[:, None] & ~(1 << methods)
        return previous, np.where(self.member[layer], self.cost[previous, methods], np.inf)

    def _fill(self, layer, least, ways, neighbours, steps) -> None:
        totals = np.where(np.isinf(steps), np.inf, least[neighbours] + steps)
        least[layer] = totals.min(axis=1)
        ways[layer] = np.where(totals <= least[layer][:, None] + self.tolerance, ways[neighbours], 0).sum(axis=1)

    def mean_places(self) -> NDArray[np.float64]:
        """Mean place [methods] over all optimal orders, the first place being 1."""
        through = self.ways_before[:, None] * self.ways_after[self.sets[:, None] | (1 << np.arange(self.methods))]
        optimal = ~self.member & (self._total_through() <= self.distance + self.tolerance)
        uses = np.where(optimal, through, 0)
        return ((self.size + 1) @ uses) / uses.sum(axis=0)

    def _total_through(self) -> NDArray[np.float64]:
        following = self.sets[:, None] | (1 << np.arange(self.methods))
        return self.before[:, None] + self.cost + self.after[following]

    def first_order(self) -> tuple[int, ...]:
        """The optimal order that is first by the numbers of its methods."""
        order: list[int] = []
        current = 0
        for _ in range(self.methods):
            for method in range(self.methods):
                following = current | (1 << method)
                total = self.before[current] + self.cost[current, method] + self.after[following]
                if following != current and total <= self.distance + self.tolerance:
                    order.append(method)
                    current = following
                    break
        return tuple(order)
