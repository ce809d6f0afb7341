"""Raw files of USPS, the same whatever it came in: ink levels 0 to 2000 and digits.

The set is distributed as grey values from -1 (paper) to 1 (ink) with three decimals (LIBSVM's page of data sets; the
"ZIP code" data of Hastie, Tibshirani, Friedman, The Elements of Statistical Learning). A level is the number of
thousandths above -1, so that nothing is lost. ``usps-<split>-levels.npy`` is uint16 [n, 256], and
``usps-<split>-labels.npy`` uint8 [n].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heterobench.errors import DataError

LEVELS = 2000
TOLERANCE = 0.01  # of a level: what printing and 32-bit numbers may cost


def write(folder: Path, split: str, ink: np.ndarray, labels: np.ndarray) -> None:
    """Write both files of a split. ink: [n, 256] from 0 to 1; labels: integers [n] from 0 to 9. Raises DataError."""
    if ink.ndim != 2 or ink.shape[1] != 256 or labels.shape != ink.shape[:1]:
        raise DataError(f"USPS, {split}: expected [n, 256] values and [n] labels, found {ink.shape} and {labels.shape}")
    scaled = ink.astype(np.float64) * LEVELS
    levels = np.rint(scaled)
    if not (np.abs(scaled - levels) <= TOLERANCE).all() or levels.min() < 0 or levels.max() > LEVELS:
        raise DataError(f"USPS, {split}: values are not all multiples of 1/{LEVELS} of the range")
    if labels.min() < 0 or labels.max() > 9:
        raise DataError(f"USPS, {split}: labels go from {labels.min()} to {labels.max()}, not from 0 to 9")
    np.save(folder / f"usps-{split}-levels.npy", levels.astype(np.uint16), allow_pickle=False)
    np.save(folder / f"usps-{split}-labels.npy", labels.astype(np.uint8), allow_pickle=False)


def read(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Levels, uint16 [n, 256], and labels, uint8 [n], as `write` left them. Raises DataError."""
    found = []
    for part, dtype, shape in (("levels", np.uint16, (256,)), ("labels", np.uint8, ())):
        path = folder / f"usps-{split}-{part}.npy"
        try:
            array = np.load(path, allow_pickle=False)
        except (EOFError, ValueError) as error:
            raise DataError(f"{path}: not an array: {error}") from None
        if array.dtype != dtype or array.shape[1:] != shape:
            raise DataError(f"{path}: expected {np.dtype(dtype)} [n, *{shape}], found {array.dtype} {array.shape}")
        found.append(array)
    return found[0], found[1]
