"""Performance profiles and the probability of improvement."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from heterobench.keyed import generator
from heterobench.stats.improvement import probability_of_improvement
from heterobench.stats.profiles import cost_profile, cost_ratios, profile_score, score_profile, score_profile_band

# methods by tasks; the second method fails on the last two tasks, everybody on the last
COSTS = [[10.0, 40.0, 6.0, math.inf], [20.0, 20.0, math.nan, math.inf]]


def test_ratios_and_profile_by_hand():
    assert cost_ratios(COSTS).tolist() == [[1, 2, 1, math.inf], [2, 1, math.inf, math.inf]]
    assert cost_profile(COSTS, [1, 1.9, 2, 100]).tolist() == [[0.5, 0.5, 0.75, 0.75], [0.25, 0.25, 0.5, 0.5]]


def test_score_is_the_integral_of_the_profile():
    # first method: ratios 1, 2, 1, inf up to 4: (3 + 2 + 3 + 0) / 3 / 4
    assert profile_score(COSTS).tolist() == pytest.approx([8 / 12, 5 / 12])
    costs = generator(13, "costs").lognormal(size=(3, 8))
    grid = 1 + 3 * (np.arange(30_000) + 0.5) / 30_000
    assert profile_score(costs) == pytest.approx(cost_profile(costs, grid).mean(axis=1), abs=1e-3)


def test_profile_invariants():
    costs = generator(14, "costs").integers(1, 5, (3, 20)).astype(float)
    costs[0, :4] = math.inf
    profile = cost_profile(costs, [1, 1.5, 2, 3, 1e9])
    assert profile[:, 0].sum() >= 1
    assert np.all(np.diff(profile, axis=1) >= 0)
    assert profile[:, -1].tolist() == [0.8, 1.0, 1.0]  # the limit is the share of tasks solved
    assert cost_profile(costs * generator(14, "units").uniform(1, 9, 20), [2.0]) == pytest.approx(profile[:, 2:3])


def test_score_profile_by_hand():
    scores = [[0.2, 0.6], [0.6, 0.7, math.nan]]
    assert score_profile(scores, [0.1, 0.6, 0.65, 1]).tolist() == pytest.approx(
        [(1 + 2 / 3) / 2, (0 + 1 / 3) / 2, (0 + 1 / 3) / 2, 0]
    )


def test_band_holds_the_profile_and_is_reproducible():
    scores = generator(15, "scores").random((4, 6))
    low, high = score_profile_band(scores, [0.2, 0.5, 0.8])
    assert np.all((low < score_profile(scores, [0.2, 0.5, 0.8])) & (score_profile(scores, [0.2, 0.5, 0.8]) < high))
    assert np.array_equal(low, score_profile_band(scores, [0.2, 0.5, 0.8])[0])


def test_band_against_the_binomial_distribution():
    # one task, half of ten runs above: a drawn share is binomial(10, 1/2) / 10
    low, high = score_profile_band([[0.0] * 5 + [1.0] * 5], [0.5], resamples=20_000)
    assert (low[0], high[0]) == pytest.approx(tuple(stats.binom.ppf([0.025, 0.975], 10, 0.5) / 10))


def test_probability_of_improvement_is_the_share_of_pairs():
    a, b = [1.0, 2.0, 3.0], [2.0, 0.0]
    pairs = [(x > y) + (x == y) / 2 for x, y in product(a, b)]
    made = probability_of_improvement([a], [b])
    assert made.estimate == pytest.approx(np.mean(pairs)) == pytest.approx(4.5 / 6)
    assert made.estimate == pytest.approx(stats.mannwhitneyu(a, b).statistic / 6)
    assert probability_of_improvement([a], [b], "min").estimate == pytest.approx(1.5 / 6)


def test_probability_of_improvement_weighs_tasks_alike():
    made = probability_of_improvement([[1.0], [0.0] * 9], [[0.0], [1.0] * 9])
    assert made[:3] == (0.5, 0.5, 0.5)  # each task is certain, so drawing again changes nothing


def test_failed_runs_lose_and_tie_with_each_other():
    for direction in ("max", "min"):
        made = probability_of_improvement([[math.nan, 1.0]], [[math.inf, 1.0]], direction)
        assert made.estimate == pytest.approx((0.5 + 0 + 1 + 0.5) / 4)
        assert (made.n, made.n_finite) == (4, 2)


def test_interval_of_improvement_against_all_resamples():
    a, b = np.array([1.0, 2.0, 4.0]), np.array([0.0, 3.0])
    every = [np.mean(np.array(x)[:, None] > np.array(y)) for x in product(a, repeat=3) for y in product(b, repeat=2)]
    low, high = np.quantile(every, [0.1, 0.9])
    made = probability_of_improvement([a], [b], level=0.8, resamples=20_000)
    assert (made.low, made.high) == pytest.approx((low, high))


def test_runs_of_the_two_methods_are_drawn_independently():
    # the same draws for both would make every share exactly one half
    made = probability_of_improvement([range(6)], [range(6)])
    assert made.estimate == 0.5
    assert made.low < 0.4 < 0.6 < made.high


def test_single_runs_have_no_interval():
    assert math.isnan(probability_of_improvement([[1.0]], [[0.0]]).low)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="costs"):
        cost_ratios([[0.0, 1.0]])
    with pytest.raises(ValueError, match="largest"):
        profile_score(COSTS, 1.0)
    with pytest.raises(ValueError, match="b: must have the tasks"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="resamples"):
        score_profile_band([[1.0, 2.0]], [0.5], resamples=10)
