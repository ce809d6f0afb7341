"""The official ``cifar-10-binary.tar.gz``. (The pickled version holds the same; pickles execute code.)

CIFAR-10 is kept in the record layout of its official binary version: one label byte, then 3 x 32 x 32 pixel bytes
(red, green, blue plane), 50,000 records in ``train.bin`` and 10,000 in ``test.bin``, in the official order
(https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


def convert(downloads: Path, target: Path) -> dict[str, Any]:
    members = {f"{batch}.bin": "train.bin" for batch in TRAIN_BATCHES} | {"test_batch.bin": "test.bin"}
    with tarfile.open(downloads / "cifar-10-binary.tar.gz") as archive:
        for member, output in members.items():  # one after the other: train batches are appended in order
            with (target / output).open("ab") as stream:
                shutil.copyfileobj(archive.extractfile(f"cifar-10-batches-bin/{member}"), stream)
    return {}
