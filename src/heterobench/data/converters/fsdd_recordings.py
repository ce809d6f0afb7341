"""The recordings of the Free Spoken Digit Dataset, from a tar archive or from the zip archive of its repository.

Either becomes ``recordings.tar``: the wav files as they are, as ``recordings/<name>``, in the order of their names,
without times and owners, so that equal recordings give equal bytes.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from heterobench.data.unreadable import decoding
from heterobench.errors import DataError


def convert(downloads: Path, target: Path) -> dict[str, Any]:
    recordings = {}
    for path in sorted(downloads.iterdir()):
        with decoding(path):
            for member, data in members(path):
                place = PurePosixPath(member)
                if place.suffix == ".wav" and place.parent.name == "recordings":
                    recordings[place.name] = data
    if not recordings:
        raise DataError("no file recordings/<name>.wav in the archive")
    with tarfile.open(target / "recordings.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(recordings.items()):
            entry = tarfile.TarInfo(f"recordings/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return {}


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in an archive."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield name, archive.read(name)
    else:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile():
                    yield member.name, archive.extractfile(member).read()
