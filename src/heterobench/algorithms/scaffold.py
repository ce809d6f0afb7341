"""SCAFFOLD: control variates remove the drift of the local steps.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning", ICML 2020, arXiv 1910.06378, Algorithm 1, option II.

Symbols: c server variate, c_i client variate (both start at zero), K steps really taken, eta_l, eta_g = server_lr,
N population, S cohort. The mean over S is uniform, as in the paper; c moves by (1/N) sum over S of dc_i, so that
c stays the mean of all c_i.
Deviation: option I (an extra pass over the client's data at x) is not offered. K eta_l is the sum of the step
sizes that were really used.
Two settings of third-party code are there to run published tables again (Flower's niid_bench, NIID-Bench), and are not
the paper's: `weighting: weighted` averages dy by the clients' numbers of examples, and local `momentum`, beside which
the correction c - c_i is added to the step, outside the momentum. Option II reads c_i off the length of the local path,
which momentum stretches by about 1/(1 - rho): c_i is then too long by that factor, and with it the correction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from heterobench.algorithm import Algorithm
from heterobench.algorithms import fedavg
from heterobench.config.numbers import Decay


class HyperParameters(fedavg.HyperParameters):
    momentum: Decay = Field(0.0, description="rho; option II holds for plain SGD, which is 0")
    weighting: Literal["weighted", "uniform"] = Field("uniform", description="of dy; the paper's mean is uniform")


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)

    def init_server(theta):
        return {"theta": theta, "c": theta.new_zeros(theta.shape)}

    def init_client(theta):
        return {"c": theta.new_zeros(theta.shape)}

    def start(down, client):
        return base.start(down, client) | {"correction": down["c"] - client["c"]}

    def grad(work, batch, task):
        g, aux = base.grad(work, batch, task)
        return g + work["correction"], aux

    def step_outside_momentum(work, g, step):
        work = base.step(work, g, step)
        work["theta"].sub_(work["correction"], alpha=step.lr)
        return work

    def finish(work, down, client, done):
        dy = work["theta"] - down["theta"]
        c = client["c"] - down["c"] - dy / done.lr_sum
        return {"dy": dy, "dc": c - client["c"]}, {"c": c}

    def serve(server, up, info):
        return {
            "theta": server["theta"] + hp.server_lr * up["dy"],
            "c": server["c"] + up["dc"] / info.population,
        }

    return replace(
        base,
        init_server=init_server,
        init_client=init_client,
        start=start,
        **({"step": step_outside_momentum} if hp.momentum else {"grad": grad}),
        finish=finish,
        serve=serve,
        reduce={"dy": hp.weighting, "dc": "sum"},
        tags=frozenset({"stateful", "drift-free"}),
    )
