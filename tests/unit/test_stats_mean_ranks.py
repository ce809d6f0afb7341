"""Friedman, Iman-Davenport, Nemenyi and the cliques of a critical-difference diagram."""

import math
from itertools import permutations, product

import numpy as np
import pytest
from scipy import stats

from c45 import SCORES
from heterobench.keyed import generator
from heterobench.stats.mean_ranks import cliques, critical_difference, friedman, nemenyi_p, nemenyi_quantile, rank_rows

RANDOM = generator(10, "scores").normal(size=(15, 4))


def test_worked_vector():
    made = friedman(SCORES)
    assert made.mean_ranks.round(3).tolist() == [3.143, 2.0, 2.893, 1.964]
    assert (round(made.chi2, 4), round(made.f, 3)) == (9.2786, 3.686)
    assert (round(made.tied_chi2, 3), round(made.tied_p, 4)) == (10.228, 0.0167)
    # from the printed quantile 2.569; the exact one gives 1.25356
    assert critical_difference(4, 14) == pytest.approx(1.2535, abs=1e-4)
    assert made.f_p == pytest.approx(stats.f.sf(made.f, 3, 39))


@pytest.mark.parametrize("scores", [SCORES, RANDOM, RANDOM.round(0)])
def test_tie_corrected_statistic_is_that_of_scipy(scores):
    made, expected = friedman(scores), stats.friedmanchisquare(*scores.T)
    assert (made.tied_chi2, made.tied_p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)


def test_mean_of_the_statistic_over_all_orders_is_its_degrees_of_freedom():
    # under the null each order of each row is equally likely, and then E chi2 = k - 1 exactly
    rows = list(permutations([1.0, 2.0, 3.0]))
    every = [friedman(np.array(table)).chi2 for table in product(rows, repeat=3)]
    assert np.mean(every) == pytest.approx(2, rel=1e-12)
    assert max(every) == pytest.approx(6)  # n (k - 1): the same order everywhere


def test_ranks_sum_to_the_same_and_one_is_best():
    ranks = rank_rows(RANDOM.round(0))
    assert ranks.sum(axis=1).tolist() == [10.0] * 15
    assert rank_rows([[0.9, 0.5, 0.9]]).tolist() == [[1.5, 3.0, 1.5]]
    assert rank_rows([[0.9, 0.5, 0.9]], "min").tolist() == [[2.5, 1.0, 2.5]]


def test_equal_scores():
    made = friedman(np.ones((5, 3)))
    assert (made.chi2, made.tied_chi2, made.f) == (0.0, 0.0, 0.0)
    assert (made.chi2_p, made.tied_p, made.f_p) == (1.0, 1.0, 1.0)


def test_same_order_everywhere():
    made = friedman(np.tile([3.0, 2.0, 1.0], (7, 1)))
    assert (made.f, made.f_p) == (math.inf, 0.0)


def test_monotone_transforms_of_a_data_set_change_nothing():
    moved = RANDOM.copy()
    moved[0] = np.exp(5 * moved[0])
    moved[3] = moved[3] ** 3 - 100
    one, other = friedman(RANDOM), friedman(moved)
    assert other[1:] == one[1:]
    assert other.mean_ranks.tolist() == one.mean_ranks.tolist()
    assert np.array_equal(nemenyi_p(other.mean_ranks, 15), nemenyi_p(one.mean_ranks, 15))


def test_failed_runs_rank_last_and_tie():
    for direction in ("max", "min"):
        assert rank_rows([[math.nan, 0.1, math.inf, 0.1]], direction).tolist() == [[3.5, 1.5, 3.5, 1.5]]


def test_iman_davenport_keeps_its_level():
    tables = generator(11, "null").normal(size=(2000, 15, 4))
    rejected = np.mean([friedman(table).f_p < 0.05 for table in tables])
    assert 0.035 <= rejected <= 0.065


@pytest.mark.parametrize(
    ("alpha", "table"),
    [
        (0.05, [1.960, 2.344, 2.569, 2.728, 2.850, 2.948, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.460, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_quantiles_are_those_of_the_table(alpha, table):
    # the printed table cuts some third decimals instead of rounding them
    assert [nemenyi_quantile(k, alpha) for k in range(2, 11)] == pytest.approx(table, abs=0.001)


def test_two_methods_need_a_normal_quantile_over_the_root_of_n():
    assert critical_difference(2, 9) == pytest.approx(stats.norm.isf(0.025) / 3, rel=1e-6)


def test_nemenyi_p_crosses_alpha_at_the_critical_difference():
    apart = critical_difference(4, 14)
    p = nemenyi_p([1.5, 1.5 + apart, 3.0, 4.0], 14)
    assert p[0, 1] == pytest.approx(0.05, rel=1e-4)
    assert np.array_equal(p, p.T)
    assert np.diag(p).tolist() == [1.0] * 4
    assert p[0, 3] < p[0, 2] < p[2, 3]


def test_cliques_by_hand():
    # sorted: places 2 (1.0), 0 (1.5), 3 (2.4), 1 (4.0)
    means = [1.5, 4.0, 1.0, 2.4]
    assert cliques(means, 1.0) == [[2, 0], [0, 3]]
    assert cliques(means, 1.5) == [[2, 0, 3]]  # those inside it are not listed again
    assert cliques(means, 0.4) == []
    assert cliques(means, 10) == [[2, 0, 3, 1]]
    assert cliques([1.0, 2.0], 1.0) == []  # exactly the difference is told apart


def test_cliques_are_the_maximal_windows():
    for trial in range(50):
        means = generator(12, "means", trial).uniform(1, 7, 7)
        order = np.argsort(means)
        windows = [
            list(order[i : j + 1]) for i in range(7) for j in range(i + 1, 7) if means[order[j]] - means[order[i]] < 1.5
        ]
        maximal = [one for one in windows if not any(set(one) < set(other) for other in windows)]
        assert cliques(means, 1.5) == maximal


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="scores"):
        friedman([[1.0, 2.0]])
    with pytest.raises(ValueError, match="alpha"):
        critical_difference(3, 10, 5)
    with pytest.raises(ValueError, match="k 1"):
        critical_difference(1, 10)
    with pytest.raises(ValueError, match="mean_ranks"):
        cliques([1.0, math.nan], 1.0)
