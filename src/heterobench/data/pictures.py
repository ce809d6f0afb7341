"""Encoded images (PNG, JPEG and whatever else Pillow reads) as arrays of pixels."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from heterobench.config.strict import Strict
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

MODES = {"grey": "L", "rgb": "RGB"}
Side = Annotated[int, Field(strict=True, ge=1, le=4096)]
DEEP = ("I", "F")  # first letters of Pillow's modes of more than 8 bits a channel: they would be cut


class Pictures(Strict):
    """Options of all readers of images."""

    colours: Literal["grey", "rgb"] = Field(description="images of the other kind are converted")
    height: Side | None = Field(None, description="with width: to which all are resized, bilinear; else all are equal")
    width: Side | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Pictures:
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width belong together: give both, and all images are resized, or neither")
        return self


def decoded(images: Iterable[tuple[str, bytes]], count: int, options: Pictures) -> np.ndarray:
    """uint8 [count, channels, height, width] of `images`, each with what it is called in messages.

    Raises DataError for an image that cannot be decoded, has more than 8 bits a channel, or another size than the
    first where none is asked for.
    """
    pixels = None
    for row, (where, data) in enumerate(images):
        with decoding(Path(where)):
            image = Image.open(io.BytesIO(data))
            image.load()
        if image.mode[0] in DEEP:
            raise DataError(
                f"{where}: pixels of mode {image.mode}, allowed are 8 bits a channel. What to do: convert it"
            )
        image = image.convert(MODES[options.colours])
        if options.height and options.width:
            image = image.resize((options.width, options.height), Image.Resampling.BILINEAR)
        if pixels is None:
            pixels = np.empty((count, len(image.getbands()), image.height, image.width), np.uint8)
        if (image.height, image.width) != pixels.shape[2:]:
            raise DataError(
                f"{where}: {image.height} x {image.width} pixels (height x width), the first image has "
                f"{pixels.shape[2]} x {pixels.shape[3]}. What to do: options: height and width resize all"
            )
        array = np.asarray(image)
        pixels[row] = array if array.ndim == 2 else array.transpose(2, 0, 1)
    return pixels
