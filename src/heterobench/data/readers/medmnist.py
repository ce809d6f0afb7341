"""Two-dimensional MedMNIST sets with one label an image: one ``.npz`` with six arrays.

``<part>_images``, uint8 [n, height, width] or [n, height, width, 3], and ``<part>_labels``, [n, 1], for the parts
train, val and test (Yang et al. 2023, Scientific Data 10, 41; https://medmnist.com). Training data are train, then
val: who needs validation data cuts them from the clients' own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from heterobench.config.names import FileName
from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError


class Options(Strict):
    file: FileName = Field(description="name of the .npz")


def read(raw: Path, options: Options) -> Arrays:
    path = raw / options.file
    with decoding(path, "not a MedMNIST file"), np.load(path, allow_pickle=False) as archive:
        parts = {part: (archive[f"{part}_images"], archive[f"{part}_labels"]) for part in ("train", "val", "test")}
    for part, (images, labels) in parts.items():
        if images.ndim not in (3, 4) or labels.shape != (len(images), 1):
            raise DataError(f"{path}: {part}: images {images.shape}, labels {labels.shape}; expected one label each")
    train, val, test = ((channels_first(images), labels[:, 0]) for images, labels in parts.values())
    return {
        "train_x": np.concatenate([train[0], val[0]]),
        "train_y": np.concatenate([train[1], val[1]]),
        "test_x": test[0],
        "test_y": test[1],
    }


def channels_first(images: np.ndarray) -> np.ndarray:
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
