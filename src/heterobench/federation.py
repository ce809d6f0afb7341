"""The data of a run as engine and executors see them: examples on a device, and each client's rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from heterobench import keyed
from heterobench.partition.rows import Rows as Compressed
from heterobench.task import CHUNK, Batch

Rows = Sequence[np.ndarray]
"""rows[i]: int64 indices of client i's examples (a `heterobench.partition.rows.Rows`, or a list of arrays)."""


def sizes(rows: Rows) -> np.ndarray:
    """int64 [clients]: numbers of examples."""
    return rows.sizes if isinstance(rows, Compressed) else np.array([len(own) for own in rows], np.int64)


def joined(rows: Rows) -> np.ndarray:
    """All clients' examples, one client after the other."""
    return rows.indices.copy() if isinstance(rows, Compressed) else np.concatenate([np.asarray(o) for o in rows])


RESIDENT = 512 * 2**20  # bytes of float inputs up to which normalised examples are kept instead of made per batch


@dataclass(frozen=True)
class Examples:
    """Inputs x [n, *shape] (uint8, or already float) and classes y int64 [n], on one device.

    An input of uint8 is seen by the model as ``(x / maximum - mean) / std``, channel by channel; `scale` and
    `shift` [c, 1, 1] say the same as one multiplication and one addition.
    """

    x: Tensor
    y: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None

    @classmethod
    def images(cls, x: np.ndarray, y: np.ndarray, mean, std, maximum: float, device="cpu") -> Examples:
        mean, std = (torch.tensor(v, dtype=torch.float32).reshape(-1, 1, 1) for v in (mean, std))
        scale, shift = (1 / (maximum * std)).to(device), (-mean / std).to(device)
        x = torch.from_numpy(np.array(x)).to(device)
        examples = cls(x, torch.from_numpy(np.array(y, dtype=np.int64)).to(device), scale, shift)
        if x.numel() * 4 <= RESIDENT:
            return cls(examples._seen(x), examples.y)
        return examples

    def __len__(self) -> int:
        return len(self.y)

    def _seen(self, x: Tensor) -> Tensor:
        return x if self.scale is None else x.to(torch.float32).mul_(self.scale).add_(self.shift)

    def batch(self, index: np.ndarray | Tensor) -> Batch:
        chosen = torch.as_tensor(index).to(self.x.device)
        return Batch(self._seen(self.x.index_select(0, chosen)), self.y.index_select(0, chosen))

    def chunks(self, index: np.ndarray | None = None) -> Iterator[Batch]:
        """All examples, or those of `index`, in order, a fixed number at a time."""
        index = np.arange(len(self)) if index is None else index
        for first in range(0, len(index), CHUNK):
            yield self.batch(index[first : first + CHUNK])


@dataclass(frozen=True)
class Federation:
    """Clients' examples (`pool`, of which each client holds rows) and the global test set."""

    pool: Examples
    train: Rows
    validation: Rows
    test: Rows
    global_test: Examples

    def __len__(self) -> int:
        """Number of clients, those without training examples included."""
        return len(self.train)

    @cached_property
    def active(self) -> np.ndarray:
        """Ids of the clients that can take part in training: those with at least one training example. Read-only."""
        ids = np.flatnonzero(sizes(self.train))
        ids.flags.writeable = False
        return ids

    @cached_property
    def all_validation(self) -> np.ndarray:
        """All clients' validation examples, one client after the other."""
        return joined(self.validation)

    def pooled(self) -> Federation:
        """The same data in the hands of one client (for training; evaluation rows are joined as well)."""

        def join(rows: Rows) -> list[np.ndarray]:
            return [np.sort(joined(rows))]

        return Federation(self.pool, join(self.train), join(self.validation), join(self.test), self.global_test)


def batches(seed: int, round: int, client: int, rows: np.ndarray, epochs: int, size: int) -> list[np.ndarray]:
    """Mini-batches of one client in one round: every epoch a new order, the last batch as small as it comes.

    Depends on nothing but its arguments, so methods, executors and resumed runs see the same batches.
    """
    generator = keyed.generator(seed, "batches", round, client)
    result = []
    for _ in range(epochs):
        order = rows[generator.permutation(len(rows))]
        result += [order[first : first + size] for first in range(0, len(order), size)]
    return result
