"""How many seeds it takes to tell two methods apart with the paired t test.

Failed runs: a pair with a failed run tells nothing, so the number of seeds to start is the number of whole pairs
needed over the share of pairs expected to be whole, rounded up.
"""

from __future__ import annotations

import math

from heterobench.stats.checks import share


def paired_power(difference: float, std: float, seeds: int, alpha: float = 0.05) -> float:
    """Probability that the two-sided paired t test rejects at `alpha`.

    `difference` is the true mean difference and `std` the standard deviation of the differences seed by seed, in
    the same unit. The statistic is noncentral t with n - 1 degrees and noncentrality difference / std * sqrt(n);
    both tails count. Source: Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), 2.
    Raises ValueError for fewer than two seeds, a std that is not positive or an alpha outside (0, 1).
    """
    from scipy.stats import nct, t

    share(alpha, "alpha")
    if not math.isfinite(difference):
        raise ValueError(f"difference {difference!r}: must be finite")
    if not 0 < std < math.inf:
        raise ValueError(f"std {std!r}: must be positive and finite")
    if seeds < 2:
        raise ValueError(f"seeds {seeds}: must be at least 2")
    # the tail against the difference is computed by symmetry: nct.cdf loses its digits far out on the left
    shift = abs(difference) / std * math.sqrt(seeds)
    critical = t.isf(alpha / 2, seeds - 1)
    return min(1.0, float(nct.sf(critical, seeds - 1, shift)) + float(nct.sf(critical, seeds - 1, -shift)))


def seeds_needed(
    difference: float,
    std: float,
    power: float = 0.8,
    alpha: float = 0.05,
    failing: float = 0.0,
    most: int = 10_000,
) -> int | None:
    """Least number of seeds with at least that power; None when `most` whole pairs are not enough.

    `failing` is the expected share of seeds with a failed run of either method, in [0, 1). A difference of zero
    can never be found and gives None. Raises ValueError as `paired_power`.
    """
    share(power, "power")
    if not 0 <= failing < 1:
        raise ValueError(f"failing {failing!r}: must be at least 0 and below 1")
    if most < 2:
        raise ValueError(f"most {most}: must be at least 2")
    if difference == 0 or paired_power(difference, std, most, alpha) < power:
        return None
    low, high = 1, most  # power grows with the number of seeds: `high` is enough, `low` is not
    while high - low > 1:
        middle = (low + high) // 2
        if paired_power(difference, std, middle, alpha) >= power:
            high = middle
        else:
            low = middle
    return math.ceil(high / (1 - failing) - 1e-9)


def detectable_difference(std: float, seeds: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Least true mean difference that `seeds` whole pairs find with that power; in the unit of `std`.

    The other way round from `seeds_needed`: what a table with so many seeds can see at all. Raises ValueError as
    `paired_power`, and unless alpha < power < 1.
    """
    from scipy.optimize import brentq

    share(power, "power")
    if power <= alpha:
        raise ValueError(f"power {power!r}: must be above alpha {alpha!r}, which a difference of zero has")
    lacking = lambda effect: paired_power(effect, 1.0, seeds, alpha) - power  # noqa: E731
    most = 1.0
    while lacking(most) < 0:
        most *= 2
    if not 0 < std < math.inf:
        raise ValueError(f"std {std!r}: must be positive and finite")
    return std * brentq(lacking, 0.0, most, xtol=1e-12)
