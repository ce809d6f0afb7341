"""USPS as LIBSVM publishes it: ``usps.bz2`` and ``usps.t.bz2``.

One line an image: the digit + 1, then ``index:value`` for the pixels 1 to 256 from -1 to 1; the format leaves out
pixels of value 0 (https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps).
"""

from __future__ import annotations

import bz2
from pathlib import Path
from typing import Any

import numpy as np

from heterobench.data import usps
from heterobench.errors import DataError


def convert(downloads: Path, target: Path) -> dict[str, Any]:
    for split, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        values, labels = parse(downloads / name)
        usps.write(target, split, (values + 1) / 2, labels - 1)
    return {}


def parse(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values, float64 [n, 256], and labels, int64 [n], as they stand in the file. Raises DataError."""
    rows, labels = [], []
    try:
        with bz2.open(path, "rt", encoding="ascii") as stream:
            for line in stream:
                label, *pixels = line.split()
                row = np.zeros(256)
                for pixel in pixels:
                    index, value = pixel.split(":")
                    if not 1 <= int(index) <= 256:
                        raise ValueError(f"{index} is not a pixel from 1 to 256")
                    row[int(index) - 1] = float(value)
                labels.append(int(label))
                rows.append(row)
    except (EOFError, OSError, ValueError) as error:
        raise DataError(f"{path.name}, after {len(rows)} good lines: {error}") from None
    if not rows:
        raise DataError(f"{path.name}: no line")
    return np.stack(rows), np.array(labels)
