"""Is this file the file it should be?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heterobench.config.reading import shown
from heterobench.data.schema import SOURCE, DatasetFile
from heterobench.errors import DataError
from heterobench.files import file_digest, read_json
from heterobench.project import Project


def mismatch(path: Path, sha256: str | None, size: int | None, md5: str | None = None) -> str | None:
    """What is wrong with the file, as ``expected ..., found ...``; None where nothing is.

    `md5` counts only where there is no `sha256`. The size is compared first: it is cheap, and it tells a truncated
    file from an altered one.
    """
    algorithm, checksum = ("md5", md5) if sha256 is None and md5 is not None else ("sha256", sha256)
    if not path.is_file():
        return f"missing: expected {algorithm} {checksum}, found no file"
    found = path.stat().st_size
    if size is not None and found != size:
        expected = f"expected {size} bytes with {algorithm} {checksum}"
        if found > size:  # no checksum: a download stops after the first byte too many
            return f"too long: {expected}, found at least {found} bytes"
        return f"truncated: {expected}, found {found} bytes with {algorithm} {file_digest(path, algorithm)}"
    if checksum is not None and (actual := file_digest(path, algorithm)) != checksum:
        return f"altered: expected {algorithm} {checksum}, found {actual}"
    return None


def verify_raw(project: Project, name: str, dataset: DatasetFile) -> dict[str, Any]:
    """Check every raw file of a set and return what its ``source.json`` says.

    A checksum in the parameter file is the authority; where it has none (a converted official archive), the
    one that was recorded when the verified archive was converted is. Raises DataError.
    """
    folder = project.raw(name)
    again = f"`heterobench obtain {name}`, which restores or fetches it"
    try:
        source = read_json(folder / SOURCE)
        recorded = {path: (entry["sha256"], entry["bytes"]) for path, entry in source["files"].items()}
        form = next(form for form in dataset.forms if form.name == source["form"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else f"not usable ({error!r})"
        path = shown(project, folder / SOURCE)
        raise DataError(f"{path}: {reason}: the raw files of {name} are not complete. What to do: {again}") from None
    for file in form.raw_files:
        sha256, size = recorded.get(file.path, (None, None))
        sha256, size = file.sha256 or (None if file.md5 else sha256), file.bytes or size
        if sha256 is None and file.md5 is None:
            raise DataError(f"{shown(project, folder / SOURCE)}: no checksum of {file.path}. What to do: {again}")
        if problem := mismatch(folder / file.path, sha256, size, file.md5):
            raise DataError(f"{shown(project, folder / file.path)}: {problem}. What to do: {again}")
    return source
