"""Plackett-Luce strengths from sample-level outcomes (Ghosh et al. 2025; Hunter 2004)."""

from __future__ import annotations

import numpy as np
import pytest

from heterobench.rankings.plackett_luce import (
    NotIdentifiable,
    bootstrap,
    cluster_bootstrap,
    fit,
    fit_from,
    levels,
    pairs,
    plackett_luce,
    spectral,
    win_counts,
)
from heterobench.rankings.scores import table

TRUE = np.array([1, 0.3, -0.2, -1.1])


def rankings(samples, seed=0, fewest=2):
    """Scores [4, samples] of which 2 to 4 are observed, drawn from the model with strengths `TRUE`."""
    rng = np.random.default_rng(seed)
    scores = TRUE[:, None] + rng.gumbel(size=(4, samples))
    order = rng.random((4, samples)).argsort(axis=0).argsort(axis=0)
    scores[order >= rng.integers(fewest, 5, size=samples)] = np.nan
    return scores


def observed(scores):
    return table(scores, allowed=("observed",), missing="observed")


def log_likelihood(theta, scores):
    """Of full rankings with missing entries, written out from the definition."""
    total = 0.0
    for column in np.asarray(scores).T:
        order = [i for i in np.argsort(-np.nan_to_num(column, nan=-np.inf)) if np.isfinite(column[i])]
        for place in range(len(order) - 1):
            total += theta[order[place]] - np.log(np.exp(theta[order[place:]]).sum())
    return total


@pytest.mark.parametrize("form", ["levels", "pairs"])
def test_strengths_are_recovered_from_incomplete_rankings(form):
    found = plackett_luce(rankings(20_000), form)
    np.testing.assert_allclose(found.scores, TRUE, atol=0.05)
    assert found.ranks.tolist() == [1, 2, 3, 4]


def test_ninety_percent_missing_at_random_costs_precision_only():
    rng = np.random.default_rng(1)
    scores = TRUE[:, None] + rng.gumbel(size=(4, 20_000))
    scores[rng.random(scores.shape) < 0.9] = np.nan
    found = plackett_luce(scores)
    # about 20 000 * 6 * 0.01 comparisons: a standard error below 0.1
    np.testing.assert_allclose(found.scores, TRUE, atol=0.3)
    assert len(found.missing) == np.isnan(scores).sum()


def test_which_samples_were_kept_moves_a_mean_and_not_the_strengths():
    """Nine of ten entries lost: of the best method the hard samples are left, of the worst one the easy ones."""
    rng = np.random.default_rng(2)
    scores = TRUE[:, None] + rng.gumbel(size=(4, 20_000))
    hard = np.arange(20_000) % 2 == 0
    easier = scores + np.where(hard, -10.0, 10.0)  # a shift of a sample is a monotone transform of it
    kept = rng.random(scores.shape) < np.where(hard, [[0.18], [0.1], [0.1], [0.02]], [[0.02], [0.1], [0.1], [0.18]])
    easier[~kept] = np.nan
    assert 0.89 < np.isnan(easier).mean() < 0.91
    assert np.argsort(np.nanmean(easier, axis=1)).tolist() == [0, 2, 1, 3]
    found = plackett_luce(easier)
    np.testing.assert_allclose(found.scores, TRUE, atol=0.3)
    scores[~kept] = np.nan
    np.testing.assert_array_equal(found.scores, plackett_luce(scores).scores)


def test_the_error_of_missing_entries_falls_with_the_root_of_the_samples():
    def error(samples, seed):
        rng = np.random.default_rng([samples, seed])
        scores = TRUE[:, None] + rng.gumbel(size=(4, samples))
        scores[rng.random(scores.shape) < 0.9] = np.nan
        compared = np.isfinite(scores).sum(axis=0) > 1  # nobody is compared on the others
        return plackett_luce(scores[:, compared]).scores - TRUE

    few, many = (np.sqrt(np.mean([error(n, seed) ** 2 for seed in range(16)])) for n in (4000, 64_000))
    assert 2.7 < few / many < 6  # 4 within a factor of 1.5, three errors of a ratio of two deviations of 48 numbers


def test_the_fit_is_the_maximum_of_the_likelihood():
    scores = rankings(60)
    theta = plackett_luce(scores).scores
    best = log_likelihood(theta, scores)
    step = 1e-4
    for i in range(4):
        up, down = theta.copy(), theta.copy()
        up[i] += step
        down[i] -= step
        slope = (log_likelihood(up, scores) - log_likelihood(down, scores)) / (2 * step)
        assert abs(slope) < 1e-5
        assert best > max(log_likelihood(up, scores), log_likelihood(down, scores))


