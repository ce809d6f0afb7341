"""Calibration errors, scores of probabilities."""

import math

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from heterobench.keyed import generator
from heterobench.metrics import calibration as c

BOTH = pytest.mark.parametrize("scheme", ["width", "mass"])
METRICS = [
    c.negative_log_likelihood,
    c.brier,
    c.expected_calibration_error,
    lambda p, y: c.expected_calibration_error(p, y, 7, "mass"),
    c.maximum_calibration_error,
    c.root_mean_square_calibration_error,
    lambda p, y: c.root_mean_square_calibration_error(p, y, 7, "mass"),
    c.debiased_calibration_error,
    c.classwise_calibration_error,
    lambda p, y: c.classwise_calibration_error(p, y, 7, "mass", 1e-3),
    c.overconfidence,
    c.confidence_auroc,
    c.area_under_risk_coverage,
]


def worked():
    """The worked vector as a task of two classes: class 0 is always predicted, label 1 where that is wrong."""
    confidence = np.array([0.95, 0.9, 0.85, 0.7, 0.65, 0.55])
    return np.stack([confidence, 1 - confidence], axis=1), 1 - np.array([1, 1, 0, 1, 0, 1])


def drawn(n, classes, key, sharp=1.0):
    """Probabilities and labels drawn from them: perfectly calibrated."""
    random = generator(0, f"calibration {key}")
    probabilities = random.dirichlet(np.full(classes, sharp), n)
    return probabilities, (random.random(n)[:, None] > probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)


@pytest.mark.parametrize(
    ("bins", "scheme", "expected"), [(10, "width", 1.6 / 6), (5, "width", 0.25), (3, "mass", 0.15)]
)
def test_ece_of_the_worked_vector(bins, scheme, expected):
    assert c.expected_calibration_error(*worked(), bins, scheme) == pytest.approx(expected, abs=1e-12)


def test_other_errors_of_the_worked_vector():
    # ten bins: gaps .05 (one example), .375 (two), .175 (two), .45 (one)
    squares = (0.05**2 + 2 * 0.375**2 + 2 * 0.175**2 + 0.45**2) / 6
    assert c.maximum_calibration_error(*worked(), 10) == pytest.approx(0.45)
    assert c.root_mean_square_calibration_error(*worked(), 10) == pytest.approx(math.sqrt(squares))
    # both bins of two hold one right and one wrong answer: chance .5 * .5 / (2 - 1) each; single examples lose nothing
    debiased = squares - 4 / 6 * 0.25
    assert debiased < 0
    assert c.debiased_calibration_error(*worked(), 10) == 0
    assert c.overconfidence(*worked()) == pytest.approx((0.95 + 0.9 + 0.85 + 0.7 + 0.65 + 0.55) / 6 - 4 / 6)


def test_debiased_error_of_one_bin_in_closed_form():
    confidence = np.full(10, 0.8)
    probabilities, labels = np.stack([confidence, 1 - confidence], axis=1), np.array([0] * 6 + [1] * 4)
    assert c.debiased_calibration_error(probabilities, labels, 1) == pytest.approx(math.sqrt(0.04 - 0.24 / 9))


def test_bins_are_closed_on_the_right_and_hold_confidence_one():
    table = c.reliability(np.arange(11) / 10, np.ones(11), 10)
    assert table.count.tolist() == [2, 1, 1, 1, 1, 1, 1, 1, 1, 1]  # zero goes to the first
    assert table.confidence[1:] == pytest.approx(np.arange(2, 11) / 10)
    # just above a border is the next bin
    assert len(c.reliability(np.array([0.5, np.nextafter(0.5, 1)]), np.ones(2), 2).count) == 2


def test_equal_mass_bins_differ_by_one_example_at_most():
    table = c.reliability(generator(0, "mass").random(100) ** 8, np.zeros(100), 15, "mass")
    assert set(table.count.tolist()) == {6, 7}
    assert table.count.sum() == 100
    assert (np.diff(table.confidence) > 0).all()


