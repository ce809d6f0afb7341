"""FedDyn: a linear term, learnt over the rounds, makes the clients' optima agree with the global one.

Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama, "Federated Learning Based on Dynamic Regularization",
ICLR 2021, arXiv 2111.04263, Algorithm 1, in the variables of the authors' code.

Symbols: h_i = -(stored gradient)/alpha, so that the local gradient is grad f_i(y) + alpha (y - x + h_i) and
h_i <- h_i + (y - x); h = mean of h_i over ALL N clients (the paper's -h/alpha);
x <- mean over the cohort of y_i, plus h. Evaluated is the mean of y_i, as in the authors' code ("sel").
Deviation: alpha is the same for every client (the paper's form); the code's alpha_i = alpha / w_i and its clipping
of gradients to norm 10 are not used. Local momentum is refused, as neither paper nor code has it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from heterobench.algorithm import Algorithm
from heterobench.algorithms import fedavg
from heterobench.config.numbers import One, Positive, Zero


class HyperParameters(fedavg.HyperParameters):
    alpha: Positive = Field(0.1, description="strength of the dynamic regulariser")
    momentum: Zero = Field(0, description="the local objective is meant to be solved, not rolled past")
    weighting: Literal["uniform"] = Field("uniform", description="the mean over the cohort is uniform")
    server_lr: One = Field(1, description="the server has no step size")


EXCEPTIONS = {"one_client": "the quadratic term shortens the local steps; only the fixed point is that of SGD"}


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)

    def init_server(theta):
        return {"theta": theta, "mean": theta, "h": theta.new_zeros(theta.shape)}

    def init_client(theta):
        return {"h": theta.new_zeros(theta.shape)}

    def downlink(server):
        return {"theta": server["theta"]}

    def start(down, client):
        return base.start(down, client) | {"target": down["theta"] - client["h"]}

    def grad(work, batch, task):
        g, aux = base.grad(work, batch, task)
        return g + hp.alpha * (work["theta"] - work["target"]), aux

    def finish(work, down, client, done):
        delta = work["theta"] - down["theta"]
        return {"delta": delta}, {"h": client["h"] + delta}

    def serve(server, up, info):
        mean = server["theta"] + up["delta"]
        h = server["h"] + up["delta"] * (info.cohort / info.population)
        return {"theta": mean + h, "mean": mean, "h": h}

    return replace(
        base,
        init_server=init_server,
        init_client=init_client,
        downlink=downlink,
        start=start,
        grad=grad,
        finish=finish,
        serve=serve,
        model=lambda server: server["mean"],
        tags=frozenset({"stateful", "drift-free"}),
    )
