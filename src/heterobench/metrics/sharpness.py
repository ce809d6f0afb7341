"""How far the loss rises within a small distance of a point.

`loss` as in `heterobench.metrics.hessian`. Where a step is longer than the slope lasts, a rise can be negative.
Sharpness is no property of a network's function (scaling weights changes all but the adaptive form), falls with
confidence, and predicts generalisation weakly (Andriushchenko et al., arXiv 2302.07011): it is for reports, not for
selection, and for models of equal loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from heterobench import keyed
from heterobench.metrics.gradients import STATIONARY
from heterobench.metrics.hessian import Estimate, Losses, gradient, unit_vector, value

RHO = 0.05  # of the SAM paper, section 3


def sharpness(loss: Losses, theta: Tensor, rho: float = RHO, seed: int = 0) -> float:
    """L(theta + rho g / |g|) - L(theta) with g the gradient: one ascent step of length `rho` (in weights).

    Where the gradient is shorter than 1e-8 (a minimum), g is the gradient a random step of length `rho` away; where
    that is as short, the loss is flat and the sharpness that of the random step. Source: Foret et al. (SAM),
    arXiv 2010.01412, equation 2.
    """
    _check_positive("rho", rho)
    theta = theta.detach().double()
    return value(loss, theta + _ascent(loss, theta, torch.ones_like(theta), rho, seed)) - value(loss, theta)


def adaptive_sharpness(loss: Losses, theta: Tensor, rho: float = RHO, eta: float = 0.0, seed: int = 0) -> float:
    """L(theta + rho T^2 g / |T g|) - L(theta) with T = diag(|theta| + eta).

    `rho` is a length relative to the weights. With `eta` 0 it does not change where the inputs of a ReLU unit (bias
    included) are scaled up and its outputs down by one factor; weights that are 0 then stay 0. Where T g is shorter
    than 1e-8, g is the gradient a random step away, as in `sharpness`. Source: Kwon et al. (ASAM), arXiv 2102.11600,
    section 3; training there uses eta 0.01.
    """
    _check_positive("rho", rho)
    if eta < 0:
        raise ValueError(f"eta: {eta}, must be at least 0")
    theta = theta.detach().double()
    return value(loss, theta + _ascent(loss, theta, theta.abs() + eta, rho, seed)) - value(loss, theta)


def m_sharpness(losses: Sequence[Losses], theta: Tensor, rho: float = RHO, seed: int = 0) -> float:
    """Mean over batches of m examples of the `sharpness` of each batch's own loss, with its own ascent.

    `losses`: one for each batch, all of the same size. Source: Foret et al., arXiv 2010.01412, section 4.1.
    """
    if not losses:
        raise ValueError("losses: none, must be one for each batch")
    return sum(sharpness(loss, theta, rho, seed) for loss in losses) / len(losses)


def worst_case_sharpness(loss: Losses, theta: Tensor, rho: float = RHO, steps: int = 20, seed: int = 0) -> float:
    """Largest rise of the loss found within distance `rho`, by `steps` of projected ascent; at least 0.

    Each step has length `rho` along the gradient and is projected onto the ball, so the first one is that of
    `sharpness`, which is never larger; the best point on the way counts. A lower bound of the true maximum.
    """
    _check_positive("rho", rho)
    if steps < 1:
        raise ValueError(f"steps: {steps}, must be at least 1")
    theta = theta.detach().double()
    start = value(loss, theta)
    step = _ascent(loss, theta, torch.ones_like(theta), rho, seed)
    best = max(0.0, value(loss, theta + step) - start)
    for _ in range(steps - 1):
        slope = gradient(loss, theta + step)
        length = slope.norm()
        if length == 0:
            break
        step = step + rho * slope / length
        step = step * min(1.0, rho / float(step.norm()))
        best = max(best, value(loss, theta + step) - start)
    return best


def average_sharpness(loss: Losses, theta: Tensor, sigma: float, seed: int, probes: int = 50) -> Estimate:
    """Mean of L(theta + u) - L(theta) over u ~ N(0, sigma^2 I), from `probes` pairs of u and -u.

    The pair cancels the part that is odd in u (and has mean 0): near theta what is left is sigma^2 / 2 times the trace
    of the Hessian. The standard error is that over pairs. Andriushchenko et al., arXiv 2302.07011, section 2.
    """
    _check_positive("sigma", sigma)
    if probes < 2:
        raise ValueError(f"probes: {probes}, must be at least 2")
    theta = theta.detach().double()
    start = value(loss, theta)
    rises = []
    for probe in range(probes):
        u = keyed.generator(seed, "average sharpness", probe).standard_normal(len(theta))
        u = sigma * torch.from_numpy(u).to(theta.device)
        rises.append((value(loss, theta + u) + value(loss, theta - u)) / 2 - start)
    samples = torch.tensor(rises, dtype=torch.float64)
    return Estimate(float(samples.mean()), float(samples.std()) / probes**0.5, probes, False)


def _check_positive(name: str, given: float) -> None:
    if not given > 0:
        raise ValueError(f"{name}: {given}, must be positive")


def _ascent(loss: Losses, theta: Tensor, scales: Tensor, rho: float, seed: int) -> Tensor:
    """rho T^2 g / |T g| with T = diag(scales): where the linear loss is highest among steps with |T^-1 step| = rho."""
    scaled = scales * gradient(loss, theta)
    if scaled.norm() < STATIONARY:
        away = rho * scales * unit_vector(theta, seed, "sharpness")
        scaled = scales * gradient(loss, theta + away)
        if scaled.norm() < STATIONARY:
            return away
    return rho * scales * scaled / scaled.norm()
