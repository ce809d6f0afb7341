"""Maximum-entropy Nash averaging (Balduzzi et al. 2018)."""

from __future__ import annotations

import numpy as np
import pytest

from heterobench.rankings.nash import antisymmetric_nash, max_entropy, nash_against_each_other, nash_average

THREE = np.array([[0.9, 0.2, 0.5], [0.3, 0.8, 0.5], [0.1, 0.1, 0.1]])
CYCLE = np.array([[0, 4.6, -4.6], [-4.6, 0, 4.6], [4.6, -4.6, 0]])


def close(actual, expected, atol=1e-4):
    np.testing.assert_allclose(actual, expected, atol=atol)


def test_worked_vector():
    found = nash_average(THREE)
    close(found.method_mixture, [0.4667, 0.5333, 0])
    close(found.task_mixture, [0.5333, 0.4667, 0])
    close(found.value, 0.6)
    close(found.scores, [0.6, 0.6, 0])
    close(found.difficulty, [-0.6, -0.6, -1])
    assert found.ranks.tolist() == [1, 1, 3]


def test_a_copy_of_a_task_shares_its_mass_and_changes_no_skill():
    found = nash_average(np.hstack([THREE, THREE[:, [1]]]))
    close(found.task_mixture, [0.5333, 0.2333, 0, 0.2333])
    close(found.scores, nash_average(THREE).scores)


def test_a_copy_of_a_method_shares_its_mass_and_changes_no_task():
    found = nash_average(np.vstack([THREE, THREE[[0]]]))
    close(found.method_mixture, [0.2333, 0.5333, 0, 0.2333])
    close(found.task_mixture, [0.5333, 0.4667, 0])
    close(found.scores, [0.6, 0.6, 0, 0.6])
    assert found.ranks.tolist() == [1, 1, 4, 1]


@pytest.mark.parametrize("seed", range(6))
def test_copies_share_the_mass_equally_and_change_nothing_else(seed):
    rng = np.random.default_rng([3, seed])
    scores = rng.random((5, 6)) if seed % 2 else rng.integers(4, size=(5, 6)).astype(float)
    found = nash_average(scores)
    assert len(found.tasks) == 6
    task, method = int(found.task_mixture.argmax()), int(found.method_mixture.argmax())
    more = nash_average(np.hstack([scores, scores[:, [task]], scores[:, [task]]]))
    close(more.scores, found.scores)
    close(more.method_mixture, found.method_mixture)
    close(more.task_mixture[[task, 6, 7]], [found.task_mixture[task] / 3] * 3)
    more = nash_average(np.vstack([scores, scores[[method]]]))
    close(more.scores[:5], found.scores)
    close(more.task_mixture, found.task_mixture)
    close(more.method_mixture[[method, 5]], [found.method_mixture[method] / 2] * 2)


def test_methods_against_each_other_worked_vectors():
    mixture, average = antisymmetric_nash(CYCLE)
    close(mixture, [1 / 3] * 3)
    close(average, [0] * 3)
    copied = [0, 1, 2, 2]
    close(antisymmetric_nash(CYCLE[np.ix_(copied, copied)])[0], [1 / 3, 1 / 3, 1 / 6, 1 / 6])
    mixture, average = antisymmetric_nash([[0, 4.6, 4.6], [-4.6, 0, 4.6], [-4.6, -4.6, 0]])
    close(mixture, [1, 0, 0])
    close(average, [0, -4.6, -4.6])


def test_probabilities_become_log_odds():
    wins = np.array([[0.5, 0.8, 0.0], [0.2, 0.5, 0.7], [1.0, 0.3, 0.5]])
    game = np.log(4), np.log(7 / 3), np.log(99)
    # of a cycle of three each is played in proportion to what the other two play for
    expected = np.array([game[1], game[2], game[0]]) / sum(game)
    mixture, average = nash_against_each_other(wins, clip=0.01)
    close(mixture, expected)
    close(average, [0] * 3)
    with pytest.raises(ValueError, match="wins"):
        nash_against_each_other([[0.5, 0.8], [0.8, 0.5]])
    with pytest.raises(ValueError, match="clip"):
        nash_against_each_other(wins, clip=0.5)
    with pytest.raises(ValueError, match="antisymmetric"):
        antisymmetric_nash([[0, 1], [1, 0]])


def test_normalisation_is_part_of_the_rule():
    raw = nash_average(THREE, anchors=(0.0, 1.0))
    close(raw.task_mixture, [0, 0, 1])
    close(raw.method_mixture, [0.5, 0.5, 0])
    close(raw.value, 0.5)


