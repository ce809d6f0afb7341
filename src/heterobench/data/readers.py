"""Readers: from raw files to arrays in the official order.

A reader takes the folder of raw files and returns ``{"train_x", "train_y", "test_x", "test_y"}``: x is uint8
of shape [n, channels, height, width], y is int64 of shape [n]. Raw files have been verified before a reader
sees them.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np

from heterobench import keyed
from heterobench.errors import DataError

Arrays = dict[str, np.ndarray]


def idx_array(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist/, "file formats").

    Header: two zero bytes, the type (8 = unsigned byte), the number of dimensions, then each length as a
    big-endian 32-bit integer.
    """
    with gzip.open(path, "rb") as stream:
        data = stream.read()
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DataError(f"{path}: not an IDX file of unsigned bytes: it starts with {data[:4].hex()}")
    lengths = np.frombuffer(data, ">u4", count=data[3], offset=4).tolist()
    start = 4 + 4 * data[3]
    if len(data) - start != np.prod(lengths):
        raise DataError(f"{path}: shape {lengths} needs {np.prod(lengths)} bytes, found {len(data) - start}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(lengths)


def read_idx(raw: Path) -> Arrays:
    """MNIST and sets in its form: four gzipped IDX files, one grey channel."""
    arrays = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        arrays[f"{split}_x"] = idx_array(raw / f"{prefix}-images-idx3-ubyte.gz")[:, None]
        arrays[f"{split}_y"] = idx_array(raw / f"{prefix}-labels-idx1-ubyte.gz").astype(np.int64)
    return arrays


def read_digits(raw: Path) -> Arrays:
    """scikit-learn's digits: 64 pixel values (0 to 16) and the class in each line; no official split.

    The split is fixed for ever by a keyed draw: of each class, a fifth (rounded) is test data; both parts
    keep the order of the file.
    """
    with gzip.open(raw / "digits.csv.gz", "rt", encoding="ascii") as stream:
        table = np.loadtxt(stream, delimiter=",").astype(np.int64)
    x, y = table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8), table[:, -1]
    draw = keyed.generator(0, "digits split")
    is_test = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = draw.permutation(np.flatnonzero(y == label))
        is_test[members[: round(0.2 * len(members))]] = True
    return {"train_x": x[~is_test], "train_y": y[~is_test], "test_x": x[is_test], "test_y": y[is_test]}


def read_cifar_binary(raw: Path) -> Arrays:
    """Records of one label byte and 3 x 32 x 32 pixel bytes (the official binary version of CIFAR-10)."""
    arrays = {}
    for split in ("train", "test"):
        data = np.fromfile(raw / f"{split}.bin", np.uint8)
        if data.size == 0 or data.size % 3073:
            raise DataError(f"{raw / split}.bin: {data.size} bytes are not a whole number of 3073-byte records")
        records = data.reshape(-1, 3073)
        arrays[f"{split}_x"] = records[:, 1:].reshape(-1, 3, 32, 32)
        arrays[f"{split}_y"] = records[:, 0].astype(np.int64)
    return arrays


READERS: dict[str, Callable[[Path], Arrays]] = {
    "cifar-binary": read_cifar_binary,
    "digits": read_digits,
    "idx": read_idx,
}
