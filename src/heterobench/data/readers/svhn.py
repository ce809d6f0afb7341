"""SVHN, cropped digits: two MATLAB files (http://ufldl.stanford.edu/housenumbers/, "Format 2").

Each holds X, uint8 [32, 32, 3, n] (row, column, colour, image), and y, [n, 1], where the digit 0 has label 10.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io

from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    arrays = {}
    for split in ("train", "test"):
        path = raw / f"{split}_32x32.mat"
        with decoding(path):
            content = scipy.io.loadmat(path, variable_names=["X", "y"])
            x, y = content["X"], content["y"]
        if x.ndim != 4 or x.shape[:3] != (32, 32, 3) or x.dtype != np.uint8:
            raise DataError(f"{path}: X is {x.dtype} {list(x.shape)} instead of uint8 [32, 32, 3, n]")
        if y.size == 0 or not np.isin(y, np.arange(1, 11)).all():
            raise DataError(f"{path}: y must hold labels 1 to 10, found {np.unique(y).tolist()[:20]}")
        arrays[f"{split}_x"] = np.ascontiguousarray(x.transpose(3, 2, 0, 1))
        arrays[f"{split}_y"] = y.ravel().astype(np.int64) % 10
    return arrays
