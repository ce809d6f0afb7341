"""FedAMD: a coin makes each client an anchor, which refreshes its cached gradient, or a miner, which trains.

Wu, Guo, Qu, He, Liu, Gao, "Anchor Sampling for Federated Learning with Partial Client Participation", ICML 2023,
arXiv 2206.05891. The authors' code does not run as published; where its main scripts and its functions differ, the
functions were followed.

Symbols: v_m cached gradient of client m, vbar mean of the caches before the round, p_t probability of an anchor.
Anchor: v_m <- grad f_m(x), over all its examples; it does not move x.
Miner: y = y_prev = x, g = vbar, then K times g <- g - grad f_m(y_prev; b) + grad f_m(y; b), y_prev <- y,
y <- y - eta g, both gradients on the same batch b; x <- x + server_lr * mean over the miners of (y - x), uniform;
x stays where the cohort has no miner.
p below 1 is p_t; a whole number is a period: everybody is an anchor in rounds 0, p, 2p, ... (1: always; the code's
test is never true then). "optb" and "optc" are the code's formulas for N clients of which A took part in the round
before. Rounds are those in which anybody takes part: one without does not delay the next anchors.

Deviation: the paper begins with the gradients of ALL clients at x_0, outside of its rounds. Here that is round 0, in
which everybody who takes part is an anchor, and vbar is the mean over the clients that have a cache; with full
participation from then on there is no difference but the round that it costs. "opta" is not offered, its formula
was not at hand. An anchor goes through its data as often as a miner does in its local epochs, for the same gradient;
`local_work` cuts miners short, never anchors.
The code's step size is halved at 50% and 75% of the rounds; see lr_decay. Weight decay (not in the paper) belongs to
f_m. Local momentum is refused, as g is the momentum.
Costs: x and vbar go down; one vector goes up, v_m's change or y - x. Miners take two gradients in a step, anchors one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field, field_validator

from heterobench.algorithm import Algorithm
from heterobench.algorithms import fedavg
from heterobench.config.numbers import Positive, Zero


class HyperParameters(fedavg.HyperParameters):
    p: Positive | Literal["optb", "optc"] = Field(
        0.2, description="probability of an anchor, period of anchor rounds, or rule"
    )
    momentum: Zero = Field(0, description="a miner's direction already adds up over its steps")
    weighting: Literal["uniform"] = Field("uniform", description="the means over caches and miners are uniform")

    @field_validator("p")
    @classmethod
    def _probability_or_period(cls, p):
        if not isinstance(p, str) and not (0 < p < 1 or (p >= 1 and p.is_integer())):
            raise ValueError("allowed: a number between 0 and 1, a whole number from 1 (a period), optb, optc")
        return p


EXCEPTIONS = {
    "one_client": "anchors stand still, and miners follow the cached gradient",
    "long_round": "in the first round everybody is an anchor and stands still",
}


def anchor_probability(p: Positive | str, round: int, cohort: int, population: int) -> float:
    """p_t of a round after the first, for A = `cohort` of N = `population` clients."""
    ratio = population / cohort
    if p == "optb":
        return (4 * ratio**2 + 2 * ratio) ** 0.5 - 2 * ratio
    if p == "optc":
        return (2 / (cohort + 2)) ** (1 / cohort)
    return p if p < 1 else float(round % p == 0)


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp.model_copy(update={"weight_decay": 0.0}))

    def init_server(theta):
        zero = theta.new_zeros(())
        return {"theta": theta, "v": theta.new_zeros(theta.shape), "known": zero, "p": zero + 1}

    def init_client(theta):
        return {"v": theta.new_zeros(theta.shape), "known": theta.new_zeros(())}

    def downlink(server):
        mean = server["v"] / server["known"].clamp(min=1e-9)  # nobody has a cache: 0
        return {"theta": server["theta"], "vbar": mean, "p": server["p"]}

    def start(down, client):
        x, miner = down["theta"], (client["chance"] >= down["p"]).to(down["theta"].dtype)
        fixed = {"miner": miner, "sum": x.new_zeros(x.shape), "seen": x.new_zeros(())}
        return {"theta": x.clone(), "previous": x.clone(), "direction": miner * down["vbar"]} | fixed

    def anchor(down, client):
        return bool(client["chance"] < down["p"])

    def slope(theta, batch, task):
        g, aux = task.grad(theta, batch)
        return g + hp.weight_decay * theta, aux

    def grad(work, batch, task):
        examples = len(batch.y) if batch.weight is None else (batch.weight > 0).sum()
        weight = batch.weights(work["theta"]) * work["miner"]
        here, aux = slope(work["theta"], batch, task)
        # without weights for an anchor: it needs no second gradient, and none is counted
        before, _ = slope(work["previous"], batch._replace(weight=weight), task)
        work["sum"].add_(examples * here)
        work["seen"].add_(examples)
        return work["direction"] + work["miner"] * (here - before), aux

    def step(work, g, step):
        work["previous"].copy_(work["theta"])
        work["theta"].sub_(g, alpha=step.lr)
        return work | {"direction": g}

    def finish(work, down, client, done):
        if work["miner"]:
            kept = {"v": client["v"], "known": client["known"]}
            sent = work["theta"] - down["theta"]
        else:
            kept = {"v": work["sum"] / work["seen"], "known": client["known"].new_ones(())}
            sent = kept["v"] - client["v"]
        return {"sent": sent, "miner": work["miner"], "new": kept["known"] - client["known"]}, kept

    def serve(server, up, info):
        miner, sent, n = up["miner"], up["sent"], info.population
        return {
            "theta": server["theta"] + hp.server_lr * (miner @ sent) / miner.sum().clamp(min=1),
            "v": server["v"] + (1 - miner) @ sent / n,
            "known": server["known"] + up["new"].sum() / n,
            "p": server["p"].new_tensor(anchor_probability(hp.p, info.turn + 1, info.cohort, n)),
        }

    return replace(
        base,
        init_server=init_server,
        init_client=init_client,
        downlink=downlink,
        start=start,
        grad=grad,
        step=step,
        finish=finish,
        serve=serve,
        reduce={"sent": "stack", "miner": "stack", "new": "stack"},
        chance=True,
        whole=anchor,
        tags=frozenset({"stateful", "drift-free"}),
    )