def test_calibrated_probabilities_have_an_error_of_order_root_bins_over_examples():
    n, bins = 4000, 15
    probabilities, labels = drawn(n, 5, "calibrated")
    error = c.expected_calibration_error(probabilities, labels, bins)
    # E|gap| <= .5 / sqrt(examples of the bin), summed by Cauchy-Schwarz; one example moves it by 1 / n (McDiarmid)
    assert 0 < error < 0.5 * math.sqrt(bins / n) + math.sqrt(math.log(1e9) / (2 * n))
    squares, cubes = (probabilities**2).sum(axis=1), (probabilities**3).sum(axis=1)
    tolerance = 6 * math.sqrt((4 * (cubes - squares**2)).sum()) / n
    assert abs(c.brier(probabilities, labels) - (1 - squares).mean()) < tolerance
    entropies = -(probabilities * np.log(probabilities)).sum(axis=1)
    spread = np.sqrt((probabilities * np.log(probabilities) ** 2).sum(axis=1) - entropies**2)
    tolerance = 6 * math.sqrt((spread**2).sum()) / n
    assert abs(c.negative_log_likelihood(probabilities, labels) - entropies.mean()) < tolerance


@pytest.mark.parametrize("each", [10, 160])
def test_error_of_calibrated_predictions_is_what_chance_makes_of_few_examples_a_bin(each):
    """E|X / n - p| over binomial X, bin by bin: of order sqrt(bins / examples), and not zero."""
    claims = np.array([0.55, 0.65, 0.75, 0.85, 0.95])  # each in a bin of its own
    confidence = np.repeat(claims, each)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    random = generator(0, "chance", each)
    draws = [random.random(5 * each) >= confidence for _ in range(400)]
    errors = np.array([c.expected_calibration_error(probabilities, drawn.astype(int), 10) for drawn in draws])
    hits = np.arange(each + 1)
    expected = np.mean([binom.pmf(hits, each, claim) @ np.abs(hits / each - claim) for claim in claims])
    assert errors.mean() == pytest.approx(expected, abs=5 * errors.std() / 20)
    # nearly normal: E|gap| = sqrt(2 / pi) standard deviations
    normal = math.sqrt(2 / math.pi) * np.sqrt(claims * (1 - claims) / each).mean()
    assert expected == pytest.approx(normal, rel=0.5 / math.sqrt(each))


def test_overconfidence_has_a_sign():
    modest = np.tile([0.6, 0.4], (10, 1)), np.array([0] * 9 + [1])
    assert c.overconfidence(*modest) == pytest.approx(0.6 - 0.9)
    assert c.expected_calibration_error(*modest) == pytest.approx(0.3)


@BOTH
def test_ece_is_at_least_the_overconfidence_and_equal_to_it_in_one_bin(scheme):
    probabilities, labels = drawn(300, 4, "triangle")
    gap = abs(c.overconfidence(probabilities, labels))
    assert c.expected_calibration_error(probabilities, labels, 15, scheme) >= gap - 1e-12
    assert c.expected_calibration_error(probabilities, labels, 1, scheme) == pytest.approx(gap, abs=1e-12)
    # all gaps of one sign: nothing is ever right
    wrong = (probabilities.argmax(axis=1) + 1) % 4
    expected = c.overconfidence(probabilities, wrong)
    assert c.expected_calibration_error(probabilities, wrong, 15, scheme) == pytest.approx(expected, abs=1e-12)


@BOTH
def test_rms_error_lies_between_ece_and_mce(scheme):
    given = drawn(200, 3, "between")
    ece, rms, mce = (
        f(*given, 15, scheme)
        for f in (c.expected_calibration_error, c.root_mean_square_calibration_error, c.maximum_calibration_error)
    )
    assert ece < rms < mce
    assert c.debiased_calibration_error(*given, 15, scheme) < rms


@BOTH
def test_one_hot_predictions(scheme):
    labels = np.arange(40) % 4
    predicted = labels.copy()
    predicted[:7] = (predicted[:7] + 1) % 4
    probabilities = np.eye(4)[predicted]
    error = 7 / 40
    assert c.expected_calibration_error(probabilities, labels, 15, scheme) == pytest.approx(error)
    assert c.brier(probabilities, labels) == pytest.approx(2 * error)
    assert c.negative_log_likelihood(probabilities, labels, floor=0) == math.inf
    assert c.negative_log_likelihood(probabilities, labels) == pytest.approx(error * -math.log(1e-12))


@BOTH
def test_uniform_predictions_on_balanced_classes(scheme):
    probabilities, labels = np.full((50, 5), 0.2), np.arange(50) % 5
    assert c.expected_calibration_error(probabilities, labels, 15, scheme) == pytest.approx(0, abs=1e-12)
    assert c.classwise_calibration_error(probabilities, labels, 15, scheme) == pytest.approx(0, abs=1e-12)
    assert c.brier(probabilities, labels) == pytest.approx(1 - 1 / 5)
    assert c.negative_log_likelihood(probabilities, labels) == pytest.approx(math.log(5))


