"""Pareto fronts of quality (more is better) against cost (less is better), and the area that they dominate.

Failed runs: a point with a quality or a cost that is not finite is on no front and dominates nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from heterobench.stats.checks import array


def pareto_front(quality: ArrayLike, cost: ArrayLike) -> np.ndarray:
    """Places of the points [n] that no other dominates, cheapest first; of equal points the first only.

    A point is dominated when another is at least as good and at most as costly, and better in one of them.
    Raises ValueError when the lengths differ.
    """
    good, price = _points(quality, cost)
    usable = np.flatnonzero(np.isfinite(good) & np.isfinite(price))
    ordered = usable[np.lexsort((usable, -good[usable], price[usable]))]
    kept, best = [], -math.inf
    for i in ordered:
        if good[i] > best:
            kept.append(int(i))
            best = good[i]
    return np.array(kept, dtype=np.int64)


def hypervolume(quality: ArrayLike, cost: ArrayLike, reference: tuple[float, float]) -> float:
    """Area dominated by the points [n] above the reference (lowest quality, highest cost); exact, in two dimensions.

    Sum over the front, by cost, of (quality - lowest) (cost of the next - cost), the last next being the highest cost.
    Points that are not better than the reference in both count nothing. The reference must be fixed before
    results are seen: it changes the order of methods. For costs over decades pass logarithms, and scale both axes by
    `scaled`. Source: Zitzler and Thiele, IEEE Transactions on Evolutionary Computation 3 (1999) 257.
    Raises ValueError when lengths differ or the reference is not finite.
    """
    lowest, highest = reference
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ValueError(f"reference {reference!r}: must be finite")
    good, price = _points(quality, cost)
    inside = (good > lowest) & (price < highest)
    good, price = good[inside], price[inside]
    if good.size == 0:
        return 0.0
    front = pareto_front(good, price)
    widths = np.diff(np.append(price[front], highest))
    return float(np.sum((good[front] - lowest) * widths))


def hypervolume_contribution(
    quality: ArrayLike, cost: ArrayLike, owners: Sequence[str], reference: tuple[float, float]
) -> dict[str, float]:
    """What the area loses when all points of an owner (a method) are taken away; owners [n] name each point."""
    good, price = _points(quality, cost)
    names = np.asarray(owners)
    if names.shape != good.shape:
        raise ValueError(f"owners: must name each point, has {names.size} for {good.size}")
    whole = hypervolume(good, price, reference)
    without = {}
    for name in dict.fromkeys(owners):
        others = names != name
        without[name] = hypervolume(good[others], price[others], reference) if others.any() else 0.0
    return {name: whole - rest for name, rest in without.items()}


def scaled(values: ArrayLike, low: float, high: float, log: bool = False) -> np.ndarray:
    """Values [n] mapped so that low is 0 and high is 1, on a logarithmic axis if `log`; bounds are fixed, not measured.

    Values beyond the bounds stay beyond [0, 1]; those that are not finite stay so.
    Raises ValueError unless low < high, both finite, and for logs unless low and all values are positive.
    """
    given = array(values, "values", 1)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low {low!r}, high {high!r}: must be finite, low below high")
    if not log:
        return (given - low) / (high - low)
    if low <= 0 or np.any(given <= 0):
        raise ValueError("low and values: must be positive on a logarithmic axis")
    return np.log(given / low) / math.log(high / low)


def _points(quality: ArrayLike, cost: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    good, price = array(quality, "quality", 1), array(cost, "cost", 1)
    if good.shape != price.shape:
        raise ValueError(f"cost: must pair with quality, has {price.size} for {good.size}")
    return good, price
