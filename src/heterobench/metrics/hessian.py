"""Curvature of a loss at a point: products with the Hessian, its trace, its extreme eigenvalues, its spectrum.

`loss` maps theta [P] to a scalar tensor and can be differentiated twice; it has to be one and the same function at
every call (fixed examples, evaluation mode, no dropout). Everything is computed in float64, so a loss has to take
theta in that precision. Where activations are not smooth (ReLU, max-pooling), the Hessian is that of the piece on
which theta lies. A sequence of losses stands for their sum, of which one at a time is in memory: for large nets one
loss for each few examples, each multiplied by its share of the examples.

`product` maps v [P] to H v; `theta` says how long v is and on which device. Random vectors are keyed draws of `seed`:
the same for every model and method.

Source: PyHessian (Yao et al., arXiv 1912.07145); the spectral density: Ghorbani et al., arXiv 1901.10159.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from heterobench import keyed
from heterobench.task import Layout

Loss = Callable[[Tensor], Tensor]
Losses = Loss | Sequence[Loss]
Product = Callable[[Tensor], Tensor]

SMALLEST = 1e-6  # added to sizes that relative changes are measured by


class Estimate(NamedTuple):
    """A mean over random probes: `standard_error` is infinite for one probe; `converged`: stopped by the rule."""

    value: float
    standard_error: float
    probes: int
    converged: bool


class Eigenvalue(NamedTuple):
    """An eigenvalue and its unit eigenvector [P], after so many products with the Hessian."""

    value: float
    vector: Tensor
    products: int
    converged: bool


class Spectrum(NamedTuple):
    """What Lanczos steps tell: Ritz values [k], ascending, their `weights` [k], sum 1, and their `residuals` [k].

    A Ritz value lies between the smallest and the largest eigenvalue, and within its residual of some eigenvalue. A
    weight is the squared part that the start vector has in a Ritz vector. Products: k.
    """

    values: np.ndarray
    weights: np.ndarray
    residuals: np.ndarray

    @property
    def bottom(self) -> float:
        return float(self.values[0])

    @property
    def top(self) -> float:
        return float(self.values[-1])


def _parts(loss: Losses) -> Sequence[Loss]:
    return [loss] if callable(loss) else loss


def value(loss: Losses, theta: Tensor) -> float:
    """The loss at theta."""
    with torch.no_grad():
        return math.fsum(float(part(theta.double())) for part in _parts(loss))


def gradient(loss: Losses, theta: Tensor) -> Tensor:
    """Gradient [P] of the loss, float64."""
    return sum(
        (_differentiated(part, theta, twice=False)[1] for part in _parts(loss)), torch.zeros_like(theta.double())
    )


def gradient_norm(loss: Losses, theta: Tensor) -> float:
    """Euclidean length of the gradient."""
    return float(gradient(loss, theta).norm())


def _differentiated(loss: Loss, theta: Tensor, twice: bool) -> tuple[Tensor, Tensor]:
    """(theta, gradient), float64; the gradient with its graph where it is to be differentiated again."""
    theta = theta.detach().double().requires_grad_()
    made = loss(theta)
    if made.dim():
        raise ValueError(f"loss: returned shape {list(made.shape)}, must be a scalar []")
    if not made.requires_grad:  # a constant
        return theta, torch.zeros_like(theta)
    # never backward(create_graph=True): it would leave gradients in .grad that hold the graph alive
    (found,) = torch.autograd.grad(made, theta, create_graph=twice, materialize_grads=True)
    return theta, found


def hessian_product(loss: Losses, theta: Tensor) -> Product:
    """v [P] -> H v [P], float64: the gradient of (gradient . v), by double backward (Pearlmutter 1994).

    Of one loss, the graph of the gradient is kept as long as the product is, and each product costs one backward pass
    through it. Of a sequence of losses, each graph is made again for each product.
    """
    if callable(loss):
        return _product(loss, theta)
    if len(loss) == 1:
        return _product(loss[0], theta)
    zero = torch.zeros_like(theta, dtype=torch.float64)
    return lambda v: sum((_product(part, theta)(v) for part in loss), zero)


def _product(loss: Loss, theta: Tensor) -> Product:
    theta, slope = _differentiated(loss, theta, twice=True)

    def product(v: Tensor) -> Tensor:
        if not slope.requires_grad:  # a loss that is linear in theta
            return torch.zeros_like(slope)
        return torch.autograd.grad(slope, theta, v.detach().to(slope), retain_graph=True, materialize_grads=True)[0]

    return product


def rademacher(theta: Tensor, seed: int, probe: int) -> Tensor:
    """Probe number `probe`: entries of -1 and 1 with equal probability, float64 [P]."""
    signs = keyed.generator(seed, "hessian trace", probe).integers(0, 2, len(theta))
    return torch.from_numpy(2.0 * signs - 1).to(theta.device)


def unit_vector(theta: Tensor, seed: int, purpose: str, *key: int) -> Tensor:
    """A uniformly random direction, float64 [P]."""
    drawn = torch.from_numpy(keyed.generator(seed, purpose, *key).standard_normal(len(theta))).to(theta.device)
    return drawn / drawn.norm()


def hutchinson_trace(
    product: Product, theta: Tensor, seed: int, probes: int = 100, tolerance: float = 1e-3
) -> Estimate:
    """Trace of H as the mean of v . H v over Rademacher vectors v, without bias.

    One probe has variance 2 (|H|_F^2 - sum_j H_jj^2): none where H is diagonal. At most `probes`; it stops earlier
    where one more probe changes the mean by less than `tolerance` of its size (PyHessian's rule, but by the size of the
    mean, so that it holds for negative traces; `tolerance` 0: never). A small change may be luck: the standard error
    tells more, and numbers that are compared should come from equally many probes.
    """
    if probes < 1:
        raise ValueError(f"probes: {probes}, must be at least 1")
    samples: list[float] = []
    mean, converged = 0.0, False
    for probe in range(probes):
        v = rademacher(theta, seed, probe)
        samples.append(float(v @ product(v)))
        before, mean = mean, math.fsum(samples) / len(samples)
        if probe and abs(mean - before) < tolerance * (abs(before) + SMALLEST):
            converged = True
            break
    n = len(samples)
    error = float(np.std(samples, ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return Estimate(mean, error, n, converged)


def power_iteration(
    product: Product, theta: Tensor, seed: int, count: int = 1, iterations: int = 100, tolerance: float = 1e-3
) -> list[Eigenvalue]:
    """The `count` eigenvalues of largest size, largest first, with their sign: v <- H v / |H v|, value v . H v.

    Starts from a Gaussian direction; stops where the value changes by less than `tolerance` of its size. For the second
    and later ones everything is kept orthogonal to the eigenvectors before. Two eigenvalues of equal size and
    opposite sign do not converge: `lanczos` gives both ends.
    """
    if not 1 <= count <= len(theta):
        raise ValueError(f"count: {count}, must be from 1 to the {len(theta)} parameters")
    found: list[Eigenvalue] = []
    for number in range(count):
        held = [pair.vector for pair in found]
        v = _orthogonal(unit_vector(theta, seed, "power iteration", number), held)
        v = v / v.norm()
        value, converged, products = math.nan, False, 0
        while not converged and products < iterations:
            image = _orthogonal(product(v), held)
            before, value = value, float(v @ image)
            products += 1
            length = float(image.norm())
            converged = length == 0 or abs(value - before) < tolerance * (abs(before) + SMALLEST)
            if not converged:
                v = image / length
        found.append(Eigenvalue(value, v, products, converged))
    return found


def _orthogonal(v: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """v less its parts along the orthonormal `basis`; done twice, because once leaves the rounding of large parts."""
    if basis:
        rows = torch.stack(list(basis))
        for _ in range(2):
            v = v - rows.T @ (rows @ v)
    return v


def lanczos(product: Product, theta: Tensor, seed: int, steps: int = 20, start: int = 0) -> Spectrum:
    """Lanczos steps with full re-orthogonalisation, from random direction number `start`.

    Both ends of the spectrum converge first and fastest; `Spectrum.residuals` bounds the error of each value. It ends
    before `steps` where the vectors so far span an invariant space: then the values are eigenvalues. Memory steps x P.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps}, must be at least 1")
    basis = torch.empty(min(steps, len(theta)), len(theta), dtype=torch.float64, device=theta.device)
    diagonal: list[float] = []
    beside: list[float] = []
    v = unit_vector(theta, seed, "lanczos", start)
    for step in range(len(basis)):
        basis[step] = v
        image = product(v)
        diagonal.append(float(v @ image))
        # against all vectors, the last two included; twice is enough (Parlett, The Symmetric Eigenvalue Problem)
        for _ in range(2):
            known = basis[: step + 1]
            image = image - known.T @ (known @ image)
        beside.append(float(image.norm()))
        scale = max(map(abs, diagonal + beside[:-1]))
        if beside[-1] <= 1e-12 * scale or beside[-1] == 0:
            break
        v = image / beside[-1]
    from scipy.linalg import eigh_tridiagonal

    values, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside[:-1]))
    return Spectrum(values, vectors[0] ** 2, np.abs(beside[-1] * vectors[-1]))


