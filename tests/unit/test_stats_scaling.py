"""Fits of error = a + b n^-beta."""

import math

import numpy as np
import pytest

from heterobench.keyed import generator
from heterobench.stats.scaling import fit_scaling, fit_scaling_seeds

SIZES = np.array([100.0, 200, 400, 800, 1600, 3200])


@pytest.mark.parametrize(("a", "b", "beta"), [(0.1, 2.0, 0.5), (0.0, 1.0, 0.3), (0.02, 30.0, 1.0)])
def test_exact_curves_are_recovered(a, b, beta):
    curve = fit_scaling(SIZES, a + b * SIZES**-beta)
    assert curve[:3] == pytest.approx((a, b, beta), rel=1e-3, abs=1e-4)
    assert curve.at(6400) == pytest.approx(a + b * 6400**-beta, rel=1e-4)


def residual(parameters, errors):
    a, b, beta = parameters
    return np.sum((np.log(a + b * SIZES**-beta) - np.log(errors)) ** 2)


def test_no_curve_nearby_fits_better():
    noise = generator(21, "noise").normal(0, 0.02, SIZES.size)
    errors = (0.1 + 2 * SIZES**-0.5) * np.exp(noise)
    found = np.array(fit_scaling(SIZES, errors)[:3])
    least = residual(found, errors)
    assert least <= residual((0.1, 2.0, 0.5), errors)
    for step in (1e-2, 1e-3):
        for i in range(3):
            for sign in (-1, 1):
                moved = found.copy()
                moved[i] *= 1 + sign * step
                assert residual(moved, errors) > least


def test_units_scale_floor_and_factor_only():
    errors = (0.1 + 2 * SIZES**-0.5) * np.exp(generator(22, "noise").normal(0, 0.01, SIZES.size))
    one, hundred = fit_scaling(SIZES, errors), fit_scaling(SIZES, 100 * errors)
    assert hundred[:3] == pytest.approx((100 * one.floor, 100 * one.factor, one.exponent), rel=1e-4)


def test_curve_is_not_read_beyond_twice_the_sizes():
    curve = fit_scaling(SIZES, 2 * SIZES**-0.5)
    assert curve.at(50) > curve.at(6400)
    for size in (49, 6401):
        with pytest.raises(ValueError, match="size"):
            curve.at(size)


def test_seeds_give_intervals_and_failed_seeds_are_left_out_whole():
    noise = generator(23, "noise").normal(0, 0.01, (20, SIZES.size))
    errors = (0.1 + 2 * SIZES**-0.5) * np.exp(noise)
    broken = np.vstack([errors, errors[0]])
    broken[20, 2] = math.nan
    made = fit_scaling_seeds(SIZES, broken, resamples=100)
    assert (made.n, made.n_whole) == (21, 20)
    assert made.curve == fit_scaling(SIZES, errors.mean(axis=0))
    assert made == (*fit_scaling_seeds(SIZES, errors, resamples=100)[:4], 21, 20)
    assert made.exponent[0] < made.curve.exponent < made.exponent[1]


def test_equal_seeds_have_intervals_of_zero_width():
    made = fit_scaling_seeds(SIZES, np.tile(0.1 + 2 * SIZES**-0.5, (20, 1)), resamples=100)
    assert made.exponent == pytest.approx((made.curve.exponent,) * 2)
    assert math.isnan(fit_scaling_seeds(SIZES, np.tile(0.1 + 2 * SIZES**-0.5, (19, 1))).floor[0])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="sizes"):
        fit_scaling(SIZES[:4], [4, 3, 2, 1])
    with pytest.raises(ValueError, match="sizes"):
        fit_scaling([1, 1, 2, 2, 3], [4, 3, 2, 1, 1])
    with pytest.raises(ValueError, match="errors"):
        fit_scaling(SIZES, [0.0] * 6)
    with pytest.raises(ValueError, match="errors"):
        fit_scaling_seeds(SIZES, [[math.nan] * 6])
