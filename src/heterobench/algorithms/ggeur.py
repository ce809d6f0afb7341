"""GGEUR: clients fill up their classes with features drawn around their own, in the shape that all clients' data have.

Ma, Dai, Huang, Chen, "Geometric Knowledge-Guided Localized Global Distribution Alignment for Federated Learning",
CVPR 2025, arXiv 2503.06457. The code of the authors (no licence) was read for facts.

Symbols: z features under the frozen extractor; n_kc, mu_kc, S_kc number, mean and covariance of z over the examples of
class c at client k; Sigma_c the covariance of all clients' z of class c, biased, exact for any partition.
The first round in which anybody comes sends statistics and trains nothing; in the others FedAvg trains the last layer
on own and generated features. Clients count equally, whatever they had before they generated. Who comes later is not in
the statistics, and neither are the later stages of a stream. A client with n of class c has T_c = target rows of it:
its own, bit for bit, and T_c - n more. Where it has at least as many as it lacks, one draw N(z, Sigma_c + jitter I)
around each of that many; else `draws` around every own z (more where they do not suffice), of which that many are
chosen. A class that it lacks it goes on lacking; with more than T_c it keeps what it has. prototype_draws > 0 is the
form for clients of several domains: as many draws around every other client's mu_kc join the choice, also for a class
that the client lacks.
Generated rows are the same in every round, and drawn anew in each: what a client keeps are the roots of the Sigma_c,
which come with the first model that it receives after the statistics, and with every one until all clients have them.
Means are sent with every model where prototypes are asked for.
Followed is the paper, not the code: one softmax under the cross-entropy (the code has two), clients begin every round
at the server's model (in the code they never load it), the last local model counts (the code's best one is the last one
by accident), eigenvalues are those of Sigma_c (in the code for several domains the ten smallest are enlarged).
Costs: a gradient of the last layer counts as one of the whole net; statistics and draws are in time and energy only.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
from pydantic import Field

from heterobench.algorithm import Algorithm
from heterobench.algorithms import fedavg
from heterobench.algorithms._gaussians import Gaussians, around, collecting, features, root
from heterobench.algorithms._local_adamw import LocalAdamW
from heterobench.config.numbers import Count, CountOrNone, NonNegative


class HyperParameters(LocalAdamW):
    target: Count = Field(500, description="T_c, rows of each class that a client holds, its own included")
    draws: Count = Field(500, description="draws around each own example, of which the missing rows are chosen")
    prototype_draws: CountOrNone = Field(0, description="draws around each other client's class mean; 0: none")
    weighting: Literal["uniform"] = Field("uniform", description="w_i = 1/|S|: what clients train on is generated")
    jitter: NonNegative = Field(1e-6, description="added to the variance of every draw in every direction")


EXCEPTIONS = {
    "quadratics": "it trains the last layer on features, whatever the loss",
    "one_client": "its first round collects statistics, and it trains the last layer alone",
    "long_round": "its first round takes no steps",
    "relabelling": "what a client draws is decided by its number",
}


def sources(n: int, others: int, hp: HyperParameters, generator: np.random.Generator) -> np.ndarray:
    """Around which rows the missing ones of a class are drawn: numbers of `n` own rows and, after them, `others`."""
    need = hp.target - n
    if need <= 0 or n + others == 0:
        return np.zeros(0, np.int64)
    if need <= n and not others:
        return generator.choice(n, need, replace=False)
    around_own = n * max(hp.draws, -(-need // n)) if n else 0
    around_others = others * max(hp.prototype_draws, 0 if n else -(-need // others))
    chosen = generator.choice(around_own + around_others, need, replace=False)
    return np.where(chosen < around_own, chosen % max(n, 1), n + (chosen - around_own) % max(others, 1))


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)

    @cache
    def collects(head) -> Algorithm:
        plain = collecting(base, head)

        def init_client(theta):
            zero = theta.double().new_zeros(head.classes, head.features, head.features)
            return {"root": zero, "told": theta.new_zeros(()), "mean": zero[..., 0].clone()}

        def finish(work, down, client, done):
            up, client = plain.finish(work, down, client, done)
            return up, client | {"mean": up["mean"]}

        def serve(server, up, info):
            everybody = Gaussians(**up)
            pooled, total = everybody.pooled(), everybody.count.sum(0)[:, None, None]
            means = {"mean": everybody.mean, "count": everybody.count} if hp.prototype_draws else {}
            biased = pooled.covariance * (total - 1).clamp(min=0) / total.clamp(min=1)
            return server | {"covariance": biased} | means

        return replace(plain, init_client=init_client, finish=finish, serve=serve)

    @cache
    def trains(head) -> Algorithm:
        def virtual(down, client, own):
            from torch import cat, full_like, ones_like, stack

            if "covariance" in down and not client["told"]:
                roots = stack([root(covariance, hp.jitter) for covariance in down["covariance"]])
                client = client | {"root": roots, "told": ones_like(client["told"])}
            z = features(down["theta"], own)
            x, y = [z], [own.y]
            for c in range(head.classes) if client["told"] else ():
                middles = z[own.y == c].double()
                n = len(middles)
                if hp.prototype_draws:
                    means = down["mean"][down["count"][:, c] > 0, c]
                    middles = cat((middles, means[(means != client["mean"][c]).any(1)]))
                generator = own.generator("generated", c)
                chosen = sources(n, len(middles) - n, hp, generator)
                noise = generator.standard_normal((len(chosen), head.features))
                x.append(around(middles[chosen], client["root"][c], noise).to(z.dtype))
                y.append(full_like(own.y[:1], c).expand(len(chosen)))
            return client, cat(x), cat(y)

        def grad(work, batch, task):
            return task.head_grad(work["theta"], batch)

        def serve(server, up, info):
            done = {"covariance"} if info.cohort == info.population else set()
            return {name: entry for name, entry in server.items() if name not in done} | base.serve(server, up, info)

        return replace(base, virtual=virtual, grad=grad, serve=serve)

    def at(phase):
        return (trains if phase.turn else collects)(phase.head)

    return replace(base, at=at, tags=frozenset({"head-only", "stateful"}))
