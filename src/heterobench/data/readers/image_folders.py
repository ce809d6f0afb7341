"""Own images in a zip archive that has a folder for each class; see docs/own-data.md.

``<train>/<class>/<image>``, and ``<test>/<class>/<image>`` where test data are separate. Order: classes, then images,
by name. Hidden files and what operating systems leave in folders are skipped; everything else has to be an image.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import Field, model_validator

from heterobench.data.holdout import divided
from heterobench.data.own import held_out
from heterobench.data.pictures import Pictures, decoded
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

SKIPPED = ("__MACOSX", "Thumbs.db", "desktop.ini")


class Options(Pictures):
    file: str = Field(description="name of the .zip")
    train: str = Field("", description="path in the archive of the folder that holds the folders of the classes")
    test: str | None = Field(None, description="the same for test data, where they are separate")
    holdout: float | None = Field(None, strict=True, gt=0, lt=1, description="or a share of each class, drawn once")

    @model_validator(mode="after")
    def _one_way_to_test_data(self) -> Options:
        if (self.test is None) == (self.holdout is None):
            raise ValueError("say where test data come from by exactly one of: test, holdout")
        return self


def read(raw: Path, options: Options) -> Arrays:
    path = raw / options.file
    with decoding(path), zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        listed = list(examples(path, names, options.train))
        parts = np.zeros(len(listed), bool)
        if options.test is not None:
            tested = list(examples(path, names, options.test))
            parts = np.concatenate([parts, np.ones(len(tested), bool)])
            listed += tested
        images = ((f"{path}: {name}", archive.read(name)) for _, name in listed)
        x = decoded(images, len(listed), options)
    y = np.array([label for label, _ in listed])
    is_test = parts if options.holdout is None else held_out(y, options.holdout)
    return divided({"x": x, "y": y}, is_test)


def examples(path: Path, names: list[str], folder: str) -> Iterator[tuple[str, str]]:
    """(class, name in the archive) of each image below a folder, in order. Raises DataError."""
    root = PurePosixPath(folder)
    below = [PurePosixPath(name) for name in sorted(names)]
    below = [name.relative_to(root) for name in below if name.is_relative_to(root)]
    kept = [name for name in below if not any(part.startswith(".") or part in SKIPPED for part in name.parts)]
    if not kept:
        found = ", ".join(sorted({name.split("/")[0] for name in names})[:10])
        raise DataError(f"{path}: nothing below {folder or 'its root'!r}; at its root are {found or 'no files'}")
    for name in kept:
        if len(name.parts) != 2:
            raise DataError(
                f"{path}: {root / name}: expected {root}/<class>/<image>. What to do: let the options train and test "
                "name the folders that hold the folders of the classes"
            )
        yield name.parts[0], str(root / name)
