"""A zip archive that holds the raw files at its top level, beside others that nobody needs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from heterobench.data.unreadable import decoding


def convert(downloads: Path, target: Path) -> dict[str, Any]:
    for path in sorted(downloads.iterdir()):
        with decoding(path), zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if "/" not in member:
                    (target / member).write_bytes(archive.read(member))
    return {}
