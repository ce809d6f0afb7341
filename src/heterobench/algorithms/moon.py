"""MOON: local representations are pulled to the server model's and pushed from the client's previous model's.

Li, He, Song, "Model-Contrastive Federated Learning", CVPR 2021, arXiv 2103.16257, eqs. (3)-(4), in the form of the
authors' code.

Symbols: z = R_w(x) the representation under the local model, z_glob under the server's, z_prev under the model that
this client ended its last participation with; l_con = -log(exp(cos(z, z_glob)/tau) / (exp(cos(z, z_glob)/tau) +
exp(cos(z, z_prev)/tau))), mean over the batch; local loss: cross-entropy + mu l_con. Gradients go to z alone.
A client that takes part for the first time has no previous model and l_con = 0 (the code; mu = 0 in that round).
Deviation: z is what the net's last linear layer reads. The paper puts a projection head of two layers before it, in
the nets of all methods; here nets are what the table's models say, for all methods alike. One previous model is kept
(the paper's setting); the code's longer buffer is not offered.
Costs: z_glob and z_prev are two forward passes a step, which are in time and energy, but not in the counted FLOPs.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from heterobench.algorithm import Algorithm, Neutral
from heterobench.algorithms import fedavg
from heterobench.algorithms._similarity import cosine
from heterobench.config.numbers import NonNegative, Positive


class HyperParameters(fedavg.HyperParameters):
    mu: NonNegative = Field(5.0, description="weight of the contrastive loss")
    temperature: Positive = Field(0.5, description="tau")


NEUTRAL = Neutral({"mu": 0.0})


def contrast(z, towards, away, temperature: float):
    """l_con [B] of representations z [B, F]: log(1 + exp((cos(z, away) - cos(z, towards)) / temperature))."""
    near = cosine(z, towards) / temperature
    return near.logaddexp(cosine(z, away) / temperature) - near


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)
    if not hp.mu:
        return base

    def init_client(theta):
        return {"previous": theta, "known": theta.new_zeros(())}

    def start(down, client):
        fixed = {"server": down["theta"], "previous": client["previous"], "mu": hp.mu * client["known"]}
        return base.start(down, client) | fixed

    def grad(work, batch, task):
        towards, away = (task.features(work[which], batch) for which in ("server", "previous"))

        def term(outputs):
            return work["mu"] * (contrast(outputs.features, towards, away, hp.temperature) @ outputs.weight)

        return task.grad(work["theta"], batch, term)

    def finish(work, down, client, done):
        up, _ = base.finish(work, down, client, done)
        return up, {"previous": work["theta"], "known": client["known"].new_ones(())}

    return replace(base, init_client=init_client, start=start, grad=grad, finish=finish, tags=frozenset({"stateful"}))
