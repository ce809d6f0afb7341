"""USPS as one HDF5 file: groups train and test, each with ``data`` [n, 256] from 0 to 1 and ``target`` [n], 0 to 9."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heterobench.data import usps
from heterobench.errors import DataError


def convert(downloads: Path, target: Path) -> dict[str, Any]:
    path = downloads / "usps.h5"
    try:
        import h5py  # only this form of this set needs it; without it, the next form is tried
    except ImportError:
        raise DataError(f"{path.name} needs the Python package h5py, which is not installed") from None
    for split in ("train", "test"):
        try:
            with h5py.File(path) as file:
                ink, labels = file[f"{split}/data"][:], file[f"{split}/target"][:]
        except (KeyError, OSError) as error:
            raise DataError(f"{path.name}: no readable {split}/data and {split}/target: {error}") from None
        usps.write(target, split, ink, labels)
    return {}