def test_strengths_have_mean_zero_and_do_not_depend_on_the_scale_of_the_counts():
    counts = win_counts(observed(rankings(200)))
    theta, _ = fit(pairs(counts))
    assert theta.sum() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(fit(pairs(7.5 * counts))[0], theta, atol=1e-8)


def test_two_methods_have_a_closed_form():
    theta, _ = fit(pairs([[0, 7], [2, 0]]))
    assert theta[0] - theta[1] == pytest.approx(np.log(7 / 2), abs=1e-9)
    scores = [[1] * 7 + [0] * 2, [0] * 7 + [1] * 2]
    for form in ("levels", "pairs"):
        assert np.diff(plackett_luce(scores, form).scores)[0] == pytest.approx(-np.log(7 / 2), abs=1e-9)


@pytest.mark.parametrize(
    "won", [[(0, 1), (1, 0), (2, 3), (3, 2)], [(0, 1), (0, 2), (1, 2)]], ids=["two islands", "acyclic"]
)
def test_without_strong_connection_strengths_are_refused(won):
    counts = np.zeros((4, 4) if (3, 2) in won else (3, 3))
    for winner, loser in won:
        counts[winner, loser] += 1
    with pytest.raises(NotIdentifiable, match="unbounded"):
        fit(pairs(counts))
    with pytest.raises(NotIdentifiable, match="unbounded"):
        spectral(counts)
    assert np.isfinite(fit(pairs(counts), alpha=0.01)[0]).all()


def test_spectral_worked_vector_with_a_rate_added():
    counts = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_allclose(spectral(counts, alpha=0.01), [3.10, 0.22, -3.32], atol=0.005)


def test_three_roads_to_the_same_strengths():
    from sklearn.linear_model import LogisticRegression

    counts = win_counts(observed(rankings(300)))
    theta, _ = fit(pairs(counts))
    np.testing.assert_allclose(spectral(counts), theta, atol=1e-6)
    first, second = np.nonzero(counts)
    design = np.eye(4)[first] - np.eye(4)[second]
    model = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-12, max_iter=10_000)
    model.fit(
        np.vstack([design, -design]),
        np.repeat([1, 0], len(first)),
        sample_weight=np.tile(counts[first, second], 2),
    )
    logistic = model.coef_[0] - model.coef_[0].mean()
    np.testing.assert_allclose(logistic, theta, atol=1e-4)


@pytest.mark.parametrize("form", ["levels", "pairs"])
def test_increasing_transforms_of_a_sample_change_nothing(form):
    scores = rankings(100)
    other = np.where(np.arange(100) % 2, np.exp(scores), 1000 * scores)
    np.testing.assert_array_equal(plackett_luce(scores, form).scores, plackett_luce(other, form).scores)


def test_samples_that_all_solve_or_all_fail_say_nothing():
    binary = np.random.default_rng(0).integers(2, size=(3, 40)).astype(float)
    more = np.hstack([binary, np.ones((3, 50)), np.zeros((3, 50)), np.full((3, 5), -np.inf)])
    found, other = plackett_luce(binary), plackett_luce(more)
    np.testing.assert_array_equal(found.scores, other.scores)
    assert found.comparisons == other.comparisons


def test_each_correct_method_is_chosen_against_all_wrong_ones():
    # on the second sample, counted three times, nobody is worse than another
    source = table(
        [[1, 0], [1, 0], [0, 0], [0, 0], [np.nan, 0]], allowed=("observed",), missing="observed", weights=[2, 3]
    )
    choices = levels(source)
    assert choices.winners.tolist() == [0, 1]
    assert choices.members.tolist() == [[True, False, True, True, False], [False, True, True, True, False]]
    assert choices.weights.tolist() == [2, 2]


def test_a_tie_is_skipped_or_a_win_for_both():
    source = observed([[1.0, 2.0], [1.0, 1.0], [0.0, np.nan]])
    assert win_counts(source).tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert win_counts(source, "both").tolist() == [[0, 2, 1], [1, 0, 1], [0, 0, 0]]
    with pytest.raises(ValueError, match="form 'levels', ties 'both'"):
        plackett_luce([[1.0, 2.0], [2.0, 1.0]], ties="both")


def test_a_weight_is_a_number_of_copies_of_the_sample():
    scores = rankings(40)
    copies = np.arange(40) % 3
    weighted = plackett_luce(scores, weights=copies)
    np.testing.assert_allclose(weighted.scores, plackett_luce(np.repeat(scores, copies, axis=1)).scores, atol=1e-8)


