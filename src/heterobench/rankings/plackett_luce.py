"""Plackett-Luce strengths of methods from outcomes on single samples, of which many may be missing.

Sources: Ghosh et al., ONEBench to Test Them All, ACL 2025, arXiv 2412.06745 (samples as incomplete rankings);
Hunter, MM Algorithms for Generalized Bradley-Terry Models, Annals of Statistics 32 (2004), 384 (the iteration
and the condition for a maximum); Maystre and Grossglauser, Fast and Accurate Inference of Plackett-Luce Models,
NeurIPS 2015 (the spectral iteration).

Model: strengths g_i = exp(theta_i), sum of theta = 0; of the methods in A, i comes first with probability
g_i / sum of g over A, and a ranking is a row of such choices among those left.

A missing entry takes its method out of the sample's ranking. That is right where what is missing does not depend
on the outcome it would have had; a failed run is not missing but the worst outcome (-inf, see `scores`). Strengths
are no accuracies: a sample that all methods solve says nothing about them. Give the accuracy as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heterobench.rankings.scores import Ranking, Reading, Table, competition_ranks, ranking, table, wins

STEP = 1e-10  # the iterations stop where no theta moves by more
MOST = 100_000  # iterations
TIE = 1e-6  # strengths that differ by less are tied: what the iterations leave open


class NotIdentifiable(ValueError):
    """Some methods never lost to others, directly or through third ones: their strengths are unbounded."""


@dataclass(frozen=True, eq=False)
class PlackettLuce(Ranking):
    """A `Ranking` by theta (`scores`, natural log of strength, mean 0, [methods]).

    comparisons  weight of the choices that the fit is over (0 for a sample on which all are equal)
    iterations   how many it took
    """

    comparisons: float
    iterations: int


@dataclass(frozen=True, eq=False)
class Choices:
    """Choices among sets of methods, equal ones together.

    winners int [choices]; members bool [choices, methods], the winner among them; weights float [choices].
    """

    winners: NDArray[np.int64]
    members: NDArray[np.bool_]
    weights: NDArray[np.float64]


def plackett_luce(
    scores: ArrayLike, form: str = "levels", ties: str = "skip", alpha: float = 0.0, **reading: Unpack[Reading]
) -> PlackettLuce:
    """Maximum-likelihood strengths from `scores` [methods, samples] by the MM algorithm.

    form   "levels": a method is chosen from itself and all that are strictly worse on the sample, so that rankings
           without ties have exactly the Plackett-Luce likelihood, and on 0/1 outcomes each correct method is
           chosen against all wrong ones; "pairs": each better method against each worse one (Bradley-Terry)
    ties   "skip": tied methods are not compared; "both" (pairs only): each beats the other once
    alpha  this many wins are added for each ordered pair, which draws strengths together and makes them finite

    `weights` [samples]; `missing` (here by default "observed"): error, drop, worst, observed. Raises
    `NotIdentifiable` (a ValueError) for alpha = 0 where the graph of wins is not strongly connected, ValueError
    for other words and a negative alpha and as `scores.table`, RuntimeError after `MOST` iterations.
    """
    if form not in ("levels", "pairs") or ties not in ("skip", "both") or (form, ties) == ("levels", "both"):
        raise ValueError(f"form {form!r}, ties {ties!r}: must be levels and skip, pairs and skip, or pairs and both")
    reading.setdefault("missing", "observed")
    source = table(scores, allowed=("error", "drop", "worst", "observed"), **reading)
    choices = levels(source) if form == "levels" else pairs(win_counts(source, ties))
    theta, iterations = fit(choices, alpha)
    found = vars(ranking("plackett-luce", theta, source, TIE))
    return PlackettLuce(**found, comparisons=float(choices.weights.sum()), iterations=iterations)


def win_counts(source: Table, ties: str = "skip") -> NDArray[np.float64]:
    """Wins [methods, methods] of the row over the column; with ties="both" a tie is one win for each."""
    counts = wins(source)
    if ties == "both":
        equal = source.values[:, None, :] == source.values[None, :, :]
        counts = counts + np.einsum("ijt,t->ij", equal, source.weights) * (1 - np.eye(len(counts)))
    return counts


def pairs(counts: ArrayLike) -> Choices:
    """Choices between two from wins [methods, methods]. Raises ValueError unless square and not negative."""
    counts = np.array(counts, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("counts: wins must be [methods, methods], finite and not negative")
    if np.diag(counts).any():
        raise ValueError("counts: a method cannot win against itself")
    first, second = np.nonzero(counts)
    one = np.eye(len(counts), dtype=bool)
    return Choices(first, one[first] | one[second], counts[first, second])


def levels(source: Table) -> Choices:
    """Choices of each method against all that are strictly worse on the sample, counted over samples."""
    choices, sample, choice = _level_choices(source.values)
    total = np.bincount(choice, weights=source.weights[sample], minlength=len(choices.weights))
    return _with_weights(choices, total)


def _level_choices(values: NDArray[np.float64]) -> tuple[Choices, NDArray[np.int64], NDArray[np.int64]]:
    """(choices of weight 1, sample [pairs], choice [pairs]): which sample has which of the choices of `levels`."""
    parts, samples, places, start = [], [], [], 0
    for method, own in enumerate(values):
        worse = (values < own).T
        used = np.flatnonzero(worse.any(axis=1))
        sets, which = np.unique(worse[used], axis=0, return_inverse=True)
        sets[:, method] = True
        parts.append((np.full(len(sets), method), sets, np.ones(len(sets))))
        samples.append(used)
        places.append(which.ravel() + start)
        start += len(sets)
    winners, members, weights = zip(*parts, strict=True)
    choices = Choices(np.concatenate(winners), np.concatenate(members), np.concatenate(weights))
    return choices, np.concatenate(samples), np.concatenate(places)


def _with_weights(choices: Choices, weights: NDArray[np.float64]) -> Choices:
    """The choices with other weights, without those of weight 0."""
    used = weights > 0
    return Choices(choices.winners[used], choices.members[used], weights[used])


def fit(choices: Choices, alpha: float = 0.0) -> tuple[NDArray[np.float64], int]:
    """(theta [methods] with mean 0, iterations) by Hunter's MM algorithm.

    g_i <- (wins of i) / (sum over choices that i takes part in of weight / (sum of g over the members)); the
    likelihood never falls. Errors: see `plackett_luce`.
    """
    choices = _identifiable(choices, alpha)
    methods = choices.members.shape[1]
    won = np.bincount(choices.winners, weights=choices.weights, minlength=methods)
    members = choices.members.astype(np.float64)
    theta = np.zeros(methods)
    for iteration in range(1, MOST + 1):
        strengths = np.exp(theta)
        new = np.log(won / ((choices.weights / (members @ strengths)) @ members))
        new -= new.mean()
        step, theta = np.abs(new - theta).max(), new
        if step <= STEP:
            return theta, iteration
    raise RuntimeError(f"the strengths still move by {step:.1e} after {MOST} iterations; use an alpha above 0")


def fit_from(start: ArrayLike, choices: Choices, alpha: float = 0.0) -> NDArray[np.float64]:
    """theta [methods] of `fit` by Newton's method, which is faster from a `start` [methods] that is near.

    The log-likelihood is concave in theta; no step moves a theta by more than 1. Where that does not settle within 100
    steps, `fit` has the word. Errors: see `plackett_luce`.
    """
    whole = _identifiable(choices, alpha)
    methods = whole.members.shape[1]
    won = np.bincount(whole.winners, weights=whole.weights, minlength=methods)
    members, theta = whole.members.astype(np.float64), np.array(start, dtype=np.float64)
    for _ in range(100):
        shares = members * np.exp(theta)
        shares /= shares.sum(axis=1, keepdims=True)
        expected = whole.weights @ shares
        information = np.diag(expected) - (shares * whole.weights[:, None]).T @ shares
        # theta is known up to a constant, along which the information is zero; its slope there is zero as well
        step = np.linalg.solve(information + expected.mean() / methods, won - expected)
        theta = theta + step / max(1.0, np.abs(step).max())
        if np.abs(step).max() <= STEP:
            return theta - theta.mean()
    return fit(choices, alpha)[0]


def _identifiable(choices: Choices, alpha: float) -> Choices:
    """The choices with `alpha` wins for each ordered pair; errors of `plackett_luce`."""
    if not alpha >= 0 or not np.isfinite(alpha):
        raise ValueError(f"alpha {alpha!r}: must be finite and not negative")
    if alpha > 0:
        extra = pairs(alpha * (1 - np.eye(choices.members.shape[1])))
        choices = Choices(*(np.concatenate([a, b]) for a, b in zip(_fields(choices), _fields(extra), strict=True)))
    check_identifiable(choices)
    return choices


def check_identifiable(choices: Choices) -> None:
    """Raise `NotIdentifiable` unless the maximum of the likelihood exists and is unique.

    It does just when each method can be reached from each other one by "lost to" (Hunter 2004, assumption 1 for
    choices among sets): the directed graph with an edge from each loser to the winner is strongly connected.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    methods = choices.members.shape[1]
    won = np.eye(methods)[choices.winners]
    lost_to = (choices.members * choices.weights[:, None]).T @ won
    groups, label = connected_components(csr_matrix(lost_to > 0), directed=True, connection="strong")
    if groups > 1:
        sets = [np.flatnonzero(label == group).tolist() for group in range(groups)]
        raise NotIdentifiable(
            f"scores: strengths are unbounded; between the groups of methods {sets} there are wins in one "
            "direction only, or none; compare them on more samples, or use an alpha above 0"
        )


