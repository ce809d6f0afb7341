"""How often the intervals of tables hold the truth with few seeds: the table of docs/intervals.md.

    python benchmarks/interval_coverage.py

Tables of S scenarios and n seeds are drawn, 20,000 of each kind, from a distribution of mean 0: normal, or exponential
(skewness 2). Shared: the part of the variance that a seed brings to all scenarios at once. Beside the interval of
`mean_of_means` stands the one that it replaced, the percentile bootstrap with seeds drawn again within each scenario
(2,000 tables, 1,000 draws).
"""

from __future__ import annotations

import math

import numpy as np

from heterobench.keyed import generator
from heterobench.stats.intervals import mean_of_means

TABLES, REDRAWN, DRAWS = 20_000, 2_000, 1_000
SEEDS = (3, 5, 10)


def drawn(kind: str, scenarios: int, seeds: int, shared: float) -> np.ndarray:
    """[TABLES, scenarios, seeds]"""
    random = generator(0, "coverage", scenarios, seeds)
    make = random.standard_normal if kind == "normal" else lambda shape: random.standard_exponential(shape) - 1
    own, common = make((TABLES, scenarios, seeds)), make((TABLES, 1, seeds))
    return math.sqrt(1 - shared) * own + math.sqrt(shared) * common


def held(ends: list[tuple[float, float]]) -> float:
    """Share, in %, of intervals that hold 0."""
    return 100 * float(np.mean([low <= 0 <= high for low, high in ends]))


def redrawn(table: np.ndarray, random: np.random.Generator) -> tuple[float, float]:
    places = random.integers(0, table.shape[1], (DRAWS, *table.shape))
    means = np.take_along_axis(table[None], places, axis=2).mean(axis=(1, 2))
    return tuple(np.quantile(means, [0.025, 0.975]))


def main() -> None:
    print("| distribution | scenarios | shared | " + " | ".join(f"n = {n}" for n in SEEDS) + " | ", end="")
    print(" | ".join(f"redrawn, n = {n}" for n in SEEDS) + " |")
    print("| :-- | --: | --: |" + " --: |" * 2 * len(SEEDS))
    for kind in ("normal", "exponential"):
        for scenarios, shared in ((1, 0.0), (4, 0.0), (4, 0.3)):
            tables = [drawn(kind, scenarios, seeds, shared) for seeds in SEEDS]
            now = [held([mean_of_means(table)[1:3] for table in each]) for each in tables]
            random = generator(0, "redrawn")
            before = [held([redrawn(table, random) for table in each[:REDRAWN]]) for each in tables]
            cells = " | ".join(f"{share:.1f}" for share in (*now, *before))
            print(f"| {kind} | {scenarios} | {shared:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
