"""Cost to a target with censoring."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from heterobench.keyed import generator
from heterobench.stats.reaching import (
    best_so_far,
    cost_to_target,
    kaplan_meier,
    log_cost_area,
    restricted_mean,
    summarise,
)

ROUNDS, CURVE = [0, 10, 20, 30], [0.5, 0.7, 0.65, 0.9]


def test_worked_vector():
    assert best_so_far(CURVE).tolist() == [0.5, 0.7, 0.7, 0.9]
    assert cost_to_target(ROUNDS, CURVE, 0.8) == pytest.approx(25.0)


def test_crossing_at_the_ends():
    assert cost_to_target(ROUNDS, CURVE, 0.1) == 0.0
    assert cost_to_target(ROUNDS, CURVE, 0.7) == pytest.approx(10.0)
    assert cost_to_target(ROUNDS, CURVE, 0.9) == pytest.approx(30.0)
    assert cost_to_target(ROUNDS, CURVE, 0.91) == math.inf


def test_cost_does_not_fall_with_the_target_nor_below_the_first_evaluation():
    values = generator(17, "curve").random(20)
    costs = np.arange(5, 25)
    reached = [cost_to_target(costs, values, target) for target in np.linspace(0, 1.1, 60)]
    assert all(later >= earlier for earlier, later in pairwise(reached))
    assert min(reached) == 5
    assert reached[-1] == math.inf


def test_evaluations_that_are_not_finite_never_raise_the_best():
    assert cost_to_target(ROUNDS, [0.5, math.inf, 0.65, 0.9], 0.8) == pytest.approx(20 + 10 * 0.15 / 0.25)
    assert cost_to_target(ROUNDS, [math.nan, 0.9, 0.9, 0.9], 0.5) == 10.0
    assert cost_to_target(ROUNDS, [math.nan] * 4, 0.5) == math.inf


def test_area_over_log_cost():
    # two equal steps of log cost: trapezia of 0.5-0.7 and 0.7-0.7
    assert log_cost_area([1, 10, 100], [0.5, 0.7, 0.6]) == pytest.approx((0.6 + 0.7) / 2)
    assert log_cost_area([3, 7, 50], [0.4] * 3) == pytest.approx(0.4)
    assert math.isnan(log_cost_area([1, 10], [math.nan, 0.5]))


def test_summary_counts_runs_that_never_reached():
    made = summarise([10, math.inf, 30, math.nan, 20], 100)
    assert made == (5, 3, 0.6, 30.0, (10 + 30 + 20 + 100 + 100) / 5, 100)
    assert summarise([10, 20, math.inf, math.inf], 100).median == math.inf
    assert summarise([math.inf] * 3, 50)[:5] == (3, 0, 0.0, math.inf, 50.0)
    assert summarise([10, 20, 30, math.inf], 100).median == 25
    assert summarise([10, 200], 100).n_reached == 1


def test_survival_by_hand():
    # 5 runs: there at 2, censored at 3, there at 4 and 4, censored at 9
    made = kaplan_meier([2, math.inf, 4, 4, math.nan], [9, 3, 9, 9, 9])
    assert made.costs.tolist() == [2, 4]
    assert made.remaining.tolist() == pytest.approx([4 / 5, 4 / 5 * 1 / 3])
    assert made.median == 4
    assert made.std[1] == pytest.approx(4 / 15 * math.sqrt(1 / (5 * 4) + 2 / (3 * 1)))


def test_survival_is_that_of_scipy():
    random = generator(18, "runs")
    costs, budgets = random.integers(1, 12, 40).astype(float), random.integers(3, 12, 40).astype(float)
    reached = costs <= budgets
    made = kaplan_meier(costs, budgets)
    right = stats.CensoredData(uncensored=costs[reached], right=budgets[~reached])
    expected = stats.ecdf(right).sf
    assert made.remaining == pytest.approx(expected.evaluate(made.costs), rel=1e-12)
    error = (expected.confidence_interval(0.9).high.evaluate(made.costs) - made.remaining) / stats.norm.isf(0.05)
    inside = expected.confidence_interval(0.9).high.evaluate(made.costs) < 1
    assert inside.sum() > 3
    assert made.std[inside] == pytest.approx(error[inside], rel=1e-6)


def test_one_budget_makes_all_summaries_agree():
    costs = [10, 20, math.inf, 20, 45]
    made, survival = summarise(costs, 50), kaplan_meier(costs, [50] * 5)
    assert survival.remaining[-1] == pytest.approx(1 - made.fraction)
    assert survival.median == made.median
    assert restricted_mean(survival, 50) == pytest.approx(made.restricted_mean)
    assert restricted_mean(survival, 15) == pytest.approx(np.minimum(costs, 15).mean())


def test_half_reached_exactly_is_the_median():
    assert kaplan_meier([1, 2, 3, 4, 5, 6], [9] * 6).median == 3
    # the product of 12 fractions comes out just above one half
    assert kaplan_meier(range(1, 25), [24] * 24).median == 12
    assert kaplan_meier([math.inf] * 2, [9] * 2).median == math.inf


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="costs"):
        cost_to_target([0, 10, 10, 20], CURVE, 0.8)
    with pytest.raises(ValueError, match="values"):
        cost_to_target([0, 10], CURVE, 0.8)
    with pytest.raises(ValueError, match="target"):
        cost_to_target(ROUNDS, CURVE, math.nan)
    with pytest.raises(ValueError, match="budgets"):
        summarise([1.0], 0)
    with pytest.raises(ValueError, match="costs"):
        log_cost_area(ROUNDS, CURVE)
    with pytest.raises(ValueError, match="horizon"):
        restricted_mean(kaplan_meier([1.0], [2.0]), math.inf)
