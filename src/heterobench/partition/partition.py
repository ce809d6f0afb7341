"""A partition: which client trains, validates and tests on which training example of a data set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from heterobench import keyed
from heterobench.config.schema import PartitionFile
from heterobench.errors import PartitionError
from heterobench.partition.rows import Rows
from heterobench.partition.schemes import check
from heterobench.partition.split import split


@dataclass(frozen=True, eq=False)
class Partition:
    """Three compressed rows over indices into the data set's official TRAINING examples.

    Row i of each belongs to client i. The official test set is nobody's: it stays the global test set.
    Where a partition comes from (scheme, seed, data) stands in its manifest, so that equal content is equal.
    """

    train: Rows
    validation: Rows
    test: Rows

    def __post_init__(self):
        if len({len(part) for part in self.parts}) > 1:
            raise ValueError("train, validation and test must have one row per client")

    @property
    def parts(self) -> tuple[Rows, Rows, Rows]:
        return self.train, self.validation, self.test

    @property
    def clients(self) -> int:
        return len(self.train)

    @property
    def sizes(self) -> np.ndarray:
        """int64 [clients]: examples of each client, all three parts together."""
        return sum(part.sizes for part in self.parts)

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) of the number of clients and each part's offsets and indices, little-endian int64."""
        found = hashlib.sha256(np.int64(self.clients).astype("<i8").tobytes())
        for part in self.parts:
            found.update(part.offsets.astype("<i8", copy=False))
            found.update(part.indices.astype("<i8", copy=False))
        return found.hexdigest()


def draw(file: PartitionFile, labels: np.ndarray, seed: int, where: str = "partition") -> Partition:
    """The partition of `labels` (integers >= 0, [n]) that `file` describes, for one seed.

    A pure function: the same arguments give the same partition, whatever was drawn before. `where` opens the
    messages. Raises ConfigurationError for wrong options, PartitionError where there is no such partition.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels):
        raise PartitionError(f"{where}: needs a list of labels with at least one example, found shape {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise PartitionError(f"{where}: labels must be integers from 0, found {labels.dtype} from {labels.min()}")
    scheme, options = check(file, where)
    try:
        owner = scheme.assign(labels, file.clients, options, keyed.generator(seed, "partition"), file.minimum)
    except PartitionError as error:
        raise PartitionError(f"{where}: {error}") from None
    return Partition(*split(owner, file.clients, file.validation, file.test, keyed.generator(seed, "client split")))
