"""The official ``cifar-100-binary.tar.gz``. (The Python version holds the same in pickles, which execute code.)

Raw files are its four useful members as they are: 50,000 training and 10,000 test records in the official order, and
the names of the fine and coarse labels.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

from heterobench.data.unreadable import decoding

MEMBERS = ("train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt")


def convert(downloads: Path, target: Path) -> dict[str, Any]:
    path = downloads / "cifar-100-binary.tar.gz"
    with decoding(path), tarfile.open(path) as archive:
        for member in MEMBERS:
            with archive.extractfile(f"cifar-100-binary/{member}") as stream, (target / member).open("wb") as sink:
                shutil.copyfileobj(stream, sink)
    return {}
