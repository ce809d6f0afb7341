"""MNIST and sets in its form: four gzipped IDX files, one grey channel."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays
from heterobench.errors import DataError

TYPES = {8: ">u1", 12: ">i4"}  # the two of the format's types that our sets use


class Options(Strict):
    pass


def idx_array(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file (http://yann.lecun.com/exdb/mnist/, "file formats"), in its stored type.

    Header: two zero bytes, the type, the number of dimensions, then each length as a big-endian 32-bit integer.
    """
    with gzip.open(path, "rb") as stream:
        return parse(stream.read(), path)


def parse(data: bytes, path: Path | str) -> np.ndarray:
    """The array in the unpacked bytes of an IDX file; `path` is for the message of the DataError."""
    if len(data) < 4 or data[:2] != b"\x00\x00" or data[2] not in TYPES:
        raise DataError(
            f"{path}: not an IDX file of unsigned bytes or 32-bit integers: it starts with {data[:4].hex()}"
        )
    lengths = np.frombuffer(data, ">u4", count=data[3], offset=4).tolist()
    start, dtype = 4 + 4 * data[3], np.dtype(TYPES[data[2]])
    if len(data) - start != np.prod(lengths) * dtype.itemsize:
        raise DataError(
            f"{path}: shape {lengths} needs {np.prod(lengths) * dtype.itemsize} bytes, found {len(data) - start}"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(lengths)


def read(raw: Path, options: Options) -> Arrays:
    arrays = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        arrays[f"{split}_x"] = idx_array(raw / f"{prefix}-images-idx3-ubyte.gz")[:, None]
        arrays[f"{split}_y"] = idx_array(raw / f"{prefix}-labels-idx1-ubyte.gz")
    return arrays
