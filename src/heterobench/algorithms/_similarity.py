"""How alike vectors are, and losses that pull like ones together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """Cosines [B] of rows u [B, F] and v [B, F]; 0 where a row is zero."""
    return (u * v).sum(1) / (u.norm(dim=1).clamp(min=1e-8) * v.norm(dim=1).clamp(min=1e-8))


def supervised_contrast(z: Tensor, y: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """The supervised contrastive loss [] of representations z [n, F] of classes y [n].

    Khosla et al., NeurIPS 2020, arXiv 2004.11362, eq. (2): the mean over i of -1/|P(i)| sum over p in P(i) of
    log(exp(z_i.z_p / T) / sum over a != i of exp(z_i.z_a / T)), with z of length 1 and P(i) the others of i's class.
    counts, bool [n]: which rows there are at all. Who is alone in its class adds 0.
    """
    from torch import eye

    z = z / z.norm(dim=1, keepdim=True).clamp(min=1e-8)
    others = ~eye(len(y), dtype=counts.dtype, device=y.device) & counts[None, :]
    alike = (z @ z.T / temperature).masked_fill(~others, float("-inf"))
    positive = (others & (y[:, None] == y[None, :])).to(z.dtype)
    apart = alike.logsumexp(1, keepdim=True) - alike.masked_fill(~others, 0.0)
    of_row = (positive * apart).sum(1) / positive.sum(1).clamp(min=1)
    there = counts.to(z.dtype)
    return of_row @ there / there.sum()
