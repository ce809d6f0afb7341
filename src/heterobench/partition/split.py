"""Train, validation and test inside each client."""

from __future__ import annotations

import numpy as np

from heterobench.partition.rows import Rows


def part_sizes(sizes: np.ndarray, validation: float, test: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes of (train, validation, test) for clients of the given sizes, each int64 [clients].

    test = floor(share * size + 1/2), then validation by the same rule, each at most what still leaves one
    training example: a client that holds anything can train.
    """
    spare = np.maximum(sizes - 1, 0)
    tests = np.minimum(np.floor(test * sizes + 0.5).astype(np.int64), spare)
    validations = np.minimum(np.floor(validation * sizes + 0.5).astype(np.int64), spare - tests)
    return sizes - tests - validations, validations, tests


def split(
    owner: np.ndarray,
    clients: int,
    validation: float,
    test: float,
    generator: np.random.Generator,
    held_out: np.ndarray | None = None,
) -> tuple[Rows, Rows, Rows]:
    """Divide each client's examples at random into (train, validation, test).

    owner: int [n], the client of each example, -1 for nobody. A client of `held_out` (bool [clients]) has test
    examples only. Inside every row the examples ascend: the order in which a client sees them is drawn elsewhere, for
    each round.
    """
    shuffled = generator.permutation(len(owner))
    if nobodys := np.any(owner < 0):
        shuffled = shuffled[owner[shuffled] >= 0]
    sizes = np.bincount(owner[owner >= 0] if nobodys else owner, minlength=clients)
    train, validations, _ = part_sizes(sizes, validation, test)
    if held_out is not None:
        train, validations = np.where(held_out, 0, train), np.where(held_out, 0, validations)
    order = shuffled[np.argsort(owner[shuffled], kind="stable")]  # by client, at random inside each client
    holder = owner[order]
    place = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[holder]
    part = np.full(len(owner), -1, np.int8)
    part[order] = (place >= train[holder]).astype(np.int8) + (place >= (train + validations)[holder])
    examples = [np.flatnonzero(part == number) for number in range(3)]
    return tuple(Rows.from_assignment(owner[mine], clients, mine) for mine in examples)