@pytest.mark.parametrize("seed", range(6))
def test_equilibrium_has_no_gap_and_a_value_from_zero_to_one(seed):
    rng = np.random.default_rng(seed)
    scores = rng.random((6, 9)) if seed % 2 else rng.integers(4, size=(7, 5)).astype(float)
    found = nash_average(scores)
    kept = scores[:, list(found.tasks)]
    payoff = (kept - kept.min(axis=0)) / np.ptp(kept, axis=0)
    close(found.scores, payoff @ found.task_mixture, 1e-12)
    close(found.scores.max(), (payoff.T @ found.method_mixture).min(), 1e-6)
    assert 0 <= found.value <= 1
    for mixture in (found.method_mixture, found.task_mixture):
        assert mixture.min() >= 0
        assert mixture.sum() == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_the_mixture_has_the_largest_entropy_of_all_optimal_ones(seed):
    """Against another solver, on games with many equilibria: copies of tasks and mixtures of tasks."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    base = rng.random((3, 3))
    payoff = np.hstack([base, base[:, [0]], base @ rng.dirichlet([1, 1, 1], size=2).T])
    found = nash_average(payoff, anchors=(0.0, 1.0))

    def negative_entropy(p):
        return float((p * np.log(np.maximum(p, 1e-12))).sum())

    other = minimize(
        negative_entropy,
        found.task_mixture * 0.5 + 0.5 / 6,
        bounds=[(0, 1)] * 6,
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1},
            {"type": "ineq", "fun": lambda p: found.value + 1e-12 - payoff @ p},
        ],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert other.success
    close(found.task_mixture, other.x, 1e-3)
    assert negative_entropy(found.task_mixture) <= other.fun + 1e-6


def test_a_task_without_a_difference_changes_nothing_and_is_left_out():
    found = nash_average(np.hstack([np.full((3, 1), 0.4), THREE]))
    assert found.tasks == (1, 2, 3)
    close(found.scores, [0.6, 0.6, 0])
    anchored = nash_average(np.hstack([THREE, np.zeros((3, 1))]), anchors=(0.0, 1.0))
    close(anchored.scores, nash_average(THREE, anchors=(0.0, 1.0)).scores)
    with pytest.raises(ValueError, match="no task on which the methods differ"):
        nash_average(np.ones((2, 3)))


def test_rescaling_tasks_changes_nothing():
    found, other = nash_average(THREE), nash_average(THREE * [100, 0.1, 3] + [5, -7, 0])
    close(found.scores, other.scores, 1e-6)
    close(found.task_mixture, other.task_mixture, 1e-6)


def test_the_best_on_every_task_gets_one():
    scores = np.random.default_rng(2).random((4, 5))
    scores[1] = scores.max(axis=0) + 0.2
    found = nash_average(scores)
    close(found.method_mixture, [0, 1, 0, 0])
    close([found.value, found.scores[1]], [1, 1])
    close(found.task_mixture, np.full(5, 0.2))


def test_permuting_methods_and_tasks_permutes_the_answer():
    scores = np.random.default_rng(8).random((5, 6))
    rows, columns = [3, 0, 4, 1, 2], [5, 2, 0, 1, 4, 3]
    found, other = nash_average(scores), nash_average(scores[np.ix_(rows, columns)])
    close(found.scores[rows], other.scores, 1e-6)
    close(found.task_mixture[columns], other.task_mixture, 1e-6)


def test_a_failure_needs_a_scale_that_has_a_place_for_it():
    scores = np.vstack([THREE, [-np.inf, 0.7, 0.3]])
    with pytest.raises(ValueError, match=r"\(3, 0\) failed"):
        nash_average(scores)
    found = nash_average(scores, anchors=(0.05, 1.0))
    scores[3, 0] = 0.05
    close(found.scores, nash_average(scores, anchors=(0.05, 1.0)).scores, 1e-9)
    # never better than a method that ran and did worse than the anchor
    below = nash_average([[0.5], [-np.inf], [0.0]], anchors=(0.05, 1.0))
    assert below.scores[1] == below.scores[2] < 0
    assert below.failed == ((1, 0),)


def test_anchors_go_with_their_tasks():
    scores = np.hstack([[[np.nan], [5.0], [6.0]], THREE * [1, 10, 100]])
    found = nash_average(scores, anchors=(0.0, [50, 1, 10, 100]), missing="drop")
    assert found.tasks == (1, 2, 3)
    close(found.scores, nash_average(THREE, anchors=(0.0, 1.0)).scores, 1e-9)


def test_anchors_of_costs_and_bad_ones():
    found = nash_average(1 - THREE, anchors=(1.0, 0.0), direction="min")
    close(found.scores, nash_average(THREE, anchors=(0.0, 1.0)).scores, 1e-9)
    for anchors in [(1.0, 0.0), ([0.0, 0.0], 1.0), (0.0, [1, 1, 0])]:
        with pytest.raises(ValueError, match="anchors"):
            nash_average(THREE, anchors=anchors)
    with pytest.raises(ValueError, match="weights"):
        nash_average(THREE, weights=[1, 1, 1])


def test_without_constraints_the_mixture_is_uniform():
    close(max_entropy(np.full((1, 4), -1.0)), np.full(4, 0.25), 1e-12)


@pytest.mark.parametrize(("seed", "methods", "tasks"), [(15, 28, 21), (23, 3, 21), (41, 20, 28)])
def test_games_with_badly_scaled_multipliers_are_solved(seed, methods, tasks):
    """A quasi-Newton method without a barrier stops far from the constraints on games like these."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (methods, tasks)).astype(float) if seed % 3 == 0 else rng.random((methods, tasks))
    found = nash_average(np.hstack([scores, scores[:, :1]]))
    assert found.scores.max() + found.difficulty.max() <= 1e-6
    assert found.task_mixture[0] == pytest.approx(found.task_mixture[-1], abs=1e-9)


def test_the_size_of_the_papers_table():
    scores = np.random.default_rng(0).random((20, 54))
    found = nash_average(scores)
    assert len(found.elected) == (found.method_mixture > 1e-6).sum()
    assert found.scores.max() == pytest.approx(found.value, abs=1e-6)
