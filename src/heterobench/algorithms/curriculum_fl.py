"""Curricula in FedAvg: a client's easy examples come first, and more of them as its local steps go on.

Vahidian, Kadaveru, Baek, Wang, Kungurtsev, Chen, Shah, Lin, "When Do Curricula Work in Federated Learning?", ICCV
2023, arXiv 2212.12712, ordering of examples, in the form of the authors' code.

Symbols: N examples of a client, T its local steps, l_n loss of example n under the model that it receives ("global"),
the one it ended its last participation with ("local"; the received one the first time), or the sum of both losses;
order: argsort of l_n ascending, that list reversed ("anti"), or shuffled ("random"). In step s the client sees
the first max(pace(s), minimum) examples of the order: pace grows from b N to N, which it has after a T steps. The
visible examples are gone through once, shuffled, before their number is looked at again.
client_order does the same with clients: the server orders all by their mean loss, takes the first
max(pace_c(u), m) of them as a pool, u the number of client updates so far of U = R m, and visits these once, shuffled,
m a round (fewer in the last one of a pool), before it asks everybody again. pace_c has client_a and client_b. Who has
no examples in the next stage of a stream leaves the pool.
Deviation: T is the number of steps of every other method, ceil(N / B) E, so that all have the same work; the code has
one more an epoch where B divides N. The last pass ends with T. lr_decay is by round, not by local step. Scores of an
expert are not offered: it would have to be trained on somebody's data. Without client_order, which is the default,
cohorts are those of all methods of a table; with it they are the method's own.
Costs: scoring is a forward pass of all examples in a round (two for "both"), which is in time and energy, but not in
the counted FLOPs. It is left out where all examples are visible from the beginning. Scores of clients cost a model to
everybody and a number back, which are counted, in time and energy as well; on the simulated clock they take no time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from heterobench.algorithm import Algorithm, LocalData, Neutral
from heterobench.algorithms import fedavg
from heterobench.algorithms._pacing import ordered, pace
from heterobench.config.numbers import Count, PositiveShare


class HyperParameters(fedavg.HyperParameters):
    order: Literal["curriculum", "anti", "random"] = Field("curriculum", description="easy, hard or any first")
    scoring: Literal["global", "local", "both"] = Field("global", description="the model that says what is easy")
    pacing: Literal["linear", "quadratic", "root", "step", "exponential", "logarithmic"] = Field(
        "linear", description="how the number of visible examples grows"
    )
    a: PositiveShare = Field(0.8, description="share of the local steps after which all examples are visible")
    b: PositiveShare = Field(0.2, description="share of the examples that are visible at first")
    minimum: Count = Field(32, description="number of examples that are always visible")
    client_order: Literal["none", "curriculum", "anti", "random"] = Field(
        "none", description="easy, hard or any clients first; none: the schedule's cohorts"
    )
    client_a: PositiveShare = Field(0.8, description="share of the client updates after which all are in the pool")
    client_b: PositiveShare = Field(0.2, description="share of the clients that are in the pool at first")


NEUTRAL = Neutral({"b": 1.0})


def paced(hp: HyperParameters, order: np.ndarray, data: LocalData) -> list[np.ndarray]:
    """The batches of T steps, passes over the visible part of `order` [N]."""
    steps, shuffle = -(-data.count // data.size) * data.epochs, data.generator("batches")
    batches: list[np.ndarray] = []
    while len(batches) < steps:
        visible = order[: max(pace(hp, len(batches), steps, data.count), hp.minimum)]
        visible = visible[shuffle.permutation(len(visible))]
        batches += [visible[first : first + data.size] for first in range(0, len(visible), data.size)]
    return batches[:steps]


def choosing(hp: HyperParameters, base: Algorithm) -> Algorithm:
    """`base` with a server that goes through pools of clients; S has the rest of the pool, and u."""
    own = hp.model_copy(update={"order": hp.client_order, "a": hp.client_a, "b": hp.client_b})

    def init_server(theta):
        nobody = theta.new_zeros(0).long()
        return base.init_server(theta) | {"pool": nobody, "updates": theta.new_zeros(()).long()}

    def downlink(server):
        return {"theta": server["theta"]}

    def select(server, given):
        waiting, updates = server["pool"].numpy(force=True), int(server["updates"])
        waiting = waiting[np.isin(waiting, given.ids)]
        if not len(waiting):
            visible = pace(own, updates, given.rounds * given.count, len(given.ids))
            if hp.client_order == "random":
                order = given.generator.permutation(len(given.ids))
            else:
                order = ordered(own, given.losses(server["theta"]))
            waiting = given.generator.permutation(given.ids[order[: max(visible, given.count)]])
        chosen, waiting = waiting[: given.count], waiting[given.count :]
        pool = server["pool"].new_tensor(waiting.tolist())
        return server | {"pool": pool, "updates": server["updates"] + len(chosen)}, chosen

    def serve(server, up, info):
        return server | base.serve(server, up, info)

    tags = base.tags | {"selective", "length"}
    return replace(base, init_server=init_server, downlink=downlink, select=select, serve=serve, tags=tags)


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)
    if hp.client_order != "none":
        base = choosing(hp, base)
    remembers = hp.scoring != "global" and hp.order != "random"

    def init_client(theta):
        return {"last": theta, "known": theta.new_zeros(())}

    def scores(down, client, data):
        received = data.losses(down["theta"])
        if not remembers:
            return received
        own = data.losses(client["last"]) if client["known"] else received
        return received + own if hp.scoring == "both" else own

    def batches(down, client, data):
        if max(pace(hp, 0, 1, data.count), hp.minimum) >= data.count:
            return paced(hp, np.arange(data.count), data)
        if hp.order == "random":
            return paced(hp, data.generator("curriculum").permutation(data.count), data)
        return paced(hp, ordered(hp, scores(down, client, data)), data)

    def finish(work, down, client, done):
        return base.finish(work, down, client, done)[0], {"last": work["theta"], "known": client["known"] * 0 + 1}

    if not remembers:
        return replace(base, batches=batches)
    return replace(base, batches=batches, init_client=init_client, finish=finish, tags=base.tags | {"stateful"})
