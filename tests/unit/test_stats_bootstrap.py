"""Bootstrap intervals: reproducible, equal to scipy's on the same draws, honest about failed runs."""

import math

import numpy as np
import pytest
from scipy import stats

from heterobench.keyed import generator
from heterobench.stats.bootstrap import (
    bootstrap_interval,
    interquartile_mean,
    paired_bootstrap,
    stratified_bootstrap,
)

SKEWED = generator(3, "skewed").exponential(2.0, 12)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("statistic", [np.mean, np.std, np.median])
def test_interval_is_that_of_scipy_on_the_same_draws(method, statistic):
    made = bootstrap_interval(SKEWED, statistic, method, 0.9, 3000, seed=4)
    expected = stats.bootstrap(
        (SKEWED,), statistic, n_resamples=3000, method=method, confidence_level=0.9, rng=generator(4, "bootstrap")
    ).confidence_interval
    assert (made.low, made.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert made.estimate == pytest.approx(statistic(SKEWED))


def test_percentile_interval_against_all_resamples_of_three():
    values = np.array([0.0, 1.0, 5.0])
    every = np.array(np.meshgrid(values, values, values)).reshape(3, -1).mean(axis=0)
    low, high = np.quantile(every, [0.1, 0.9])
    made = bootstrap_interval(values, level=0.8, resamples=20_000)
    assert (made.low, made.high) == pytest.approx((low, high), abs=1e-12)  # few distinct means: the ends are exact


def test_same_seed_same_interval_and_another_seed_another():
    assert bootstrap_interval(SKEWED) == bootstrap_interval(SKEWED)
    assert bootstrap_interval(SKEWED) != bootstrap_interval(SKEWED, seed=1)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_constant_values_have_an_interval_of_zero_width(method):
    assert bootstrap_interval([0.5] * 6, method=method)[:3] == (0.5, 0.5, 0.5)


def test_fewer_seeds_have_a_wider_interval():
    many = np.tile([1.0, 2.0, 3.0], 20)
    few, lots = bootstrap_interval(many[:6]), bootstrap_interval(many)
    assert few.high - few.low > 2 * (lots.high - lots.low)  # the ratio is near sqrt(10)


def test_bca_moves_towards_the_long_tail_and_percentile_does_not():
    plain, moved = bootstrap_interval(SKEWED), bootstrap_interval(SKEWED, method="bca")
    assert moved.low > plain.low
    assert moved.high > plain.high


def test_failed_runs_are_counted_and_never_drawn():
    made = bootstrap_interval([math.nan, *SKEWED, math.inf])
    assert made[:3] == bootstrap_interval(SKEWED)[:3]
    assert (made.n, made.n_finite) == (14, 12)
    alone = bootstrap_interval([2.0, math.nan])
    assert alone.estimate == 2.0
    assert math.isnan(alone.low)


def test_paired_bootstrap_draws_pairs_whole():
    hardness = generator(5, "hardness").normal(0, 10, 8)
    made = paired_bootstrap(hardness + 1, hardness)
    assert (made.low, made.high) == pytest.approx((1, 1))
    one_failed = paired_bootstrap([1.0, math.inf, 3.0], [0.0, math.inf, 0.0])
    assert (one_failed.estimate, one_failed.n, one_failed.n_finite) == (2.0, 3, 2)


def test_interquartile_mean_by_hand_and_by_scipy():
    assert interquartile_mean(np.array([100.0, 1, 2, 3, 4, 5, 6, -50])) == 3.5
    for n in range(1, 12):
        values = generator(6, "iqm", n).normal(size=n)
        assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_strata_are_drawn_within_themselves():
    # constant within data sets, far apart between them: only draws across data sets could move the mean
    made = stratified_bootstrap([[0.0] * 3, [100.0] * 5])
    assert made[:3] == (50.0, 50.0, 50.0)  # and data sets weigh the same whatever their numbers of seeds
    assert stratified_bootstrap([[0.0] * 3, [100.0] * 5], "iqm").estimate == interquartile_mean([0.0] * 3 + [100.0] * 5)


def test_strata_draw_independently_of_each_other():
    values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    made = stratified_bootstrap([values, [-value for value in values]], resamples=20_000)
    # the mean of two independent means has variance 35/12 / 6 / 2; draws in step would cancel exactly
    assert made.high - made.low == pytest.approx(2 * 1.96 * math.sqrt(35 / 12 / 6 / 2), rel=0.05)


def test_data_set_without_a_whole_run_makes_the_aggregate_unknown():
    made = stratified_bootstrap([[1.0, 2.0], [math.nan, math.nan]])
    assert math.isnan(made.estimate)
    assert (made.n, made.n_finite) == (4, 2)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"level": 1.0}, "level"), ({"resamples": 1999}, "resamples"), ({"method": "basic"}, "method")],
)
def test_bad_options_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        bootstrap_interval(SKEWED, **options)


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="values"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="b: must pair"):
        paired_bootstrap([1.0, 2.0], [1.0])
