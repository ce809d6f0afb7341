"""Intervals over seeds, paired differences, ties."""

import math

import numpy as np
import pytest
from scipy import stats

from heterobench.keyed import generator
from heterobench.stats.intervals import mean_interval, paired_difference, t_quantile
from heterobench.stats.ties import best

SEEDS = range(5)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_interval_is_that_of_scipy(n, level):
    values = generator(0, "values", n).normal(3, 2, n)
    made = mean_interval(values, level)
    low, high = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert made.mean == pytest.approx(values.mean(), rel=1e-12)
    assert made.std == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert (made.low, made.high) == pytest.approx((low, high), rel=1e-10)
    assert made.half == pytest.approx((high - low) / 2, rel=1e-10)
    assert (made.n, made.n_finite) == (n, n)


def test_quantile_in_closed_form():
    # one degree of freedom is the Cauchy distribution: P(|T| <= t) = 2 atan(t) / pi
    assert t_quantile(1, 0.95) == pytest.approx(math.tan(0.95 * math.pi / 2), rel=1e-9)
    # two degrees: P(|T| <= t) = t / sqrt(2 + t^2)
    assert t_quantile(2, 0.95) == pytest.approx(math.sqrt(2 * 0.95**2 / (1 - 0.95**2)), rel=1e-9)


def test_interval_of_two_values_in_closed_form():
    made = mean_interval([1.0, 3.0])
    # std = sqrt(2), so half = t * sqrt(2) / sqrt(2) = t
    assert (made.mean, made.half) == pytest.approx((2.0, math.tan(0.95 * math.pi / 2)), rel=1e-9)


def test_interval_covers_the_mean_as_often_as_it_says():
    draws = generator(1, "coverage").normal(0, 1, (2000, 5))
    inside = np.mean([made.low <= 0 <= made.high for made in map(mean_interval, draws)])
    assert abs(inside - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_single_value_has_no_interval():
    made = mean_interval([0.5])
    assert made.mean == 0.5
    assert all(math.isnan(value) for value in (made.low, made.high, made.std, made.half))


def test_values_that_are_not_finite_are_counted_and_not_averaged():
    made = mean_interval([1.0, math.nan, 3.0, math.inf, 2.0])
    assert (made.mean, made.n, made.n_finite) == (2.0, 5, 3)
    assert mean_interval([1.0, 3.0, 2.0])[:4] == made[:4]
    none = mean_interval([math.nan])
    assert math.isnan(none.mean)
    assert (none.n, none.n_finite) == (1, 0)
    assert mean_interval([]).n == 0


def test_paired_difference_is_the_paired_t_procedure():
    random = generator(2, "pairs")
    hardness = random.normal(0, 10, 5)
    a = dict(zip(SEEDS, hardness + random.normal(1, 0.1, 5), strict=True))
    b = dict(zip(SEEDS, hardness, strict=True))
    made = paired_difference(a, b)
    expected = stats.ttest_rel(list(a.values()), list(b.values())).confidence_interval(0.95)
    assert (made.low, made.high) == pytest.approx((expected.low, expected.high), rel=1e-8)
    # what seeds share cancels: the difference is known far better than either mean
    assert made.half < mean_interval(a.values()).half / 20


def test_paired_difference_takes_common_seeds_by_seed_and_not_by_position():
    made = paired_difference({2: 20.0, 0: 1.0, 1: 11.0}, {1: 10.0, 2: 19.0, 7: -100.0})
    assert (made.mean, made.low, made.high, made.n) == (1.0, 1.0, 1.0, 2)
    assert paired_difference({0: 1.0, 1: math.nan}, {0: 0.0, 1: 0.0}).n_finite == 1


def values(*numbers):
    return dict(zip(SEEDS, numbers, strict=False))


def test_ties_by_paired_interval():
    results = {
        "first": values(10, 20, 30, 40, 50),
        "near": values(11, 18, 31, 39, 49),  # differences -1, 2, -1, 1, 1: mean 0.4, zero inside
        "below": values(9, 19.1, 28.9, 39, 49),  # about 1 worse for each seed, though the means overlap widely
    }
    assert best(results, SEEDS, "max") == {"first", "near"}


def test_direction():
    results = {"low": values(1, 1.1, 1, 1.1, 1), "high": values(5, 5, 5.1, 5, 5)}
    assert best(results, SEEDS, "max") == {"high"}
    assert best(results, SEEDS, "min") == {"low"}
    with pytest.raises(ValueError, match="max or min"):
        best(results, SEEDS, "up")


def test_constant_differences():
    same = values(1, 2, 3, 4, 5)
    assert best({"a": same, "b": dict(same)}, SEEDS, "max") == {"a", "b"}
    less = {seed: value - 0.5 for seed, value in same.items()}
    assert best({"a": same, "b": less}, SEEDS, "max") == {"a"}


def test_diverged_or_missing_runs_are_never_best():
    results = {
        "lucky": values(99, 99, 99, 99, math.nan),
        "short": values(99, 99),
        "whole": values(1, 2, 1, 2, 1),
    }
    assert best(results, SEEDS, "max") == {"whole"}
    assert best({"lucky": results["lucky"]}, SEEDS, "max") == set()


def test_single_seed_has_one_best_and_its_equals():
    assert best({"a": {0: 2.0}, "b": {0: 1.9}, "c": {0: 2.0}}, [0], "max") == {"a", "c"}
