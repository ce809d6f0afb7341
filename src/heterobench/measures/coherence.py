"""Do gradients agree at a model? Coherence of examples, on the probes, and dissimilarity of clients.

==========================  =========================================================================================
train_m_coherence           |sum g|^2 / sum |g|^2 over the m gradients g of single examples of the training probe
train_gradient_diversity    its inverse, sum |g|^2 / |sum g|^2
train_gradient_square       mean |g|^2 over them: where it is small, a few hard examples decide the two above
test_...                    the same three on the probe of the global test set
client_dissimilarity        B^2 = sum p_k |G_k|^2 / |sum p_k G_k|^2 of clients' gradients G_k (FedProx; 1: all equal)
zeta_squared                sum p_k |G_k - sum p_j G_j|^2
zeta_squared_unbiased       the same from two disjoint halves of each client's examples, free of the noise that few
                            examples add; may be negative
==========================  =========================================================================================

Gradients are those of the cross-entropy alone (no weight decay, no term of a method). Probes have at most 256 examples
(`heterobench.measures.context`); compare m-coherence only at equal m. G_k is the mean gradient over client k's training
examples, p_k is proportional to their number. So that large federations stay affordable, at most 64 clients count, and
of each a fixed random part of its examples (about 2,048 in all, and at least 2 each), the same for all methods: with
fewer clients and examples these are exact. Sources: `heterobench.metrics.gradients`.

Personal models have no metric here (there is no one point at which clients' gradients could agree), and neither has a
model that is not finite.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from heterobench.measures.context import EvaluatedModel, EvaluationData
from heterobench.metrics import gradients as of
from heterobench.task import Batch, Classification

NAMES = (
    *(
        f"{probe}_{name}"
        for probe in ("train", "test")
        for name in ("m_coherence", "gradient_diversity", "gradient_square")
    ),
    *("client_dissimilarity", "zeta_squared", "zeta_squared_unbiased"),
)
TOGETHER = 2**21  # numbers in the gradients that are computed at once


def measure(model: EvaluatedModel) -> dict[str, float]:
    """The metrics of the table above."""
    if model.personal or not torch.isfinite(model.theta).all():
        return {}
    data, found = model.data, {}
    for name, probe in (("train", data.probe), ("test", data.test_probe)):
        sums = example_sums(data.task, model.theta, probe)
        found |= {
            f"{name}_m_coherence": of.m_coherence(sums),
            f"{name}_gradient_diversity": of.gradient_diversity(sums),
            f"{name}_gradient_square": sums.squares / sums.count,
        }
    return found | client_measures(data, model.theta)


def example_sums(task: Classification, theta: Tensor, probe: Batch) -> of.GradientSums:
    """Sums over the gradients of single examples, a part of them at a time."""
    step = max(1, TOGETHER // theta.numel())
    single = task.functional()
    gradients = torch.func.vmap(lambda x, y: single.grad(theta, Batch(x[None], y[None]))[0])
    sums = None
    for first in range(0, len(probe.y), step):
        part = of.gradient_sums(gradients(probe.x[first : first + step], probe.y[first : first + step]))
        sums = part if sums is None else of.added(sums, part)
    return sums


def client_measures(data: EvaluationData, theta: Tensor) -> dict[str, float]:
    """The last three of the table above."""
    pool, task, probes = data.federation.pool, data.task, data.client_probes

    def gradients(half: str) -> Tensor:
        own = [getattr(probe, half) for probe in probes]
        return torch.stack([task.grad(theta, pool.batch(rows))[0] if len(rows) else 0 * theta for rows in own]).double()

    first, second = gradients("first"), gradients("second")
    counts = np.array([[len(probe.first), len(probe.second)] for probe in probes])
    share = torch.from_numpy(counts[:, :1] / counts.sum(axis=1, keepdims=True))
    whole = share * first + (1 - share) * second
    weights, pairs = np.array([probe.examples for probe in probes]), counts[:, 1] > 0
    unbiased = of.unbiased_zeta_squared(first[pairs], second[pairs], weights[pairs]) if pairs.any() else math.nan
    return {
        "client_dissimilarity": of.dissimilarity(whole, weights),
        "zeta_squared": of.zeta_squared(whole, weights),
        "zeta_squared_unbiased": unbiased,
    }
