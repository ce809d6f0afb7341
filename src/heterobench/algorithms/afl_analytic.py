"""AFL (analytic): one round, no gradients: the head's least squares, solved from sums over all clients' examples.

He, Tong, Fang, Sun, Zeng, Li, Chen, Zhuang, "AFL: A Single-Round Analytic Approach for Federated Learning with
Pre-trained Models", CVPR 2025, arXiv 2405.16240, with the clean-up of the authors' code (RI process).

Symbols: X_i features [n_i, d] under the frozen extractor, Y_i one-hot labels [n_i, C], C_i = X_i^T X_i + gamma I,
W_i = C_i^-1 X_i^T Y_i, k clients. Absolute aggregation of two clients is W = (C_1 + C_2)^-1 (C_1 W_1 + C_2 W_2), so of
all of them (sum C_i)^-1 sum C_i W_i, which is ridge regression with penalty k gamma; the clean-up takes k gamma I away,
and W = (sum X_i^T X_i)^-1 sum X_i^T Y_i depends neither on gamma nor on who holds what.
Deviations: clients send C_i and C_i W_i = X_i^T Y_i in place of C_i and W_i (as many bytes; the server then only adds).
All sums and solutions are in float64 (the code's X^T X is float32). Where the net's last layer has a bias, X has a
last column of ones for it, penalised like the rest; the code has no bias. Directions in which no client has data
(eigenvalues below d eps times the largest) get weight 0, which is the shortest of all solutions; the code divides by
their rounding errors.

The first round in which anybody comes is all: one pass over the data, whatever the local epochs and `local_work`; after
it nothing happens and nothing is sent. k is the number of clients of that round; whom the schedule leaves out of it is
left out for good, and so are the later stages of a stream. Costs: features and products are in wall time and energy,
but not in the counted gradients, FLOPs and simulated seconds. The head's outputs are no log-odds: accuracy counts, its
loss does not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from heterobench.algorithm import Algorithm
from heterobench.algorithms._sums import loss, one_hot, rows
from heterobench.config.numbers import Positive
from heterobench.config.strict import Strict

if TYPE_CHECKING:
    from torch import Tensor

    from heterobench.algorithm import Head


class HyperParameters(Strict):
    gamma: Positive = Field(1.0, description="each client's penalty; makes its C_i regular")
    cleanup: bool = Field(True, description="take the penalties away at the end (RI process)")


EXCEPTIONS = {
    "quadratics": "it solves least squares to one-hot labels, whatever the loss",
    "one_client": "it takes no steps",
    "long_round": "it takes no steps",
}


def solved(gram: Tensor, cross: Tensor, shift: float) -> Tensor:
    """(gram - shift I)^-1 cross [d, C] of gram [d, d] and cross [d, C]; 0 in directions where gram is shift alone."""
    from torch import finfo, linalg

    s, q = linalg.eigh(gram)
    least = len(s) * finfo(s.dtype).eps * s[-1]
    inverse = (1 / (s - shift)).where(s - shift > least, s.new_zeros(()))
    return q @ (inverse[:, None] * (q.T @ cross))


def make(hp: HyperParameters) -> Algorithm:
    def solving(head: Head | None) -> Algorithm:
        def start(down, client):
            sums = down["theta"].double().new_zeros(head.width, head.width + head.classes)
            return {"theta": down["theta"], "sums": sums}

        def grad(work, batch, task):
            from torch import cat

            z = task.features(work["theta"], batch)
            x = rows(z, batch, head.bias)
            return x.T @ cat((x, one_hot(batch.y, head.classes)), 1), {"loss": loss(head, work["theta"], z, batch)}

        def step(work, g, step):
            return work | {"sums": work["sums"] + g}

        def finish(work, down, client, done):
            gram, cross = work["sums"].split([head.width, head.classes], 1)
            return {"gram": gram + hp.gamma * gram.new_ones(head.width).diag(), "cross": cross.clone()}, client

        def serve(server, up, info):
            w = solved(up["gram"], up["cross"], info.cohort * hp.gamma if hp.cleanup else 0.0)
            bias = w[-1] if head.bias else None
            return {"theta": head.written(server["theta"], w[: head.features].T, bias)}

        reduce = {"gram": "sum", "cross": "sum"}
        return Algorithm(start, grad, finish, serve, step, lambda round: 0.0, reduce, statistics=True)

    def at(phase):
        return solving(phase.head) if phase.turn == 0 else None

    return replace(solving(None), at=at, tags=frozenset({"head-only"}))
