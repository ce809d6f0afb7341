"""States of many clients: in memory while they are small, in a file beyond that, touched only for the cohort.

`ClientStates` is a value: `put` gives a new one and leaves the old one as it was. No copy is made for that: all
values of a run share one table, which shows the newest, and an older one remembers what has changed since it was
the newest. So a put costs what it writes, however many clients have a state.

On disk, states are rows of one fixed size in a log: rows are appended and never written again, and the table says
which row is whose. A checkpoint stores the table and the log's length, and what a killed run appended afterwards
is cut off. Where dead rows outnumber the live ones, these move to a new log; the old file stays as long as a kept
checkpoint refers to it (`heterobench.engine.checkpoint` removes it).

The table also holds each row's CRC-32, compared whenever a row is read, and for all live rows when a run goes on. A
live row exists only once, so damage to a row that both kept checkpoints use makes both unusable.

Rows are read with pread and not through a memory map: the page cache serves both, but pages touched through a map
count as the run's memory, and a failing disk would be a signal (SIGBUS) instead of an error.
"""

from __future__ import annotations

import os
import weakref
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from heterobench.algorithm import State
from heterobench.errors import RunError
from heterobench.files import writing

MEMORY = 256 * 2**20  # bytes of states up to which they stay in memory, and inside checkpoints
BLOCK = 8 * 2**20  # bytes read or written at once where many rows are
DEAD = 1024  # dead rows that are never worth a new log


class Damaged(Exception):
    """A log is not what its table says."""


