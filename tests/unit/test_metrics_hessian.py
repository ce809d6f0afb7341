"""Curvature: products with the Hessian, trace, eigenvalues, spectrum."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from contract import nets
from heterobench import models
from heterobench.config.schema import ModelFile
from heterobench.keyed import generator
from heterobench.metrics import hessian as h
from heterobench.metrics.landscape import mean_losses
from heterobench.task import Batch, Classification, Layout

EIGENVALUES = np.array([10.0, 5.0, -1.0, *np.linspace(0, 0.5, 17)])


def symmetric(eigenvalues, key="basis"):
    """A symmetric matrix with these eigenvalues in random directions, and the directions as columns."""
    size = len(eigenvalues)
    basis = np.linalg.qr(generator(0, f"hessian {key}").normal(size=(size, size)))[0]
    return torch.from_numpy(basis @ np.diag(eigenvalues) @ basis.T), torch.from_numpy(basis)


def quadratic(matrix, linear=0.0):
    return lambda w: 0.5 * w @ (matrix @ w) + (linear * w).sum()


def normal(size, key="vector"):
    return torch.from_numpy(generator(0, f"hessian {key}").normal(size=size))


H, BASIS = symmetric(EIGENVALUES)
W = normal(20, "point")
PRODUCT = h.hessian_product(quadratic(H, 3.0), W)


def probes(seed=0, count=2000, product=PRODUCT):
    """v . H v of each probe."""
    made = (h.rademacher(W, seed, probe) for probe in range(count))
    return np.array([float(v @ product(v)) for v in made])


# --- the card's invariants


def test_known_quadratic():
    """Invariant 1: exact products; both ends in 10 Lanczos steps to 1e-8; the trace within 3 standard errors."""
    for key in ("u", "v"):
        v = normal(20, key)
        assert torch.allclose(PRODUCT(v), H @ v, rtol=1e-13, atol=1e-13)
    found = h.lanczos(PRODUCT, W, seed=0, steps=10)
    assert len(found.values) == 10
    assert (found.bottom, found.top) == (pytest.approx(-1, abs=1e-8), pytest.approx(10, abs=1e-8))
    trace = h.hutchinson_trace(PRODUCT, W, seed=0, probes=2000, tolerance=0)
    assert (trace.probes, trace.converged) == (2000, False)
    deviation = math.sqrt(2 * float((H**2).sum() - (H.diag() ** 2).sum()))
    assert trace.value == pytest.approx(EIGENVALUES.sum(), abs=3 * deviation / math.sqrt(2000))


NETS = {
    "mlp": ("mlp", {"hidden": [7, 5]}, (1, 4, 4), False),
    "convolutions and pooling": ("lenet", {}, (1, 16, 16), False),
    "group norm": ("resnet", {"blocks": [1], "width": 4}, (1, 4, 4), False),
    "fixed cosine features": ("random_features", {"features": "fourier", "width": 30}, (6,), True),
    "attention": ("transformer", {"width": 8, "depth": 1, "heads": 2, "hidden": 8}, (5,), True),
    "lstm": ("char_rnn", {"units": 6, "layers": 1}, (5,), True),
    "gru": ("char_rnn", {"cell": "gru", "units": 6, "layers": 2}, (5,), True),
}


def net_loss(name):
    """The task's mean loss over 12 random examples, a model, and whether the loss is smooth."""
    architecture, options, shape, smooth = NETS[name]
    file = ModelFile(title="a test", architecture=architecture, options=options)
    task = Classification(lambda: models.build(file, shape, 3, "here"))
    random = generator(0, f"hessian inputs {name}")
    tokens = "tokens" in models.architecture(architecture, "here").KINDS
    x = random.integers(0, 3, (12, *shape), dtype=np.uint8) if tokens else random.normal(size=(12, *shape))
    x = torch.from_numpy(x if tokens else x.astype(np.float32))
    batch = Batch(x, torch.from_numpy(random.integers(0, 3, 12)))
    theta = task.init(0).double() + 0.1 * normal(sum(task.layout.sizes), name)
    return lambda w: task.mean_loss(w, batch), theta, smooth


