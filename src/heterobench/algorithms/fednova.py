"""FedNova: updates are normalised before they are averaged, so unequal local work does not bend the objective.

Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
Optimization", NeurIPS 2020, arXiv 2007.07481, eqs. (7)-(9).

Symbols: tau steps of a client, a the vector of weights that its solver gives to the tau gradients, d_i the
normalised direction (y_i - x) / ||a_i||_1 (the paper's -eta d_i: the common step size stays inside),
tau_eff = sum_i p_i ||a_i||_1, or sum_i p_i tau_i for the proximal solver (as in the authors' code).
The step size is constant within a round, which the normaliser needs.
Deviation: no server momentum (see fedopt). Momentum and the proximal term together are refused: the authors'
recursion is not the l1 norm of that solver.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator

from heterobench.algorithm import Algorithm, Neutral
from heterobench.algorithms import fedprox
from heterobench.config.numbers import NonNegative


class HyperParameters(fedprox.HyperParameters):
    mu: NonNegative = Field(0.0, description="weight of the proximal term of the local solver")

    @model_validator(mode="after")
    def _one_solver(self):
        if self.mu and self.momentum:
            raise ValueError("mu and momentum cannot both be set: the normaliser covers one of them at a time")
        return self


NEUTRAL = Neutral({}, tolerance=1e-12)  # equal numbers of steps, plain SGD


def accumulated_weight(tau: int, momentum: float, eta_mu: float) -> float:
    """||a||_1 of tau local steps: plain, with momentum rho, or with a proximal term of strength eta * mu."""
    total = weight = 0.0
    for _ in range(tau):
        if momentum:
            weight = momentum * weight + 1
            total += weight
        else:
            total = (1 - eta_mu) * total + 1
    return total


def make(hp: HyperParameters) -> Algorithm:
    base = fedprox.make(hp)

    def finish(work, down, client, done):
        a = accumulated_weight(done.steps, hp.momentum, hp.mu * done.lr_sum / done.steps)
        d = (work["theta"] - down["theta"]) / a
        return {"d": d, "tau": d.new_tensor(done.steps if hp.mu else a)}, client

    def serve(server, up, info):
        return {"theta": server["theta"] + hp.server_lr * up["tau"] * up["d"]}

    return replace(base, finish=finish, serve=serve, reduce={"d": hp.weighting, "tau": hp.weighting})