@pytest.mark.parametrize("metric", METRICS)
def test_order_of_examples_does_not_matter_even_with_equal_confidences(metric):
    random = generator(0, "order")
    pool = random.dirichlet(np.ones(3), 6)
    probabilities, labels = pool[random.integers(0, 6, 100)], random.integers(0, 3, 100)
    order = random.permutation(100)
    assert metric(probabilities[order], labels[order]) == pytest.approx(metric(probabilities, labels), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_names_of_classes_do_not_matter(metric):
    probabilities, labels = drawn(150, 4, "names")
    names = np.array([2, 0, 3, 1])
    assert metric(probabilities[:, np.argsort(names)], names[labels]) == pytest.approx(
        metric(probabilities, labels), abs=1e-12
    )


def test_classwise_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 1])
    # two bins: class 0 |0 - .25| (two below one half) and |.5 - .75|, class 1 |.5 - .25| and |1 - .75|
    assert c.classwise_calibration_error(probabilities, labels, 2) == pytest.approx(0.25)
    # p >= .5 leaves the upper bin of each class alone
    assert c.classwise_calibration_error(probabilities, labels, 2, threshold=0.5) == pytest.approx(0.25)
    assert c.classwise_calibration_error(probabilities, labels, 2, threshold=0.85) == pytest.approx(0.1 / 2)
    # at the threshold itself an example stays
    assert c.classwise_calibration_error(probabilities, labels, 2, threshold=0.9) == pytest.approx(0.1 / 2)


def test_scores_are_those_of_scikit_learn():
    probabilities, labels = drawn(200, 4, "scikit-learn")
    assert c.negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels, probabilities))
    expected = brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert c.brier(probabilities, labels) == pytest.approx(expected)
    rounded = np.round(probabilities, 1)
    rounded[:, 0] += 1 - rounded.sum(axis=1)
    keep = rounded.min(axis=1) >= 0
    confidence, right = c.top_label(rounded[keep], labels[keep])
    assert len(np.unique(confidence)) < keep.sum() / 5  # many ties
    assert c.confidence_auroc(rounded[keep], labels[keep]) == pytest.approx(roc_auc_score(right, confidence))


def test_ranking_quality_in_closed_form():
    probabilities, labels = worked()
    # right: .95 .9 .7 .55, wrong: .85 .65; pairs in order: .95 2, .9 2, .7 1, .55 0
    assert c.confidence_auroc(probabilities, labels) == pytest.approx(5 / 8)
    assert c.area_under_risk_coverage(probabilities, labels) == pytest.approx((1 / 3 + 1 / 4 + 2 / 5 + 2 / 6) / 6)
    assert math.isnan(c.confidence_auroc(probabilities, np.zeros(6, dtype=int)))


def test_likelihood_of_logits_keeps_what_probabilities_lose():
    logits, labels = np.array([[0.0, 800.0], [0.0, 1.0]]), np.array([0, 1])
    assert c.negative_log_likelihood_of_logits(logits, labels) == pytest.approx((800 + math.log1p(math.exp(-1))) / 2)
    probabilities, labels = drawn(50, 3, "logits")
    assert c.negative_log_likelihood_of_logits(np.log(probabilities) + 7, labels) == pytest.approx(
        c.negative_log_likelihood(probabilities, labels)
    )


@pytest.mark.parametrize(
    ("probabilities", "labels", "named"),
    [
        ([[0.5, 0.5]], [0, 1], "labels"),
        ([[0.5, 0.5]], [2], "labels"),
        ([[0.5, 0.5]], [-1], "labels"),
        ([[0.5, 0.5]], [0.0], "labels"),
        ([0.5, 0.5], [0, 1], "probabilities"),
        ([[0.5, 0.4]], [0], "probabilities"),
        ([[2.0, -1.0]], [0], "probabilities"),
        ([[math.nan, 1.0]], [0], "probabilities"),
        (np.empty((0, 2)), np.empty(0, dtype=int), "probabilities"),
    ],
)
@pytest.mark.parametrize("metric", METRICS)
def test_bad_input_is_named(metric, probabilities, labels, named):
    with pytest.raises(ValueError, match=f"^{named}:"):
        metric(np.array(probabilities), np.array(labels))


def test_bad_bins_are_named():
    with pytest.raises(ValueError, match=r"^bins:"):
        c.expected_calibration_error(*worked(), bins=0)
    with pytest.raises(ValueError, match=r"^scheme: 'equal'.*width, mass"):
        c.expected_calibration_error(*worked(), scheme="equal")
    with pytest.raises(ValueError, match=r"^outcome:"):
        c.reliability(np.ones(3), np.ones(2))
