"""The rules of Vote'n'Rank (Rofin et al. 2023) and the weights of a Condorcet winner."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from heterobench.rankings import votes
from heterobench.rankings.scores import table

FOUR = np.array([[90, 70, 60, 50, 80], [80, 80, 70, 60, 70], [70, 90, 80, 40, 60], [60, 60, 90, 70, 90]], float)
TIED = np.array([[3, 1], [3, 2], [1, 3]], float)
ORDINAL = list(votes.EIGHT.items())
CARDINAL = [
    ("mean", votes.mean),
    ("geometric mean", votes.geometric_mean),
    ("optimality gap", partial(votes.optimality_gap, gamma=95.0)),
]
ALL = [*CARDINAL, *ORDINAL]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (votes.mean, [70, 72, 68, 74]),
        (votes.geometric_mean, [68.535, 71.599, 65.543, 72.774]),
        (votes.plurality, [1, 0, 1, 3]),
        (votes.borda, [7, 8, 6, 9]),
        (votes.dowdall, [2.4167, 2.1667, 2.3333, 3.5]),
        (votes.copeland, [-1, 1, -3, 3]),
        (votes.minimax, [-3, -3, -3, 0]),
        (lambda scores: votes.minimax(scores, "margins"), [-1, -1, -1, 1]),
        (lambda scores: votes.optimality_gap(scores, 75), [-9, -5, -11, -7]),
        (votes.baldwin, [0, 0, 0, 1]),
        (votes.condorcet, [0, 0, 0, 1]),
        (votes.threshold, [0, 1, 0, 0]),
    ],
)
def test_worked_vector(rule, expected):
    np.testing.assert_allclose(rule(FOUR).scores, expected, atol=5e-4)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [(votes.plurality, [0, 0, 1]), (votes.borda, [1, 2, 2]), (votes.dowdall, [4 / 3, 1.5, 4 / 3])],
)
def test_worked_vector_with_ties(rule, expected):
    np.testing.assert_allclose(rule(TIED).scores, expected, rtol=1e-12)


def test_there_are_eight_rules():
    assert len(votes.EIGHT) == 8


def test_kinds_of_copeland_and_minimax():
    # the first and second are even, both beat the third
    scores = np.array([[3, 2], [2, 3], [1, 1]], float)
    expected = {"difference": [1, 1, -2], "lower": [1, 1, 0], "upper": [0, 0, -2], "lower_with_ties": [1.5, 1.5, 0]}
    for kind, values in expected.items():
        assert votes.copeland(scores, kind).scores.tolist() == values
    assert votes.minimax(scores, "winning_votes").scores.tolist() == [0, 0, -2]
    assert votes.minimax(scores, "pairwise_opposition").scores.tolist() == [-1, -1, -2]
    for rule in (votes.copeland, votes.minimax):
        with pytest.raises(ValueError, match="kind 'x'"):
            rule(scores, "x")


def test_a_condorcet_winner_leads_copeland_minimax_and_baldwin():
    seen = set()
    for seed in range(20):
        scores = np.random.default_rng(seed).random((4, 5))
        winner = votes.condorcet(scores).elected
        copeland = votes.copeland(scores).scores
        seen.add(len(winner))
        if winner:
            assert copeland[winner[0]] == 3
            assert votes.minimax(scores).scores[winner[0]] == 0
            assert votes.baldwin(scores).elected == winner
        else:
            assert copeland.max() < 3
            assert votes.condorcet(scores).scores.tolist() == [0] * 4
    assert seen == {0, 1}


@pytest.mark.parametrize("seed", range(10))
def test_sums_over_methods(seed):
    """Of Copeland's differences 0; of plurality at most all votes; of Borda all pairs of all votes, if without ties."""
    rng = np.random.default_rng(seed)
    weights = rng.random(6)
    tied, strict = rng.integers(1, 4, (4, 6)).astype(float), rng.random((4, 6))
    pairs = 4 * 3 / 2
    for scores in (tied, strict):
        assert votes.copeland(scores, weights=weights).scores.sum() == pytest.approx(0, abs=1e-12)
    alone = ((tied == tied.max(axis=0)).sum(axis=0) == 1) @ weights
    assert votes.plurality(tied, weights=weights).scores.sum() == pytest.approx(alone)
    assert alone < weights.sum()
    assert votes.plurality(strict, weights=weights).scores.sum() == pytest.approx(weights.sum())
    assert votes.borda(strict, weights=weights).scores.sum() == pytest.approx(weights.sum() * pairs)
    assert votes.borda(tied, weights=weights).scores.sum() < weights.sum() * pairs - 1e-3


