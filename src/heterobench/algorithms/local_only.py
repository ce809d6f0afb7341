"""Local-only training: every client trains alone. A reference that any collaboration has to beat.

The client keeps its model between rounds; nothing is sent up or down (the common initial weights are part of the
setting). There is no global model.
"""

from __future__ import annotations

from dataclasses import replace

from heterobench.algorithm import Algorithm
from heterobench.algorithms import fedavg
from heterobench.algorithms._local_sgd import LocalSGD as HyperParameters


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(fedavg.HyperParameters(**hp.model_dump()))

    def init_client(theta):
        return {"theta": theta}

    def start(down, client):
        return hp.begin(client["theta"])

    def finish(work, down, client, done):
        return {}, {"theta": work["theta"]}

    return replace(
        base,
        init_client=init_client,
        downlink=lambda server: {},
        start=start,
        finish=finish,
        serve=lambda server, up, info: server,
        personal=lambda server, client: client["theta"],
        reduce={},
        tags=frozenset({"stateful", "personalised", "silent"}),
    )