@pytest.mark.parametrize("name", NETS)
def test_product_is_symmetric_and_the_slope_of_the_gradient(name):
    """Invariant 2: u . H v = v . H u, and H v is the central difference of gradients (where the loss is smooth)."""
    loss, theta, smooth = net_loss(name)
    product = h.hessian_product(loss, theta)
    u, v = normal(len(theta), "u"), normal(len(theta), "v")
    size = float(product(v).norm() * u.norm())
    assert size > 0
    assert float(u @ product(v)) == pytest.approx(float(v @ product(u)), abs=1e-12 * size)
    if smooth:
        step = 1e-5
        slope = (h.gradient(loss, theta + step * v) - h.gradient(loss, theta - step * v)) / (2 * step)
        assert torch.allclose(product(v), slope, rtol=1e-5, atol=1e-7 * float(slope.norm()))


def test_softmax_regression_has_no_negative_curvature():
    """Invariant 3, first half: the loss is convex, so lambda_min >= -1e-6 everywhere."""
    file = ModelFile(title="a test", architecture="softmax", options={})
    task, batch = nets.task(model=file), nets.federation().pool.batch(np.arange(33))
    for scale in (0.0, 0.3, 3.0):
        theta = scale * normal(sum(task.layout.sizes), "softmax")
        found = h.lanczos(h.hessian_product(mean_losses(task, batch), theta), theta, seed=0, steps=len(theta))
        assert found.bottom >= -1e-6
        assert found.top > 1e-3


def rescaled(layout, theta, factor):
    """The same function of a net of two layers of ReLU units: their inputs times `factor`, their outputs divided."""
    parts = {name: part.clone() for name, part in layout.split(theta).items()}
    first_weight, first_bias, second_weight, _ = layout.names
    for name in (first_weight, first_bias):
        parts[name] = parts[name] * factor
    parts[second_weight] = parts[second_weight] / factor
    return torch.cat([part.reshape(-1) for part in parts.values()])


def test_rescaled_units_change_the_trace_but_not_the_normalised_one():
    """Invariant 6, first half: the function is the same, its trace is not; along normalised filters it is."""
    task, batch = nets.task(), nets.federation().pool.batch(np.arange(33))
    first = task.init(0).double() + 0.1 * normal(sum(task.layout.sizes), "mlp")
    losses = mean_losses(task, batch)
    traces, normalised = [], []
    for theta in (first, rescaled(task.layout, first, 8.0)):
        assert h.value(losses, theta) == pytest.approx(h.value(losses, first), rel=1e-12)
        product = h.hessian_product(losses, theta)
        scales = h.filter_norms(task.layout, theta)
        for made, one in ((traces, product), (normalised, h.scaled_product(product, scales))):
            made.append(h.hutchinson_trace(one, theta, 0, 20, tolerance=0).value)
    assert abs(traces[1] / traces[0] - 1) > 0.5
    assert normalised[1] == pytest.approx(normalised[0], rel=1e-10)


# --- products


def test_products_are_those_of_the_whole_hessian():
    task, batch = nets.task(), nets.federation().pool.batch(np.arange(33))
    theta = task.init(1).double()
    (loss,) = mean_losses(task, batch)
    whole = torch.autograd.functional.hessian(loss, theta)
    product = h.hessian_product(loss, theta)
    rows = torch.stack([product(row) for row in torch.eye(len(theta), dtype=torch.float64)])
    assert torch.allclose(rows, whole, rtol=1e-10, atol=1e-14)
    # all steps: the whole spectrum (its many zeros as one)
    exact = torch.linalg.eigvalsh(whole)
    found = h.lanczos(product, theta, 0, steps=len(theta))
    assert (found.bottom, found.top) == pytest.approx((float(exact[0]), float(exact[-1])), abs=1e-10)


