"""The loss around a model and between two models, as named numbers.

The parts are in `hessian`, `sharpness`, `connectivity` and `weight_matching`. The caller chooses the probe examples,
the same for all models that are compared, and says what they are: a barrier of the test loss is not one of the
training loss. Values are comparable only between models of about equal loss, since all curvature falls with confidence.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from heterobench import keyed
from heterobench.federation import Examples
from heterobench.metrics import connectivity as between
from heterobench.metrics import hessian, sharpness
from heterobench.metrics.weight_matching import chain, permuted, weight_matching
from heterobench.task import Batch, Classification, hits

PROBE = 1024  # examples, at most
PART = 256  # examples whose graph is in memory at once
TRACE_PROBES = 30
LANCZOS_STEPS = 20


def probe(examples: Examples, seed: int, count: int = PROBE) -> Batch:
    """A fixed random choice of `count` examples, or all where there are no more: the same for all models of a seed."""
    order = keyed.generator(seed, "landscape probe").permutation(len(examples))
    return examples.batch(sorted(order[:count]))


def _parts(examples: Examples | Batch) -> list[Batch]:
    """A few examples at a time, each with weights that sum to their share of all examples."""
    n = len(examples.y)
    if not n:
        raise ValueError("examples: none, must be at least one")
    if isinstance(examples, Batch):
        weight = torch.full((n,), 1 / n, dtype=torch.float64) if examples.weight is None else examples.weight.double()
        batch = Batch(examples.x, examples.y, weight.to(examples.y.device))
        return [Batch(*parts) for parts in zip(*(values.split(PART) for values in batch), strict=True)]
    parts = (examples.batch(torch.arange(first, min(first + PART, n))) for first in range(0, n, PART))
    return [Batch(x, y, torch.full((len(y),), 1 / n, dtype=torch.float64, device=y.device)) for x, y, _ in parts]


def mean_losses(task: Classification, examples: Examples | Batch) -> list[hessian.Loss]:
    """Functions of theta, for `hessian` and `sharpness`, whose sum is the mean loss of the examples, in nats."""

    def loss(batch: Batch) -> hessian.Loss:
        return lambda theta: task.mean_loss(theta, batch)

    return [loss(batch) for batch in _parts(examples)]


def loss_and_error(task: Classification, examples: Examples | Batch) -> Callable[[Tensor], Tensor]:
    """theta [P] -> [2], for `connectivity`: mean loss of the examples, in nats, and share of wrong predictions."""
    parts = _parts(examples)

    def score(theta: Tensor) -> Tensor:
        total = theta.new_zeros(2)
        for x, y, weight in parts:
            logits = task.logits(theta, x)
            losses = functional.cross_entropy(logits, y, reduction="none")
            total += torch.stack([losses, 1 - hits(logits, y).to(losses)]) @ weight.to(losses)
        return total

    return score


def landscape(task: Classification, theta: Tensor, examples: Examples | Batch, seed: int) -> dict[str, float]:
    """Curvature and sharpness of the mean loss of all the `examples` (see `probe`) at theta [P], in nats.

    ``hessian_trace``: from 30 Rademacher probes. ``hessian_top_eigenvalue`` and ``hessian_bottom_eigenvalue``: largest
    and smallest Ritz value after 20 Lanczos steps, so never beyond the true ones. ``sharpness`` and
    ``adaptive_sharpness``: one ascent step, rho 0.05. ``gradient_norm``. Random vectors depend on `seed` alone.
    """
    losses = mean_losses(task, examples)
    product = hessian.hessian_product(losses, theta)
    spectrum = hessian.lanczos(product, theta, seed, LANCZOS_STEPS)
    return {
        "hessian_trace": hessian.hutchinson_trace(product, theta, seed, TRACE_PROBES, tolerance=0).value,
        "hessian_top_eigenvalue": spectrum.top,
        "hessian_bottom_eigenvalue": spectrum.bottom,
        "sharpness": sharpness.sharpness(losses, theta, seed=seed),
        "adaptive_sharpness": sharpness.adaptive_sharpness(losses, theta, seed=seed),
        "gradient_norm": hessian.gradient_norm(losses, theta),
    }


def connectivity(task: Classification, first: Tensor, second: Tensor, examples: Examples | Batch) -> dict[str, float]:
    """Barriers between two models [P] at 11 points, over the straight line between the scores of the two models.

    ``barrier``: of the mean loss, in nats. ``error_barrier``: of the share of wrong predictions, in [0, 1].
    ``barrier_layer_<name>``: of the loss where only that layer of `first` goes over to `second` (which of the two comes
    first matters here), ``barrier_layer_largest`` the highest of them. ``barrier_aligned``: of the loss after the
    hidden units of `second` were permuted to match those of `first`; only where the net is a chain of layers.
    """
    score = loss_and_error(task, examples)
    whole = between.curve(score, first, second)
    loss, error = (float(value) for value in between.barrier(whole))
    result = {"barrier": loss, "error_barrier": error}
    curves = between.layer_curves(score, first, second, between.layers(task.layout))
    own = {name: float(between.barrier(line, whole.ends)[0]) for (name,), line in curves.items()}
    result |= {f"barrier_layer_{name}": value for name, value in own.items()}
    result["barrier_layer_largest"] = max(own.values())
    aligned = _aligned(task, score, first, second)
    if aligned is not None:
        result["barrier_aligned"] = float(between.barrier(between.curve(score, first, aligned))[0])
    return result


def _aligned(task: Classification, score, first: Tensor, second: Tensor) -> Tensor | None:
    """`second` with its units in the order that matches `first`; None where the net is no chain with hidden units."""
    stages = chain(task.layout)
    if stages is None or len(stages) < 2:
        return None
    moved = permuted(task.layout, second.double(), weight_matching(task.layout, first, second))
    with torch.no_grad():  # names and shapes look like a chain; the function tells whether it is one
        same = torch.allclose(score(moved), score(second.double()), rtol=1e-9, atol=1e-12)
    return moved if same else None
