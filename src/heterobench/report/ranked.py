"""Rankings of a benchmark's methods by many rules: what each rule says, and what it says without a part of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heterobench.rankings import votes
from heterobench.rankings.borda import borda, two_level_borda
from heterobench.rankings.kemeny import LARGEST, kemeny
from heterobench.rankings.nash import NashAverage, nash_average
from heterobench.rankings.plackett_luce import (
    Intervals,
    NotIdentifiable,
    PlackettLuce,
    cluster_bootstrap,
    plackett_luce,
)
from heterobench.rankings.scores import Ranking
from heterobench.rankings.stability import elected_among, leave_one_out
from heterobench.report.metrics import METRICS
from heterobench.report.missing import Cube, over_seeds
from heterobench.report.pooling import Answers, Part
from heterobench.resolve import Arm

Values = NDArray[np.float64]
STABLE_LARGEST = 14  # methods for which the exact consensus is found again and again
RESAMPLES, FEW_RESAMPLES = 500, 100
MANY = 1_000_000  # methods^2 * patterns from which a fit takes long enough for fewer resamples
DRAWN = 1e-2  # wins for each ordered pair where strengths would be unbounded, as in the published code


class Rule(NamedTuple):
    """A rule: `apply` takes values [methods, scenarios, seeds] and decimals; `order`: it ranks all methods."""

    key: str
    title: str
    group: str
    apply: Callable[[Values, int | None], Ranking]
    order: bool = True
    largest: int | None = None


def _on_means(rule: Callable[..., Ranking], values: Values, digits: int | None) -> Ranking:
    return rule(over_seeds(values), digits=digits)


def _two_level(values: Values, digits: int | None) -> Ranking:
    tasks = [values[:, s, ~np.isnan(values[:, s]).any(axis=0)] for s in range(values.shape[1])]
    return two_level_borda([task for task in tasks if task.shape[1]], digits=digits)


def _nash(values: Values, digits: int | None) -> NashAverage:
    means = over_seeds(values)
    means = means if digits is None else np.round(means, digits)
    if (means == means[0]).all():
        raise ValueError("all methods are equal in every scenario")
    try:
        return nash_average(means)
    except RuntimeError as error:  # no equilibrium was found; to the report that is a rule without an answer
        raise ValueError(str(error)) from error


ORDERS = (
    Rule("mean", "Mean", "Scores and points", partial(_on_means, votes.mean)),
    Rule("borda", "Borda", "Scores and points", partial(_on_means, borda)),
    Rule("two-level-borda", "Two-level Borda", "Scores and points", _two_level),
    Rule("dowdall", "Dowdall", "Scores and points", partial(_on_means, votes.dowdall)),
    Rule("plurality", "Plurality", "Scores and points", partial(_on_means, votes.plurality)),
    Rule("kemeny", "Kemeny", "Pairs of methods", partial(_on_means, kemeny), largest=LARGEST),
    Rule("copeland", "Copeland", "Pairs of methods", partial(_on_means, votes.copeland)),
    Rule("minimax", "Minimax", "Pairs of methods", partial(_on_means, votes.minimax)),
    Rule("nash", "Nash averaging", "Game", _nash),
)
EXAMPLES = Rule("plackett-luce", "Plackett-Luce", "Test examples", lambda *_: NotImplemented)
"""Ranks by answers to test examples, which a cube does not hold: see `by_examples`."""
ELECTIONS = (
    Rule("threshold", "Threshold", "Elections", partial(_on_means, votes.threshold), order=False),
    Rule("baldwin", "Baldwin", "Elections", partial(_on_means, votes.baldwin), order=False),
    Rule("condorcet", "Condorcet", "Elections", partial(_on_means, votes.condorcet), order=False),
)
RULES = (*ORDERS, *ELECTIONS)
ALL = (*ORDERS, EXAMPLES, *ELECTIONS)


class Order(NamedTuple):
    """What a rule says of the methods of a cube: scores and ranks [methods], NaN for one that it does not rank."""

    scores: Values
    ranks: Values
    elected: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Ranked:
    """All rules on one cube.

    orders   key of a rule -> what it says
    refused  key of a rule -> why it says nothing
    nash     the whole answer of Nash averaging, for its weights
    """

    cube: Cube
    orders: dict[str, Order]
    refused: dict[str, str]
    nash: NashAverage | None


def rank(values: Cube) -> Ranked:
    """Rank the methods of a cube with at least two methods and one scenario by all rules but `EXAMPLES`."""
    orders, refused, nash = {}, {}, None
    for rule in RULES:
        if rule.largest is not None and len(values.arms) > rule.largest:
            refused[rule.key] = f"{len(values.arms)} methods; found exactly for {rule.largest} at most"
            continue
        try:
            found = rule.apply(values.values, digits(values))
        except ValueError as error:
            refused[rule.key] = str(error)
            continue
        orders[rule.key] = Order(found.scores, found.ranks.astype(float), found.elected)
        nash = found if isinstance(found, NashAverage) else nash
    return Ranked(values, orders, refused, nash)


def digits(values: Cube) -> int | None:
    """Decimals that scores are rounded to before they are ranked: those of tables."""
    return METRICS[values.metric].digits


# by test examples


@dataclass(frozen=True, eq=False)
class ByExamples:
    """Plackett-Luce strengths of the methods of `answers`, and the accuracy over all answers.

    alpha      0, or the wins added for each ordered pair because strengths would be unbounded without
    intervals  from examples drawn again, each with all of its answers; None where they were not asked for, or where no
               drawing bounds the strengths
    """

    answers: Answers
    fit: PlackettLuce
    accuracy: Values
    alpha: float
    intervals: Intervals | None

    def spread(self, arms: tuple[Arm, ...], values: Values) -> Values:
        """`values` of the methods of the answers, as those of `arms`; NaN for one without answers."""
        found = dict(zip((arm.name for arm in self.answers.arms), np.asarray(values, float), strict=True))
        return np.array([found.get(arm.name, np.nan) for arm in arms])

    def order(self, arms: tuple[Arm, ...]) -> Order:
        ranks = self.spread(arms, self.fit.ranks)
        return Order(self.spread(arms, self.fit.scores), ranks, tuple(np.flatnonzero(ranks == 1).tolist()))


def by_examples(answers: Answers, intervals: bool = True, seed: int = 0) -> ByExamples | None:
    """Strengths by which examples each method has right; None with fewer than two methods, or without answers."""
    if len(answers.arms) < 2 or not answers.parts:
        return None
    patterns, counts = answers.patterns, answers.counts()
    try:
        alpha, fit = 0.0, plackett_luce(patterns, weights=counts)
    except NotIdentifiable:
        alpha, fit = DRAWN, plackett_luce(patterns, alpha=DRAWN, weights=counts)
    found = ByExamples(answers, fit, answers.accuracy(), alpha, None)
    if not intervals:
        return found
    resamples = FEW_RESAMPLES if len(patterns) * patterns.size > MANY else RESAMPLES
    try:
        drawn = cluster_bootstrap(patterns, answers.by_example(), seed, resamples, alpha=alpha)
    except NotIdentifiable:
        return found
    return replace(found, intervals=drawn)


# without a part


class LeftOut(NamedTuple):
    """A rule without each scenario, seed or method in turn.

    ranks    float [cases, methods of the cube]; NaN for what is left out or not ranked
    winners  for each case the names of the methods that win; None where the rule gave no answer
    changed  bool [cases]: whether others win than with everything, those left out not counted
    """

    ranks: Values
    winners: tuple[tuple[str, ...] | None, ...]
    changed: NDArray[np.bool_]

    def span(self, whole: Values) -> Values:
        """Best and worst rank [methods, 2] over all cases and the whole; NaN for a method that is never ranked."""
        ranks = np.vstack([whole, self.ranks])
        ranked = np.isfinite(ranks).any(axis=0)
        best = np.where(ranked, np.where(np.isfinite(ranks), ranks, np.inf).min(axis=0), np.nan)
        worst = np.where(ranked, np.where(np.isfinite(ranks), ranks, -np.inf).max(axis=0), np.nan)
        return np.stack([best, worst], axis=1)


def cases(values: Cube, out: str) -> tuple[str, ...]:
    """Names of what can be left out one by one; none where less than a ranking would be left."""
    names = {
        "scenario": tuple(scenario.name for scenario in values.scenarios),
        "seed": tuple(str(seed) for seed in values.seeds),
        "method": tuple(arm.name for arm in values.arms),
    }[out]
    return names if len(names) >= (3 if out == "method" else 2) else ()


def without(values: Cube, rule: Rule, out: str) -> LeftOut | None:
    """A rule of `RULES` on the cube without each scenario, seed or method; None where that takes too long."""
    if not cases(values, out) or (rule.largest is not None and len(values.arms) > STABLE_LARGEST):
        return None
    axis = "task" if out == "scenario" else out
    found = leave_one_out(lambda part: rule.apply(part, digits(values)), values.values, axis, seeds_inside=True)
    winners = tuple(
        None if case in found.refused else tuple(values.arms[m].name for m in elected)
        for case, elected in enumerate(found.elected)
    )
    return LeftOut(found.ranks, winners, found.new_winner)


def without_answers(found: ByExamples, values: Cube, out: str) -> LeftOut | None:
    """The same for strengths by test examples, with the scenarios, seeds and methods of the cube."""
    names = cases(values, out)
    if not names:
        return None
    answers = found.answers
    ranks, winners = np.full((len(names), len(values.arms)), np.nan), []
    changed = np.zeros(len(names), dtype=bool)
    for place, name in enumerate(names):
        kept = np.array([m for m, arm in enumerate(answers.arms) if out != "method" or arm.name != name])
        parts = [part for part in answers.parts if out == "method" or name != _case(part, out)]
        try:
            part = plackett_luce(answers.patterns[kept], alpha=found.alpha, weights=answers.counts(parts))
        except ValueError:  # strengths unbounded without it, or nothing left
            winners.append(None)
            continue
        by_name = {answers.arms[m].name: rank for m, rank in zip(kept, part.ranks, strict=True)}
        ranks[place] = [by_name.get(arm.name, np.nan) for arm in values.arms]
        elected = set(kept[list(part.elected)].tolist())
        changed[place] = elected != elected_among(found.fit, kept)
        winners.append(tuple(answers.arms[m].name for m in sorted(elected)))
    return LeftOut(ranks, tuple(winners), changed)


def _case(part: Part, out: str) -> str:
    return part.scenario if out == "scenario" else str(part.seed)