def test_a_sequence_of_losses_is_their_sum():
    other, _ = symmetric(np.arange(20.0), "other")
    parts = [quadratic(H, 3.0), quadratic(other, -1.0), lambda w: w.sin().sum()]
    whole = lambda w: sum(part(w) for part in parts)  # noqa: E731
    v = normal(20, "v")
    assert torch.allclose(h.hessian_product(parts, W)(v), h.hessian_product(whole, W)(v), rtol=1e-12)
    assert torch.equal(h.hessian_product(parts[:1], W)(v), PRODUCT(v))
    assert torch.allclose(h.gradient(parts, W), h.gradient(whole, W), rtol=1e-12)
    assert h.value(parts, W) == pytest.approx(float(whole(W)), rel=1e-12)
    assert h.gradient_norm(parts, W) == pytest.approx(float((H @ W + 3 + other @ W - 1 + W.cos()).norm()), rel=1e-12)


def test_losses_without_curvature():
    linear, constant = (lambda w: 3 * w.sum()), (lambda w: torch.tensor(2.0, dtype=torch.float64))
    half = lambda w: w[0] ** 2  # noqa: E731
    for loss, slope in ((linear, 3.0), (constant, 0.0)):
        assert torch.equal(h.gradient(loss, W), torch.full_like(W, slope))
        product = h.hessian_product(loss, W)
        assert torch.equal(product(W), torch.zeros_like(W))
        found = h.lanczos(product, W, 0)
        assert (found.values.tolist(), found.weights.tolist(), found.residuals.tolist()) == ([0], [1], [0])
        assert h.power_iteration(product, W, 0)[0][::2] == (0, 1)
    assert h.hessian_product(half, W)(W).tolist() == [2 * float(W[0])] + [0.0] * 19


def test_theta_stays_as_it_is_and_single_precision_is_taken_to_double():
    theta = W.float().requires_grad_()
    before = theta.detach().clone()
    seen = []

    def loss(w):
        seen.append(w.dtype)
        return quadratic(H)(w)

    made = h.hessian_product(loss, theta)(W.float())
    assert made.dtype == h.gradient(loss, theta).dtype == torch.float64
    assert set(seen) == {torch.float64}
    assert torch.allclose(made, H @ before.double(), rtol=1e-13, atol=1e-13)
    assert torch.equal(theta.detach(), before)
    assert theta.grad is None


# --- trace


