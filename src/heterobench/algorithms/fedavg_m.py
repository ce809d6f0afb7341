"""FedAvg-M: the server's momentum enters every local step.

Cheng, Huang, Wu, Yuan, "Momentum Benefits Non-IID Federated Learning Simply and Provably", ICLR 2024,
arXiv 2306.16504, FedAvg-M. No code of the authors was found; the rule is a reconstruction from a description of the
paper. Not to be confused with FedAvgM (see fedopt), whose momentum stays on the server.

Symbols: x server model, y_i local model, g global direction of gradient scale (zero at first), beta weight of the
FRESH gradient (1: no momentum), u = beta (grad f_i(y) + lambda y) + (1 - beta) g the local direction, K_i steps of
a client, eta = lr; g <- mean over the cohort of (x - y_i)/(eta K_i), the average of all u; x <- x - gamma g.
gamma = server_lr * mean over the cohort of eta K_i, so that server_lr = 1 is the mean of the y_i where all K_i agree.
Where they do not, clients weigh the same whatever their K_i, as in fednova.
Deviation: the paper's gamma is a number of its own, and its g may start as a mini-batch gradient. Weight decay
(not in the paper) belongs to the fresh gradient: after u it would be carried into g and grow by 1/beta. Local
heavy-ball momentum is refused, since (x - y_i)/(eta K_i) would not be the mean of u. The variance-reduced form is not
offered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from heterobench.algorithm import Algorithm, Neutral
from heterobench.algorithms import fedavg
from heterobench.config.numbers import PositiveShare, Zero


class HyperParameters(fedavg.HyperParameters):
    beta: PositiveShare = Field(0.1, description="weight of the fresh gradient; 1 is no momentum")
    momentum: Zero = Field(0, description="g is read off the length of the local path")
    weighting: Literal["uniform"] = Field("uniform", description="the mean over the cohort is uniform")


NEUTRAL = Neutral({"beta": 1.0}, {"weighting": "uniform"}, tolerance=1e-12)  # equal numbers of steps


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp.model_copy(update={"weight_decay": 0.0}))

    def init_server(theta):
        return {"theta": theta, "g": theta.new_zeros(theta.shape)}

    def start(down, client):
        return base.start(down, client) | {"push": (1 - hp.beta) * down["g"]}

    def grad(work, batch, task):
        g, aux = base.grad(work, batch, task)
        return hp.beta * (g + hp.weight_decay * work["theta"]) + work["push"], aux

    def finish(work, down, client, done):
        g = (down["theta"] - work["theta"]) / done.lr_sum
        return {"g": g, "path": g.new_tensor(done.lr_sum)}, client

    def serve(server, up, info):
        return {"theta": server["theta"] - hp.server_lr * up["path"] * up["g"], "g": up["g"]}

    return replace(
        base,
        init_server=init_server,
        start=start,
        grad=grad,
        finish=finish,
        serve=serve,
        reduce={"g": hp.weighting, "path": hp.weighting},
    )
