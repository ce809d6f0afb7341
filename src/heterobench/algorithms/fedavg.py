"""FedAvg: every client runs SGD from the server's model, the server averages the results.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, arXiv 1602.05629, Algorithm 1. FedSGD is one epoch with one full batch.

Symbols: x server model, y_i local model, Delta_i = y_i - x, w_i = n_i / sum over the cohort (or 1/|S|),
eta_l = lr, eta_g = server_lr (1 in the paper).
Deviation: uplinks are the differences Delta_i, so that server step sizes and later stages act on updates;
with eta_g = 1 the average of models and the average of differences are the same point.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from heterobench.algorithm import Algorithm
from heterobench.algorithms._local_sgd import LocalSGD
from heterobench.config.numbers import Positive


class HyperParameters(LocalSGD):
    server_lr: Positive = Field(1.0, description="eta_g; 1 is plain averaging")
    weighting: Literal["weighted", "uniform"] = Field("weighted", description="w_i = n_i/sum n_j, or 1/|S|")


def make(hp: HyperParameters) -> Algorithm:
    def start(down, client):
        return hp.begin(down["theta"])

    def grad(work, batch, task):
        return task.grad(work["theta"], batch)

    def finish(work, down, client, done):
        return {"delta": work["theta"] - down["theta"]}, client

    def serve(server, up, info):
        return {"theta": server["theta"] + hp.server_lr * up["delta"]}

    return Algorithm(start, grad, finish, serve, hp.step, hp.rate, reduce={"delta": hp.weighting})
