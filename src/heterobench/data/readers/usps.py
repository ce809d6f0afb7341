"""USPS: handwritten digits from American envelopes, 16 x 16 grey.

The 2,001 ink levels of the raw files become pixels from 0 to 255: 255 level / 2000, rounded to the nearest whole
number (halves up). A pixel is therefore off by at most half a step, 1/510 of the range.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data import usps
from heterobench.data.readers import Arrays


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    arrays = {}
    for split in ("train", "test"):
        levels, labels = usps.read(raw, split)
        pixels = (levels.astype(np.uint32) * 255 + usps.LEVELS // 2) // usps.LEVELS
        arrays[f"{split}_x"] = pixels.astype(np.uint8).reshape(-1, 1, 16, 16)
        arrays[f"{split}_y"] = labels
    return arrays
