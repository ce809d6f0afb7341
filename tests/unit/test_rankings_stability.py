"""How rankings move when something is left out."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from heterobench.rankings import votes
from heterobench.rankings.borda import borda
from heterobench.rankings.kemeny import kemeny, kendall_cost
from heterobench.rankings.nash import nash_average
from heterobench.rankings.plackett_luce import plackett_luce
from heterobench.rankings.scores import table, wins
from heterobench.rankings.stability import kendall_tau, leave_one_out, mean_over_seeds

# the first wins by its lead on the last task alone
ONE_TASK = np.array([[1, 1, 99], [2, 2, 3], [0, 0, 4]], float)


def test_a_task_that_decides_is_found():
    found = leave_one_out(votes.mean, ONE_TASK)
    assert found.whole.elected == (0,)
    assert found.ranks.tolist() == [[1, 2, 3], [1, 2, 3], [2, 1, 3]]
    assert found.new_winner.tolist() == [False, False, True]
    assert found.tau.tolist() == pytest.approx([1, 1, 1 / 3])
    assert found.range.tolist() == [[1, 2], [1, 2], [3, 3]]
    assert found.refused == {}


@pytest.mark.parametrize("rule", [borda, kemeny, nash_average, votes.minimax, partial(plackett_luce, alpha=0.1)])
def test_each_case_is_the_rule_without_the_task(rule):
    scores = np.random.default_rng(6).random((4, 5))
    found = leave_one_out(rule, scores)
    for task in range(5):
        assert found.ranks[task].tolist() == rule(np.delete(scores, task, axis=1)).ranks.tolist()


def test_weights_go_with_their_tasks():
    weights = [1.0, 2.0, 5.0]
    found = leave_one_out(votes.copeland, ONE_TASK, weights=weights)
    assert found.whole.ranks.tolist() == votes.copeland(ONE_TASK, weights=weights).ranks.tolist()
    for task, kept in enumerate([[1, 2], [0, 2], [0, 1]]):
        expected = votes.copeland(ONE_TASK[:, kept], weights=np.array(weights)[kept]).ranks
        assert found.ranks[task].tolist() == expected.tolist()


def test_a_seed_that_decides_is_found():
    scores = np.stack([[[1.0, 1.0], [2.0, 2.0]], [[1.0, 1.0], [2.0, 2.0]], [[9.0, 9.0], [1.0, 1.0]]], axis=2)
    found = leave_one_out(borda, scores, "seed")
    assert found.whole.elected == (0,)
    assert found.ranks.tolist() == [[1, 2], [1, 2], [2, 1]]
    assert found.new_winner.tolist() == [False, False, True]
    by_task = leave_one_out(borda, scores, "task")
    assert by_task.ranks.tolist() == [[1, 2], [1, 2]]


def test_a_failed_seed_fails_the_cell_and_leaving_it_out_mends_it():
    scores = np.ones((2, 1, 3)) * np.array([3.0, 1.0])[:, None, None]
    scores[0, 0, 1] = -np.inf
    found = leave_one_out(borda, scores, "seed")
    assert found.whole.failed == ((0, 0),)
    assert found.ranks.tolist() == [[2, 1], [1, 2], [2, 1]]


def test_means_over_seeds_keep_failures_before_what_is_missing():
    cells = np.array([[[1.0, 3.0], [np.nan, 1.0]], [[-np.inf, np.nan], [-np.inf, 1.0]]])
    np.testing.assert_array_equal(mean_over_seeds(cells), [[2, np.nan], [-np.inf, -np.inf]])
    assert mean_over_seeds([[[np.inf, 1.0]]]).tolist() == [[np.inf]]
    with pytest.raises(ValueError, match="both infinities"):
        mean_over_seeds([[[np.inf, -np.inf]]])


def test_a_weak_clone_that_turns_bordas_winner_is_found():
    # without the last method the first wins; the last takes points from nobody but moves the second up
    scores = np.array([[3, 3, 3, 1, 1], [2, 2, 2, 3, 3], [1, 1, 1, 2, 2]], float)
    found = leave_one_out(borda, scores, "method")
    assert found.whole.elected == (1,)
    assert found.new_winner.tolist() == [False, False, True]
    np.testing.assert_array_equal(found.ranks, [[np.nan, 1, 2], [1, np.nan, 2], [1, 2, np.nan]])
    assert found.range.tolist() == [[1, 2], [1, 2], [2, 3]]


def test_leaving_the_winner_out_is_no_news_if_the_second_takes_over():
    found = leave_one_out(votes.mean, np.array([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]]), "method")
    assert found.new_winner.tolist() == [False, False, False]


def test_a_case_that_the_rule_refuses_is_listed():
    # only the last sample is won by the second
    found = leave_one_out(plackett_luce, np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    assert list(found.refused) == [2]
    assert "unbounded" in found.refused[2]
    assert np.isnan(found.ranks[2]).all()
    assert found.range.tolist() == [[1, 1], [1, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_tau_of_strict_orders_counts_the_pairs_that_they_turn(seed):
    """1 - 4 K / (N (N - 1)), with K the Kendall distance that Kemeny's consensus makes least."""
    one, other = (np.random.default_rng([seed, which]).permutation(6) + 1 for which in range(2))
    turned = kendall_cost(np.argsort(one), wins(table(-other[:, None].astype(float), allowed=("error",))))
    assert kendall_tau(one, other) == pytest.approx(1 - 4 * turned / (6 * 5))


def test_tau_b_of_ties():
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3], [1, 1, 3]) == pytest.approx(2 / np.sqrt(6))
    assert np.isnan(kendall_tau([1, 1, 1], [1, 2, 3]))


@pytest.mark.parametrize(
    ("scores", "out", "word"),
    [
        (np.ones((3, 4)), "seed", "scores: shape"),
        (np.ones((3, 1)), "task", "nothing can be left out"),
        (np.ones((3, 4)), "client", "out 'client'"),
        (np.ones(3), "task", "scores: shape"),
    ],
)
def test_what_cannot_be_left_out_is_refused(scores, out, word):
    with pytest.raises(ValueError, match=word):
        leave_one_out(borda, scores, out)


def test_a_rule_that_reads_seeds_gets_them():
    scores = np.random.default_rng(4).random((3, 4, 5))

    def rule(values):
        assert values.ndim == 3
        return borda(values.reshape(len(values), -1))

    for axis, out in enumerate(("method", "task", "seed")):
        found = leave_one_out(rule, scores, out, seeds_inside=True)
        for case in range(scores.shape[axis]):
            kept = np.delete(scores, case, axis=axis)
            expected = borda(kept.reshape(len(kept), -1))
            assert found.ranks[case][np.isfinite(found.ranks[case])].tolist() == expected.ranks.tolist()


def test_who_is_elected_is_named_by_the_numbers_of_the_whole():
    found = leave_one_out(votes.mean, ONE_TASK)
    assert found.elected == ((0,), (0,), (1,))
    without = leave_one_out(votes.mean, ONE_TASK, "method")
    assert without.elected[0] == (1,)  # the second, not the first of what is left
    refused = leave_one_out(plackett_luce, np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
    assert refused.elected[0] == ()
    assert 0 in refused.refused
