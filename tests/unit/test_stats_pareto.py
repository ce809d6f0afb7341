"""Pareto fronts and the area they dominate."""

import math

import numpy as np
import pytest

from heterobench.keyed import generator
from heterobench.stats.pareto import hypervolume, hypervolume_contribution, pareto_front, scaled

QUALITY, COST, REFERENCE = [0.9, 0.8, 0.6], [8.0, 4.0, 2.0], (0.0, 10.0)
RANDOM = generator(19, "points").integers(0, 12, (2, 40)).astype(float)


def test_worked_vectors():
    assert hypervolume(QUALITY, COST, REFERENCE) == pytest.approx(6.2)
    assert hypervolume([*QUALITY, 0.7], [*COST, 5], REFERENCE) == pytest.approx(6.2)
    assert hypervolume([*QUALITY, 0.85], [*COST, 4], REFERENCE) == pytest.approx(6.4)


def test_front_against_the_definition():
    good, cost = RANDOM

    def dominated(i):
        return np.any((good >= good[i]) & (cost <= cost[i]) & ((good > good[i]) | (cost < cost[i])))

    expected = {(good[i], cost[i]) for i in range(40) if not dominated(i)}
    front = pareto_front(good, cost)
    assert {(good[i], cost[i]) for i in front} == expected
    assert len(front) == len(expected)  # equal points once
    assert np.all(np.diff(cost[front]) > 0)


def test_hypervolume_by_counting_cells():
    good, cost = RANDOM
    for n in (1, 3, 40):
        q, c = np.meshgrid(np.arange(2, 12) + 0.5, np.arange(11) + 0.5)
        inside = np.any((good[:n, None, None] > q) & (cost[:n, None, None] < c), axis=0)
        assert hypervolume(good[:n], cost[:n], (2, 11)) == inside.sum()


def test_filter_is_idempotent_and_does_not_depend_on_order():
    good, cost = RANDOM
    front = pareto_front(good, cost)
    assert pareto_front(good[front], cost[front]).tolist() == list(range(len(front)))
    order = generator(20, "order").permutation(40)
    again = order[pareto_front(good[order], cost[order])]
    assert {(good[i], cost[i]) for i in again} == {(good[i], cost[i]) for i in front}


def test_first_of_equal_points_is_kept():
    assert pareto_front([0.5, 0.5, 0.4], [1, 1, 2]).tolist() == [0]


def test_a_point_never_lowers_the_area():
    good, cost = RANDOM
    areas = [hypervolume(good[:n], cost[:n], (0, 12)) for n in range(1, 41)]
    assert np.all(np.diff(areas) >= 0)
    assert areas[-1] <= (good.max() - 0) * (12 - cost.min())
    twice = hypervolume(np.tile(good, 2), np.tile(cost, 2), (0, 12))
    assert twice == areas[-1]
    front = pareto_front(good, cost)
    assert len(front) < 40
    assert hypervolume(good[front], cost[front], (0, 12)) == areas[-1]  # the dominated ones add nothing


def test_points_beyond_the_reference_and_failed_runs_count_nothing():
    quality = [*QUALITY, 1.5, -0.1, 0.99, math.nan, math.inf, 0.95]
    cost = [*COST, 12, 1, 10, 1, 1, math.nan]
    assert hypervolume(quality, cost, REFERENCE) == pytest.approx(6.2)
    assert pareto_front([math.inf, 0.5, math.nan], [1, 2, math.nan]).tolist() == [1]
    assert hypervolume([math.nan], [1.0], REFERENCE) == 0.0


def test_contribution_of_each_method():
    made = hypervolume_contribution(QUALITY, COST, ["a", "b", "a"], REFERENCE)
    # without a: 0.8 * 6; without b: 0.6 * 6 + 0.9 * 2
    assert made == pytest.approx({"a": 6.2 - 4.8, "b": 6.2 - 5.4})
    assert hypervolume_contribution([0.5], [1.0], ["only"], REFERENCE) == pytest.approx({"only": 4.5})


def test_scaling_with_fixed_bounds():
    assert scaled([1, 10, 1000], 1, 100, log=True).tolist() == pytest.approx([0, 0.5, 1.5])
    assert scaled([0, 5, 20], 0, 10).tolist() == [0, 0.5, 2]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="cost"):
        pareto_front([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="reference"):
        hypervolume(QUALITY, COST, (0.0, math.inf))
    with pytest.raises(ValueError, match="owners"):
        hypervolume_contribution(QUALITY, COST, ["a"], REFERENCE)
    with pytest.raises(ValueError, match="logarithmic"):
        scaled([0.0], 1, 10, log=True)
    with pytest.raises(ValueError, match="low 3"):
        scaled([0.0], 3, 3)
