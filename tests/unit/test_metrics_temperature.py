"""Temperature scaling."""

import math

import numpy as np
import pytest

from heterobench.keyed import generator
from heterobench.metrics.calibration import expected_calibration_error, negative_log_likelihood_of_logits
from heterobench.metrics.temperature import fit_client_temperatures, fit_temperature, scaled_probabilities


def drawn(n=400, classes=5, scale=1.0, key="logits"):
    """Logits whose labels were drawn at temperature 1 before they were multiplied by `scale`."""
    random = generator(0, f"temperature {key}")
    logits = random.normal(0, 1.5, (n, classes))
    noise = random.gumbel(size=(n, classes))
    return scale * logits, (logits + noise).argmax(axis=1)


def test_loss_on_the_examples_of_the_fit_never_rises_and_predictions_stay():
    logits, labels = drawn(scale=4.0)
    fitted = fit_temperature(logits, labels)
    assert fitted.before == pytest.approx(negative_log_likelihood_of_logits(logits, labels))
    assert fitted.after == pytest.approx(negative_log_likelihood_of_logits(logits / fitted.value, labels))
    assert fitted.after < fitted.before
    scaled = scaled_probabilities(logits, fitted.value)
    assert (scaled.argmax(axis=1) == logits.argmax(axis=1)).all()
    sharp = expected_calibration_error(scaled_probabilities(logits, 1.0), labels)
    assert expected_calibration_error(scaled, labels) < sharp


def test_temperature_is_the_minimum():
    logits, labels = drawn(scale=2.5)
    fitted = fit_temperature(logits, labels)
    grid = np.exp(np.linspace(-3, 3, 601))
    losses = [negative_log_likelihood_of_logits(logits / t, labels) for t in grid]
    assert fitted.after <= min(losses)
    assert abs(math.log(fitted.value) - math.log(grid[int(np.argmin(losses))])) <= 0.01
    step = 1e-4
    around = [negative_log_likelihood_of_logits(logits / (fitted.value * f), labels) for f in (1 - step, 1 + step)]
    assert fitted.after < min(around)
    assert not fitted.bounded


@pytest.mark.parametrize("scale", [0.3, 3.0, 7.0])
def test_scaling_logits_scales_the_temperature(scale):
    logits, labels = drawn()
    value = fit_temperature(logits, labels).value
    scaled = fit_temperature(scale * logits, labels).value
    assert scaled == pytest.approx(scale * value, rel=1e-9)
    assert scaled_probabilities(scale * logits, scaled) == pytest.approx(scaled_probabilities(logits, value), abs=1e-9)


def test_shifting_an_example_changes_nothing():
    logits, labels = drawn()
    shift = 1e4 * generator(0, "shift").normal(size=(len(logits), 1))
    assert fit_temperature(logits + shift, labels).value == pytest.approx(fit_temperature(logits, labels).value)


def test_temperature_of_two_classes_in_closed_form():
    # confidence is one number: p = share of right answers, so 1 / T = ln(3 / 1) / 2
    logits, labels = np.tile([2.0, 0.0], (4, 1)), np.array([0, 0, 0, 1])
    assert fit_temperature(logits, labels).value == pytest.approx(2 / math.log(3), rel=1e-10)


def test_a_loss_that_only_falls_stops_at_the_bound():
    right = np.eye(3)[[0, 1, 2]]
    sharpest = fit_temperature(right, np.arange(3))
    assert (sharpest.value, sharpest.bounded) == (pytest.approx(math.exp(-3)), True)
    wrong = fit_temperature(right, np.array([1, 2, 0]))
    assert (wrong.value, wrong.bounded) == (pytest.approx(math.exp(3)), True)
    assert wrong.after < wrong.before
    assert fit_temperature(right, np.array([1, 2, 0]), (-1, 1)).value == pytest.approx(math.e)


def test_constant_logits_have_no_temperature_but_one():
    fitted = fit_temperature(np.full((4, 3), 9.0), np.array([0, 1, 2, 0]))
    assert fitted == (1.0, False, pytest.approx(math.log(3)), pytest.approx(math.log(3)))


def test_clients_get_their_own_temperature():
    first, second = drawn(scale=1.0, key="first"), drawn(scale=3.0, key="second")
    logits, labels = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    made = fit_client_temperatures(logits, labels, np.array([400, 0, 400]))
    assert made[0] == fit_temperature(*first).value
    assert math.isnan(made[1])
    assert made[2] == fit_temperature(*second).value
    with pytest.raises(ValueError, match=r"^sizes:"):
        fit_client_temperatures(logits, labels, np.array([400, 399]))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"^logits:"):
        fit_temperature(np.array([[math.inf, 0.0]]), np.array([0]))
    with pytest.raises(ValueError, match=r"^labels:"):
        fit_temperature(np.zeros((2, 2)), np.array([0, 2]))
    with pytest.raises(ValueError, match=r"^bounds:"):
        fit_temperature(*drawn(), bounds=(0.5, 1))
    with pytest.raises(ValueError, match=r"^temperature:"):
        scaled_probabilities(np.zeros((1, 2)), 0.0)