@dataclass(frozen=True)
class Layout:
    """How a state is one row of bytes: its entries (name, dtype, shape), by name; `device` of the tensors read."""

    entries: tuple[tuple[str, torch.dtype, tuple[int, ...]], ...]
    device: torch.device

    @classmethod
    def of(cls, state: State, device: torch.device | None = None) -> Layout:
        entries = tuple((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sorted(state.items()))
        return cls(entries, device or next(iter(state.values())).device)

    @cached_property
    def sizes(self) -> list[int]:
        return [dtype.itemsize * int(np.prod(shape)) for _, dtype, shape in self.entries]

    @cached_property
    def size(self) -> int:
        """Bytes of a row."""
        return sum(self.sizes)

    def encode(self, states: list[State]) -> np.ndarray:
        """uint8 [states, size]; ValueError where a state has other entries."""
        block, first = np.empty((len(states), self.size), np.uint8), 0
        for state in states:
            if Layout.of(state, self.device) != self:
                raise ValueError(f"a client's state {Layout.of(state).entries} is not like the others {self.entries}")
        for (name, _, _), size in zip(self.entries, self.sizes, strict=True):
            for row, state in zip(block, states, strict=True):
                flat = state[name].detach().cpu().contiguous().reshape(-1)
                row[first : first + size] = flat.view(torch.uint8).numpy()
            first += size
        return block

    def decode(self, row: bytes) -> State:
        state, first = {}, 0
        for (name, dtype, shape), size in zip(self.entries, self.sizes, strict=True):
            # a copy in torch's own memory: aligned like the state that was stored, and may be written
            part = torch.empty(size, dtype=torch.uint8)
            part.numpy()[:] = np.frombuffer(row, np.uint8, size, first)
            state[name] = part.view(dtype).reshape(shape).to(self.device)
            first += size
        return state

    def plain(self) -> list[Any]:
        """For JSON."""
        return [[name, str(dtype).removeprefix("torch."), list(shape)] for name, dtype, shape in self.entries]

    @classmethod
    def from_plain(cls, entries: list[Any], device: torch.device) -> Layout:
        return cls(tuple((name, getattr(torch, dtype), tuple(shape)) for name, dtype, shape in entries), device)


class Log:
    """Rows of one layout in a file that only grows; `length` rows are written."""

    def __init__(self, path: Path, layout: Layout, length: int | None = None):
        """A new file; or one that exists, cut to `length` rows. Damaged where it is shorter."""
        self.path, self.layout, self.length = path, layout, length or 0
        new = os.O_CREAT | os.O_EXCL if length is None else 0
        self._file = os.open(path, os.O_RDWR | new, 0o644)
        weakref.finalize(self, os.close, self._file)
        if os.fstat(self._file).st_size < self.length * layout.size:
            raise Damaged(f"{path} is shorter than its {self.length} rows of {layout.size} bytes")

    @classmethod
    def new(cls, folder: Path, layout: Layout) -> Log:
        """The next log of a folder: ``states-0007.rows`` after ``states-0006.rows``."""
        folder.mkdir(parents=True, exist_ok=True)
        last = max((int(path.stem.rpartition("-")[2]) for path in folder.glob("states-*.rows")), default=0)
        return cls(folder / f"states-{last + 1:04d}.rows", layout)

    def append(self, block: np.ndarray) -> np.ndarray:
        """Write rows, uint8 [n, size], and return their numbers. RunError where the disk is full."""
        first, rest = self.length * self.layout.size, memoryview(block.reshape(-1))
        with writing(self.path, len(rest)):
            try:
                while rest:
                    rest = rest[os.pwrite(self._file, rest, first + block.size - len(rest)) :]
            except OSError:
                self.cut()
                raise
        self.length += len(block)
        return np.arange(self.length - len(block), self.length)

    def cut(self) -> None:
        """Remove what is behind the last row."""
        os.ftruncate(self._file, self.length * self.layout.size)

    def read(self, row: int, rows: int = 1) -> bytes:
        return os.pread(self._file, rows * self.layout.size, row * self.layout.size)

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """(slice of `rows`, their content uint8 [n, size]) of ascending `rows`, some megabytes at a time."""
        many = max(BLOCK // self.layout.size, 1)
        edges = np.searchsorted(rows, np.arange(0, self.length + many, many))
        for first, part in zip(range(0, self.length, many), pairwise(edges), strict=True):
            chosen = slice(*map(int, part))
            if chosen.start < chosen.stop:
                content = np.frombuffer(self.read(first, min(many, self.length - first)), np.uint8)
                yield chosen, content.reshape(-1, self.layout.size)[rows[chosen] - first]

    def sync(self) -> None:
        with writing(self.path, self.length * self.layout.size):  # some systems look for room only now
            os.fsync(self._file)


class Place(NamedTuple):
    """Where a state is on disk."""

    log: Log
    row: int
    crc: int

    def read(self) -> State:
        content = self.log.read(self.row)
        if zlib.crc32(content) != self.crc:
            raise RunError(
                f"{self.log.path}: row {self.row} is damaged (its checksum differs). What to do: check the disk, then "
                f"start the run again; it goes on from a checkpoint that is whole"
            )
        return self.log.layout.decode(content)


Slot = State | Place


class InMemory:
    """Client -> its state."""

    def __init__(self, slots: dict[int, State] | None = None):
        self._slots = slots or {}

    def copy(self) -> InMemory:
        return InMemory(dict(self._slots))

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def size(self) -> int:
        """Bytes of all states."""
        one = next(iter(self._slots.values()), {})
        return len(self) * sum(tensor.numel() * tensor.element_size() for tensor in one.values())

    def ids(self) -> list[int]:
        return sorted(self._slots)

    def get(self, i: int) -> State | None:
        return self._slots.get(i)

    def put(self, states: Mapping[int, State]) -> None:
        self._slots.update(states)

    def remove(self, i: int) -> None:
        self._slots.pop(i, None)

    def settled(self, folder: Path | None) -> InMemory | OnDisk:
        """This table; or, when the states have become too large, the same on disk."""
        if folder is None or self.size <= MEMORY:
            return self
        table = OnDisk(Log.new(folder, Layout.of(next(iter(self._slots.values())))))
        try:
            table.put(self._slots)
        except RunError:
            table.log.path.unlink()
            raise
        return table


class OnDisk:
    """Client -> row of a log. Two arrays over client ids: rows int64, -1 where there is none, and crcs uint32."""

    def __init__(self, log: Log, rows: np.ndarray | None = None, crcs: np.ndarray | None = None):
        self.log = log
        self._rows = np.empty(0, np.int64) if rows is None else rows
        self._crcs = np.empty(0, np.uint32) if crcs is None else crcs
        self._live = int((self._rows >= 0).sum())

    def copy(self) -> OnDisk:
        return OnDisk(self.log, self._rows.copy(), self._crcs.copy())

    def __len__(self) -> int:
        return self._live

    def ids(self) -> list[int]:
        return np.flatnonzero(self._rows >= 0).tolist()

    def get(self, i: int) -> Place | None:
        if not 0 <= i < len(self._rows) or self._rows[i] < 0:
            return None
        return Place(self.log, int(self._rows[i]), int(self._crcs[i]))

    def put(self, states: Mapping[int, State]) -> None:
        ids, many = np.fromiter(states, np.int64, len(states)), max(BLOCK // self.log.layout.size, 1)
        rows, crcs = [], []
        for first in range(0, len(ids), many):
            block = self.log.layout.encode([states[i] for i in ids[first : first + many].tolist()])
            rows.append(self.log.append(block))
            crcs += [zlib.crc32(row) for row in block]
        self._set(ids, np.concatenate(rows), crcs)  # last: a disk that is full by then leaves the table as it was

    def _set(self, ids: np.ndarray, rows: np.ndarray, crcs: Any) -> None:
        if (lacking := ids.max() + 1 - len(self._rows)) > 0:
            lacking = max(lacking, len(self._rows))  # doubled, so that growing costs little altogether
            self._rows = np.concatenate([self._rows, np.full(lacking, -1)])
            self._crcs = np.concatenate([self._crcs, np.zeros(lacking, np.uint32)])
        self._live += int((self._rows[ids] < 0).sum())
        self._rows[ids], self._crcs[ids] = rows, crcs

    def remove(self, i: int) -> None:
        if self.get(i):
            self._rows[i] = -1
            self._live -= 1

    def in_order(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ids, rows and crcs of the live rows, in the order of the log."""
        ids = np.flatnonzero(self._rows >= 0)
        ids = ids[np.argsort(self._rows[ids], kind="stable")]
        return ids, self._rows[ids], self._crcs[ids]

    def settled(self, folder: Path | None) -> OnDisk:
        """This table; or, when most rows are dead, the same over a new log of the live ones."""
        if self.log.length <= 2 * self._live + DEAD:
            return self
        (ids, rows, crcs), log = self.in_order(), Log.new(self.log.path.parent, self.log.layout)
        try:
            moved = [log.append(content) for _, content in self.log.blocks(rows)]
        except RunError:
            log.path.unlink()
            raise
        table = OnDisk(log)
        table._set(ids, np.concatenate(moved), crcs)  # checksums stay: what was damaged before is not hidden
        return table

    def check(self) -> None:
        """Damaged where a live row's checksum differs."""
        _, rows, crcs = self.in_order()
        if len(rows) and rows[-1] >= self.log.length:
            raise Damaged(f"{self.log.path}: row {rows[-1]} of {self.log.length}")
        for chosen, content in self.log.blocks(rows):
            found = np.fromiter(map(zlib.crc32, content), np.uint32, len(content))
            if (wrong := rows[chosen][found != crcs[chosen]]).size:
                raise Damaged(f"{self.log.path}: the checksum of row {wrong[0]} differs")


class ClientStates(Mapping[int, State]):
    """States by client id, of the clients that have one; see the module.

    `folder` is where states go that are too large for memory; without one everything stays in memory. All states
    have the same entries, dtypes and shapes (ValueError).
    """

    def __init__(self, folder: Path | None = None, table: InMemory | OnDisk | None = None):
        self._folder = folder
        self._table: InMemory | OnDisk = InMemory() if table is None else table
        self._newer: ClientStates | None = None
        self._before: dict[int, Slot | None] = {}  # what the put that made `_newer` replaced

    @classmethod
    def of(cls, states: Mapping[int, State], folder: Path | None = None) -> ClientStates:
        return cls(folder).put(states)

    def __getitem__(self, i: int) -> State:
        version = self
        while version._newer is not None and i not in version._before:
            version = version._newer
        slot = version._table.get(i) if version._newer is None else version._before[i]
        if slot is None:
            raise KeyError(i)
        return slot.read() if isinstance(slot, Place) else slot

    def __iter__(self) -> Iterator[int]:
        """Ids, ascending."""
        return iter(self._own().ids())

    def __len__(self) -> int:
        return len(self._own())

    @property
    def log(self) -> str | None:
        """The name of the file with the states, in the folder; None while they are in memory."""
        table = self._own()
        return table.log.path.name if isinstance(table, OnDisk) else None

    @property
    def size(self) -> int:
        """Bytes of all states, of those in a log with the rows that are no longer used."""
        table = self._own()
        return table.log.length * table.log.layout.size if isinstance(table, OnDisk) else table.size

    def put(self, states: Mapping[int, State]) -> ClientStates:
        """These states, with `states` instead of those of the same clients. RunError where the disk is full."""
        if not states:
            return self
        table, newest = self._own(), self._newer is None
        before = {i: table.get(i) for i in states} if newest else {}
        table.put(states)
        result = ClientStates(self._folder, table)
        if newest:
            self._newer, self._before = result, before
        result._table = table.settled(self._folder)
        return result

    def _own(self) -> InMemory | OnDisk:
        """A table as this value sees it: the shared one where this is the newest, else a copy with the past in it."""
        if self._newer is None:
            return self._table
        chain: list[ClientStates] = [self]
        while chain[-1]._newer is not None:
            chain.append(chain[-1]._newer)
        table = chain.pop()._table.copy()
        for version in reversed(chain):
            for i, slot in version._before.items():
                if slot is None:
                    table.remove(i)
                else:
                    table.put({i: slot.read() if isinstance(slot, Place) else slot})
        return table

    def stored(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint stores of these states: tensors, and a JSON object about them; the log is on disk."""
        table = self._own()
        if isinstance(table, OnDisk):
            table.log.sync()
            names = ("ids", "rows", "crcs")
            tensors = {n: torch.from_numpy(v.astype(np.int64)) for n, v in zip(names, table.in_order(), strict=True)}
            log = {"name": table.log.path.name, "length": table.log.length, "layout": table.log.layout.plain()}
            return tensors, {"log": log}
        ids = table.ids()
        keys = table.get(ids[0]) if ids else ()
        return {"ids": torch.tensor(ids, dtype=torch.int64)} | {
            f"entry/{key}": torch.stack([table.get(i)[key] for i in ids]) for key in keys
        }, {}

    @classmethod
    def restored(cls, folder: Path, tensors: dict[str, Tensor], about: dict[str, Any], device: Any) -> ClientStates:
        """The states that `stored` described; Damaged where the log is missing or not the same."""
        if log := about.get("log"):
            layout = Layout.from_plain(log["layout"], torch.device(device))
            try:
                table = OnDisk(Log(folder / log["name"], layout, log["length"]))
            except FileNotFoundError:
                raise Damaged(f"{folder / log['name']} is missing") from None
            ids, rows, crcs = (tensors[name].cpu().numpy() for name in ("ids", "rows", "crcs"))
            table._set(ids, rows, crcs.astype(np.uint32))
            table.check()
            table.log.cut()
            return cls(folder, table)
        entries = {name.removeprefix("entry/"): t for name, t in tensors.items() if name.startswith("entry/")}
        ids = tensors["ids"].tolist()
        return cls(
            folder, InMemory({i: {k: rows[n].clone() for k, rows in entries.items()} for n, i in enumerate(ids)})
        )
