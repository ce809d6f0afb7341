"""How often what tables call a 95 % interval holds the truth, with the few seeds that tables have.

Truth is known because the data are drawn: from the normal distribution, where the intervals are made for it, and from
the exponential one, whose skewness is 2. docs/intervals.md has the figures.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from heterobench.keyed import generator
from heterobench.report.differences import difference
from heterobench.stats import intervals
from heterobench.stats.improvement import probability_of_improvement
from heterobench.stats.mean_ranks import friedman, nemenyi_p
from heterobench.stats.profiles import score_profile_band

TABLES = 4000  # of each kind; a share of 95 % then has a standard error of 0.34 %, so that 93 and 97 % are 5.8 of it
SEEDS = (3, 5, 10)
SCENARIOS = 4


def share(hits):
    return sum(hits) / len(hits)


def drawn(kind, tables, scenarios, seeds, shared):
    """[tables, scenarios, seeds] of mean 0; `shared`: the part of the variance that a seed brings to all scenarios."""
    random = generator(17, "coverage", scenarios, seeds)
    make = {"normal": random.standard_normal, "skewed": lambda size: random.standard_exponential(size) - 1}[kind]
    own, common = make((tables, scenarios, seeds)), make((tables, 1, seeds))
    return math.sqrt(1 - shared) * own + math.sqrt(shared) * common


def covered(found, truth=0.0):
    return share([low <= truth <= high for low, high in found])


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("shared", [0.0, 0.3])
def test_interval_over_seeds_of_a_difference_over_scenarios(seeds, shared):
    """As tables compute it; scenarios have unlike spreads, and share a seed's weights, cohorts and batches or not."""
    values = drawn("normal", TABLES, SCENARIOS, seeds, shared) * np.array([1.0, 2.0, 3.0, 0.5])[:, None]
    kept = np.ones((SCENARIOS, seeds), dtype=bool)
    found = [difference(table, np.zeros_like(table), kept) for table in values]
    assert 0.93 <= covered([one[1] for one in found]) <= 0.97
    assert share([one.clear for one in found]) == pytest.approx(0.05, abs=0.02), "stars where nothing differs"


@pytest.mark.parametrize("seeds", SEEDS)
def test_interval_of_a_mean_over_seeds(seeds):
    values = drawn("normal", TABLES, 1, seeds, 0.0)[:, 0]
    assert 0.93 <= covered([intervals.mean_interval(row)[1:3] for row in values]) <= 0.97


@pytest.mark.parametrize("seeds", SEEDS)
def test_interval_over_seeds_where_differences_are_skewed(seeds):
    """The mean over scenarios takes most of the skewness away; with a single scenario 12 % are missed, not 5."""
    several = [intervals.mean_of_means(table)[1:3] for table in drawn("skewed", TABLES, SCENARIOS, seeds, 0.0)]
    assert 0.91 <= covered(several) <= 0.97


@pytest.mark.parametrize(("scenarios", "seeds", "gone"), [(4, 3, 1), (4, 3, 2), (4, 5, 3), (2, 3, 1)])
def test_interval_over_seeds_with_gaps_is_not_too_narrow(scenarios, seeds, gone):
    values = drawn("normal", TABLES, scenarios, seeds, 0.3)
    for place in range(gone):
        values[:, place, place % seeds] = np.nan
    assert 0.93 <= covered([intervals.mean_of_means(table)[1:3] for table in values]) <= 0.99


def test_the_interval_over_seeds_is_students_where_every_seed_is_there():
    values = drawn("normal", 1, SCENARIOS, 5, 0.3)[0]
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values.mean(axis=0)))
    assert intervals.mean_of_means(values)[:3] == pytest.approx((values.mean(), low, high))
    assert math.isnan(intervals.mean_of_means(np.where(np.arange(5) == 0, values, np.nan)).low), (
        "one seed has no spread"
    )
    none = values.copy()
    none[2] = np.nan
    assert math.isnan(intervals.mean_of_means(none).estimate)
    assert intervals.mean_of_means(none)[3:] == (20, 15)
    assert intervals.mean_of_means(np.full((3, 4), 0.1))[:3] == pytest.approx((0.1, 0.1, 0.1))


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("probability", [0.5, 0.8, 0.95])
def test_interval_of_the_probability_to_be_better(seeds, probability):
    """It may be too wide and must not be too narrow; 1,000 tables: 93 % are 2.9 standard errors below 95."""
    away = stats.norm.ppf(probability) * math.sqrt(2)
    a, b = drawn("normal", 2000, SCENARIOS, seeds, 0.2).reshape(2, 1000, SCENARIOS, seeds)
    found = [probability_of_improvement(list(x + away), list(y))[1:3] for x, y in zip(a, b, strict=True)]
    assert covered(found, probability) >= 0.93


@pytest.mark.parametrize("seeds", SEEDS)
def test_band_of_the_score_profile(seeds):
    """At each value; scenarios at different levels, a seed shared by all of them."""
    levels, at = np.linspace(-1, 1, SCENARIOS), np.array([-0.5, 0.8])
    truth = stats.norm.sf(at - levels[:, None]).mean(axis=0)
    tables = drawn("normal", 1000, SCENARIOS, seeds, 0.3) + levels[:, None]
    bands = [score_profile_band(list(table), at) for table in tables]
    for place in range(2):
        assert covered([(low[place], high[place]) for low, high in bands], truth[place]) >= 0.93


@pytest.mark.parametrize(("methods", "scenarios"), [(2, 3), (2, 4), (3, 2), (3, 3), (5, 4)])
def test_tests_over_few_scenarios_find_nothing_where_nothing_is(methods, scenarios):
    random = generator(19, "null", methods, scenarios)
    found = [friedman(random.random((scenarios, methods))) for _ in range(300)]
    most = stats.binom.ppf(0.9999, 300, 0.05)
    assert sum(one.p < 0.05 for one in found) <= most
    assert sum((nemenyi_p(one.mean_ranks, scenarios) < 0.05).any() for one in found[:100]) <= stats.binom.ppf(
        0.9999, 100, 0.05
    )
