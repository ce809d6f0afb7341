"""Which hidden units of two nets are the same? Permutations that change no function but where a model lies.

For chains of linear and convolutional layers with an activation that works on each unit alone (and pooling, and
flattening channel by channel) between them. A norm over several units, a skip connection or a recurrence ties units
together: there is nothing here for those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from heterobench import keyed
from heterobench.task import Layout


class _Stage(NamedTuple):
    """A layer of a chain: the names of its weight [units, inputs, ...] and, where it has one, its bias [units]."""

    weight: str
    bias: str | None


def chain(layout: Layout) -> list[_Stage] | None:
    """The layers of a layout that is a chain: each layer's inputs are the units of the one before, or blocks of them.

    None where it is none, as far as names and shapes tell: a net whose units are tied together in its forward pass
    alone looks like a chain, so check that `permuted` leaves the loss as it was.
    """
    stages: list[_Stage] = []
    units: int | None = None
    named = dict(zip(layout.names, layout.shapes, strict=True))
    for name, shape in named.items():
        module, _, kind = name.rpartition(".")
        if kind == "bias" and stages and stages[-1].weight == f"{module}.weight" and shape == (units,):
            stages[-1] = _Stage(stages[-1].weight, name)
        elif kind == "weight" and len(shape) > 1 and (units is None or shape[1] % units == 0):
            stages.append(_Stage(name, None))
            units = shape[0]
        else:
            return None
    return stages or None


def _stages(layout: Layout) -> list[_Stage]:
    stages = chain(layout)
    if stages is None:
        raise ValueError(
            f"layout: {', '.join(layout.names)}: must be a chain of weights and biases to permute its units"
        )
    return stages


def _by_input(weight: Tensor, units: int) -> Tensor:
    """The weight [out, inputs, ...] as [out, units, block]: what each unit before it feeds."""
    return weight.reshape(len(weight), units, -1)


def permuted(layout: Layout, theta: Tensor, orders: Sequence[np.ndarray]) -> Tensor:
    """theta [P] with the units of each layer but the last in a new order: unit i is what was unit orders[layer][i]."""
    stages = _stages(layout)
    if len(orders) != len(stages) - 1:
        raise ValueError(f"orders: {len(orders)}, must be {len(stages) - 1}, one for each layer but the last")
    parts = {name: part.clone() for name, part in layout.split(theta.detach()).items()}
    for stage, after, order in zip(stages, stages[1:], orders, strict=False):
        if sorted(order) != list(range(len(parts[stage.weight]))):
            raise ValueError(f"orders: {stage.weight} has {len(parts[stage.weight])} units, must be ordered each once")
        index = torch.as_tensor(np.asarray(order), device=theta.device)
        for name in filter(None, stage):
            parts[name] = parts[name][index]
        weight = parts[after.weight]
        parts[after.weight] = _by_input(weight, len(index))[:, index].reshape(weight.shape)
    return torch.cat([parts[name].reshape(-1) for name in layout.names])


def weight_matching(
    layout: Layout, first: Tensor, second: Tensor, seed: int = 0, sweeps: int = 100
) -> list[np.ndarray]:
    """Orders of the units of `second` that bring it near `first`: `permuted(layout, second, orders)`.

    Greatest sum of products of weights by coordinate ascent, one layer at a time in random order, each a linear
    assignment, until no layer changes: a local optimum, as the joint problem is NP-hard. Source: Ainsworth et al. (Git
    Re-Basin), arXiv 2209.04836, section 3.2.
    """
    from scipy.optimize import linear_sum_assignment

    stages = _stages(layout)
    hidden = len(stages) - 1
    fixed = layout.split(first.detach().double())
    sizes = [len(fixed[stage.weight]) for stage in stages]
    orders = [np.arange(size) for size in sizes[:-1]]

    for sweep in range(sweeps):
        changed = False
        for number in keyed.generator(seed, "weight matching", sweep).permutation(hidden):
            # this layer's own order undone: what units look like when those around it are in their present order
            loose = [*orders[:number], np.arange(sizes[number]), *orders[number + 1 :]]
            other = layout.split(permuted(layout, second.detach().double(), loose))
            own, after = stages[number], stages[number + 1]
            gain = sum(
                fixed[name].reshape(sizes[number], -1) @ other[name].reshape(sizes[number], -1).T
                for name in filter(None, own)
            )
            outgoing = [_by_input(parts[after.weight], sizes[number]) for parts in (fixed, other)]
            gain = (gain + torch.einsum("oib,ojb->ij", *outgoing)).cpu().numpy()
            best = linear_sum_assignment(gain, maximize=True)[1]
            rows = np.arange(sizes[number])
            # rounding must not make two equal assignments follow each other for ever
            if gain[rows, best].sum() > gain[rows, orders[number]].sum() + 1e-12 * np.abs(gain).max():
                orders[number], changed = best, True
        if not changed:
            break
    return orders
