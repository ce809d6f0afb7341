"""Tiny-ImageNet: the official ``tiny-imagenet-200.zip`` (Stanford CS231n) of JPEG files, 64 x 64.

Training images are ``train/<wnid>/images/<wnid>_<number>.JPEG``; the labelled validation images, ``val/images`` with
``val/val_annotations.txt`` (file name, wnid, box; separated by tabs), are the test part, because the official test
images have no labels. ``wnids.txt`` lists the classes by WordNet number. Order: classes by number, in a class by the
number in the file name; test images as val_annotations.txt lists them. A few images are grey: they become RGB.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

ROOT = "tiny-imagenet-200"
SIDE = 64


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    """Images are decoded one by one into the arrays (1.2 GB for the official training part)."""
    path = raw / f"{ROOT}.zip"
    with decoding(path), zipfile.ZipFile(path) as archive:
        wnids = sorted(archive.read(f"{ROOT}/wnids.txt").decode("ascii").split())
        number = {wnid: label for label, wnid in enumerate(wnids)}
        arrays = {"classes": np.array(wnids)}
        for split, listed in (("train", training(archive, number)), ("test", validation(archive, number))):
            arrays[f"{split}_x"] = decode(archive, [name for name, _ in listed])
            arrays[f"{split}_y"] = np.array([label for _, label in listed], np.int64)
    return arrays


def training(archive: zipfile.ZipFile, number: dict[str, int]) -> list[tuple[str, int]]:
    """Names of the training images with their labels, in order."""
    found = []
    for name in archive.namelist():
        parts = name.split("/")
        if len(parts) == 5 and parts[:2] == [ROOT, "train"] and parts[3] == "images" and parts[4].endswith(".JPEG"):
            wnid, _, index = parts[4].removesuffix(".JPEG").rpartition("_")
            if wnid != parts[2] or wnid not in number or not index.isdigit():
                raise DataError(f"{archive.filename}: {name}: not <wnid>_<number>.JPEG of a class in wnids.txt")
            found.append((number[wnid], int(index), name))
    if missing := set(number.values()) - {label for label, _, _ in found}:
        absent = [wnid for wnid, label in number.items() if label in missing]
        raise DataError(f"{archive.filename}: no training images of {', '.join(absent[:5])} ({len(absent)} classes)")
    return [(name, label) for label, _, name in sorted(found)]


def validation(archive: zipfile.ZipFile, number: dict[str, int]) -> list[tuple[str, int]]:
    """Names of the validation images with their labels, in the order of the annotations."""
    annotations = f"{ROOT}/val/val_annotations.txt"
    listed = []
    for line, text in enumerate(archive.read(annotations).decode("ascii").splitlines(), start=1):
        file, wnid = [*text.split("\t"), ""][:2]
        if wnid not in number:
            raise DataError(f"{archive.filename}: {annotations}, line {line}: class {wnid!r} is not in wnids.txt")
        listed.append((f"{ROOT}/val/images/{file}", number[wnid]))
    return listed


def decode(archive: zipfile.ZipFile, names: Sequence[str]) -> np.ndarray:
    """uint8 [n, 3, 64, 64]."""
    images = np.empty((len(names), 3, SIDE, SIDE), np.uint8)
    for row, name in enumerate(names):
        with decoding(Path(archive.filename, name)):
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
        if image.size != (SIDE, SIDE):
            raise DataError(f"{archive.filename}: {name}: {image.size[0]} x {image.size[1]} pixels instead of 64 x 64")
        images[row] = np.asarray(image).transpose(2, 0, 1)
    return images
