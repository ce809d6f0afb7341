"""Wilcoxon's signed-rank test against full enumeration and scipy; Holm's correction."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from c45 import SCORES
from heterobench.keyed import generator
from heterobench.stats.signed_rank import holm, mid_ranks, pairwise_signed_rank, signed_rank, smallest_p


def brute_force(differences, zeros):
    """p by visiting all signs of the non-zero differences."""
    d = np.asarray(differences, float)
    if zeros == "wilcox":
        d = d[d != 0]
    ranks = stats.rankdata(np.abs(d))[d != 0]
    observed = abs(np.sum(ranks * np.sign(d[d != 0])))
    sums = [abs(np.dot(ranks, signs)) for signs in product([-1, 1], repeat=ranks.size)]
    return np.mean([value >= observed - 1e-9 for value in sums])


@pytest.mark.parametrize("zeros", ["wilcox", "pratt", "zsplit"])
@pytest.mark.parametrize(
    "differences",
    [
        [1, 2, 3, 4],
        [1, -2, 3, 4, 5, -6],
        [0, 1, 1, -1, 2, 3, 0, 3],
        [2, 2, 2, -2, 2],
        [0, 0, -1],
        [0, 0, 0, 0, 1, -2, 3, 4, 5, 6, 7],
    ],
)
def test_exact_p_is_the_share_of_all_signs(differences, zeros):
    made = signed_rank(differences, np.zeros(len(differences)), zeros=zeros, method="exact")
    assert made.p == pytest.approx(brute_force(differences, zeros), abs=1e-14)


@pytest.mark.parametrize("n", [3, 6, 15, 25])
def test_exact_p_is_that_of_scipy_without_ties(n):
    a, b = generator(7, "pairs", n).normal(0.2, 1, (2, n))
    made = signed_rank(a, b)
    expected = stats.wilcoxon(a, b, method="exact")
    assert made.method == "exact"
    assert (min(made.wins, made.losses), made.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-12)


@pytest.mark.parametrize("zeros", ["wilcox", "pratt", "zsplit"])
def test_normal_p_is_that_of_scipy_with_ties_and_zeros(zeros):
    d = generator(8, "rounded").integers(-3, 6, 40).astype(float)
    made = signed_rank(d, np.zeros(40), zeros=zeros)
    expected = stats.wilcoxon(d, zero_method=zeros, method="asymptotic")
    assert made.method == "normal"
    assert (min(made.wins, made.losses), made.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-10)


def test_worked_vector_method_one_against_four():
    a, b = SCORES[:, 0], SCORES[:, 3]
    assert round(signed_rank(a, b, zeros="zsplit").p, 4) == 0.0143
    assert round(signed_rank(a, b, zeros="wilcox").p, 4) == 0.0159


def test_exact_only_without_ties_and_zeros_and_up_to_25_pairs():
    def used(d):
        return signed_rank(d, np.zeros(len(d))).method

    assert used(np.arange(1.0, 26)) == "exact"
    assert used(np.arange(1.0, 27)) == "normal"
    assert used([1.0, 1.0, 2.0]) == "normal"
    assert used([0.0, 1.0, 2.0]) == "normal"


def test_five_data_sets_can_never_reach_five_percent():
    assert signed_rank([1, 2, 3, 4, 5], [0] * 5).p == smallest_p(5) == 0.0625
    assert signed_rank([1, 2, 3, 4, 5, 6], [0] * 6).p == smallest_p(6) < 0.05


def test_direction_swaps_wins_and_losses_only():
    a, b = [1.0, 5.0, 4.0], [3.0, 2.0, 0.0]
    up, down = signed_rank(a, b), signed_rank(a, b, "min")
    assert (up.wins, up.losses, up.p) == (down.losses, down.wins, down.p)
    assert (up.wins, up.losses) == (5.0, 1.0)


def test_equal_methods_are_not_told_apart():
    assert signed_rank([1.0, 2.0], [1.0, 2.0]).p == 1.0


def test_failed_run_loses_by_the_most_and_two_failed_runs_tie():
    for direction, worst in (("max", -1e9), ("min", 1e9)):
        b = [1.0, 2.0, 3.0, 4.0]
        failed = signed_rank([1.1, math.nan, 3.3, 4.4], b, direction)
        assert failed == signed_rank([1.1, worst, 3.3, 4.4], b, direction)
    assert signed_rank([math.nan, 1.0], [math.inf, 0.0]) == signed_rank([0.0, 1.0], [0.0, 0.0])


def test_monotone_transforms_change_the_test():
    a, b = (
        np.array([1.0, 2.0, 9.0]),
        np.array([2.0, 4.0, 5.0]),
    )  # differences -1, -2, 4; of logs the last is not largest
    assert signed_rank(a, b).wins == 3.0
    assert signed_rank(np.log(a), np.log(b)).wins == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]).tolist() == [0.2]
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]


def test_holm_is_monotone_at_least_raw_and_at_most_one():
    raw = generator(9, "p").random(30) ** 3
    adjusted = holm(raw)
    assert np.all((adjusted >= raw) & (adjusted <= 1))
    assert np.all(np.diff(adjusted[np.argsort(raw)]) >= 0)


def test_number_of_comparisons():
    every = pairwise_signed_rank(SCORES)
    assert [(one.first, one.second) for one in every] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert [one.p for one in every] == holm([one.raw_p for one in every]).tolist()
    control = pairwise_signed_rank(SCORES, control=1)
    assert [(one.first, one.second) for one in control] == [(1, 0), (1, 2), (1, 3)]
    alone = {one.second: one.raw_p for one in control}
    assert alone[3] == every[4].raw_p
    assert [one.p for one in control] == holm(list(alone.values())).tolist()


def test_pair_does_not_depend_on_the_other_methods():
    assert pairwise_signed_rank(SCORES)[0].raw_p == pairwise_signed_rank(SCORES[:, :2])[0].raw_p


def test_mid_ranks_are_those_of_scipy():
    for values in ([3.0, 1.0, 3.0, 2.0], [math.inf, 1.0, math.inf], [1.0]):
        assert mid_ranks(np.array(values)).tolist() == stats.rankdata(values).tolist()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="b: must pair"):
        signed_rank([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="zeros"):
        signed_rank([1.0], [2.0], zeros="drop")
    with pytest.raises(ValueError, match="direction"):
        signed_rank([1.0], [2.0], "up")
    with pytest.raises(ValueError, match="p: must lie"):
        holm([0.1, math.nan])
    with pytest.raises(ValueError, match="control"):
        pairwise_signed_rank(SCORES, control=4)
