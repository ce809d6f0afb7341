"""FEMNIST as TensorFlow Federated distributes it: ``fed_emnist.tar.bz2`` with two HDF5 files.

``fed_emnist_train.h5`` and ``fed_emnist_test.h5`` have a group ``examples`` with one group a writer (such as
``f0000_14``), which holds ``pixels``, float32 [n, 28, 28] from 0 (ink) to 1 (paper), and ``label``, integers [n]: 0 to
9 digits, 10 to 35 capitals, 36 to 61 small letters (tensorflow_federated/python/simulation/datasets/emnist). They come
from LEAF's preprocessing (arXiv:1812.01097), whose pixels are bytes divided by 255, so they are kept as bytes; the
remark `rounding` says how far a pixel was from a byte at most, which float32 alone leaves far below 0.001.

Raw files: for each split ``pixels``, uint8 [n, 28, 28], ``labels`` and ``writers``, int64 [n], as ``.npy``, writers in
the order of their names, and ``writers.txt``, the names, one a line.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

ARCHIVE = "fed_emnist.tar.bz2"


def convert(downloads: Path, target: Path) -> dict[str, Any]:
    unpack(downloads / ARCHIVE, downloads)
    files = {split: downloads / f"fed_emnist_{split}.h5" for split in ("train", "test")}
    names = sorted(set().union(*(writers(path) for path in files.values())))
    (target / "writers.txt").write_text("".join(f"{name}\n" for name in names), encoding="ascii")
    return {"rounding": max(write_split(files[split], target, split, names) for split in files)}


def unpack(archive: Path, folder: Path) -> None:
    """Extract the two HDF5 files, whatever folder they are in. Read as a stream: bzip2 cannot jump back."""
    wanted = {"fed_emnist_train.h5", "fed_emnist_test.h5"}
    with decoding(archive), tarfile.open(archive, "r|bz2") as members:
        for member in members:
            if (name := Path(member.name).name) in wanted and member.isfile():
                wanted.remove(name)
                with (folder / name).open("wb") as sink:
                    shutil.copyfileobj(members.extractfile(member), sink)
    if wanted:
        raise DataError(f"{archive}: no {' and no '.join(sorted(wanted))} in it")


def writers(path: Path) -> list[str]:
    with decoding(path), h5py.File(path, "r") as file:
        return list(file["examples"])


def write_split(path: Path, target: Path, split: str, names: list[str]) -> float:
    """Write the three arrays of a split, one writer at a time; return the largest rounding of a pixel."""
    with decoding(path), h5py.File(path, "r") as file:
        examples = file["examples"]
        total = sum(len(group["label"]) for group in examples.values())
        pixels = np.lib.format.open_memmap(target / f"{split}_pixels.npy", "w+", np.uint8, (total, 28, 28))
        labels, numbers = np.empty(total, np.int64), np.empty(total, np.int64)
        start, rounding = 0, 0.0
        for number, name in enumerate(names):
            if name not in examples:
                continue
            values, classes = examples[name]["pixels"][()], examples[name]["label"][()].ravel()
            check(path, name, values, classes)
            end = start + len(classes)
            levels = np.rint(values * 255)
            rounding = max(rounding, float(np.abs(values * 255 - levels).max()))
            pixels[start:end], labels[start:end], numbers[start:end] = levels, classes, number
            start = end
        pixels.flush()
    np.save(target / f"{split}_labels.npy", labels)
    np.save(target / f"{split}_writers.npy", numbers)
    return rounding


def check(path: Path, name: str, values: np.ndarray, classes: np.ndarray) -> None:
    if len(classes) == 0 or values.shape != (len(classes), 28, 28):
        raise DataError(f"{path}: writer {name} has pixels {list(values.shape)} for {len(classes)} labels")
    if not (values.min() >= 0 and values.max() <= 1):
        raise DataError(f"{path}: writer {name} has pixels outside 0 to 1")
    if classes.min() < 0 or classes.max() > 61:
        raise DataError(f"{path}: writer {name} has labels outside 0 to 61: {np.unique(classes).tolist()[:20]}")
