"""From verified raw files to arrays that training maps into memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from heterobench.config.strict import nearest
from heterobench.data.checksums import verify_raw
from heterobench.data.readers import READERS, Arrays
from heterobench.data.schema import DatasetFile, load_dataset_file
from heterobench.errors import ConfigurationError, DataError
from heterobench.files import atomic, digest, file_digest, write_json
from heterobench.project import Project

ARRAYS = ("train_x", "train_y", "test_x", "test_y")


def prepare(project: Project, name: str) -> Path:
    """Write ``data/prepared/<name>/{train,test}_{x,y}.npy`` and, last, ``manifest.json``; return that path.

    Equal raw files give equal bytes. While files are being replaced there is no manifest, and without a
    manifest the set does not open, so that a killed run cannot leave a mixture. Raises DataError for raw
    files that are missing, truncated or altered, or that do not hold what the parameter file says.
    """
    dataset = load_dataset_file(project, name)
    where = f"params/datasets/{name}.yaml"
    if dataset.reader not in READERS:
        raise ConfigurationError(f"{where}: no reader {dataset.reader!r}{nearest(dataset.reader, READERS)}")
    source = verify_raw(project, name, dataset)
    arrays = READERS[dataset.reader](project.raw(name))
    check(arrays, dataset, where)
    folder = project.prepared(name)
    manifest = folder / "manifest.json"
    manifest.unlink(missing_ok=True)
    files = {}
    for key in ARRAYS:
        path = folder / f"{key}.npy"
        with atomic(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.ascontiguousarray(arrays[key]), allow_pickle=False)
        files[path.name] = {"sha256": file_digest(path), "bytes": path.stat().st_size}
    write_json(manifest, describe(name, dataset, source, arrays) | {"files": files})
    return manifest


def check(arrays: Arrays, dataset: DatasetFile, where: str) -> None:
    """Raise DataError unless shapes, types, labels and pixel range are what the parameter file says."""
    for split in ("train", "test"):
        x, y = arrays[f"{split}_x"], arrays[f"{split}_y"]
        facts = {
            "shape": (list(dataset.shape), list(x.shape[1:])),
            "types": ("uint8, int64", f"{x.dtype}, {y.dtype}"),
            "number of labels": (len(x), len(y)),
            "smallest label not below 0": (True, len(y) > 0 and int(y.min()) >= 0),
            f"labels below {len(dataset.classes)}": (
                True,
                len(y) > 0 and int(y.max()) < len(dataset.classes),
            ),
            f"pixels not above {dataset.maximum}": (True, x.size > 0 and int(x.max()) <= dataset.maximum),
        }
        for fact, (expected, found) in facts.items():
            if expected != found:
                raise DataError(f"{where}: {split} data: {fact}: expected {expected}, found {found}")


def content_hash(arrays: Arrays, classes: tuple[str, ...]) -> str:
    """sha256 that identifies the data: contents, shapes and types of the four arrays, and the class names."""
    parts = {
        key: [
            hashlib.sha256(np.ascontiguousarray(arrays[key])).hexdigest(),
            list(arrays[key].shape),
            str(arrays[key].dtype),
        ]
        for key in ARRAYS
    }
    return digest({"arrays": parts, "classes": list(classes)})


def describe(name: str, dataset: DatasetFile, source: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """The manifest without the list of files. `counts` are samples for each class, in class order."""
    known = len(dataset.classes)
    return {
        "name": name,
        "title": dataset.title,
        "hash": content_hash(arrays, dataset.classes),
        "form": source["form"],
        "note": source["note"],
        "stand_ins": source.get("stand_ins", {}),
        "classes": list(dataset.classes),
        "shape": list(dataset.shape),
        "maximum": dataset.maximum,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "samples": {split: len(arrays[f"{split}_y"]) for split in ("train", "test")},
        "counts": {split: np.bincount(arrays[f"{split}_y"], minlength=known).tolist() for split in ("train", "test")},
    }