def spectral(counts: ArrayLike, alpha: float = 0.0) -> NDArray[np.float64]:
    """theta [methods] from wins [methods, methods] by the iterated spectral method (I-LSR), another road to `fit`.

    The Markov chain that moves from j to i at the rate alpha + counts[i, j] / (g_i + g_j) has the stationary
    distribution g at the maximum of the likelihood (alpha = 0); the iteration feeds it back until it stays.
    Here alpha is a rate of the chain, not a number of wins, and strengths have mean 1 for it. Errors: as `fit`.
    """
    choices = pairs(counts)
    counts = np.array(counts, dtype=np.float64)
    if not alpha >= 0 or not np.isfinite(alpha):
        raise ValueError(f"alpha {alpha!r}: must be finite and not negative")
    if alpha == 0:
        check_identifiable(choices)
    methods = len(counts)
    theta = np.zeros(methods)
    for _ in range(MOST):
        strengths = np.exp(theta)
        strengths /= strengths.mean()
        rates = alpha + counts.T / (strengths[:, None] + strengths[None, :])
        np.fill_diagonal(rates, 0.0)
        generator = rates - np.diag(rates.sum(axis=1))
        system = np.vstack([generator.T, np.ones(methods)])
        stationary = np.linalg.lstsq(system, np.append(np.zeros(methods), 1.0), rcond=None)[0]
        new = np.log(stationary)
        new -= new.mean()
        step, theta = np.abs(new - theta).max(), new
        if step <= STEP:
            return theta
    raise RuntimeError(f"the spectral iteration still moves by {step:.1e} after {MOST} iterations")


