"""FEMNIST, converted: arrays of pixels, labels and writers of both splits, and the names of the writers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    """The attribute `writer` is known for every example; pixels stay on disk until they are used."""
    arrays = {"names_writer": np.array((raw / "writers.txt").read_text(encoding="ascii").split())}
    for split in ("train", "test"):
        for column, key in (("pixels", "x"), ("labels", "y"), ("writers", "writer")):
            path = raw / f"{split}_{column}.npy"
            with decoding(path):
                arrays[f"{split}_{key}"] = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays[f"{split}_x"] = arrays[f"{split}_x"][:, None]
    return arrays