def test_a_failed_run_is_the_worst_outcome_and_a_missing_one_no_outcome():
    scores = rankings(200, fewest=4)
    left_out, failed = scores.copy(), scores.copy()
    left_out[0, :100], failed[0, :100] = np.nan, -np.inf
    strengths = [plackett_luce(values).scores[0] for values in (failed, left_out)]
    assert strengths[0] < strengths[1] - 0.5
    assert plackett_luce(scores, alpha=5).scores[0] < plackett_luce(scores).scores[0]


def test_a_bootstrap_draws_whole_samples():
    scores = rankings(150)
    found = bootstrap(scores, seed=3, resamples=60)
    theta = plackett_luce(scores).scores
    assert (found.low < theta).all()
    assert (theta < found.high).all()
    assert (found.rank_low <= [1, 2, 3, 4]).all()
    assert (found.rank_high >= [1, 2, 3, 4]).all()
    assert (found.rank_low >= 1).all()
    assert (found.rank_high <= 4).all()
    again = bootstrap(scores, seed=3, resamples=60)
    np.testing.assert_array_equal(found.low, again.low)
    # four copies of each sample are one cluster each only if the draw is over samples: here they are drawn apart
    wide = found.high - found.low
    narrow = bootstrap(np.tile(scores, 4), seed=3, resamples=60)
    assert 1.4 < (wide / (narrow.high - narrow.low)).mean() < 2.8
    assert found.unusable == 0


def test_a_bootstrap_counts_the_resamples_that_it_cannot_use():
    scores = np.array([[1.0] * 9 + [0.0], [0.0] * 9 + [1.0]])
    found = bootstrap(scores, seed=0, resamples=200)
    # without the one sample that the second wins, which happens with probability 0.9^10 = 0.35
    assert 0.2 < found.unusable / found.resamples < 0.5
    with pytest.raises(ValueError, match="level"):
        bootstrap(scores, seed=0, level=1.0)


@pytest.mark.parametrize("alpha", [0.0, 0.01, 2.0])
@pytest.mark.parametrize("start", [0.0, 8.0])
def test_newtons_method_and_the_iteration_agree(alpha, start):
    choices = levels(observed(rankings(300)))
    slow, _ = fit(choices, alpha)
    np.testing.assert_allclose(fit_from(start * np.arange(4), choices, alpha), slow, atol=1e-8)
    # nearly separated: the last wins a single time
    apart = pairs([[0, 500, 500], [1, 0, 400], [0, 1, 0]])
    np.testing.assert_allclose(fit_from(np.zeros(3), apart, alpha), fit(apart, alpha)[0], atol=1e-6)
    with pytest.raises(NotIdentifiable):
        fit_from(np.zeros(3), pairs([[0, 5, 5], [0, 0, 4], [0, 0, 0]]))
    with pytest.raises(ValueError, match="alpha"):
        fit_from(np.zeros(3), apart, -1.0)


def test_clusters_of_one_sample_are_drawn_as_samples_are():
    scores = (rankings(150, fewest=4) > 0).astype(float)
    scores[2, :40] = np.nan
    patterns, which = np.unique(np.nan_to_num(scores, nan=2), axis=1, return_inverse=True)
    patterns = np.where(patterns == 2, np.nan, patterns)
    counts = np.eye(patterns.shape[1])[which.ravel()]
    found = cluster_bootstrap(patterns, counts, seed=3, resamples=60)
    expected = bootstrap(scores, seed=3, resamples=60)
    for key in ("low", "high", "rank_low", "rank_high"):
        np.testing.assert_allclose(getattr(found, key), getattr(expected, key), atol=1e-8)
    assert (found.resamples, found.unusable) == (60, expected.unusable)
    # all answers to one sample again and again are no new samples
    often = cluster_bootstrap(patterns, 5 * counts, seed=3, resamples=60)
    np.testing.assert_allclose(often.high, found.high, atol=1e-8)
    with pytest.raises(ValueError, match="level"):
        cluster_bootstrap(patterns, counts, seed=0, level=0.0)
    with pytest.raises(NotIdentifiable):
        cluster_bootstrap([[1.0], [0.0]], [[1.0], [1.0]], seed=0)


@pytest.mark.parametrize("counts", [[[0, -1], [1, 0]], [[1, 1], [1, 0]], [[0, 1]], [[0, np.nan], [1, 0]]])
def test_bad_counts_are_refused(counts):
    with pytest.raises(ValueError, match="counts"):
        pairs(counts)
    with pytest.raises(ValueError, match="alpha"):
        fit(pairs([[0, 1], [1, 0]]), alpha=-1)
