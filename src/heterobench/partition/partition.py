"""A partition: which client trains, validates and tests on which training example of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from heterobench import keyed
from heterobench.config.schema import PartitionFile
from heterobench.errors import PartitionError
from heterobench.partition import changes
from heterobench.partition.rows import Rows
from heterobench.partition.schemes import Columns, check
from heterobench.partition.split import split

DETAILS = {"observed": np.int64, "labelled": bool, "stage": np.int32}
ABSENT = {"observed": -1, "labelled": False, "stage": -1}  # what an example of nobody has


@dataclass(frozen=True, eq=False)
class Partition:
    """Three compressed rows over indices into the data set's official TRAINING examples.

    Row i of each belongs to client i. The official test set is nobody's: it stays the global test set.
    Where a partition comes from (scheme, seed, data) stands in its manifest, so that equal content is equal.

    details: what `heterobench.partition.changes.View` calls observed, labelled and stage, name -> [examples]; held_out
    bool [clients]; transforms, name -> float64 [clients]; per_stage, names of transformations; server, int64,
    ascending: labelled examples that the server holds. A client that is held out has test examples only.
    """

    train: Rows
    validation: Rows
    test: Rows
    details: Mapping[str, np.ndarray] = field(default_factory=dict)
    held_out: np.ndarray | None = None
    transforms: Mapping[str, np.ndarray] = field(default_factory=dict)
    per_stage: tuple[str, ...] = ()
    server: np.ndarray | None = None

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

    @property
    def stages(self) -> int:
        """Number of stages of a stream; 1 where everything is there from the beginning."""
        return int(self.details["stage"].max()) + 1 if "stage" in self.details else 1

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) of the number of clients, of each part's offsets and indices as little-endian int64, and of
        what else there is, each opened by its name and length."""
        found = hashlib.sha256(np.int64(self.clients).astype("<i8").tobytes())
        for part in self.parts:
            found.update(part.offsets.astype("<i8", copy=False))
            found.update(part.indices.astype("<i8", copy=False))
        others = {"held_out": self.held_out, "server": self.server}
        others = {name: array for name, array in others.items() if array is not None}
        for kind, values in (("detail", self.details), ("client", others), ("transform", self.transforms)):
            for name, array in sorted(values.items()):
                found.update(f"{kind} {name} {len(array)} ".encode())
                found.update(array.astype("<f8" if kind == "transform" else "<i8"))
        found.update("".join(f"per stage {name} " for name in self.per_stage).encode())
        return found.hexdigest()


def draw(
    file: PartitionFile, labels: np.ndarray, seed: int, where: str = "partition", attributes: Mapping | None = None
) -> Partition:
    """The partition of `labels` (integers >= 0, [n]) that `file` describes, for one seed.

    `attributes` are those of the data set, name -> int64 [n]. A pure function: the same arguments give the same
    partition, whatever was drawn before. `where` opens the messages. Raises ConfigurationError for wrong options,
    PartitionError where there is no such partition.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels):
        raise PartitionError(f"{where}: needs a list of labels with at least one example, found shape {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise PartitionError(f"{where}: labels must be integers from 0, found {labels.dtype} from {labels.min()}")
    scheme, options = check(file, where)
    made = changes.check(file, where)
    columns = Columns(labels, attributes or {})
    try:
        owner = scheme.assign(columns, file.clients, options, keyed.generator(seed, "partition"), file.minimum)
        if not scheme.drops and (nobodys := np.count_nonzero(owner < 0)):
            raise PartitionError(f"scheme {file.scheme!r} left {nobodys} examples to nobody, which it may not")
        view = changes.View(columns, owner, file.clients or int(owner.max()) + 1)
        for number, (change, own) in enumerate(made):
            view = change.apply(view, own, keyed.generator(seed, "change", number))
    except PartitionError as error:
        raise PartitionError(f"{where}: {error}") from None
    generator = keyed.generator(seed, "client split")
    parts = split(view.owner, view.clients, file.validation, file.test, generator, view.held_out)
    details = {}
    for name, dtype in DETAILS.items():
        if (values := getattr(view, name)) is not None:
            details[name] = np.where(view.owner >= 0, values, ABSENT[name]).astype(dtype)
    server = None if view.server is None else np.flatnonzero(view.server)
    return Partition(*parts, details, view.held_out, view.transforms, view.per_stage, server)