def test_probes_are_signs_and_depend_on_nothing_but_their_key():
    state = torch.get_rng_state()
    first = h.rademacher(W, 0, 0)
    assert set(first.tolist()) == {-1.0, 1.0}
    assert torch.equal(first, h.rademacher(W.float(), 0, 0))
    assert not torch.equal(first, h.rademacher(W, 0, 1))
    assert not torch.equal(first, h.rademacher(W, 1, 0))
    h.lanczos(PRODUCT, W, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_variance_of_a_probe_in_closed_form():
    samples = probes(count=4000)
    squares = (samples - EIGENVALUES.sum()) ** 2
    expected = 2 * float((H**2).sum() - (H.diag() ** 2).sum())
    assert squares.mean() == pytest.approx(expected, abs=5 * squares.std() / math.sqrt(4000))
    estimate = h.hutchinson_trace(PRODUCT, W, 0, probes=50, tolerance=0)
    assert estimate.value == pytest.approx(samples[:50].mean(), rel=1e-12)
    assert estimate.standard_error == pytest.approx(samples[:50].std(ddof=1) / math.sqrt(50), rel=1e-12)


def test_one_probe_is_exact_for_a_diagonal_hessian():
    product = h.hessian_product(quadratic(torch.diag(torch.from_numpy(EIGENVALUES))), W)
    one = h.hutchinson_trace(product, W, 0, probes=1)
    assert one[:3] == (pytest.approx(EIGENVALUES.sum(), rel=1e-12), math.inf, 1)
    # a second one changes nothing: the rule stops
    assert h.hutchinson_trace(product, W, 0)[1:] == (pytest.approx(0, abs=1e-12), 2, True)


@pytest.mark.parametrize("sign", [1, -1])
def test_stop_rule_counts_relative_changes_also_of_negative_traces(sign):
    """The trap of the card: a change divided by trace + 1e-6 has the wrong sign, or no bound, below zero."""
    samples = sign * probes(count=100)
    means = np.cumsum(samples) / np.arange(1, 101)
    changes = np.abs(np.diff(means)) / np.abs(means[:-1])
    tolerance = 0.02
    expected = int(np.flatnonzero(changes < tolerance)[0]) + 2
    assert 2 < expected < 100
    estimate = h.hutchinson_trace(lambda v: sign * PRODUCT(v), W, 0, tolerance=tolerance)
    assert (estimate.probes, estimate.converged) == (expected, True)
    assert estimate.value == pytest.approx(means[expected - 1], rel=1e-12)


# --- eigenvalues


@pytest.mark.parametrize("sign", [1, -1])
def test_power_iteration_finds_the_largest_by_size_with_its_sign(sign):
    found = h.power_iteration(lambda v: sign * PRODUCT(v), W, 0, count=3, iterations=1000, tolerance=1e-12)
    assert [pair.value for pair in found] == pytest.approx([sign * 10, sign * 5, -sign], rel=1e-9)
    assert all(pair.converged for pair in found)
    for number, pair in enumerate(found):
        assert abs(float(pair.vector @ BASIS[:, number])) == pytest.approx(1, abs=1e-6)


def test_power_iteration_says_when_it_has_not_converged():
    # equal size, opposite signs: it turns about for ever
    mixed, _ = symmetric(np.array([2.0, -2.0, 0.5]), "mixed")
    (pair,) = h.power_iteration(lambda v: mixed @ v, W[:3], 0, iterations=50, tolerance=1e-12)
    spectrum = h.lanczos(lambda v: mixed @ v, W[:3], 0, steps=3)
    assert (spectrum.bottom, spectrum.top) == pytest.approx((-2, 2), abs=1e-12)
    assert abs(pair.value) < 2 - 1e-3
    (early,) = h.power_iteration(PRODUCT, W, 0, iterations=2, tolerance=1e-12)
    assert (early.products, early.converged) == (2, False)


def test_power_iteration_finds_every_eigenvalue_by_deflation():
    found = h.power_iteration(PRODUCT, W, 0, count=20, iterations=5000, tolerance=1e-13)
    expected = sorted(EIGENVALUES, key=abs, reverse=True)
    assert [pair.value for pair in found] == pytest.approx(expected, abs=1e-4)


def test_lanczos_keeps_its_vectors_orthogonal():
    """Without re-orthogonalisation the top eigenvalue comes back as ghosts long before all are found."""
    eigenvalues = np.concatenate([-np.logspace(-3, 1, 30), np.logspace(-3, 4, 50)])
    matrix, _ = symmetric(eigenvalues, "wide")
    point = normal(80, "start")
    found = h.lanczos(lambda v: matrix @ v, point, 0, steps=80)
    assert found.values == pytest.approx(np.sort(eigenvalues), abs=1e-9)


def test_weights_are_the_parts_of_the_start_in_the_eigenvectors():
    distinct = np.arange(1.0, 9.0) ** 2 - 20
    matrix, basis = symmetric(distinct, "distinct")
    point = normal(8, "start")
    for start in (0, 1):
        found = h.lanczos(lambda v: matrix @ v, point, 3, steps=8, start=start)
        v = h.unit_vector(point, 3, "lanczos", start)
        assert found.values == pytest.approx(distinct, abs=1e-10)
        assert found.weights == pytest.approx(((basis.T @ v) ** 2).numpy(), abs=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 5, 12])