def lanczos_quadrature(
    product: Product, theta: Tensor, seed: int, steps: int = 20, starts: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights, both float64 [n], weights with sum 1: the spectral density as points (SLQ).

    For every function f, P sum weights f(nodes) estimates the trace of f(H): the mean over random starts of what their
    Lanczos steps give, exact in each start for polynomials up to degree 2 steps - 1.
    """
    if starts < 1:
        raise ValueError(f"starts: {starts}, must be at least 1")
    parts = [lanczos(product, theta, seed, steps, start) for start in range(starts)]
    nodes, weights = (np.concatenate([part[field] for part in parts]) for field in (0, 1))
    return nodes, weights / starts


def smoothed_density(nodes: np.ndarray, weights: np.ndarray, at: np.ndarray, width: float) -> np.ndarray:
    """The density of `lanczos_quadrature` at points `at` [m], each node a Gaussian of standard deviation `width`."""
    if not width > 0:
        raise ValueError(f"width: {width}, must be positive")
    scaled = (np.asarray(at, dtype=np.float64)[:, None] - nodes) / width
    return np.exp(-0.5 * scaled**2) @ weights / (width * math.sqrt(2 * math.pi))


def filter_norms(layout: Layout, theta: Tensor) -> Tensor:
    """For each parameter the Euclidean norm of the filter that it is in, float64 [P].

    A filter is a row of a weight, so the inputs of one unit; a parameter of one dimension is its own filter. Filter
    normalisation of plots scales directions by it (Li et al., arXiv 1712.09913, section 4).
    """
    parts = []
    for part in layout.split(theta.detach().double()).values():
        rows = part.reshape(part.shape[0], -1) if part.dim() > 1 else part.reshape(-1, 1)
        parts.append(rows.norm(dim=1, keepdim=True).expand_as(rows).reshape(-1))
    return torch.cat(parts)


def scaled_product(product: Product, scales: Tensor) -> Product:
    """Product with diag(s) H diag(s), `scales` s [P].

    With the norms of filters: curvature along filter-normalised directions, which does not change where a unit's inputs
    are scaled up and its outputs down by the same factor; trace and eigenvalues of H itself do.
    """
    return lambda v: scales * product(scales * v)
