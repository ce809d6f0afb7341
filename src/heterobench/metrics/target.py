"""What it takes to reach a target."""

from __future__ import annotations

import math
from collections.abc import Sequence


def first_reached(values: Sequence[float], target: float | None) -> int | None:
    """Position of the first value that is at least `target`; None when it is never reached (censored)."""
    if target is None:
        return None
    return next((i for i, value in enumerate(values) if value >= target), None)


def cost_at(position: int | None, costs: Sequence[float]) -> float:
    """The cost (rounds, seconds, bytes) at that position; NaN when the target was not reached."""
    return math.nan if position is None else float(costs[position])
