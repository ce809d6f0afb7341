"""The official binary version of CIFAR-100: records of two label bytes and 3 x 32 x 32 pixel bytes, and two lists.

A record is the coarse label (superclass), the fine label (class), then the red, green and blue plane, row by row; the
names of both stand in text files, one a line (https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

PIXELS = 3 * 32 * 32


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    """Classes are the fine labels; the attribute `superclass` is the coarse label."""
    arrays = {"classes": names(raw / "fine_label_names.txt"), "names_superclass": names(raw / "coarse_label_names.txt")}
    for split in ("train", "test"):
        path = raw / f"{split}.bin"
        data = np.fromfile(path, np.uint8)
        if data.size == 0 or data.size % (2 + PIXELS):
            raise DataError(f"{path}: {data.size} bytes are not a whole number of {2 + PIXELS}-byte records")
        records = data.reshape(-1, 2 + PIXELS)
        for column, key in ((0, "names_superclass"), (1, "classes")):
            if (largest := int(records[:, column].max())) >= len(arrays[key]):
                kind = "coarse" if column == 0 else "fine"
                raise DataError(f"{path}: {kind} label {largest} in a set of {len(arrays[key])} {kind} names")
        arrays[f"{split}_x"] = records[:, 2:].reshape(-1, 3, 32, 32)
        arrays[f"{split}_y"] = records[:, 1].astype(np.int64)
        arrays[f"{split}_superclass"] = records[:, 0].astype(np.int64)
    return arrays


def names(path: Path) -> np.ndarray:
    with decoding(path):
        return np.array(path.read_text(encoding="ascii").split())