@dataclass(frozen=True, eq=False)
class Intervals:
    """Percentile intervals of a bootstrap over samples.

    low, high            float [methods], of theta; rank_low, rank_high float [methods], of the rank
    resamples, unusable  how many were drawn, and on how many of them the strengths were not identifiable: these
                         are not in the intervals, so with many of them the intervals are too narrow
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    rank_low: NDArray[np.float64]
    rank_high: NDArray[np.float64]
    resamples: int
    unusable: int


def bootstrap(
    scores: ArrayLike,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
    form: str = "levels",
    ties: str = "skip",
    alpha: float = 0.0,
    **reading: Unpack[Reading],
) -> Intervals:
    """Intervals of theta and of ranks from whole samples drawn with replacement (pairs of one sample depend).

    `level` is the coverage aimed at; `seed` fixes the draws; the rest as `plackett_luce`. Raises ValueError for a
    level outside (0, 1), no resample, and as `plackett_luce`; `NotIdentifiable` where no resample could be used.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level}, resamples {resamples}: must be in (0, 1) and at least 1")
    values = np.asarray(scores, dtype=np.float64)
    plackett_luce(values, form, ties, alpha, **reading)  # says what is wrong before anything is drawn
    weights = reading.pop("weights", None)
    votes = np.ones(values.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    generator = np.random.default_rng(seed)
    fits = []
    for _ in range(resamples):
        drawn = generator.integers(values.shape[1], size=values.shape[1])
        counts = votes * np.bincount(drawn, minlength=values.shape[1])
        try:
            fits.append(plackett_luce(values, form, ties, alpha, weights=counts, **reading).scores)
        except NotIdentifiable:
            continue
    return _intervals(fits, resamples, level)


def cluster_bootstrap(
    patterns: ArrayLike,
    counts: ArrayLike,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
    alpha: float = 0.0,
) -> Intervals:
    """Intervals of theta and of ranks from whole clusters drawn with replacement, for samples that come in few kinds.

    `patterns` float [methods, patterns]: the different columns that the scores of samples have; NaN where a method was
    not evaluated. `counts` [clusters, patterns], an array or a scipy.sparse one: how many samples of a cluster have
    the pattern. Samples of one cluster depend on each other, such as the answers of several models to one example. The
    strengths are those of the form "levels". Each cluster a single sample: this is `bootstrap`. Errors as there.
    """
    from scipy.sparse import csr_array

    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level}, resamples {resamples}: must be in (0, 1) and at least 1")
    counted = csr_array(counts, dtype=np.float64)
    weights = np.asarray(counted.sum(axis=0)).ravel()
    source = table(patterns, allowed=("observed",), weights=weights, missing="observed")
    choices, sample, choice = _level_choices(source.values)
    shape = (len(source.weights), len(choices.weights))
    uses = csr_array((np.ones(len(sample)), (sample, choice)), shape=shape)
    theta = fit(_with_weights(choices, weights @ uses), alpha)[0]
    generator = np.random.default_rng(seed)
    clusters = counted.shape[0]
    fits = []
    for _ in range(resamples):
        times = np.bincount(generator.integers(clusters, size=clusters), minlength=clusters)
        try:
            fits.append(fit_from(theta, _with_weights(choices, (times @ counted) @ uses), alpha))
        except NotIdentifiable:
            continue
    return _intervals(fits, resamples, level)


def _intervals(fits: list[NDArray[np.float64]], resamples: int, level: float) -> Intervals:
    if not fits:
        raise NotIdentifiable(f"scores: on none of {resamples} resamples are the strengths bounded; use an alpha")
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(fits, tails, axis=0)
    rank_low, rank_high = np.quantile([competition_ranks(theta, TIE) for theta in fits], tails, axis=0)
    return Intervals(low, high, rank_low, rank_high, resamples, resamples - len(fits))


def _fields(choices: Choices) -> tuple[NDArray, NDArray, NDArray]:
    return choices.winners, choices.members, choices.weights