def test_ritz_values_lie_within_their_residuals_inside_the_spectrum(steps):
    found = h.lanczos(PRODUCT, W, 1, steps=steps)
    distance = np.abs(found.values[:, None] - EIGENVALUES).min(axis=1)
    assert (distance <= found.residuals + 1e-10).all()
    assert -1 - 1e-10 <= found.bottom <= found.top <= 10 + 1e-10
    assert found.weights.sum() == pytest.approx(1, rel=1e-12)


def test_lanczos_ends_where_the_space_is_whole():
    found = h.lanczos(lambda v: 3 * v, W, 0)
    assert (found.values, found.residuals) == (pytest.approx([3]), pytest.approx([0], abs=1e-12))
    three, _ = symmetric(np.array([7.0] * 9 + [2.0] * 8 + [-4.0] * 3), "three")
    found = h.lanczos(lambda v: three @ v, W, 0)
    assert found.values == pytest.approx([-4, 2, 7], abs=1e-10)


# --- spectral density


def test_quadrature_is_exact_for_polynomials_of_each_start():
    steps, starts = 4, 3
    nodes, weights = h.lanczos_quadrature(PRODUCT, W, 0, steps, starts)
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    vectors = [h.unit_vector(W, 0, "lanczos", start) for start in range(starts)]
    for degree in range(2 * steps):
        exact = np.mean([float(v @ torch.linalg.matrix_power(H, degree) @ v) for v in vectors])
        assert weights @ nodes**degree == pytest.approx(exact, rel=1e-10)
    # one degree more is not
    exact = np.mean([float(v @ torch.linalg.matrix_power(H, 2 * steps) @ v) for v in vectors])
    assert weights @ nodes ** (2 * steps) != pytest.approx(exact, rel=1e-10)


def test_density_counts_eigenvalues():
    spread, _ = symmetric(np.array([0.0] * 30 + [4.0] * 9 + [-2.0]), "counts")
    point = normal(40, "start")
    nodes, weights = h.lanczos_quadrature(lambda v: spread @ v, point, 0, steps=3, starts=400)
    for at, share in ((0, 30 / 40), (4, 9 / 40), (-2, 1 / 40)):
        near = weights[np.abs(nodes - at) < 1e-6].reshape(400, -1).sum(axis=1) * 400
        assert near.mean() == pytest.approx(share, abs=5 * near.std() / 20)
    grid = np.linspace(-6, 8, 2801)
    density = h.smoothed_density(nodes, weights, grid, 0.5)
    assert density.sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-6)
    assert grid[density.argmax()] == pytest.approx(0, abs=0.01)


# --- filters


def test_filter_norms_by_hand():
    layout = Layout.of(nn.Sequential(nn.Conv2d(1, 2, (1, 2)), nn.Flatten(), nn.Linear(2, 1)))
    theta = torch.tensor([3.0, 4, 0, 0, -7, 1, 5, 12, -2])
    assert h.filter_norms(layout, theta).tolist() == [5, 5, 0, 0, 7, 1, 13, 13, 2]
    scales = torch.linspace(1, 2, 20, dtype=torch.float64)
    expected = torch.diag(scales) @ H @ torch.diag(scales)
    assert torch.allclose(h.scaled_product(PRODUCT, scales)(W), expected @ W, rtol=1e-12)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"^loss: returned shape \[20\]"):
        h.gradient(lambda w: w, W)
    with pytest.raises(ValueError, match=r"^probes:"):
        h.hutchinson_trace(PRODUCT, W, 0, probes=0)
    with pytest.raises(ValueError, match=r"^count:"):
        h.power_iteration(PRODUCT, W, 0, count=21)
    with pytest.raises(ValueError, match=r"^steps:"):
        h.lanczos(PRODUCT, W, 0, steps=0)
    with pytest.raises(ValueError, match=r"^starts:"):
        h.lanczos_quadrature(PRODUCT, W, 0, starts=0)
    with pytest.raises(ValueError, match=r"^width:"):
        h.smoothed_density(np.zeros(1), np.ones(1), np.zeros(1), 0)
