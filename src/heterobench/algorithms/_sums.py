"""Sums over a client's examples, for methods that need a pass over the data and no gradient of it.

In float64: outer products of float32 lose the small eigenvalues that the methods divide by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from heterobench.algorithm import Head


def rows(z: Tensor, batch, constant: bool) -> Tensor:
    """Features z [B, F] in float64, and where `constant` a last column of ones; examples of weight 0 are rows of 0."""
    from torch import cat

    z = z.double()
    z = cat((z, z.new_ones(len(batch.y), 1)), 1) if constant else z
    return z if batch.weight is None else z * (batch.weight > 0).to(z.dtype)[:, None]


def one_hot(y: Tensor, classes: int) -> Tensor:
    """float64 [B, classes] of classes y [B], without a look at their values, which torch.func.vmap would refuse."""
    from torch import arange

    return (y[:, None] == arange(classes, device=y.device)).double()


def loss(head: Head, theta: Tensor, z: Tensor, batch) -> Tensor:
    """Mean cross-entropy [] of a batch with features z [B, F], as the last layer of theta judges them."""
    from torch.nn import functional

    values = functional.cross_entropy(functional.linear(z, *head.read(theta)), batch.y, reduction="none")
    return values @ batch.weights(theta)
