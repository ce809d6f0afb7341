"""The data of a run as engine and executors see them: examples on a device, and each client's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from heterobench import keyed
from heterobench.augmentation import Views
from heterobench.data.transforms import normalisation
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


def chosen(rows: Rows, wanted: np.ndarray) -> Rows:
    """The examples of each client that are `wanted` (bool, one for each example of the pool), in their order."""
    if isinstance(rows, Compressed):
        kept = wanted[rows.indices]
        return Compressed.from_assignment(rows.owner[kept], len(rows), rows.indices[kept])
    return [own[wanted[own]] for own in map(np.asarray, rows)]


RESIDENT = 512 * 2**20  # bytes of float inputs up to which normalised examples are kept instead of made per batch


@dataclass(frozen=True)
class Examples:
    """Inputs x [n, *shape] and classes y int64 [n], on one device.

    Where there are `scale` and `shift` ([channels, 1, ...]), a model sees ``x * scale + shift`` as float32; else it
    sees x as it is.
    """

    x: Tensor
    y: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None

    @classmethod
    def normalised(cls, x: np.ndarray, y: np.ndarray, mean, std, maximum: float | None = None, device="cpu"):
        """Inputs that are seen as ``(x / maximum - mean) / std``, channel by channel; as they are without mean."""
        y = torch.from_numpy(np.array(y, dtype=np.int64)).to(device)
        x = torch.from_numpy(np.array(x)).to(device)
        if not len(mean):
            return cls(x, y)
        scale, shift = (torch.from_numpy(v).to(device) for v in normalisation(mean, std, maximum, x.dim() - 1))
        examples = cls(x, y, scale, shift)
        return cls(examples._seen(x), y) if x.numel() * 4 <= RESIDENT else examples

    def __len__(self) -> int:
        return len(self.y)

    def _seen(self, x: Tensor) -> Tensor:
        return x if self.scale is None else x.to(torch.float32).mul_(self.scale).add_(self.shift)

    def batch(self, index: np.ndarray | Tensor) -> Batch:
        if isinstance(index, np.ndarray) and not index.flags.writeable:
            index = index.copy()  # of a stored partition; torch warns of memory that it could not write to
        chosen = torch.as_tensor(index).to(self.x.device)
        return Batch(self._seen(self.x.index_select(0, chosen)), self.y.index_select(0, chosen))

    def chunks(self, index: np.ndarray | None = None) -> Iterator[Batch]:
        """All examples, or those of `index`, in order, a fixed number at a time."""
        index = np.arange(len(self)) if index is None else index
        for first in range(0, len(index), CHUNK):
            yield self.batch(index[first : first + CHUNK])


@dataclass(frozen=True)
class Viewed:
    """Examples of a pool under random views. Example i under view v is number i V + v, of V `views`."""

    pool: Examples
    views: Views

    def batch(self, numbers: np.ndarray | Tensor) -> Batch:
        chosen = torch.as_tensor(numbers).to(self.pool.x.device)
        batch = self.pool.batch(chosen // len(self.views))
        return batch._replace(x=self.views.of(batch.x, chosen % len(self.views)))

    def drawn(self, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Numbers of examples `rows` of the pool, each under a view that `generator` draws."""
        return rows * len(self.views) + generator.integers(len(self.views), size=len(rows))


@dataclass(frozen=True)
class Federation:
    """Clients' examples (`pool`, of which each client holds rows) and the global test set.

    train: what clients learn from, with labels; unlabelled: what they hold for training without knowing its label.
    stage: int, for each example of the pool, where a run goes through stages (a task stream). held_out: bool
    [clients], who never trains and is only tested. slices: name of a metric -> indices of those examples of the global
    test set on which it is the accuracy. server: int64, labelled examples of the pool that the server holds; methods
    with labels at the server use them, others do not see them. views: under which clients see images in mini-batches
    of local training, and nowhere else; None: as they are.
    """

    pool: Examples
    train: Rows
    validation: Rows
    test: Rows
    global_test: Examples
    unlabelled: Rows | None = None
    stage: np.ndarray | None = None
    held_out: np.ndarray | None = None
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)
    server: np.ndarray | None = None
    views: Views | None = None

    def __len__(self) -> int:
        """Number of clients, those without training examples included."""
        return len(self.train)

    @cached_property
    def viewed(self) -> Viewed | None:
        """The pool under random views, where there are any."""
        return Viewed(self.pool, self.views) if self.views else None

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

    @property
    def stages(self) -> tuple[Federation, ...]:
        """One federation for each stage, which has only that stage's examples to train on; this one without stages."""
        return (self,) if self.stage is None else self._by_stage

    @cached_property
    def _by_stage(self) -> tuple[Federation, ...]:
        def only(rows: Rows | None, number: int) -> Rows | None:
            return None if rows is None else chosen(rows, self.stage == number)

        return tuple(
            replace(self, train=only(self.train, number), unlabelled=only(self.unlabelled, number), stage=None)
            for number in range(int(self.stage.max()) + 1)
        )

    def at(self, round: int, rounds: int) -> Federation:
        """What clients train on in round `round` (from 0) of a run of `rounds` rounds.

        S stages are equal consecutive parts of the run: round r is in stage floor(r S / rounds).
        """
        return self if self.stage is None else self._by_stage[round * len(self._by_stage) // rounds]

    def pooled(self) -> Federation:
        """The same data in the hands of one client (for training; evaluation rows are joined as well).

        Labels, stages and what is unlabelled stay what they are: pooling brings nothing to light and nothing forward.
        """

        def join(rows: Rows | None) -> list[np.ndarray] | None:
            return None if rows is None else [np.sort(joined(rows))]

        rows = {name: join(getattr(self, name)) for name in ("train", "validation", "test", "unlabelled")}
        return replace(self, **rows, held_out=None)


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
