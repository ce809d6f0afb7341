"""The official archive of UCI HAR: text files, one line a window, inside a zip inside a zip (the older address has
the inner one alone). Windows keep the official order; numbers are read as float64 and kept as float32.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

ARCHIVE = "uci-har.zip"
INNER = "UCI HAR Dataset.zip"
CHANNELS = tuple(f"{signal}_{axis}" for signal in ("body_acc", "body_gyro", "total_acc") for axis in "xyz")
LENGTH = 128  # samples of a window
CLASSES, SUBJECTS = 6, 30


def convert(downloads: Path, target: Path) -> dict[str, Any]:
    path = downloads / ARCHIVE
    with decoding(path), zipfile.ZipFile(path) as outer:
        inner = io.BytesIO(outer.read(INNER)) if INNER in outer.namelist() else path
        with zipfile.ZipFile(inner) as archive:
            for split in ("train", "test"):
                folder = f"UCI HAR Dataset/{split}"
                channels = [
                    numbers(archive, f"{folder}/Inertial Signals/{name}_{split}.txt", LENGTH) for name in CHANNELS
                ]
                labels = numbers(archive, f"{folder}/y_{split}.txt", 1)[:, 0] - 1
                subjects = numbers(archive, f"{folder}/subject_{split}.txt", 1)[:, 0]
                write(target, split, channels, labels, subjects)
    return {}


def numbers(archive: zipfile.ZipFile, member: str, width: int) -> np.ndarray:
    """float64 [lines, width] of a text file. Raises DataError."""
    with archive.open(member) as stream, decoding(Path(ARCHIVE) / member):
        values = np.loadtxt(stream, ndmin=2)
    if values.shape[1] != width:
        raise DataError(f"{ARCHIVE}: {member}: {values.shape[1]} numbers a line, expected {width}")
    return values


def write(target: Path, split: str, channels: Sequence[np.ndarray], labels: np.ndarray, subjects: np.ndarray) -> None:
    """The raw files of a split (`heterobench.data.readers.uci_har`) from each channel's [n, 128], and [n] and [n].

    Raises DataError for columns of different lengths and for labels or subjects out of range.
    """
    lengths = {len(values) for values in (*channels, labels, subjects)}
    if len(lengths) > 1:
        raise DataError(f"UCI HAR, split {split!r}: different numbers of windows: {sorted(lengths)}")
    for what, values, least, most in (("labels", labels, 0, CLASSES - 1), ("subjects", subjects, 1, SUBJECTS)):
        if values.size == 0 or values.min() < least or values.max() > most:
            raise DataError(f"UCI HAR, split {split!r}: {what} are not all from {least} to {most}")
        np.save(target / f"{split}_{what}.npy", values.astype(np.uint8))
    np.save(target / f"{split}_windows.npy", np.stack(channels, axis=1).astype("<f4"))
