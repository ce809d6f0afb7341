"""Whole numbers of raw files in a narrow type: what it cannot hold is an error, where numpy would wrap it round."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heterobench.errors import DataError


def whole(values: np.ndarray, largest: int, where: str | Path, dtype: type = np.uint8) -> np.ndarray:
    """`values` as `dtype`; DataError, with the file and the value, unless all are whole numbers from 0 to `largest`."""
    values = np.asarray(values)
    with np.errstate(invalid="ignore"):
        wrong = ~((values >= 0) & (values <= largest) & (values == np.floor(values)))
    if wrong.any():
        place = tuple(int(at) for at in np.argwhere(wrong)[0])
        raise DataError(
            f"{where}: value {values[place]} at {list(place)}: allowed are whole numbers from 0 to {largest}"
        )
    return values.astype(dtype)
