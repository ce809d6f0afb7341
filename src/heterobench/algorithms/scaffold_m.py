"""SCAFFOLD-M: SCAFFOLD's control variates, with the server's momentum in every local step.

Cheng, Huang, Wu, Yuan, "Momentum Benefits Non-IID Federated Learning Simply and Provably", ICLR 2024,
arXiv 2306.16504, SCAFFOLD-M. A reconstruction, like fedavg_m, whose symbols and deviations hold here as well.

Symbols: c server variate, c_i client variate (zero at first), N population, S cohort;
u = beta (grad f_i(y) - c_i + c) + (1 - beta) g; c_i <- mean of the RAW gradients of the client's own path;
c <- c + (1/N) sum over S of dc_i, so that c stays the mean of all c_i.
Deviation: raw gradients are not added up on the way. Their mean is what is left of the mean of u, which is
(x - y_i)/(eta K_i), once momentum and correction are taken off: option II of scaffold, which it is for beta = 1.
"""

from __future__ import annotations

from dataclasses import replace

from heterobench.algorithm import Algorithm
from heterobench.algorithms import fedavg_m

HyperParameters = fedavg_m.HyperParameters

EXCEPTIONS = {"one_client": "global momentum: plain SGD for beta = 1 only"}


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg_m.make(hp)

    def init_server(theta):
        return base.init_server(theta) | {"c": theta.new_zeros(theta.shape)}

    def init_client(theta):
        return {"c": theta.new_zeros(theta.shape)}

    def start(down, client):
        work = base.start(down, client)
        return work | {"push": work["push"] + hp.beta * (down["c"] - client["c"])}

    def finish(work, down, client, done):
        up, _ = base.finish(work, down, client, done)
        c = (up["g"] - work["push"]) / hp.beta
        return up | {"dc": c - client["c"]}, {"c": c}

    def serve(server, up, info):
        return base.serve(server, up, info) | {"c": server["c"] + up["dc"] / info.population}

    return replace(
        base,
        init_server=init_server,
        init_client=init_client,
        start=start,
        finish=finish,
        serve=serve,
        reduce={**base.reduce, "dc": "sum"},
        tags=frozenset({"stateful", "drift-free"}),
    )