def test_a_condorcet_winner_may_be_absent():
    cycle = np.array([[3, 1, 2], [2, 3, 1], [1, 2, 3]], float)
    found = votes.condorcet(cycle)
    assert found.elected == ()
    assert votes.baldwin(cycle).elected == (0, 1, 2)


@pytest.mark.parametrize(("name", "rule"), ORDINAL)
def test_increasing_transforms_of_a_task_change_nothing(name, rule):
    other = FOUR.copy()
    other[:, 1] = np.exp(other[:, 1] / 10)
    np.testing.assert_array_equal(rule(FOUR).scores, rule(other).scores)


@pytest.mark.parametrize(("name", "rule"), CARDINAL)
def test_increasing_transforms_of_a_task_change_the_means(name, rule):
    other = FOUR.copy()
    other[:, 1] = np.exp(other[:, 1] / 20)
    assert rule(FOUR).ranks.tolist() != rule(other).ranks.tolist()


@pytest.mark.parametrize(("name", "rule"), ALL)
def test_a_common_factor_of_the_weights_changes_no_order(name, rule):
    rng = np.random.default_rng(7)
    scores, weights = rng.integers(1, 5, size=(5, 6)), rng.random(6)
    plain, scaled = rule(scores, weights=weights), rule(scores, weights=1e3 * weights)
    assert plain.ranks.tolist() == scaled.ranks.tolist()
    assert plain.elected == scaled.elected


@pytest.mark.parametrize(("name", "rule"), ALL)
def test_the_best_on_every_task_wins_by_every_rule(name, rule):
    scores = np.random.default_rng(3).random((5, 6)) + 0.1
    scores[2] = scores.max(axis=0) + 0.1
    assert rule(scores).elected == (2,)


@pytest.mark.parametrize(("name", "rule"), ALL)
def test_a_weight_is_a_number_of_copies(name, rule):
    scores = np.random.default_rng(5).integers(1, 4, size=(4, 4)).astype(float)
    weighted, copied = rule(scores, weights=[1, 0, 3, 2]), rule(np.repeat(scores, [1, 0, 3, 2], axis=1))
    np.testing.assert_allclose(weighted.scores, copied.scores, rtol=1e-12, atol=1e-12)
    assert weighted.elected == copied.elected


def test_borda_sums_to_the_votes_exactly_without_ties():
    assert votes.borda(FOUR).scores.sum() == 5 * 4 * 3 / 2
    assert votes.borda(TIED).scores.sum() < 2 * 3 * 2 / 2


def test_float_weights_do_not_break_a_tie_of_the_votes():
    # 0.1 + 0.2 against 0.3 is even, though not in floats
    scores = np.array([[2, 2, 1], [1, 1, 2]], float)
    assert votes.copeland(scores, weights=[0.1, 0.2, 0.3]).scores.tolist() == [0, 0]
    assert votes.minimax(scores, weights=[0.1, 0.2, 0.3]).scores.tolist() == [0, 0]
    assert votes.baldwin(scores, weights=[0.1, 0.2, 0.3]).elected == (0, 1)
    assert votes.threshold(scores, weights=[0.1, 0.2, 0.3]).elected == (0, 1)


def test_threshold_does_not_count_places_again_among_survivors():
    # the third goes first (last twice); in the whole pool the second is never third, the first never last
    scores = np.array([[2, 2, 4, 4], [3, 3, 2, 3], [1, 4, 3, 1], [4, 1, 1, 2]], float)
    places = votes.worst_places(scores)
    alive = {0, 1, 2, 3}
    for step in (4, 3, 2):
        lasts = {i: int((places[i] == step).sum()) for i in alive}
        alive = {i for i in alive if lasts[i] == min(lasts.values())}
    assert votes.threshold(scores).elected == tuple(sorted(alive))


def test_threshold_counts_all_who_are_tied_for_last_as_last():
    # each is last once: the first two share it; then the first alone has a second place
    scores = np.array([[1, 2], [1, 3], [2, 1]], float)
    assert votes.worst_places(scores).tolist() == [[3, 2], [3, 1], [1, 3]]
    assert votes.threshold(scores).elected == (1, 2)


def test_places_of_ties():
    assert votes.best_places(TIED).T.tolist() == [[1, 1, 3], [3, 2, 1]]
    assert votes.worst_places(TIED).T.tolist() == [[2, 2, 3], [3, 2, 1]]


