"""FedLEx: clients first explore their losses; how far each parameter moved guides all later gradients.

Interno, Olhofer, Jin, Hammer, "Federated Loss Exploration for Improved Convergence on Non-IID Data", IJCNN 2024. A
reconstruction: the authors' code is a placeholder where the guidance should be computed.

Symbols: s_i model of client i after exploration, b base, D = mean of (s_i - b)^2, M guidance: D scaled to [0, 1] in
every tensor of the net (1 where D is constant there); then clients step along M * gradient, and the server with
momentum beta = server_momentum: buf <- beta buf + (1 - beta) mean of (x - y_i), x <- x - buf.
The first round is the exploration: its cohort trains from the initial weights for the local epochs of the budget and
the server's model stays; so it costs a round of the budget, as it should in a comparison.
Deviation: b is the initial model (the code: one epoch of one client away from it, which depends on who that is).
Exploration has the budget's epochs, without early stopping, and happens once. Explorers are weighted as in averaging
(the code: uniformly), since they send (s_i - b)^2 in place of the update. The code's other scaling, which lets M be
negative, is not offered. guidance "none" has neither M nor an exploration.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from heterobench.algorithm import Algorithm, Neutral
from heterobench.algorithms import fedavg
from heterobench.algorithms._local_adamw import LocalAdamW
from heterobench.config.numbers import Decay, One

if TYPE_CHECKING:
    from torch import Tensor


class HyperParameters(LocalAdamW):
    guidance: Literal["minmax", "none"] = Field("minmax", description="how M is scaled")
    server_momentum: Decay = Field(0.9, description="beta of the server's averaged updates")
    server_lr: One = Field(1, description="the server has no step size")


NEUTRAL = Neutral({"guidance": "none", "server_momentum": 0.0})
EXCEPTIONS = {"quadratics": "the parameter that moved least while exploring has M = 0: it stays where it is"}


def minmax(d: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """M [P] of squared deviations d [P]: (D - min D)/(max D - min D) in each of the consecutive tensors of `sizes`."""

    def scaled(part: Tensor) -> Tensor:
        low, high = part.min(), part.max()
        return (part - low) / (high - low) if high > low else part.new_ones(part.shape)

    guidance = d.new_empty(d.shape)
    for into, part in zip(guidance.split(list(sizes)), d.split(list(sizes)), strict=True):
        into.copy_(scaled(part))
    return guidance


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)
    guided = hp.guidance != "none"

    def init_server(theta):
        server = {"theta": theta, "buffer": theta.new_zeros(theta.shape)}
        if guided:
            server |= {"guidance": theta.new_ones(theta.shape), "exploring": theta.new_ones(())}
        return server

    def downlink(server):
        return {name: value for name, value in server.items() if name != "buffer"}

    def start(down, client):
        return base.start(down, client) | ({"guidance": down["guidance"]} if guided else {})

    def grad(work, batch, task):
        g, aux = base.grad(work, batch, task)
        return g * work["guidance"] if guided else g, aux

    def finish(work, down, client, done):
        up, _ = base.finish(work, down, client, done)
        return {"delta": up["delta"] ** 2} if guided and down["exploring"] else up, client

    def serve(server, up, info):
        if guided and server["exploring"]:
            found = {"guidance": minmax(up["delta"], info.sizes), "exploring": server["exploring"] * 0}
            return server | found
        buffer = hp.server_momentum * server["buffer"] + (1 - hp.server_momentum) * up["delta"]
        return server | {"theta": server["theta"] + buffer, "buffer": buffer}  # the sign of -buf

    return replace(base, init_server=init_server, downlink=downlink, start=start, grad=grad, finish=finish, serve=serve)
