"""FedLGD: clients train on small virtual sets of their own and of the server's, which are distilled on the way.

Huang, Jin, Zhao, Xu, Li, "Federated Learning on Virtual Heterogeneous Data with Local-Global Dataset Distillation",
TMLR 2024, arXiv 2303.02278, in the form of the authors' code (no licence; read for facts).

Symbols: S_i virtual examples of client i, S_g of the server, x server model, y_i local model, psi what the net's last
layer reads. S_i starts as normal noise with the client's mean and deviation per class and channel and is warmed up by
distribution matching under random nets, one for each step; refreshed under psi of x every refresh_every rounds, up to
`updates` times. S_g starts as noise with the mean of the clients' statistics; every distil_every rounds its gradient at
the old x is matched to the round's change of x; rounds are those in which anybody comes. Clients train on S_i and S_g
together, with cross-entropy plus similarity times a supervised contrastive loss over psi of the batch and of all of
S_g; in the rounds in which S_g is distilled, with cross-entropy alone. Labels are never changed; real examples are seen
by distribution matching only.
Deviations: the first round trains on S_i alone and brings the statistics up, so no round is spent on them; a class that
a client does not hold, or nobody, is left out of S_i, or of S_g; the server's step is not divided by lr, for the cosine
does not see its length. In a stream S_i keeps the classes of the client's first round. S_g is sent when it has changed,
until all clients have it. Virtual examples are in the scale of what the net sees, and are not clipped. They show what
they are made of: this is no protection of privacy.
Costs: distillation, which dominates, is in time and energy, not in the counted gradients and FLOPs; nor are gradients
through psi of S_g.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal

from pydantic import Field

from heterobench import keyed
from heterobench.algorithm import Algorithm
from heterobench.algorithms import fedavg
from heterobench.algorithms._distillation import Descent, distilled, labelled, matched, noise, statistics
from heterobench.algorithms._similarity import supervised_contrast
from heterobench.config.numbers import Count, CountOrNone, Decay, NonNegative, Positive


class HyperParameters(fedavg.HyperParameters):
    lr: Positive = Field(0.01, description="local step size eta_l")
    weighting: Literal["uniform"] = Field("uniform", description="w_i = 1/|S|: what clients train on is virtual")
    per_class: Count = Field(50, description="virtual examples of each class at a client")
    server_per_class: Count = Field(10, description="virtual examples of each class at the server")
    similarity: NonNegative = Field(1.0, description="weight of the contrastive loss")
    temperature: Positive = Field(0.07, description="T of the contrastive loss")
    warmup_steps: CountOrNone = Field(10_000, description="of distribution matching before a client's first round")
    refresh_steps: CountOrNone = Field(100, description="of distribution matching in a refresh")
    distil_steps: CountOrNone = Field(500, description="of gradient matching at the server")
    refresh_every: Count = Field(5, description="rounds from one refresh of S_i to the next")
    distil_every: Count = Field(5, description="rounds from one distillation of S_g to the next")
    updates: CountOrNone = Field(10, description="after the first, so many refreshes and distillations")
    real_batch: Count = Field(256, description="real examples of each class in a step of distribution matching")
    image_lr: Positive = Field(1.0, description="step size on virtual examples")
    image_momentum: Decay = Field(0.5, description="its heavy-ball momentum")


EXCEPTIONS = {
    "quadratics": "it trains on virtual examples",
    "one_client": "it trains on virtual examples",
}


def make(hp: HyperParameters) -> Algorithm:
    base, on_images = fedavg.make(hp), (hp.image_lr, hp.image_momentum)

    @cache
    def stage(head, shape: tuple[int, ...], turn: int, refreshes: bool, distils: bool) -> Algorithm:
        def blank(theta, count):
            return theta.new_zeros(head.classes, count, *shape), theta.new_zeros(head.classes)

        def init_server(theta):
            images, known = blank(theta, hp.server_per_class)
            return {"theta": theta, "images": images, "known": known, "sent": theta.new_ones(())}

        def init_client(theta):
            images, held = blank(theta, hp.per_class)
            anchors, known = blank(theta, hp.server_per_class)
            statistics = dict.fromkeys(("mean", "std"), theta.new_zeros(head.classes, shape[0]))
            return {"images": images, "held": held, "anchors": anchors, "known": known} | statistics

        def downlink(server):
            return {name: server[name] for name in (("theta",) if server["sent"] else ("theta", "images", "known"))}

        def virtual(down, client, own):
            from torch import cat

            if "images" in down:
                client = client | {"anchors": down["images"], "known": down["known"]}
            if not client["held"].any():
                client = client | statistics(own, head.classes)
                images = noise(client, client["images"], own.generator("virtual examples"))
                client["images"] = matching(images, own, None, hp.warmup_steps)
            elif refreshes:
                client = client | {"images": matching(client["images"], own, down["theta"], hp.refresh_steps)}
            sets = [labelled(client["images"], client["held"]), labelled(client["anchors"], client["known"])]
            return client, *(cat(parts) for parts in zip(*sets, strict=True))

        def matching(images, own, theta, steps):
            descent, generator = Descent(steps, *on_images), own.generator("distribution matching", turn)
            return matched(images, own, theta, hp.real_batch, descent, generator)

        def start(down, client):
            x, y = labelled(client["anchors"], client["known"])
            return base.start(down, client) | {"anchors": x, "classes": y}

        def grad(work, batch, task):
            from torch import cat

            weight = batch.weights(work["theta"])
            y, nothing = cat((batch.y, work["classes"])), weight.new_zeros(len(work["classes"]))

            def term(outputs):
                there = cat((weight > 0, nothing == 0))
                return hp.similarity * supervised_contrast(outputs.features, y, there, hp.temperature)

            joined = batch._replace(x=cat((batch.x, work["anchors"])), y=y, weight=cat((weight, nothing)))
            return task.grad(work["theta"], joined, term)

        def finish(work, down, client, done):
            up, client = base.finish(work, down, client, done)
            return up | ({} if turn else {name: client[name] for name in ("mean", "std", "held")}), client

        def serve(server, up, info):
            after = server | base.serve(server, up, info)
            if not turn:
                held = up["held"][:, :, None]
                means = {name: (held * up[name]).sum(0) / held.sum(0).clamp(min=1) for name in ("mean", "std")}
                after["known"] = up["held"].amax(0)
                after["images"] = noise(means, server["images"], keyed.generator(info.seed, "virtual examples"))
            if distils:
                change = server["theta"] - after["theta"]
                given = (after["images"], after["known"], server["theta"], change, info.task)
                after["images"] = distilled(*given, Descent(hp.distil_steps, *on_images))
            everybody = server["sent"].new_tensor(float(info.cohort == info.population))
            after["sent"] = everybody * 0 if distils or not turn else server["sent"].maximum(everybody)
            return after

        plain = distils or not hp.similarity
        reduce = base.reduce | ({} if turn else dict.fromkeys(("mean", "std", "held"), "stack"))
        return replace(
            base,
            init_server=init_server,
            init_client=init_client,
            downlink=downlink,
            virtual=virtual,
            start=base.start if plain else start,
            grad=base.grad if plain else grad,
            finish=finish,
            serve=serve,
            reduce=reduce,
        )

    def at(phase):
        def due(every: int) -> bool:
            return phase.turn % every == 0 and phase.turn <= every * hp.updates

        refreshes, distils = due(hp.refresh_every), due(hp.distil_every)
        return stage(phase.head, phase.shape, phase.turn if refreshes else min(phase.turn, 1), refreshes, distils)

    return replace(base, at=at, tags=frozenset({"stateful"}))
