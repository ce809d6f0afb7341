"""UCI HAR: windows of nine motion signals of a phone at the waist, in the raw form that its converters write.

For each split: ``<split>_windows.npy``, float32 [n, 9, 128] (body acceleration x y z in g, angular velocity x y z in
radians a second, total acceleration x y z in g; 128 samples at 50 Hz), ``<split>_labels.npy``, uint8 [n] from 0 to 5,
and ``<split>_subjects.npy``, uint8 [n] from 1 to 30. The subjects of the two splits are different people.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

SUBJECTS = 30


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    arrays = {"names_subject": np.array([str(number) for number in range(1, SUBJECTS + 1)])}
    for split in ("train", "test"):
        subjects = array(raw / f"{split}_subjects.npy").astype(np.int64)
        if subjects.size == 0 or not 1 <= subjects.min() <= subjects.max() <= SUBJECTS:
            raise DataError(f"{raw / split}_subjects.npy: expected numbers from 1 to {SUBJECTS}")
        arrays[f"{split}_x"] = array(raw / f"{split}_windows.npy")
        arrays[f"{split}_y"] = array(raw / f"{split}_labels.npy")
        arrays[f"{split}_subject"] = subjects - 1
    return arrays


def array(path: Path) -> np.ndarray:
    with decoding(path):
        return np.load(path, mmap_mode="r", allow_pickle=False)
