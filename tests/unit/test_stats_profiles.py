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


def test_band_holds_the_profile_and_is_the_wider_of_two_intervals():
    random = generator(5, "band")
    scores = random.normal(0.5, 0.3, (3, 6))
    at = np.array([-9.0, 0.2, 0.5, 0.8, 9.0])
    low, high = score_profile_band(scores, at)
    profile = score_profile(scores, at)
    assert (low <= profile).all()
    assert (profile <= high).all()
    assert low[-1] == high[0] - 1 == 0, "a share lies in [0, 1]"
    assert high[-1] > 0.15, "that none of 18 runs is above does not mean that none ever is"
    for place, threshold in enumerate(at):
        count = int((scores > threshold).sum())
        wilson = stats.binomtest(count, 18).proportion_ci(0.95, method="wilson")
        by_seed = (scores > threshold).mean(axis=0)
        half = stats.t.ppf(0.975, 5) * by_seed.std(ddof=1) / math.sqrt(6)
        assert low[place] == pytest.approx(max(0, min(wilson.low, count / 18 - half)))
        assert high[place] == pytest.approx(min(1, max(wilson.high, count / 18 + half)))


def test_probability_of_improvement_is_the_share_of_pairs():
    a, b = [1.0, 2.0, 3.0], [2.0, 0.0]
    pairs = [(x > y) + (x == y) / 2 for x, y in product(a, b)]
    made = probability_of_improvement([a], [b])
    assert made.estimate == pytest.approx(np.mean(pairs)) == pytest.approx(4.5 / 6)
    assert made.estimate == pytest.approx(stats.mannwhitneyu(a, b).statistic / 6)
    assert probability_of_improvement([a], [b], "min").estimate == pytest.approx(1.5 / 6)


def test_probability_of_improvement_weighs_tasks_alike():
    made = probability_of_improvement([[1.0], [0.0] * 9], [[0.0], [1.0] * 9])
    assert made.estimate == 0.5


def test_failed_runs_lose_and_tie_with_each_other():
    for direction in ("max", "min"):
        made = probability_of_improvement([[math.nan, 1.0]], [[math.inf, 1.0]], direction)
        assert made.estimate == pytest.approx((0.5 + 0 + 1 + 0.5) / 4)
        assert (made.n, made.n_finite) == (4, 2)


def newcombe(estimate, end, m, n, tasks):
    """How far an end is from the estimate, in Student's quantiles of its own standard error (by Hanley and McNeil)."""
    once, twice, more = end / (2 - end), 2 * end**2 / (1 + end), (m + n) / 2 - 1
    variance = (end * (1 - end) + more * (once - end**2) + more * (twice - end**2)) / (m * n) / tasks
    return abs(estimate - end) / math.sqrt(variance) / stats.t.ppf(0.975, m + n - 2)


def test_interval_of_improvement_by_runs_solves_its_equation():
    a, b = [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]], [[1.0, 2.5], [0.5, 4.0]]
    made = probability_of_improvement(a, b)
    assert 0 < made.low < made.estimate < made.high < 1
    assert newcombe(made.estimate, made.low, 3, 2, 2) == pytest.approx(1)
    assert newcombe(made.estimate, made.high, 3, 2, 2) == pytest.approx(1)
    other = probability_of_improvement(b, a)
    assert (other.low, other.high) == pytest.approx((1 - made.high, 1 - made.low))


def test_interval_of_improvement_is_students_over_seeds_where_that_is_wider():
    """Eight tasks that are one and the same tell no more than one."""
    a, b = np.arange(6) * 1.0, np.array([3.5, -0.5, 1.5, 0.5, 6.5, 2.5])
    made = probability_of_improvement([a] * 8, [b] * 8)
    seeds = [np.mean(a[i] > b) + np.mean(a > b[i]) for i in range(6)]
    half = stats.t.ppf(0.975, 5) * np.std(seeds, ddof=1) / math.sqrt(6)
    assert (made.low, made.high) == pytest.approx((made.estimate - half, made.estimate + half))
    assert newcombe(made.estimate, made.low, 6, 6, 8) > 1


def test_a_method_that_is_always_ahead_is_not_certain_to_be():
    made = probability_of_improvement([[4.0, 5.0, 6.0]], [[1.0, 2.0, 3.0]])
    assert (made.estimate, made.high) == (1.0, 1.0)
    assert 0.2 < made.low < 0.6


def test_single_runs_have_no_interval():
    assert math.isnan(probability_of_improvement([[1.0]], [[0.0]]).low)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="costs"):
        cost_ratios([[0.0, 1.0]])
    with pytest.raises(ValueError, match="largest"):
        profile_score(COSTS, 1.0)
    with pytest.raises(ValueError, match="b: must have the tasks"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])
