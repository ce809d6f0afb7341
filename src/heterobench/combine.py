"""How the uplinks of a cohort become one: always in client-id order, so that sums have the same bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from heterobench.algorithm import State


def weighted_sum(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_i weights[i] * values[i], accumulated in order."""
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total.add_(value, alpha=weight)
    return total


def combine(uplinks: Sequence[State], examples: Sequence[int], reduce: Mapping[str, str]) -> State:
    """Each entry of the uplinks reduced as `reduce` says.

    weighted: sum_i n_i / (sum_j n_j) U_i, with n = `examples` and the sums over the cohort only, so that the weights
    add up to one under partial participation; uniform: (1/|S|) sum_i U_i; sum: sum_i U_i; stack: [|S|, ...].
    """
    count, total = len(uplinks), sum(examples)
    weights = {
        "weighted": [n / total for n in examples],
        "uniform": [1 / count] * count,
        "sum": [1.0] * count,
    }
    result = {}
    for entry, reducer in reduce.items():
        values = [uplink[entry] for uplink in uplinks]
        result[entry] = torch.stack(values) if reducer == "stack" else weighted_sum(values, weights[reducer])
    return result
