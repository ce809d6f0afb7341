"""Raw files of a data set: from the first source that has the right bytes, verified, all of them or none.

``python -m heterobench.data.fetch NAME`` is the command of the DVC stage ``fetch@NAME``. The setting
``HETEROBENCH_MIRROR`` (a folder or a URL prefix) names a place to look at before the canonical addresses.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from heterobench.addresses import check, open_url
from heterobench.data.checksums import mismatch
from heterobench.data.converters import converter
from heterobench.data.schema import SOURCE, Download, Form, Source, load_dataset_file
from heterobench.errors import DataError, without_credentials
from heterobench.failure import explained
from heterobench.files import file_digest, write_json, writing
from heterobench.project import Project

MIRROR = "HETEROBENCH_MIRROR"
TIMEOUT = 30  # seconds without an answer or a byte
LARGEST = 4 << 30  # bytes of a download whose size nobody published


def fetch(project: Project, name: str) -> Path:
    """Write the raw files of `name` and their ``source.json``; return the path of the latter.

    Everything is collected and checked in a folder of its own and moved into place at the end, so that a
    failed or killed fetch leaves no half-written file. Raises DataError that lists every source with its
    reason.
    """
    dataset = load_dataset_file(project, name)
    folder = project.raw(name)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{name}.partial"
    problems = []
    with FileLock(folder.parent / f".{name}.lock"):
        try:
            for form in dataset.forms:
                shutil.rmtree(partial, ignore_errors=True)  # of the form before, or of a killed process
                try:
                    collect(name, form, partial)
                except DataError as problem:
                    problems.append(f"form {form.name!r}: {problem}")
                    continue
                (folder / SOURCE).unlink(missing_ok=True)  # back last: while it is absent, nothing is complete
                for file in form.raw_files:
                    os.replace(partial / file.path, folder / file.path)
                os.replace(partial / SOURCE, folder / SOURCE)
                return folder / SOURCE
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if not any(folder.iterdir()):
                folder.rmdir()
    advice = (
        f"What to do: connect to the network, or set {MIRROR} to a folder or URL prefix that holds the files "
        f"in the places listed after 'mirror', or `dvc pull fetch@{name}` from a remote that has them. "
        f"Sources and checksums stand in params/datasets/{name}.yaml."
    )
    raise DataError("\n".join([f"data set {name} cannot be obtained.", *problems, advice]))


def collect(name: str, form: Form, partial: Path) -> None:
    """Obtain and convert one form inside the folder `partial`, which then holds raw files and source.json."""
    downloads = partial if form.converter is None else partial / "downloads"
    downloads.mkdir(parents=True)
    for file in form.downloads:
        obtain_file(file, downloads / file.path)
    remarks = {}
    if form.converter is not None:
        remarks = converter(form.converter, f"params/datasets/{name}.yaml")(downloads, partial)
        for output in form.outputs:
            if (downloads / output.path).is_file():
                os.replace(downloads / output.path, partial / output.path)
            if problem := mismatch(partial / output.path, output.sha256, output.bytes):
                raise DataError(f"{output.path}, converted from verified downloads, is {problem}")
    files = {
        file.path: {
            "sha256": file_digest(partial / file.path),
            "bytes": (partial / file.path).stat().st_size,
        }
        for file in form.raw_files
    }
    write_json(partial / SOURCE, {"dataset": name, "form": form.name, "note": form.note, "files": files} | remarks)


def obtain_file(file: Download, target: Path) -> None:
    """Copy `file` to `target` from its first source that has the right bytes. Raises DataError."""
    reasons = []
    for source in file.sources:
        try:
            with open_source(source) as stream:
                copy_at_most(stream, target, (file.bytes or LARGEST) + 1)
        except (OSError, ValueError, HTTPException) as error:  # URLError and time-outs are OSErrors
            reasons.append(f"{source}: {error}")
            continue
        problem = mismatch(target, file.sha256, file.bytes, file.md5)
        if file.bytes is None and target.stat().st_size > LARGEST:
            problem = f"too long: at most {LARGEST} bytes are read of a file without a published size"
        if problem is None:
            return
        reasons.append(f"{source}: {problem}")
        # A source with wrong bytes is a fault that somebody should repair, even if another source helps out.
        print(without_credentials(f"warning: {file.path} from {reasons[-1]}"), file=sys.stderr, flush=True)
    target.unlink(missing_ok=True)
    size = f", {file.bytes} bytes" if file.bytes else ""
    checksum = f"sha256 {file.sha256}" if file.sha256 else f"md5 {file.md5}"
    expected = f"{file.path} (expected {checksum}{size}) was not found:"
    raise DataError("\n  ".join([expected, *reasons]))


def open_source(source: Source) -> BinaryIO:
    """Open one source for reading. Raises OSError with a message for people."""
    if source.package is not None:
        spec = importlib.util.find_spec(source.package)  # finds the folder without importing the package
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"Python package {source.package} is not installed")
        return open(Path(spec.submodule_search_locations[0]) / source.path, "rb")
    if source.url is not None:
        return open_url(source.url, TIMEOUT)
    mirror = os.environ.get(MIRROR)
    if not mirror:
        raise FileNotFoundError(f"{MIRROR} is not set")
    if "://" in mirror:
        check(MIRROR, mirror)
        return open_url(f"{mirror.rstrip('/')}/{source.mirror}", TIMEOUT)
    return open(Path(mirror) / source.mirror, "rb")


def copy_at_most(stream: BinaryIO, target: Path, limit: int) -> None:
    """Copy at most `limit` bytes: a wrong address cannot fill the disk. A full disk is a DiskError, no bad source."""
    with writing(target):
        sink = target.open("wb")
    try:
        while limit > 0 and (block := stream.read(min(limit, 1 << 20))):
            with writing(target):
                sink.write(block)
            limit -= len(block)
    finally:
        with writing(target):
            sink.close()


def main(arguments: list[str]) -> int:
    # Termination becomes an exception, so that the collected files are removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if len(arguments) != 1:
        print("usage: python -m heterobench.data.fetch NAME", file=sys.stderr)
        return 2
    try:
        fetch(Project.find(Path.cwd()), arguments[0])  # DVC starts a stage in the root of its repository
    except Exception as error:
        print(f"error: {explained(error, ['fetch', *arguments], Project.find(Path.cwd()))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
