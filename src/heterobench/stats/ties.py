"""Who is printed in bold."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from heterobench.stats.intervals import LEVEL, mean_interval, paired_difference

RULE = (
    "Bold: the best mean among the methods, and every method whose paired difference to it, over the same "
    "seeds, has a 95 % interval that contains zero. A method without a value for each seed, because a run "
    "diverged, failed or is missing, is never bold; with one seed only the best mean and its equals are. The "
    "intervals are not corrected for the number of comparisons."
)


def best(
    results: Mapping[str, Mapping[int, float]], seeds: Collection[int], direction: str, level: float = LEVEL
) -> set[str]:
    """Names of the best method and of those tied with it, by `RULE`.

    `results` maps methods to {seed: value}; `direction` is "max" or "min"; a method takes part when it has a
    finite value for each of `seeds`. Raises ValueError for another direction.
    """
    if direction not in ("max", "min"):
        raise ValueError(f"direction {direction!r}: must be max or min")
    whole = {
        name: {seed: values[seed] for seed in seeds}
        for name, values in results.items()
        if all(math.isfinite(values.get(seed, math.nan)) for seed in seeds)
    }
    if not whole:
        return set()
    means = {name: mean_interval(values.values()).mean for name, values in whole.items()}
    first = (max if direction == "max" else min)(means, key=lambda name: means[name])
    return {name for name in whole if name == first or _tied(paired_difference(whole[first], whole[name], level))}


def _tied(difference) -> bool:
    if math.isnan(difference.low):  # a single seed
        return difference.mean == 0
    return difference.low <= 0 <= difference.high
