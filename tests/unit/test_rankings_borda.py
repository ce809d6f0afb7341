"""Borda's count and Kemeny's consensus (Colombo et al. 2022)."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from heterobench.rankings.borda import borda, points, two_level_borda
from heterobench.rankings.kemeny import LARGEST, kemeny, kendall_cost
from heterobench.rankings.scores import table, wins

# methods A, B, C, D on five tasks
FOUR = np.array([[90, 70, 60, 50, 80], [80, 80, 70, 60, 70], [70, 90, 80, 40, 60], [60, 60, 90, 70, 90]], float)
CYCLE = np.array([[3, 1, 2], [2, 3, 1], [1, 2, 3]], float)


def votes(scores):
    return wins(table(scores, allowed=("error",)))


def tables(seed=1, methods=5, tasks=7, levels=4):
    return np.random.default_rng(seed).integers(levels, size=(methods, tasks)).astype(float)


def test_borda_worked_vector():
    found = borda(FOUR)
    assert found.scores.tolist() == [7, 8, 6, 9]
    assert found.ranks.tolist() == [3, 2, 4, 1]
    assert found.elected == (3,)


def test_kemeny_worked_vector():
    found = kemeny(FOUR)
    assert found.order == (3, 1, 0, 2)
    assert (found.distance, found.optima) == (12, 1)
    assert (
        kendall_cost((2, 0, 1, 3), votes(FOUR))
        == 18
        == max(kendall_cost(p, votes(FOUR)) for p in permutations(range(4)))
    )


def test_two_levels_worked_vector():
    tasks = [np.array([[3, 3, 3], [2, 2, 2], [1, 1, 1]]), np.array([[1], [2], [3]])]
    assert borda(np.hstack(tasks)).scores.tolist() == [6, 4, 2]
    found = two_level_borda(tasks)
    assert found.scores.tolist() == [2, 2, 2]
    assert found.ranks.tolist() == [1, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_points_always_sum_to_the_same(seed):
    scores = tables(seed)
    assert borda(scores).scores.sum() == 7 * 5 * 4 / 2
    assert points(scores).sum(axis=0).tolist() == [10] * 7


def test_ties_share_the_mean_of_their_points_whatever_the_order_of_the_rows():
    assert borda([[1.0], [2.0], [2.0], [0.0]]).scores.tolist() == [1, 2.5, 2.5, 0]
    assert borda([[2.0], [0.0], [1.0], [2.0]]).scores.tolist() == [2.5, 0, 1, 2.5]


@pytest.mark.parametrize("rule", [borda, kemeny])
def test_increasing_transforms_of_a_task_change_nothing(rule):
    other = FOUR.copy()
    other[:, 0] = np.exp(other[:, 0] / 10)
    other[:, 1] *= 1000
    np.testing.assert_array_equal(rule(FOUR).scores, rule(other).scores)
    assert FOUR.mean(axis=1).argsort().tolist() != other.mean(axis=1).argsort().tolist()


def test_copies_of_all_tasks_scale_the_count():
    scores = tables()
    np.testing.assert_array_equal(borda(np.tile(scores, 3)).scores, 3 * borda(scores).scores)
    np.testing.assert_array_equal(borda(scores, weights=[3] * 7).scores, 3 * borda(scores).scores)
    assert kemeny(np.tile(scores, 3)).distance == 3 * kemeny(scores).distance


def test_a_weight_is_a_number_of_copies():
    scores = tables(2)
    copied = np.repeat(scores, [1, 2, 1, 0, 3, 1, 1], axis=1)
    for rule in (borda, kemeny):
        np.testing.assert_allclose(rule(scores, weights=[1, 2, 1, 0, 3, 1, 1]).scores, rule(copied).scores, rtol=1e-12)


def test_one_task_is_its_own_consensus():
    scores = np.array([[0.3], [0.9], [0.1], [0.5]])
    assert borda(scores).ranks.tolist() == [3, 1, 4, 2]
    assert kemeny(scores).order == (1, 3, 0, 2)
    agreeing = np.hstack([scores, 2 * scores, scores**3])
    assert (kemeny(agreeing).distance, kemeny(agreeing).ranks.tolist()) == (0, [3, 1, 4, 2])


def test_two_levels_of_single_instances_are_one_level():
    scores = tables(3)
    found = two_level_borda([scores[:, [t]] for t in range(7)])
    np.testing.assert_array_equal(found.scores, borda(scores).scores)


def test_a_task_has_one_say_however_many_instances_it_has():
    rng = np.random.default_rng(0)
    tasks = [rng.random((4, n)) for n in (2, 5, 1)]
    longer = [np.tile(tasks[0], 9), *tasks[1:]]
    np.testing.assert_array_equal(two_level_borda(tasks).scores, two_level_borda(longer).scores)
    assert not np.array_equal(borda(np.hstack(tasks)).ranks, borda(np.hstack(longer)).ranks)
    weighted = two_level_borda(tasks, weights=[0, 1, 0])
    assert weighted.ranks.tolist() == borda(tasks[1]).ranks.tolist()


def test_two_levels_number_the_instances_through_all_tasks():
    tasks = [np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([[np.nan, 3.0, -np.inf], [2.0, 1.0, 0.0]])]
    found = two_level_borda(tasks, missing="drop")
    assert found.tasks == (0, 1, 3, 4)
    assert (found.missing, found.failed) == (((0, 2),), ((0, 4),))
    with pytest.raises(ValueError, match="tasks: shapes"):
        two_level_borda([np.ones((2, 2)), np.ones((3, 1))])


@pytest.mark.parametrize("seed", range(12))
def test_kemeny_is_the_least_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    scores, weights = tables(seed), rng.integers(1, 4, size=7) / 7
    cost = {
        order: kendall_cost(order, np.einsum("ijt,t->ij", scores[:, None] > scores[None], weights))
        for order in permutations(range(5))
    }
    least = min(cost.values())
    optimal = [order for order, value in cost.items() if value <= least + 1e-9]
    found = kemeny(scores, weights=weights)
    assert found.distance == pytest.approx(least)
    assert (found.order, found.optima) == (min(optimal), len(optimal))
    places = np.mean([np.argsort(order) + 1 for order in optimal], axis=0)
    np.testing.assert_allclose(-found.scores, places)


def test_float_weights_do_not_hide_an_optimal_order():
    # 0.1 + 0.2 against 0.3 is even, though not in floats
    found = kemeny([[2, 2, 1], [1, 1, 2]], weights=[0.1, 0.2, 0.3])
    assert (found.optima, found.order, found.ranks.tolist()) == (2, (0, 1), [1, 1])


def test_kemeny_ties_what_its_optimal_orders_swap():
    assert kemeny(CYCLE).optima == 3
    assert kemeny(CYCLE).ranks.tolist() == [1, 1, 1]
    twins = kemeny([[2.0], [2.0], [1.0]])
    assert (twins.optima, twins.ranks.tolist(), twins.scores.tolist()) == (2, [1, 1, 3], [-1.5, -1.5, -3])


def test_kemeny_puts_a_condorcet_winner_first():
    winners = 0
    for seed in range(10):
        scores = np.random.default_rng(seed).random((5, 5))
        graph = votes(scores)
        beats_all = np.flatnonzero(((graph > graph.T) | np.eye(5, dtype=bool)).all(axis=1))
        if len(beats_all):
            winners += 1
            assert kemeny(scores).elected == tuple(beats_all)
    assert winners > 5


@pytest.mark.parametrize("seed", range(10))
def test_bordas_order_costs_at_most_five_times_the_least(seed):
    scores = np.random.default_rng(seed).random((5, 5))
    order = np.argsort(-borda(scores).scores, kind="stable")
    least = kemeny(scores).distance
    assert 0 < least <= kendall_cost(order, votes(scores)) <= 5 * least


def test_borda_may_pass_over_a_condorcet_winner_that_kemeny_finds():
    scores = np.array([[3, 3, 3, 1, 1], [2, 2, 2, 3, 3], [1, 1, 1, 2, 2]], float)
    assert kemeny(scores).elected == (0,)
    assert borda(scores).elected == (1,)


def test_kemeny_goes_to_its_limit_and_no_further():
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(12.0)[:, None], 5), axis=0)
    best = np.arange(12.0)[::-1, None]
    assert kemeny(np.hstack([best, best, best, scores[:, :2]])).order == tuple(range(12))
    with pytest.raises(ValueError, match=f"{LARGEST} at most"):
        kemeny(np.random.default_rng(0).random((LARGEST + 1, 2)))
