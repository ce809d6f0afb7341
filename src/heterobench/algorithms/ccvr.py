"""CCVR: FedAvg, and at the end a classifier that is trained again on features drawn from the classes' Gaussians.

Luo, Chen, Hu, Zhang, Liang, Feng, "No Fear of Heterogeneity: Classifier Calibration for Federated Learning with
Non-IID Data", NeurIPS 2021, arXiv 2106.05001, Algorithm 1. No code of the authors.

Symbols: z the input of the net's last linear layer; n_kc, mu_kc, S_kc number, mean and unbiased covariance of z over
the examples of class c at client k; mu_c, Sigma_c those of all clients together, M_c = samples virtual features of
N(mu_c, Sigma_c) for each class. The last layer, from the federated weights on, takes SGD steps on them.
The last round in which anybody comes is the calibration: its cohort passes over its data once, at the global model,
and sends statistics in place of an update, so the comparison stays fair; with one round there is nothing else. Who does
not take part in it is not in the statistics, and neither are the earlier stages of a stream.
Deviations: public ports divide S_kc by n_kc but pool it as if by n_kc - 1; here both are unbiased, and the pooled
statistics are exact. Everything is in float64, which is what is sent: 8 C (d^2 + d + 1) bytes a client. Features are
taken as they are: neither a power transform before, nor a clipping of negative draws after a ReLU. A class of one
example has Sigma_c = 0 and is M_c times that feature; a class that nobody holds has no virtual features, and remains in
the softmax as an answer that is always wrong, as in training. The penalty is FedAvg's weight_decay.
Costs: as in AFL, features and sums are not in the counted gradients, FLOPs and simulated seconds.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from pydantic import Field

from heterobench import keyed
from heterobench.algorithm import Algorithm
from heterobench.algorithms import fedavg
from heterobench.algorithms._gaussians import Gaussians, collecting
from heterobench.algorithms._sums import one_hot
from heterobench.config.numbers import Count, CountOrNone, Decay, Positive

if TYPE_CHECKING:
    from torch import Tensor


class HyperParameters(fedavg.HyperParameters):
    samples: Count = Field(200, description="M_c, virtual features of each class")
    calibration_epochs: CountOrNone = Field(10, description="passes over the virtual features")
    calibration_lr: Positive = Field(0.01, description="step size of the calibration")
    calibration_momentum: Decay = Field(0.9, description="its heavy-ball momentum")
    calibration_batch: Count = Field(64, description="virtual features in a batch")


EXCEPTIONS = {"one_client": "the last round trains the last layer alone, on virtual features"}


def virtual(found: Gaussians, samples: int, seed: int, round: int) -> tuple[Tensor, Tensor]:
    """Virtual features z [n, F] and their classes y [n]: `samples` of every class that has examples.

    A class has a draw of its own, so that it does not depend on which others there are.
    """
    from torch import cat, full

    z, y = [], []
    for c in (c for c, count in enumerate(found.count.tolist()) if count):
        noise = keyed.generator(seed, "virtual features", round, c).standard_normal((samples, found.mean.shape[1]))
        z.append(found.drawn(c, noise))
        y.append(full((samples,), c, device=found.mean.device))
    return cat(z), cat(y)


def calibrated(hp: HyperParameters, layer: Tensor, z: Tensor, y: Tensor, orders) -> Tensor:
    """The layer [C, F + 1], its last column the bias, after SGD on the mean cross-entropy of z [n, F + 1], y [n].

    `orders` draws the order of each epoch; a column of zeros in z leaves its weights where they are.
    """
    from torch import from_numpy

    layer, velocity, truth = layer.clone(), layer.new_zeros(layer.shape), one_hot(y, len(layer))
    for _ in range(hp.calibration_epochs):
        for chosen in from_numpy(orders.permutation(len(y))).to(y.device).split(hp.calibration_batch):
            x = z[chosen]
            g = ((x @ layer.T).softmax(1) - truth[chosen]).T @ x / len(x)
            velocity = hp.calibration_momentum * velocity + g + hp.weight_decay * layer
            layer -= hp.calibration_lr * velocity
    return layer


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)

    @cache
    def calibrating(head) -> Algorithm:
        def serve(server, up, info):
            z, y = virtual(Gaussians(**up).pooled(), hp.samples, info.seed, info.round)
            return {"theta": retrained(server["theta"], z, y, keyed.generator(info.seed, "calibration", info.round))}

        def retrained(theta, z, y, orders):
            from torch import cat

            weight, bias = head.read(theta)
            ones = z.new_full((len(z), 1), float(head.bias))
            bias = weight.new_zeros(head.classes) if bias is None else bias
            layer = calibrated(hp, cat((weight, bias[:, None]), 1).double(), cat((z, ones), 1), y, orders)
            return head.written(theta, layer[:, :-1], layer[:, -1] if head.bias else None)

        return replace(collecting(base, head), serve=serve)

    def at(phase):
        return calibrating(phase.head) if phase.turn == phase.turns - 1 else base

    return replace(base, at=at, tags=base.tags | {"length"})
