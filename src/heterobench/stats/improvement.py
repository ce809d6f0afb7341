"""Probability that a run of one method beats a run of another.

Failed runs: a score that is not finite loses to every finite one and ties with another failed one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from heterobench.stats.bootstrap import FEWEST_RESAMPLES, RESAMPLES, BootstrapInterval, redraw
from heterobench.stats.checks import array, losses, share
from heterobench.stats.intervals import LEVEL


def probability_of_improvement(
    a: Sequence[ArrayLike],
    b: Sequence[ArrayLike],
    direction: str = "max",
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> BootstrapInterval:
    """P(run of a beats run of b), ties one half, mean over tasks; percentile interval, runs drawn within tasks.

    `a` and `b` hold one array [runs] per task, tasks in the same order; the numbers of runs may differ. On each
    task this is the Mann-Whitney U statistic over the number of pairs. Runs of a and b are drawn independently:
    the probability is about two new runs, not about one seed. `n` counts runs of both, `n_finite` the finite ones.
    The ends are NaN where no task has a second run of either method.
    Source: Agarwal et al., NeurIPS 2021, arXiv 2108.13264, section 4.3. Raises ValueError for unequal numbers of tasks.
    """
    share(level, "level")
    if resamples < FEWEST_RESAMPLES:
        raise ValueError(f"resamples {resamples}: must be at least {FEWEST_RESAMPLES}")
    if len(a) == 0 or len(a) != len(b):
        raise ValueError(f"b: must have the tasks of a, has {len(b)} for {len(a)}")
    first = [losses(array(one, f"a[{i}]", 1), direction) for i, one in enumerate(a)]
    second = [losses(array(one, f"b[{i}]", 1), direction) for i, one in enumerate(b)]
    runs = first + second
    estimate = float(_wins([one[None] for one in first], [one[None] for one in second])[0])
    n, n_finite = sum(one.size for one in runs), int(sum(np.isfinite(one).sum() for one in runs))
    if all(one.size == 1 for one in runs):
        return BootstrapInterval(estimate, np.nan, np.nan, n, n_finite)
    replicates = _wins(
        redraw(first, resamples, seed, "improvement of"), redraw(second, resamples, seed, "improvement over")
    )
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return BootstrapInterval(estimate, float(low), float(high), n, n_finite)


def _wins(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """[resamples] from losses [resamples, runs] per task."""
    shares = []
    for one, other in zip(first, second, strict=True):
        better = one[:, :, None] < other[:, None, :]
        equal = one[:, :, None] == other[:, None, :]
        shares.append(np.mean(better + equal / 2, axis=(1, 2)))
    return np.mean(shares, axis=0)
