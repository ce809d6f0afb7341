"""Scaling curves: error against size (examples, clients, parameters) as a + b n^-beta.

Failed runs: a seed with a failed run at any size is left out whole, so that every size averages the same
seeds; `n` counts the seeds that there are, `n_whole` those that were fitted.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from heterobench.keyed import generator
from heterobench.stats.checks import array, share
from heterobench.stats.intervals import LEVEL

FEWEST_SIZES = 5
FURTHEST = 2.0  # how far beyond the measured sizes a curve may be read
FLOORS = 41  # tried as starts of the fit
FEWEST_SEEDS = 20  # drawing n seeds again misses the variance by 1/n: with 3 seeds a 95 % interval misses every fourth
RESAMPLES = 200  # each is a fit of its own


class ScalingCurve(NamedTuple):
    """error(n) = floor + factor n^-exponent, fitted on sizes from `smallest` to `largest`."""

    floor: float
    factor: float
    exponent: float
    smallest: float
    largest: float

    def at(self, size: float) -> float:
        """Error at a size from half the smallest to twice the largest that was fitted; ValueError beyond."""
        if not self.smallest / FURTHEST <= size <= self.largest * FURTHEST:
            raise ValueError(
                f"size {size!r}: must be from {self.smallest / FURTHEST:g} to {self.largest * FURTHEST:g}; "
                "the curve says nothing further out"
            )
        return self.floor + self.factor * size**-self.exponent


class ScalingFit(NamedTuple):
    """Curve of the mean over seeds; percentile intervals (low, high), NaN under `FEWEST_SEEDS` whole seeds."""

    curve: ScalingCurve
    floor: tuple[float, float]
    factor: tuple[float, float]
    exponent: tuple[float, float]
    n: int
    n_whole: int


def fit_scaling(sizes: ArrayLike, errors: ArrayLike) -> ScalingCurve:
    """Least squares of log error on log(a + b n^-beta), a >= 0, b > 0, beta >= 0.

    `sizes` and `errors` are [m], positive, at least five different sizes. The residual has local minima in
    a, so the search starts from the best of a grid of floors, for each of which log(error - a) is a straight
    line in log n. Raises ValueError for other shapes, too few sizes, or values that are not positive and finite.
    """
    from scipy.optimize import least_squares

    n, error = _measured(sizes, errors)
    logs, centre = np.log(n), np.log(n).mean()
    scale = float(np.exp(np.log(error).mean()))  # in units of the errors themselves all tolerances are alike

    def residual(parameters: np.ndarray) -> np.ndarray:
        floor, log_factor, exponent = parameters
        return np.log(floor + np.exp(log_factor - exponent * (logs - centre))) - np.log(error / scale)

    starts = [_straight(logs - centre, error / scale, floor) for floor in _floors(error / scale)]
    start = min(starts, key=lambda one: float(np.sum(residual(one) ** 2)))
    bounds = ([0.0, -np.inf, 0.0], [np.inf, np.inf, np.inf])
    found = least_squares(residual, start, bounds=bounds, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    floor, log_factor, exponent = found.x
    factor = math.exp(log_factor + exponent * centre) * scale
    return ScalingCurve(float(floor) * scale, factor, float(exponent), float(n.min()), float(n.max()))


def fit_scaling_seeds(
    sizes: ArrayLike, errors: ArrayLike, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> ScalingFit:
    """Fit of the mean error over seeds, with intervals from seeds drawn again (whole curves, since a seed is shared).

    `errors` is [seeds, m]. Raises ValueError as `fit_scaling`, when no seed is whole, or for fewer than 100 resamples.
    """
    share(level, "level")
    if resamples < 100:
        raise ValueError(f"resamples {resamples}: must be at least 100")
    table = array(errors, "errors", 2)
    whole = table[np.all(np.isfinite(table), axis=1)]
    if len(whole) == 0:
        raise ValueError("errors: no seed has a finite error at every size")
    curve = fit_scaling(sizes, whole.mean(axis=0))
    nothing = (math.nan, math.nan)
    if len(whole) < FEWEST_SEEDS:
        return ScalingFit(curve, nothing, nothing, nothing, len(table), len(whole))
    drawn = generator(seed, "scaling curve").integers(0, len(whole), (resamples, len(whole)))
    fits = np.array([fit_scaling(sizes, whole[rows].mean(axis=0))[:3] for rows in drawn])
    ends = np.quantile(fits, [(1 - level) / 2, (1 + level) / 2], axis=0).T
    floor, factor, exponent = ((float(low), float(high)) for low, high in ends)
    return ScalingFit(curve, floor, factor, exponent, len(table), len(whole))


def _measured(sizes: ArrayLike, errors: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    n, error = array(sizes, "sizes", 1), array(errors, "errors", 1)
    if n.shape != error.shape:
        raise ValueError(f"errors: must pair with sizes, has {error.size} for {n.size}")
    for name, values in (("sizes", n), ("errors", error)):
        if not np.all((values > 0) & np.isfinite(values)):
            raise ValueError(f"{name}: must be positive and finite, got {values.tolist()}")
    if np.unique(n).size < FEWEST_SIZES:
        raise ValueError(f"sizes: must be at least {FEWEST_SIZES} different ones, got {np.unique(n).size}")
    return n, error


def _floors(error: np.ndarray) -> np.ndarray:
    """From no floor to just under the least error, denser towards that end, where the line bends most."""
    return error.min() * (1 - np.geomspace(1.0, 1e-4, FLOORS))


def _straight(logs: np.ndarray, error: np.ndarray, floor: float) -> np.ndarray:
    slope, intercept = np.polyfit(logs, np.log(error - floor), 1)
    return np.array([floor, intercept, max(-slope, 1e-6)])
