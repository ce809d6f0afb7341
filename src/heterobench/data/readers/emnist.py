"""EMNIST: the official ``gzip.zip`` with the gzipped IDX files of every split (Cohen et al. 2017, arXiv:1702.05373).

The published images are stored column by column, that is mirrored along the diagonal against MNIST; here rows and
columns are exchanged, so that characters stand upright.
"""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays
from heterobench.data.readers.idx import parse
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError


class Options(Strict):
    split: Literal["balanced", "byclass", "bymerge", "digits", "mnist"]  # not letters: its labels count from 1


def read(raw: Path, options: Options) -> Arrays:
    path = raw / "gzip.zip"
    arrays = {}
    for split in ("train", "test"):
        with decoding(path), zipfile.ZipFile(path) as archive:
            images = member(archive, f"emnist-{options.split}-{split}-images-idx3-ubyte.gz", 3)
            labels = member(archive, f"emnist-{options.split}-{split}-labels-idx1-ubyte.gz", 1)
        arrays[f"{split}_x"] = np.ascontiguousarray(images.transpose(0, 2, 1))[:, None]
        arrays[f"{split}_y"] = labels
    return arrays


def member(archive: zipfile.ZipFile, name: str, dimensions: int) -> np.ndarray:
    with archive.open(f"gzip/{name}") as packed, gzip.open(packed) as stream:
        array = parse(stream.read(), f"{archive.filename}: gzip/{name}")
    if array.ndim != dimensions:
        raise DataError(f"{archive.filename}: gzip/{name}: {array.ndim} dimensions instead of {dimensions}")
    return array
