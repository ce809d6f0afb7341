"""A long-tailed data set made of a balanced one, then divided."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from heterobench.config.numbers import Positive
from heterobench.config.strict import Strict
from heterobench.errors import PartitionError
from heterobench.partition.schemes.by_class import divide
from heterobench.partition.schemes.drawing import hand_out, named, search, sorted_by
from heterobench.partition.schemes.registry import scheme


class LongTailDirichlet(Strict):
    imbalance: Positive = Field(ge=1, le=1e9, description="imbalance factor IF: size of largest / smallest class")
    alpha: Positive = Field(description="concentration; small: each class sits with few clients")


@scheme("long-tail-dirichlet", LongTailDirichlet, drops=True)
def long_tail_dirichlet(columns, clients, options, generator, minimum):
    """Of class k of K only n_k = floor(n_max * IF^(-k / (K - 1))) random examples stay; these as dirichlet-by-class.

    Classes are numbered in the order of their labels, so label 0 is the head. n_max is the largest number for which
    every class has its n_k examples: the size of a class where classes are balanced. All other examples go to nobody.

    Sources: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", arXiv 1901.05555, for the long
    tail; LDAM-DRW's imbalance_cifar.py rounds down as we do (12,406 of CIFAR-10's 50,000 for IF 100, 13,996 for IF
    50), and takes n / K for n_max, whatever the classes' sizes. Shang et al., "Federated Learning on Heterogeneous and
    Long-Tailed Data via Classifier Re-Training with Federated Features" (CReFF), arXiv 2204.13399, and FedLoGe, arXiv
    2401.08977, divide it by a Dirichlet draw; IF is often given as min / max there, one over ours.

    Different here: the division is exactly that of `dirichlet_by_class`; CReFF's code draws for groups of clients and
    levels the sizes afterwards.
    """
    labels = columns.labels
    values, sizes = np.unique(labels, return_counts=True)
    kept = tail_sizes(sizes, options.imbalance)
    if not kept.all():
        empty = values[kept == 0].tolist()
        raise PartitionError(f"{named('long-tail-dirichlet', options)}: classes {empty} would keep no example")

    def draw():
        return divide(kept, clients, options.alpha, generator, capped=True)

    counts = search("long-tail-dirichlet", options, draw, int(kept.sum()), clients, minimum)
    order = sorted_by(labels, generator)
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    stay = order[place < np.repeat(kept, sizes)]
    owner = np.full(len(labels), -1, np.int32)
    owner[stay] = hand_out(labels[stay], counts, generator)
    return owner


def tail_sizes(sizes: np.ndarray, imbalance: float) -> np.ndarray:
    """n_k of `long_tail_dirichlet` for classes of the given sizes, int [classes]."""
    decay = imbalance ** (-np.arange(len(sizes)) / max(len(sizes) - 1, 1))
    head = (sizes / decay).min()
    return np.floor(head * decay * (1 + 1e-12)).astype(int)  # a whole number stays one, whatever division did to it
