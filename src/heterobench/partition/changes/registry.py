"""What a change is and sees, and the changes by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from heterobench.config.schema import PartitionFile
from heterobench.config.strict import Strict, build, nearest
from heterobench.errors import ConfigurationError, PartitionError
from heterobench.partition.schemes import Columns


@dataclass(frozen=True, eq=False)
class View:
    """The n examples of a data set as its clients see them. None: nothing is changed.

    owner: int32 [n], -1 for nobody. observed: int64 [n], the labels that clients train on. labelled: bool [n], whether
    the client knows the label at all. stage: int32 [n], from 0: the part of the run in which an example is there.
    held_out: bool [clients], who never trains, and is only tested. transforms: name -> float64 [clients], how strongly
    `heterobench.data.transforms` changes a client's inputs. per_stage: names of transformations that differ from
    stage to stage. server: bool [n], examples that the server holds, with their labels; they are nobody's.
    """

    columns: Columns
    owner: np.ndarray
    clients: int
    observed: np.ndarray | None = None
    labelled: np.ndarray | None = None
    stage: np.ndarray | None = None
    held_out: np.ndarray | None = None
    transforms: dict[str, np.ndarray] = field(default_factory=dict)
    per_stage: tuple[str, ...] = ()
    server: np.ndarray | None = None

    def transformed(self, name: str, strength: np.ndarray) -> View:
        """This view with a transformation of that strength, [clients]; PartitionError if it has it already."""
        if name in self.transforms:
            raise PartitionError(f"two changes set the transformation {name!r}; keep one")
        return replace(self, transforms=self.transforms | {name: np.asarray(strength, np.float64)})

    def staged(self, stage: np.ndarray, per_stage: tuple[str, ...] = ()) -> View:
        """This view as a stream; PartitionError if it is one already."""
        if self.stage is not None:
            raise PartitionError("two changes divide the run into stages; keep one")
        return replace(self, stage=stage.astype(np.int32), per_stage=per_stage)


@dataclass(frozen=True)
class Change:
    name: str
    options: type[Strict]
    apply: Callable[[View, Strict, np.random.Generator], View]


CHANGES: dict[str, Change] = {}


def change(name: str, options: type[Strict]):
    """Register the decorated function as the change `name`."""

    def register(function):
        if name in CHANGES:
            raise ValueError(f"two changes are called {name!r}")
        CHANGES[name] = Change(name, options, function)
        return function

    return register


def check(file: PartitionFile, where: str) -> list[tuple[Change, Strict]]:
    """The changes of a partition file with their validated options, in order."""
    found = []
    for number, entry in enumerate(file.changes):
        at = f"{where}: changes.{number}"
        if entry.change not in CHANGES:
            raise ConfigurationError(f"{at}: no change {entry.change!r}{nearest(entry.change, CHANGES)}")
        found.append((CHANGES[entry.change], build(CHANGES[entry.change].options, entry.options, f"{at}: options")))
    return found


def exactly_one(options: Strict, *names: str) -> Strict:
    """`options`, if exactly one of the named ones is given (a validator's ValueError if not)."""
    if sum(getattr(options, name) is not None for name in names) != 1:
        raise ValueError(f"give exactly one of: {', '.join(names)}")
    return options


def random_places(group: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each example's place in a random order of its group, from 0, and the size of its group; group: int [n]."""
    shuffled = generator.permutation(len(group))
    order = shuffled[np.argsort(group[shuffled], kind="stable")]
    _, starts, sizes = np.unique(group[order], return_index=True, return_counts=True)
    place, size = np.empty((2, len(group)), np.int64)
    place[order] = np.arange(len(group)) - np.repeat(starts, sizes)
    size[order] = np.repeat(sizes, sizes)
    return place, size
