"""Anarchic federated learning: the server averages normalised updates of whoever did however many steps.

Yang, Zhang, Khanduri, Liu, "Anarchic Federated Learning", ICML 2022, arXiv 2108.09875: AFA-CD (cross-device) and AFA-CS
(cross-silo). No code of the authors is known; the formulas are a reconstruction.

Symbols: G_i = (x - y_i) / (eta_L K_i) the mean of the K_i local gradients, with eta_L K_i the sum of the step sizes
really used; eta = server_lr; v_i the latest G_i of worker i, M their number.

    AFA-CD    x <- x - eta eta_L G, G the mean of G_i over the cohort
    AFA-CS    x <- x - eta eta_L G, G the mean of v_i over all workers that have reported, in this round or earlier

Sources differ in whether eta_L stands in the server's step; here it does, so that eta = 1 is the length of one local
step, and with K steps for everybody AFA-CD with eta = K is FedAvg's uniform mean.
AFA-CS: v_i stays with its worker, which sends v_i - (the one before), as many numbers as G_i; the server adds it to the
sum of all v_i. Workers that never reported are left out of the mean: zeros in their places would make the
first steps too short. The number of known workers is kept by a flag in the message, 1 in a worker's first.

This is the form for synchronous rounds: who comes and how many steps they do is free (`availability` and `local_work`
of a schedule), but updates come back in the round in which the model went out. Delays tau_i, updates that arrive while
others compute, and two of one worker in the same mean do not occur. In a round in which nobody comes nothing is done.
Local momentum is refused: K_i is the length of the local path for plain SGD only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from heterobench.algorithm import Algorithm
from heterobench.algorithms import fedavg
from heterobench.config.numbers import Positive, Zero

EXCEPTIONS = {"one_client": "the server's step is eta eta_L long, however many local steps it is the mean of"}


class HyperParameters(fedavg.HyperParameters):
    form: Literal["cross-device", "cross-silo"] = Field(
        "cross-device", description="AFA-CD; cross-silo, AFA-CS, averages the latest updates of all workers"
    )
    server_lr: Positive = Field(1.0, description="eta: the server's step in local step sizes")
    momentum: Zero = Field(0, description="updates are normalised by the steps of plain SGD")
    weighting: Literal["uniform"] = Field("uniform", description="workers count equally")


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)

    def normalised(work, down, done):
        return (down["theta"] - work["theta"]) / done.lr_sum

    def after(server, G, info):
        return server["theta"] - hp.server_lr * hp.rate(info.round) * G

    def finish(work, down, client, done):
        return {"G": normalised(work, down, done)}, client

    def serve(server, up, info):
        return {"theta": after(server, up["G"], info)}

    if hp.form == "cross-device":
        return replace(base, finish=finish, serve=serve, reduce={"G": "uniform"})

    def init_server(theta):
        return {"theta": theta, "total": theta.new_zeros(theta.shape), "known": theta.new_zeros(())}

    def init_client(theta):
        return {"v": theta.new_zeros(theta.shape), "known": theta.new_zeros(())}

    def finish_remembered(work, down, client, done):
        v = normalised(work, down, done)
        return {"dv": v - client["v"], "new": 1 - client["known"]}, {"v": v, "known": client["known"] * 0 + 1}

    def serve_remembered(server, up, info):
        total, known = server["total"] + up["dv"], server["known"] + up["new"]
        return {"theta": after(server, total / known, info), "total": total, "known": known}

    return replace(
        base,
        init_server=init_server,
        init_client=init_client,
        downlink=lambda server: {"theta": server["theta"]},
        finish=finish_remembered,
        serve=serve_remembered,
        reduce={"dv": "sum", "new": "sum"},
        tags=frozenset({"stateful"}),
    )
