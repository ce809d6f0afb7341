"""Sharpness: how far the loss rises nearby."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from contract import nets
from heterobench.keyed import generator
from heterobench.metrics import hessian
from heterobench.metrics import sharpness as s
from heterobench.metrics.landscape import mean_losses

SIZE = 12
ROTATION = np.linalg.qr(generator(0, "sharpness basis").normal(size=(SIZE, SIZE)))[0]


def symmetric(eigenvalues):
    return torch.from_numpy(ROTATION @ np.diag(eigenvalues) @ ROTATION.T)


def quadratic(matrix, linear=0.0):
    return lambda w: 0.5 * w @ (matrix @ w) + (linear * w).sum()


def normal(size, key="vector"):
    return torch.from_numpy(generator(0, f"sharpness {key}").normal(size=size))


CONVEX = symmetric(np.linspace(0.5, 4, SIZE))
MIXED = symmetric(np.linspace(-2, 3, SIZE))
W = normal(SIZE)


def mlp():
    """A small MLP's losses on random images, and a model of it."""
    task, batch = nets.task(), nets.federation().pool.batch(np.arange(33))
    return task, mean_losses(task, batch), task.init(0).double() + 0.1 * normal(sum(task.layout.sizes), "mlp")


# --- one step


@pytest.mark.parametrize("rho", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("matrix", [CONVEX, MIXED], ids=["convex", "mixed"])
def test_one_step_on_a_quadratic(matrix, rho):
    slope = matrix @ W + 2
    unit = slope / slope.norm()
    expected = rho * float(slope.norm()) + 0.5 * rho**2 * float(unit @ matrix @ unit)
    assert s.sharpness(quadratic(matrix, 2.0), W, rho) == pytest.approx(expected, rel=1e-10)


def test_sharpness_vanishes_with_the_radius_and_its_slope_is_the_gradient_norm():
    """Invariant 5, first half: S_rho -> 0 and S_rho / rho -> |g| as rho -> 0, of a net as well."""
    _, losses, theta = mlp()
    radii = np.array([1e-3, 1e-4, 1e-5])
    for loss, point in ((quadratic(MIXED, 2.0), W), (losses, theta)):
        norm = hessian.gradient_norm(loss, point)
        rises = np.array([s.sharpness(loss, point, rho) for rho in radii])
        assert rises == pytest.approx(radii * norm, rel=0.02)
        assert rises[-1] / radii[-1] == pytest.approx(norm, rel=1e-4)
    # of a quadratic, without a ReLU's kinks, the error is of first order in rho
    errors = np.array([s.sharpness(quadratic(MIXED, 2.0), W, rho) / rho for rho in radii])
    errors -= hessian.gradient_norm(quadratic(MIXED, 2.0), W)
    assert errors[1:] == pytest.approx(errors[:-1] / 10, rel=1e-4)
    assert abs(errors[0]) > 1e-5


def test_minimum_uses_a_random_start():
    """Invariant 5, second half: no 0 / 0; the direction is the gradient a random step away."""
    rho, zero = 0.05, torch.zeros(SIZE)
    u = hessian.unit_vector(zero, 3, "sharpness")
    ascent = CONVEX @ u / (CONVEX @ u).norm()
    expected = 0.5 * rho**2 * float(ascent @ CONVEX @ ascent)
    assert s.sharpness(quadratic(CONVEX), zero, rho, seed=3) == pytest.approx(expected, rel=1e-10)
    assert 0.5 * rho**2 * 0.5 < expected <= 0.5 * rho**2 * 4
    assert s.sharpness(quadratic(CONVEX), zero, rho, seed=4) != pytest.approx(expected, rel=1e-3)
    # nearly there: still a random start, not a direction out of rounding errors
    assert s.sharpness(quadratic(CONVEX, 1e-10), zero, rho, seed=3) == pytest.approx(expected, rel=1e-6)


def test_random_start_is_one_radius_away():
    scales = torch.linspace(1, 5, SIZE, dtype=torch.float64)
    loss = lambda w: (scales * w**2 + 100 * w**4).sum()  # noqa: E731
    away = 0.3 * hessian.unit_vector(torch.zeros(SIZE), 3, "sharpness")
    ascent = 2 * scales * away + 400 * away**3
    expected = float(loss(0.3 * ascent / ascent.norm()))
    assert s.sharpness(loss, torch.zeros(SIZE), 0.3, seed=3) == pytest.approx(expected, rel=1e-10)
    # as flat there: the rise of the random step itself
    assert s.sharpness(lambda w: 1e-10 * w.sum(), W, 0.3, seed=3) == pytest.approx(1e-10 * float(away.sum()), rel=1e-4)


@pytest.mark.parametrize("measure", [s.sharpness, s.adaptive_sharpness, s.worst_case_sharpness])
def test_flat_loss_has_none(measure):
    assert measure(lambda w: 0 * w.sum() + 5, W) == 0


# --- adaptive


@pytest.mark.parametrize("eta", [0.0, 0.01])
def test_adaptive_step_by_its_definition(eta):
    """epsilon = rho T^2 g / |T g|: of a linear loss a . w the rise is rho |T a|."""
    a, scales = normal(SIZE, "a"), W.abs() + eta
    assert s.adaptive_sharpness(lambda w: a @ w, W, 0.5, eta) == pytest.approx(0.5 * float((scales * a).norm()))
    slope = MIXED @ W
    step = 0.5 * scales**2 * slope / (scales * slope).norm()
    expected = quadratic(MIXED)(W + step) - quadratic(MIXED)(W)
    assert s.adaptive_sharpness(quadratic(MIXED), W, 0.5, eta) == pytest.approx(float(expected))


@pytest.mark.parametrize("factor", [0.1, 8.0])
def test_rescaled_units_change_sharpness_but_not_the_adaptive_one(factor):
    """Invariant 6: scaling W1 and b1 by c and W2 by 1/c leaves the function and its adaptive sharpness."""
    task, losses, theta = mlp()
    parts = {name: part.clone() for name, part in task.layout.split(theta).items()}
    first_weight, first_bias, second_weight, _ = task.layout.names
    for name, scale in ((first_weight, factor), (first_bias, factor), (second_weight, 1 / factor)):
        parts[name] = parts[name] * scale
    other = torch.cat([part.reshape(-1) for part in parts.values()])
    assert hessian.value(losses, other) == pytest.approx(hessian.value(losses, theta), rel=1e-12)
    for rho in (0.05, 0.5):
        expected = s.adaptive_sharpness(losses, theta, rho)
        assert s.adaptive_sharpness(losses, other, rho) == pytest.approx(expected, rel=1e-9)
        assert s.adaptive_sharpness(losses, other, rho, eta=0.1) != pytest.approx(expected, rel=1e-3)
        assert s.sharpness(losses, other, rho) != pytest.approx(s.sharpness(losses, theta, rho), rel=0.05)


def test_adaptive_at_a_minimum():
    shifted = lambda w: quadratic(CONVEX)(w - 1)  # noqa: E731
    theta, rho = torch.ones(SIZE), 0.05
    # the weights are 1: the adaptive step is the plain one
    assert s.adaptive_sharpness(shifted, theta, rho) == pytest.approx(s.sharpness(shifted, theta, rho))
    assert s.adaptive_sharpness(shifted, theta, rho) > 0


# --- batches


def test_m_sharpness_ascends_on_each_batch():
    first, second = quadratic(CONVEX, 1.0), quadratic(MIXED, -1.0)
    expected = (s.sharpness(first, W, 0.1) + s.sharpness(second, W, 0.1)) / 2
    assert s.m_sharpness([first, second], W, 0.1) == pytest.approx(expected, rel=1e-12)
    whole = lambda w: (first(w) + second(w)) / 2  # noqa: E731
    # one batch of all examples: the plain one; smaller batches ascend each where it is steepest for them
    assert s.m_sharpness([whole], W, 0.1) == s.sharpness(whole, W, 0.1)
    assert s.m_sharpness([first, second], W, 1e-4) > s.sharpness(whole, W, 1e-4)


# --- worst case


def largest_rise(matrix, slope, rho):
    """max of slope . e + e H e / 2 over |e| <= rho, where it lies on the sphere: e = (mu - H)^-1 slope, mu >= top."""
    values, basis = np.linalg.eigh(matrix.numpy())
    part = basis.T @ slope.numpy()
    size = lambda mu: np.linalg.norm(part / (mu - values)) - rho  # noqa: E731
    mu = brentq(size, values[-1] + 1e-9, values[-1] + np.linalg.norm(part) / rho + 1, xtol=1e-14)
    step = part / (mu - values)
    return part @ step + 0.5 * step @ (values * step)


@pytest.mark.parametrize("rho", [0.05, 1.0, 5.0])
@pytest.mark.parametrize("matrix", [CONVEX, MIXED], ids=["convex", "mixed"])
def test_worst_case_of_a_quadratic_in_a_ball(matrix, rho):
    loss, slope = quadratic(matrix, 2.0), matrix @ W + 2
    exact = largest_rise(matrix, slope, rho)
    assert s.worst_case_sharpness(loss, W, rho, steps=300) == pytest.approx(exact, rel=1e-6)
    made = [s.worst_case_sharpness(loss, W, rho, steps) for steps in (1, 2, 5, 20)]
    assert made == sorted(made)
    assert made[0] == pytest.approx(s.sharpness(loss, W, rho), rel=1e-12)
    assert made[-1] <= exact * (1 + 1e-12)


def test_worst_case_keeps_the_best_point_and_is_never_negative():
    concave = quadratic(-CONVEX)  # from its top everything falls
    assert s.sharpness(concave, torch.zeros(SIZE), 0.1) < 0
    assert s.worst_case_sharpness(concave, torch.zeros(SIZE), 0.1) == 0
    # one variable, |e| <= 3: up to 1 / 8 at e = 1 / 2, down from there; steps of 3 only see the ends
    assert s.worst_case_sharpness(lambda w: (w - w**2).sum() / 2, torch.zeros(1), 0.5) == pytest.approx(1 / 8)


# --- average


@pytest.mark.parametrize("matrix", [CONVEX, MIXED], ids=["convex", "mixed"])
def test_average_over_gaussian_steps_is_half_the_trace(matrix):
    sigma = 0.3
    made = s.average_sharpness(quadratic(matrix, 5.0), W, sigma, seed=0, probes=2000)
    expected = 0.5 * sigma**2 * float(matrix.trace())
    # the variance of u H u / 2 in closed form; the linear part has none left
    deviation = sigma**2 * math.sqrt(float((matrix**2).sum()) / 2)
    assert made.value == pytest.approx(expected, abs=4 * deviation / math.sqrt(2000))
    assert made.standard_error == pytest.approx(deviation / math.sqrt(2000), rel=0.15)
    assert made.probes == 2000


def test_average_of_a_linear_loss_is_nothing():
    made = s.average_sharpness(lambda w: 100 * w.sum(), W, 0.1, seed=0)
    assert made[:2] == pytest.approx((0, 0), abs=1e-10)


def test_losses_may_come_in_parts():
    parts = [quadratic(CONVEX, 1.0), quadratic(MIXED, -2.0)]
    whole = lambda w: parts[0](w) + parts[1](w)  # noqa: E731
    for measure in (s.sharpness, s.adaptive_sharpness, s.worst_case_sharpness):
        assert measure(parts, W, 0.1) == pytest.approx(measure(whole, W, 0.1), rel=1e-10)
    assert s.average_sharpness(parts, W, 0.1, 0) == pytest.approx(s.average_sharpness(whole, W, 0.1, 0), rel=1e-8)


def test_bad_input_is_named():
    loss = quadratic(CONVEX)
    for measure in (s.sharpness, s.adaptive_sharpness, s.worst_case_sharpness):
        with pytest.raises(ValueError, match=r"^rho: 0, must be positive"):
            measure(loss, W, 0)
    with pytest.raises(ValueError, match=r"^eta:"):
        s.adaptive_sharpness(loss, W, 0.1, eta=-1)
    with pytest.raises(ValueError, match=r"^steps:"):
        s.worst_case_sharpness(loss, W, 0.1, steps=0)
    with pytest.raises(ValueError, match=r"^sigma:"):
        s.average_sharpness(loss, W, 0, seed=0)
    with pytest.raises(ValueError, match=r"^probes:"):
        s.average_sharpness(loss, W, 0.1, seed=0, probes=1)
    with pytest.raises(ValueError, match=r"^losses:"):
        s.m_sharpness([], W)
