"""Compressed rows: one list of examples per client, held in two flat arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Rows:
    """Row i is ``indices[offsets[i]:offsets[i + 1]]``; both arrays are read-only.

    offsets: int64 [rows + 1], from 0, never decreasing. indices: int64 [entries].
    Raises ValueError if the two arrays do not fit each other.
    """

    offsets: np.ndarray
    indices: np.ndarray

    def __post_init__(self):
        for name in ("offsets", "indices"):
            array = np.ascontiguousarray(getattr(self, name), dtype=np.int64).view()
            if array.ndim != 1:
                raise ValueError(f"{name} must be one-dimensional")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != len(self.indices):
            raise ValueError("offsets must run from 0 to the number of indices")
        if np.any(np.diff(self.offsets) < 0):
            raise ValueError("offsets must not decrease")

    @classmethod
    def from_assignment(cls, owner: np.ndarray, rows: int, examples: np.ndarray | None = None) -> Rows:
        """Rows of an assignment: `examples[j]` (default: j) goes to row `owner[j]`, an integer in [0, rows).

        Inside a row the order of `examples` is kept, so ascending examples give ascending rows.
        """
        sizes = np.bincount(owner, minlength=rows)
        if len(sizes) > rows:
            raise ValueError(f"an owner is {len(sizes) - 1}, but there are {rows} rows")
        order = np.argsort(owner, kind="stable")
        return cls(np.concatenate(([0], np.cumsum(sizes))), order if examples is None else examples[order])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """A view of one row, not a copy."""
        row = range(len(self))[row]
        return self.indices[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    @property
    def sizes(self) -> np.ndarray:
        """int64 [rows]"""
        return np.diff(self.offsets)

    @property
    def owner(self) -> np.ndarray:
        """int64 [entries]: the row of each entry of `indices`."""
        return np.repeat(np.arange(len(self)), self.sizes)
