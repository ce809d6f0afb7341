"""Digits of three sources as one set: USPS, MNIST and scikit-learn's digits, at one size and in one range.

Every source keeps its own split (`heterobench.data.readers.usps`, ``idx``, ``digits``); the three follow each other
in this order. Values are first brought to 0 to 255 (digits: 255 v / 16, rounded to the nearest whole number, halves
up), then images of another size than 16 x 16 are resized with Pillow's BILINEAR filter, which works in whole numbers,
so that the result is the same everywhere, and which widens its support when it shrinks, so that every pixel of a
28 x 28 image counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays, digits, idx, usps

SIZE = 16
MAXIMUM = {"usps": 255, "mnist": 255, "digits": 16}


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    sources = {
        "usps": usps.read(raw, usps.Options()),
        "mnist": idx.read(raw, idx.Options()),
        "digits": digits.read(raw, digits.Options()),
    }
    arrays = {"names_domain": np.array(list(sources))}
    for split in ("train", "test"):
        labels = [source[f"{split}_y"] for source in sources.values()]
        images = [common(source[f"{split}_x"], MAXIMUM[name]) for name, source in sources.items()]
        arrays[f"{split}_x"], arrays[f"{split}_y"] = np.concatenate(images), np.concatenate(labels)
        arrays[f"{split}_domain"] = np.repeat(np.arange(len(sources)), [len(part) for part in labels])
    return arrays


def common(x: np.ndarray, maximum: int) -> np.ndarray:
    """Images uint8 [n, 1, height, width] from 0 to maximum as uint8 [n, 1, 16, 16] from 0 to 255."""
    x = ((x[:, 0].astype(np.uint32) * 255 + maximum // 2) // maximum).astype(np.uint8)
    if x.shape[1:] != (SIZE, SIZE):
        for _ in "width", "height":  # the two passes of Pillow's resize, each over all images as one tall strip
            count, height, width = x.shape
            strip = Image.fromarray(x.reshape(count * height, width))
            strip = strip.resize((SIZE, count * height), Image.Resampling.BILINEAR)
            x = np.asarray(strip).reshape(count, height, SIZE).transpose(0, 2, 1)
    return x[:, None]
