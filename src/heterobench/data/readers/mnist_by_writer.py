"""MNIST with the writer of each digit, from the extended labels of QMNIST.

Yadav and Bottou, Cold Case: the Lost MNIST Digits, 2019 (arXiv:1905.10498), traced every image of MNIST back to NIST
Special Database 19. Row i of the training labels describes MNIST's training image i; the first 10,000 rows of the
60,000 test labels describe MNIST's test images, the others images that MNIST has not. Columns: class, NIST series,
writer, number of the digit for that writer, NIST class code, number in NIST's database, duplicate, unused
(https://github.com/facebookresearch/qmnist).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays, idx
from heterobench.errors import DataError

SERIES = {0: "census staff", 4: "high-school students"}  # of NIST, as far as MNIST has them


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    arrays = idx.read(raw, idx.Options())
    writers, series = {}, {}
    for split in ("train", "test"):
        path = raw / f"qmnist-{split}-labels-idx2-int.gz"
        rows = extended(path, arrays[f"{split}_y"])
        series[split], writers[split] = rows[:, 1], rows[:, 2]
        if strange := sorted(set(series[split].tolist()) - set(SERIES)):
            raise DataError(f"{path}: NIST series {strange} among the rows of MNIST, expected {sorted(SERIES)}")
    known = np.unique(np.concatenate([writers["train"], writers["test"]]))
    for split in ("train", "test"):
        arrays[f"{split}_writer"] = np.searchsorted(known, writers[split]).astype(np.int64)
        arrays[f"{split}_series"] = np.searchsorted(sorted(SERIES), series[split]).astype(np.int64)
    names = {"names_writer": known.astype(str), "names_series": np.array([SERIES[key] for key in sorted(SERIES)])}
    return arrays | names


def extended(path: Path, labels: np.ndarray) -> np.ndarray:
    """The rows of an extended label file that describe the images with these labels, int32 [n, 8].

    Raises DataError where the file has too few rows, or a row is of another class than the image it describes.
    """
    table = idx.idx_array(path)
    if table.ndim != 2 or table.shape[1] != 8 or len(table) < len(labels):
        raise DataError(f"{path}: expected at least {len(labels)} rows of 8 numbers, found {list(table.shape)}")
    rows = table[: len(labels)]
    if len(wrong := np.flatnonzero(rows[:, 0] != labels)):
        raise DataError(
            f"{path}: row {wrong[0]} is of class {rows[wrong[0], 0]}, but that image of MNIST has label "
            f"{labels[wrong[0]]} ({len(wrong)} such rows)"
        )
    return rows
