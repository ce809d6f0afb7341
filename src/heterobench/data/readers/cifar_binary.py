"""Records of one label byte and 3 x 32 x 32 pixel bytes (the official binary version of CIFAR-10)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays
from heterobench.errors import DataError


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    arrays = {}
    for split in ("train", "test"):
        data = np.fromfile(raw / f"{split}.bin", np.uint8)
        if data.size == 0 or data.size % 3073:
            raise DataError(f"{raw / split}.bin: {data.size} bytes are not a whole number of 3073-byte records")
        records = data.reshape(-1, 3073)
        arrays[f"{split}_x"] = records[:, 1:].reshape(-1, 3, 32, 32)
        arrays[f"{split}_y"] = records[:, 0].astype(np.int64)
    return arrays
