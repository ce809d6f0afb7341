"""From a published packing to raw files, where the set comes in more than one packing.

A converter takes (folder of verified downloads, folder to write to) and returns what a reader of the data
should know about this form, for ``source.json``.

CIFAR-10 is kept in the record layout of its official binary version: one label byte, then 3 x 32 x 32 pixel
bytes (red, green, blue plane), 50,000 records in ``train.bin`` and 10,000 in ``test.bin``, in the official
order (https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


def cifar10_archive(downloads: Path, target: Path) -> dict[str, Any]:
    """The official ``cifar-10-binary.tar.gz``. (The pickled version holds the same; pickles execute code.)"""
    members = {f"{batch}.bin": "train.bin" for batch in TRAIN_BATCHES} | {"test_batch.bin": "test.bin"}
    with tarfile.open(downloads / "cifar-10-binary.tar.gz") as archive:
        for member, output in members.items():  # one after the other: train batches are appended in order
            with (target / output).open("ab") as stream:
                shutil.copyfileobj(archive.extractfile(f"cifar-10-batches-bin/{member}"), stream)
    return {}


def cifar10_strips(downloads: Path, target: Path) -> dict[str, Any]:
    """Re-encoded form: a zip of lossless WebP strips (100 images each) and an ``.npz`` of labels."""
    from PIL import Image  # only this form needs it

    labels = np.load(downloads / "cifar10_labels.npz", allow_pickle=False)
    stand_ins = {}
    with zipfile.ZipFile(downloads / "cifar10_images.zip") as archive:
        for split, batches in (("train", TRAIN_BATCHES), ("test", ("test_batch",))):
            label = iter(labels[f"{split}_labels"].astype(np.uint8).reshape(-1, 100, 1))
            with (target / f"{split}.bin").open("wb") as stream:
                for batch in batches:
                    for strip in range(100):
                        image = Image.open(io.BytesIO(archive.read(f"{batch}/{strip:02d}.webp"))).convert("RGB")
                        pixels = np.asarray(image).reshape(100, 32, 32, 3).transpose(0, 3, 1, 2)
                        stream.write(np.hstack([next(label), pixels.reshape(100, 3072)]).tobytes())
            stand_ins[split] = labels[f"{split}_jpeg_index"].tolist()
    return {"stand_ins": stand_ins}


CONVERTERS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "cifar10-archive": cifar10_archive,
    "cifar10-strips": cifar10_strips,
}
