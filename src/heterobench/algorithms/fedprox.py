"""FedProx: a proximal term keeps the local model near the server's.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks", MLSys 2020,
arXiv 1812.06127, Algorithm 2. Local loss: f_i(y) + mu/2 ||y - x||^2 (the squared norm), x fixed within the round.

Partial work (the gamma-inexact solutions of the paper) comes from the schedule's `stragglers`.
Deviation: clients are sampled uniformly and weighted by n_i, as in the authors' code; the paper's text samples
with probability p_i and averages uniformly.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from heterobench.algorithm import Algorithm, Neutral
from heterobench.algorithms import fedavg
from heterobench.config.numbers import NonNegative


class HyperParameters(fedavg.HyperParameters):
    mu: NonNegative = Field(0.01, description="weight of the proximal term")


NEUTRAL = Neutral({"mu": 0.0})


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)

    def start(down, client):
        return base.start(down, client) | {"anchor": down["theta"]}

    def grad(work, batch, task):
        g, aux = base.grad(work, batch, task)
        return g + hp.mu * (work["theta"] - work["anchor"]), aux

    return replace(base, start=start, grad=grad)
