"""What all ranking rules share: directions, ties, and entries that failed or are missing."""

from __future__ import annotations

import numpy as np
import pytest

from heterobench.rankings import nash, votes
from heterobench.rankings.borda import borda
from heterobench.rankings.kemeny import kemeny
from heterobench.rankings.plackett_luce import plackett_luce
from heterobench.rankings.scores import competition_ranks, table

HOLES = np.array([[0.9, 0.2, np.nan], [0.8, 0.3, 0.5], [0.1, 0.4, 0.6]])
RULES = [borda, kemeny, votes.mean, votes.geometric_mean, nash.nash_average, *votes.EIGHT.values()]


def test_tied_methods_share_the_smallest_rank():
    assert competition_ranks([3.0, 5.0, 3.0, -np.inf, 1.0, -np.inf]).tolist() == [2, 1, 2, 5, 4, 5]
    assert competition_ranks([1.0, 1.0 + 1e-12], 1e-9).tolist() == [1, 1]
    assert competition_ranks([1.0, 1.0 + 1e-12]).tolist() == [2, 1]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_rule_takes_a_missing_entry_without_being_told_what_it_counts_as(rule):
    with pytest.raises(ValueError, match=r"\(0, 2\) missing"):
        rule(HOLES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_dropping_tasks_is_said_in_the_result(rule):
    found = rule(HOLES, missing="drop")
    assert found.tasks == (0, 1)
    assert found.missing == ((0, 2),)
    assert found.ranks.tolist() == rule(HOLES[:, :2]).ranks.tolist()


@pytest.mark.parametrize("rule", [borda, kemeny, votes.mean, *votes.EIGHT.values(), plackett_luce])
def test_missing_as_worst_is_the_same_as_a_failed_run(rule):
    kwargs = {"alpha": 0.1} if rule is plackett_luce else {}
    failed = np.where(np.isnan(HOLES), -np.inf, HOLES)
    as_worst, as_failed = rule(HOLES, missing="worst", **kwargs), rule(failed, **kwargs)
    np.testing.assert_array_equal(as_worst.scores, as_failed.scores)
    assert (as_worst.missing, as_worst.failed) == (((0, 2),), ())
    assert (as_failed.missing, as_failed.failed) == ((), ((0, 2),))


@pytest.mark.parametrize("rule", [*RULES[:3], *RULES[4:], plackett_luce], ids=lambda rule: rule.__name__)
def test_costs_are_turned_round(rule):
    scores = np.random.default_rng(4).random((4, 7))
    np.testing.assert_array_equal(rule(scores).ranks, rule(-scores, direction="min").ranks)
    assert not np.array_equal(borda(scores).ranks, borda(scores, direction="min").ranks)


@pytest.mark.parametrize(("direction", "worst"), [("max", -np.inf), ("min", np.inf)])
def test_a_failure_is_the_worst_infinity_and_the_other_one_is_refused(direction, worst):
    scores = [[1.0, 2.0], [worst, 1.0], [worst, 3.0]]
    assert borda(scores, direction=direction).scores[1:].sum() < 4
    assert borda([[1.0], [worst], [worst]], direction=direction).scores.tolist() == [2.0, 0.5, 0.5]
    with pytest.raises(ValueError, match="infinitely good"):
        borda(-np.array([[1.0], [worst]]), direction=direction)


def test_rounding_makes_ties():
    noisy = [[0.81234567, 0.5], [0.81234512, 0.6]]
    assert borda(noisy).scores.tolist() == [1, 1]
    assert borda(noisy, digits=4).scores.tolist() == [0.5, 1.5]


def test_a_failure_makes_a_mean_last_but_not_on_a_task_without_weight():
    scores = [[-np.inf, 9.0], [1.0, 1.0]]
    for rule in (votes.mean, votes.geometric_mean):
        assert rule(scores).ranks.tolist() == [2, 1]
        assert rule(scores).scores[0] == -np.inf
        assert rule(scores, weights=[0, 1]).scores.tolist() == pytest.approx([9, 1])


def test_a_mean_takes_the_median_of_the_task_for_a_missing_score():
    assert votes.mean(HOLES, missing="median").scores[0] == pytest.approx((0.9 + 0.2 + 0.55) / 3)


@pytest.mark.parametrize("rule", [kemeny, votes.condorcet, votes.copeland, votes.minimax])
def test_pairwise_rules_skip_the_task_for_the_pair_only(rule):
    scores = np.array([[3.0, np.nan, 1.0], [2.0, 1.0, 2.0], [1.0, 2.0, np.nan]])
    found = rule(scores, missing="observed")
    assert found.missing == ((0, 1), (2, 2))
    assert found.tasks == (0, 1, 2)
    votes_of_first = votes.wins(table(scores, allowed=("observed",), missing="observed"))
    assert votes_of_first.tolist() == [[0, 1, 1], [1, 0, 1], [0, 1, 0]]


def test_a_method_without_any_score_is_refused():
    with pytest.raises(ValueError, match=r"methods \[1\] have no score"):
        votes.copeland([[1.0, 2.0], [np.nan, np.nan]], missing="observed")
    with pytest.raises(ValueError, match=r"tasks \[1\] have no score"):
        votes.mean([[1.0, np.nan], [2.0, np.nan]], missing="median")
    with pytest.raises(ValueError, match="no task with a weight"):
        borda([[1.0, np.nan], [np.nan, 2.0]], missing="drop")


@pytest.mark.parametrize(
    ("reading", "word"),
    [
        ({"weights": [1.0]}, "weights"),
        ({"weights": [1.0, -1.0, 1.0]}, "weights"),
        ({"weights": [0.0, 0.0, 0.0]}, "weights"),
        ({"direction": "up"}, "direction"),
        ({"missing": "zero"}, "missing"),
        ({"missing": "observed"}, "missing"),
    ],
)
def test_bad_arguments_are_named(reading, word):
    with pytest.raises(ValueError, match=word):
        borda(np.eye(3), **reading)


@pytest.mark.parametrize("scores", [[1.0, 2.0], [[1.0, 2.0]], np.zeros((2, 0)), np.zeros((2, 2, 2))])
def test_tables_of_another_shape_are_refused(scores):
    with pytest.raises(ValueError, match="scores: shape"):
        borda(scores)


def test_tiers_are_from_best_to_worst():
    assert borda([[1.0], [3.0], [1.0], [0.0]]).tiers == ((1,), (0, 2), (3,))
