"""FedOpt: the averaged update is a pseudo-gradient for an optimiser on the server.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan, "Adaptive Federated Optimization", ICLR 2021,
arXiv 2003.00295, Algorithm 2 (FedAdagrad, FedAdam, FedYogi); FedAvgM: Hsu, Qi, Brown, "Measuring the Effects of
Non-Identical Data Distribution for Federated Visual Classification", arXiv 1909.06335.

Symbols: Delta averaged update, m first and v second moment, eta_g = server_lr, tau outside the square root.
No bias correction; v starts at tau^2. FedAvgM is v <- beta v + Delta, without a factor (1 - beta).
Deviation: Delta is weighted by n_i, as in the paper's experiments (its Algorithm 2 writes the uniform mean).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from heterobench.algorithm import Algorithm, Neutral
from heterobench.algorithms import fedavg
from heterobench.config.numbers import Decay, Positive


class HyperParameters(fedavg.HyperParameters):
    optimizer: Literal["momentum", "adagrad", "adam", "yogi"] = Field("momentum", description="rule of the server")
    beta1: Decay = Field(0.9, description="decay of the first moment (beta of FedAvgM)")
    beta2: Decay = Field(0.99, description="decay of the second moment (adam, yogi)")
    tau: Positive = Field(1e-3, description="adaptivity: added to the square root of v")


NEUTRAL = Neutral({"optimizer": "momentum", "beta1": 0.0, "server_lr": 1.0})


def second_moment(hp: HyperParameters, v, delta):
    """v [P] after a round with averaged update `delta` [P]."""
    square = delta * delta
    if hp.optimizer == "adagrad":
        return v + square
    if hp.optimizer == "adam":
        return hp.beta2 * v + (1 - hp.beta2) * square
    return v - (1 - hp.beta2) * square * (v - square).sign()


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)
    adaptive = hp.optimizer != "momentum"

    def init_server(theta):
        zero = theta.new_zeros(theta.shape)
        return {"theta": theta, "m": zero} | ({"v": zero + hp.tau**2} if adaptive else {})

    def downlink(server):
        return {"theta": server["theta"]}

    def serve(server, up, info):
        delta = up["delta"]
        if not adaptive:
            m = hp.beta1 * server["m"] + delta
            return {"theta": server["theta"] + hp.server_lr * m, "m": m}
        m = hp.beta1 * server["m"] + (1 - hp.beta1) * delta
        v = second_moment(hp, server["v"], delta)
        return {"theta": server["theta"] + hp.server_lr * m / (v.sqrt() + hp.tau), "m": m, "v": v}

    return replace(base, init_server=init_server, downlink=downlink, serve=serve)
