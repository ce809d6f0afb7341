"""UCI HAR, re-encoded as one ``.npz``: continuous signals, and where each window starts.

Half of a window is the next one's first half, so each run of windows is kept once as a signal. `signal`, uint8
[4, 9, samples], holds the four bytes of each little-endian float32 as planes; window i is the 128 samples from
``start[i]``; `y` is its class, `subject` its subject, `is_train` its split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from heterobench.data.converters.uci_har_archive import CHANNELS, LENGTH, write
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

FILE = "uci_har_inertial.npz"
COLUMNS = ("start", "y", "subject", "is_train")


def convert(downloads: Path, target: Path) -> dict[str, Any]:
    with decoding(downloads / FILE), np.load(downloads / FILE, allow_pickle=False) as stored:
        planes, start, y, subject, is_train = (stored[key] for key in ("signal", *COLUMNS))
    if planes.ndim != 3 or planes.dtype != np.uint8 or planes.shape[:2] != (4, len(CHANNELS)):
        raise DataError(f"{FILE}: signal is {planes.dtype} {list(planes.shape)}, expected uint8 [4, 9, samples]")
    if not start.shape == y.shape == subject.shape == is_train.shape or is_train.dtype != bool:
        raise DataError(f"{FILE}: {', '.join(COLUMNS)} are not columns of one length, the last of true and false")
    samples = planes.shape[2]
    if len(start) == 0 or start.min() < 0 or start.max() > samples - LENGTH:
        raise DataError(f"{FILE}: a window does not lie inside the {samples} samples")
    signal = np.ascontiguousarray(planes.transpose(1, 2, 0)).view("<f4")[..., 0]
    windows = np.lib.stride_tricks.sliding_window_view(signal, LENGTH, axis=1)
    for split, rows in (("train", is_train), ("test", ~is_train)):
        write(target, split, windows[:, start[rows]], y[rows], subject[rows])
    return {}
