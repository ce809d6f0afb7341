"""What several schemes need: sizes, draws that are repeated until everyone has enough, and handing out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from heterobench.config.strict import Strict
from heterobench.errors import PartitionError

MOST_DRAWS = 1000  # of a scheme that draws again until `minimum` holds


def equal(size: int, parts: int) -> np.ndarray:
    """Sizes of `parts` parts that differ by at most one and sum to `size`."""
    return size // parts + (np.arange(parts) < size % parts)


def cut(cumulative: np.ndarray, size: int) -> np.ndarray:
    """Sizes of the pieces of `size` examples cut at floor(cumulative share * size); they sum to `size`.

    Dividing by the last entry makes the share exactly one from the last positive proportion on.
    """
    return np.diff(np.floor(cumulative / cumulative[-1] * size).astype(int), prepend=0)


def sorted_by(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """All examples sorted by label, in random order inside each label."""
    shuffled = generator.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def hand_out(labels: np.ndarray, counts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Owners when client i gets counts[k, i] random examples of the k-th class; row k sums to its size."""
    owner = np.empty(len(labels), np.int32)
    clients = np.tile(np.arange(counts.shape[1], dtype=np.int32), len(counts))
    owner[sorted_by(labels, generator)] = np.repeat(clients, counts.ravel())
    return owner


def enough(name: str, options: Strict, sizes: np.ndarray, minimum: int) -> np.ndarray:
    """`sizes` [clients], if every client holds `minimum`."""
    if (smallest := sizes.min()) < minimum:
        raise PartitionError(
            f"{named(name, options)}: {sizes.sum()} examples over {len(sizes)} clients leave the smallest "
            f"client {smallest}, below the minimum of {minimum}; lower minimum or take fewer clients"
        )
    return sizes


def search(name: str, options: Strict, draw: Callable, examples: int, clients: int, minimum: int) -> np.ndarray:
    """The first of at most MOST_DRAWS results of `draw` in which every client holds `minimum` examples.

    `draw` returns counts [classes, clients], or says why this draw cannot be used.
    """
    if clients * minimum > examples:
        raise PartitionError(
            f"{named(name, options)}: {clients} clients with at least {minimum} examples each need "
            f"{clients * minimum}, but there are {examples}; lower minimum or take fewer clients"
        )
    best, unusable = -1, ""
    for _ in range(MOST_DRAWS):
        if isinstance(counts := draw(), str):
            unusable = counts
            continue
        if (smallest := int(counts.sum(0).min())) >= minimum:
            return counts
        best = max(best, smallest)
    seen = f"the best draw left the smallest client {best}" if best >= 0 else unusable
    raise PartitionError(
        f"{named(name, options)}: {MOST_DRAWS} draws of {examples} examples over {clients} clients, never "
        f"had everyone the minimum of {minimum} ({seen}); lower minimum, take fewer clients or a milder skew"
    )


def named(name: str, options: Strict) -> str:
    """``name (option=value, ...)``, without options that are not given."""
    shown = ", ".join(f"{key}={value}" for key, value in options.model_dump(exclude_none=True).items())
    return f"{name} ({shown})" if shown else name
