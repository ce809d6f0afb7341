"""Seeds needed to tell two methods apart."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from heterobench.keyed import generator
from heterobench.stats.power import detectable_difference, paired_power, seeds_needed


@pytest.mark.parametrize("seeds", [2, 5, 20])
@pytest.mark.parametrize("effect", [0.3, 1.0, -1.0])
def test_power_by_integrating_over_the_sample_deviation(seeds, effect):
    # given s, the mean is normal: P(|mean| > t s / sqrt n); s^2 (n - 1) is chi-squared
    critical = stats.t.isf(0.025, seeds - 1)

    def given(x):
        bound = critical * math.sqrt(x / (seeds - 1))
        shift = effect * math.sqrt(seeds)
        return (stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)) * stats.chi2.pdf(x, seeds - 1)

    # x = u^2 removes the pole of the density with one degree of freedom
    expected, _ = integrate.quad(lambda u: 2 * u * given(u * u), 0, 15)
    assert paired_power(effect, 1.0, seeds) == pytest.approx(expected, rel=1e-6)


def test_power_is_the_share_of_rejections():
    draws = generator(16, "trials").normal(1.0, 1.5, (4000, 8))
    rejected = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert rejected == pytest.approx(paired_power(1.0, 1.5, 8), abs=4 * math.sqrt(0.25 / 4000))


def test_no_difference_is_found_as_often_as_alpha_says():
    assert paired_power(0.0, 1.0, 7, alpha=0.03) == pytest.approx(0.03)


@pytest.mark.parametrize("effect", [0.2, 0.8, 3.0])
@pytest.mark.parametrize("power", [0.8, 0.95])
def test_needed_number_is_the_first_that_is_enough(effect, power):
    n = seeds_needed(2 * effect, 2.0, power)
    assert paired_power(effect, 1.0, n) >= power
    assert n == 2 or paired_power(effect, 1.0, n - 1) < power


def test_unit_and_sign_do_not_matter():
    assert seeds_needed(-0.5, 1.0) == seeds_needed(0.5, 1.0) == seeds_needed(50, 100)


def test_failed_runs_need_more_seeds():
    whole = seeds_needed(0.5, 1.0)
    assert seeds_needed(0.5, 1.0, failing=0.5) == 2 * whole
    assert seeds_needed(0.5, 1.0, failing=0.3) == math.ceil(whole / 0.7)


def test_what_cannot_be_found_is_none():
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.5, 1.0, most=10) is None


@pytest.mark.parametrize("seeds", [2, 5, 40])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_least_difference_is_the_inverse_of_power(seeds, power):
    least = detectable_difference(2.0, seeds, power)
    assert paired_power(least, 2.0, seeds) == pytest.approx(power, abs=1e-9)
    assert seeds_needed(1.0001 * least, 2.0, power) == seeds
    assert detectable_difference(200.0, seeds, power) == pytest.approx(100 * least)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="std"):
        detectable_difference(0.0, 5)
    with pytest.raises(ValueError, match="above alpha"):
        detectable_difference(1.0, 5, power=0.04)
    with pytest.raises(ValueError, match="seeds"):
        detectable_difference(1.0, 1)
    with pytest.raises(ValueError, match="std"):
        seeds_needed(1.0, 0.0)
    with pytest.raises(ValueError, match="seeds"):
        paired_power(1.0, 1.0, 1)
    with pytest.raises(ValueError, match="power"):
        seeds_needed(1.0, 1.0, power=1.0)
    with pytest.raises(ValueError, match="failing"):
        seeds_needed(1.0, 1.0, failing=1.0)
