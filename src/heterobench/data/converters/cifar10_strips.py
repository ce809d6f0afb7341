"""CIFAR-10, re-encoded: a zip of lossless WebP strips (100 images each) and an ``.npz`` of labels."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from heterobench.data.converters.cifar10_archive import TRAIN_BATCHES
from heterobench.data.whole import whole


def convert(downloads: Path, target: Path) -> dict[str, Any]:
    labels = np.load(downloads / "cifar10_labels.npz", allow_pickle=False)
    stand_ins = {}
    with zipfile.ZipFile(downloads / "cifar10_images.zip") as archive:
        for split, batches in (("train", TRAIN_BATCHES), ("test", ("test_batch",))):
            label = iter(whole(labels[f"{split}_labels"], 9, f"{split}_labels").reshape(-1, 100, 1))
            with (target / f"{split}.bin").open("wb") as stream:
                for batch in batches:
                    for strip in range(100):
                        image = Image.open(io.BytesIO(archive.read(f"{batch}/{strip:02d}.webp"))).convert("RGB")
                        pixels = np.asarray(image).reshape(100, 32, 32, 3).transpose(0, 3, 1, 2)
                        stream.write(np.hstack([next(label), pixels.reshape(100, 3072)]).tobytes())
            stand_ins[split] = labels[f"{split}_jpeg_index"].tolist()
    return {"stand_ins": stand_ins}