def test_the_geometric_mean_refuses_what_is_not_positive_and_the_gap_a_missing_target():
    with pytest.raises(ValueError, match="positive"):
        votes.geometric_mean([[0.0], [1.0]])
    with pytest.raises(ValueError, match="gamma"):
        votes.optimality_gap(FOUR, float("nan"))


def test_the_gap_of_costs():
    found = votes.optimality_gap([[1.0, 4.0], [2.0, 2.0]], 2.0, direction="min")
    assert found.scores.tolist() == [-1, 0]


def test_two_steps_give_each_group_one_say():
    scores = np.array([[3, 3, 3, 1, 1], [2, 2, 2, 3, 3], [1, 1, 1, 2, 2]], float)
    groups = [[0, 1, 2], [3], [4]]
    assert votes.borda(scores, weights=[1, 1, 1, 0.5, 0.5]).elected == (0,)
    found = votes.two_step(votes.borda, scores, groups)
    assert found.scores.tolist() == [2, 5, 2]  # places 1, 3, 3; 2, 1, 1; 3, 2, 2
    assert votes.two_step(votes.borda, scores, groups, group_weights=[5, 1, 1]).elected == (0,)
    with pytest.raises(ValueError, match="exactly one group"):
        votes.two_step(votes.borda, scores, [[0, 1], [1, 2, 3, 4]])


def test_two_steps_weigh_tasks_within_their_group():
    scores = np.array([[2, 1, 1], [1, 2, 2]], float)
    assert votes.two_step(votes.borda, scores, [[0, 1], [2]], weights=[1, 3, 1]).scores.tolist() == [0, 2]
    assert votes.two_step(votes.borda, scores, [[0, 1], [2]], weights=[3, 1, 1]).scores.tolist() == [1, 1]


def test_two_steps_count_a_method_without_a_score_in_a_group_as_missing():
    scores = np.array([[3, np.nan, np.nan], [2, 1, 1], [1, 2, 2]], float)
    found = votes.two_step(votes.copeland, scores, [[0], [1, 2]], missing="observed")
    assert found.missing == ((0, 1),)
    assert found.scores.tolist() == [2, -1, -1]
    with pytest.raises(ValueError, match="missing"):
        votes.two_step(votes.copeland, scores, [[0], [1, 2]])


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("target", range(4))
def test_weights_of_a_condorcet_winner_do_make_it_one(seed, target):
    scores = np.random.default_rng(seed).integers(6, size=(4, 3)).astype(float)
    found = votes.condorcet_weights(scores, target)
    grid = np.array([(a, b, 20 - a - b) for a in range(21) for b in range(21 - a)]) / 20
    others = np.delete(scores, target, axis=0)
    lead = (np.sign(scores[target] - others) @ grid.T).min(axis=0)
    assert lead.max() <= found.margin + 1e-9
    if found.feasible:
        assert found.weights.min() >= 0
        assert found.weights.sum() == pytest.approx(1)
        source = table(scores, allowed=("error",), weights=found.weights)
        assert (votes.majority(votes.wins(source), 1e-9)[target] >= 0.5).all()
        assert (np.sign(scores[target] - others) @ found.weights).min() == pytest.approx(found.margin)
    else:
        assert lead.max() < 0
        assert found.weights is None


def test_who_can_win_at_all_and_within_bounds():
    scores = np.array([[3, 1, 1], [1, 3, 2], [2, 2, 3], [0, 0, 0]], float)
    assert [votes.condorcet_weights(scores, i).feasible for i in range(4)] == [True, True, True, False]
    assert votes.condorcet_weights(scores, 0).margin == pytest.approx(1)
    bounded = votes.condorcet_weights(scores, 0, upper=[0.4, 1, 1])
    assert not bounded.feasible
    assert bounded.margin == pytest.approx(-0.2)
    assert not votes.condorcet_weights(scores, 0, constraints=[([1, -1, -1], -0.1)]).feasible
    even = votes.condorcet_weights(scores, 0, constraints=[([1, -1, -1], 0.0)])
    assert even.feasible
    assert even.margin == pytest.approx(0, abs=1e-9)
    contradiction = votes.condorcet_weights(scores, 0, upper=0.2)
    assert not contradiction.feasible
    assert np.isnan(contradiction.margin)
    with pytest.raises(ValueError, match="target 4"):
        votes.condorcet_weights(scores, 4)
    with pytest.raises(ValueError, match="lower, upper"):
        votes.condorcet_weights(scores, 0, lower=0.5, upper=0.2)
