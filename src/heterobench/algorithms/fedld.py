"""FedLD: a margin term against over-confident clients, and an average along principal directions of their updates.

Zeng, Guo, Wang, Wang, Zhou, Qu, "Tackling Data Heterogeneity in Federated Learning via Loss Decomposition", MICCAI
2024, arXiv 2408.12300, in the form of the authors' code.

Symbols: p softmax of the logits, local loss cross-entropy + lambda_m log(1 + ||p||_F^2), lambda_m = margin, with the
Frobenius norm over the WHOLE batch (the code; norm "example" takes each example's own and averages the logarithms).
Server, for each tensor of the net: g_i = y_i - x the rows of G [m, d], G G^T / m = sum_j S_j v_j v_j^T with S_j
descending, w_j = G^T v_j, r_i = sum over j <= k of unit(projection of g_i on w_j) ||g_i|| S_j / sum S, k = share * m
rounded down, x <- x + mean r_i. The mean is uniform, whatever `weighting` is; in the first round in which anybody takes
part it is that of g_i.
w_j has length sqrt(m S_j) and projection v_ij w_j, so unit(.) is sign(v_ij) w_j / sqrt(m S_j): all of it comes from the
m x m Gram matrix. The code's vote about the sign of w_j changes nothing, as the projection is even in w_j.
Deviation: k is at least 1 (one or two clients would never move). Directions with S_j below 1e-12 S_1, and signs of
|v_ij| below 1e-8, count as zero; the code divides 0 by 0. aggregation "mean" is FedAvg's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from heterobench.algorithm import Algorithm, Neutral
from heterobench.algorithms import fedavg
from heterobench.config.numbers import NonNegative, One, PositiveShare

if TYPE_CHECKING:
    from torch import Tensor


class HyperParameters(fedavg.HyperParameters):
    margin: NonNegative = Field(0.1, description="lambda_m, weight of the margin term")
    norm: Literal["batch", "example"] = Field("batch", description="what the norm in the margin term is taken over")
    aggregation: Literal["principal", "mean"] = Field("principal", description="of the clients' updates")
    share: PositiveShare = Field(0.8, description="k / m, share of the principal directions that is kept")
    server_lr: One = Field(1, description="the server has no step size")


NEUTRAL = Neutral({"margin": 0.0, "aggregation": "mean"})
EXCEPTIONS = {
    "quadratics": "directions count by lengths and signs of updates, which are not balanced where they cancel"
}


def margin_term(hp: HyperParameters, outputs):
    """lambda_m log(1 + ||p||_F^2) [] of a batch."""
    p = outputs.logits.softmax(1)
    square = (p * p).sum(1)
    if hp.norm == "example":
        return hp.margin * (square.log1p() @ outputs.weight)
    counted = (outputs.weight > 0).to(square.dtype)  # who only fills up the batch has weight 0
    return hp.margin * (square @ counted).log1p()


def principal_mean(updates: Tensor, share: float) -> Tensor:
    """mean r_i [d] of the clients' updates [m, d] of one tensor of the net; computed in float64."""
    from torch import linalg

    rows = updates.double()
    m = len(rows)
    gram = rows @ rows.T
    s, v = linalg.eigh(gram / m)
    s, v = s.flip(0).clamp(min=0), v.flip(1)  # eigh's order is ascending
    kept = max(1, int(m * share))
    sign = v.sign() * (v.abs() > 1e-8)
    pull = (sign * gram.diagonal().sqrt()[:, None]).mean(0)  # over the clients, of sign(v_ij) ||g_i||
    strength = pull * s / (s.sum() * (m * s).sqrt())
    strength = strength.where(s > 1e-12 * s[0], strength.new_zeros(()))[:kept]
    return ((v[:, :kept] @ strength) @ rows).to(updates.dtype)


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)

    def grad(work, batch, task):
        return task.grad(work["theta"], batch, lambda outputs: margin_term(hp, outputs))

    def serve(server, up, info):
        updates = up["delta"]
        if info.turn == 0:
            return {"theta": server["theta"] + updates.mean(0)}
        parts = updates.split(list(info.sizes), dim=1)
        g = updates.new_empty(updates.shape[1:])
        for into, part in zip(g.split(list(info.sizes)), parts, strict=True):
            into.copy_(principal_mean(part, hp.share) if part.shape[1] > 1 else part.mean(0))
        return {"theta": server["theta"] + g}

    algorithm = replace(base, grad=grad) if hp.margin else base
    return replace(algorithm, serve=serve, reduce={"delta": "stack"}) if hp.aggregation == "principal" else algorithm
