"""DiLoCo: many AdamW steps on every island, then one step of Nesterov momentum with the averaged difference.

Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models", arXiv 2311.08105, Algorithm 1.
No code of the authors; details are those of the reproduction OpenDiLoCo.

Symbols: H inner steps are the local steps of a round; D = mean of (x - y_j) the outer gradient, v <- mu v + D,
x <- x - lr_out (D + mu v), with lr_out = server_lr and mu = outer_momentum (Nesterov momentum as in torch: the first
step moves by lr_out (1 + mu) D). Clients keep AdamW's moments and its number of steps between rounds; they are neither
averaged nor reset. Gradients are clipped to norm max_norm; weight decay belongs to the inner optimiser alone.
The inner step size is lr times min(1, t / warmup_steps), times (1 + cos(pi s)) / 2 with s the share of the steps from
warmup_steps to total_steps that is done; t counts the client's own inner steps over all rounds, from 0.
Deviation: training begins at the table's initial weights, not at a pretrained model. Where a client does not take
part in a round, its inner optimiser stands still. The mean is uniform, as in the code; "weighted" is the paper's
other choice.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator

from heterobench.algorithm import Algorithm, Neutral
from heterobench.algorithms import fedavg
from heterobench.algorithms._local_adamw import MOMENTS, LocalAdamW
from heterobench.config.numbers import CountOrNone, Decay, NonNegative, Positive


class HyperParameters(LocalAdamW):
    lr: Positive = Field(4e-4, description="inner step size after the warm-up")
    optimiser: Literal["sgd", "adamw"] = Field("adamw", description="inner optimiser")
    beta2: Decay = Field(0.95, description="decay of AdamW's second moment")
    max_norm: NonNegative = Field(1.0, description="inner gradients are clipped to this norm; 0: they are not")
    warmup_steps: CountOrNone = Field(0, description="inner steps of linear warm-up")
    total_steps: CountOrNone = Field(0, description="inner steps until the cosine is zero; 0: no cosine")
    server_lr: Positive = Field(0.7, description="outer step size")
    outer_momentum: Decay = Field(0.9, description="mu of the outer Nesterov momentum")
    weighting: Literal["weighted", "uniform"] = Field("uniform", description="of the clients in the outer gradient")

    @model_validator(mode="after")
    def _schedule(self):
        if self.optimiser == "sgd" and (self.warmup_steps or self.total_steps):
            raise ValueError("warmup_steps and total_steps belong to optimiser: adamw, which counts its steps")
        if 0 < self.total_steps <= self.warmup_steps:
            raise ValueError("total_steps must be larger than warmup_steps")
        return self


PLAIN = {"optimiser": "sgd", "max_norm": 0.0, "weight_decay": 0.0}
NEUTRAL = Neutral(PLAIN | {"server_lr": 1.0, "outer_momentum": 0.0}, {"weighting": "uniform"})


def share(hp: HyperParameters, t):
    """Factor [] on the inner step size after `t` inner steps (a float tensor [])."""
    factor = (t / max(1, hp.warmup_steps)).clamp(max=1) if hp.warmup_steps else t * 0 + 1
    if hp.total_steps:
        done = ((t - hp.warmup_steps) / (hp.total_steps - hp.warmup_steps)).clamp(0, 1)
        factor = factor * (1 + (math.pi * done).cos()) / 2
    return factor


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)
    kept = MOMENTS if hp.optimiser == "adamw" else ()
    scheduled = hp.warmup_steps or hp.total_steps

    def init_server(theta):
        return {"theta": theta, "v": theta.new_zeros(theta.shape)}

    def init_client(theta):
        work = hp.begin(theta)
        return {name: work[name] for name in kept}

    def start(down, client):
        return base.start(down, client) | {name: client[name].clone() for name in kept}

    def grad(work, batch, task):
        g, aux = base.grad(work, batch, task)
        return g * (hp.max_norm / (g.norm() + 1e-6)).clamp(max=1) if hp.max_norm else g, aux

    def step(work, g, step):
        return hp.adamw(work, g, step.lr * share(hp, work["count"])) if scheduled else hp.step(work, g, step)

    def finish(work, down, client, done):
        up, _ = base.finish(work, down, client, done)
        return up, {name: work[name] for name in kept}

    def serve(server, up, info):
        v = hp.outer_momentum * server["v"] + up["delta"]  # the sign of -D
        return {"theta": server["theta"] + hp.server_lr * (up["delta"] + hp.outer_momentum * v), "v": v}

    return replace(
        base,
        init_server=init_server,
        init_client=init_client,
        downlink=lambda server: {"theta": server["theta"]},
        start=start,
        grad=grad,
        step=step,
        finish=finish,
        serve=serve,
        tags=frozenset({"stateful"} if kept else ()),
    )
