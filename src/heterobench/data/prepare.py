"""From verified raw files to arrays that training maps into memory."""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from heterobench.config.strict import build, nearest
from heterobench.data.checksums import verify_raw
from heterobench.data.labels import numbered
from heterobench.data.readers import Arrays, reader
from heterobench.data.schema import DatasetFile, load_dataset_file
from heterobench.errors import ConfigurationError, DataError
from heterobench.files import atomic, digest, file_digest, write_json
from heterobench.project import Project

SPLITS = ("train", "test")
TYPES = {"image": "uint8", "signal": "float32", "table": "float32", "tokens": "uint8"}


def prepare(project: Project, name: str) -> Path:
    """Write ``data/prepared/<name>/{train,test}_{x,y,<attribute>}.npy`` and, last, ``manifest.json``; return its path.

    Equal raw files give equal bytes. While files are being replaced there is no manifest, and without a
    manifest the set does not open, so that a killed run cannot leave a mixture. Raises DataError for raw
    files that are missing, truncated or altered, or that do not hold what the parameter file says.
    """
    dataset = load_dataset_file(project, name)
    where = f"params/datasets/{name}.yaml"
    module = reader(dataset.reader, where)
    options = build(module.Options, dataset.options, f"{where}: options")
    source = verify_raw(project, name, dataset)
    arrays = module.read(project.raw(name), options)
    check_attributes(arrays, dataset, where)
    for split in SPLITS:
        arrays[f"{split}_y"] = numbered(arrays[f"{split}_y"], dataset.classes, f"{where}: {split} data")
    check(arrays, dataset, where)
    folder = project.prepared(name)
    manifest = folder / "manifest.json"
    manifest.unlink(missing_ok=True)
    files = {}
    for key in columns(dataset):
        path = folder / f"{key}.npy"
        with atomic(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.ascontiguousarray(arrays[key]), allow_pickle=False)
        files[path.name] = {"sha256": file_digest(path), "bytes": path.stat().st_size}
    write_json(manifest, describe(name, dataset, source, arrays) | {"files": files})
    return manifest


def columns(dataset: DatasetFile) -> list[str]:
    """Names of the arrays of a set."""
    return [f"{split}_{column}" for split in SPLITS for column in ("x", "y", *dataset.attributes)]


def check(arrays: Arrays, dataset: DatasetFile, where: str) -> None:
    """Raise DataError unless class names, shapes, types and ranges are what the parameter file says."""
    check_classes(arrays, dataset, where)
    for split in SPLITS:
        x, y = arrays[f"{split}_x"], arrays[f"{split}_y"]
        facts = {
            "shape": (list(dataset.shape), list(x.shape[1:])),
            "types": (f"{TYPES[dataset.kind]}, int64", f"{x.dtype}, {y.dtype}"),
            "number of labels": (len(x), len(y)),
            "number of examples": (getattr(dataset.samples, split, len(x)), len(x)),
        }
        if dataset.kind == "image":
            facts["largest pixel"] = (f"at most {dataset.maximum}", largest(x, dataset.maximum))
        elif dataset.kind == "tokens":
            facts["largest symbol"] = (f"at most {len(dataset.classes) - 1}", largest(x, len(dataset.classes) - 1))
        else:
            facts["numbers that are not finite"] = (0, int(x.size - np.isfinite(x).sum()))
        for name, attribute in dataset.attributes.items():
            found, known = arrays[f"{split}_{name}"], len(arrays[f"names_{name}"])
            facts[f"attribute {name}: type and length"] = (f"int64 {len(y)}", f"{found.dtype} {len(found)}")
            facts[f"attribute {name}: smallest value"] = ("at least -1", f"at least {min(-1, found.min(initial=-1))}")
            facts[f"attribute {name}: largest value"] = (f"at most {known - 1}", largest(found, known - 1))
            if split == "train" and attribute.train is not None:
                facts[f"attribute {name}: values"] = (attribute.train, len(np.unique(found[found >= 0])))
        for fact, (expected, found) in facts.items():
            if expected != found:
                raise DataError(f"{where}: {split} data: {fact}: expected {expected}, found {found}")


def largest(values: np.ndarray, allowed: int) -> str:
    """The largest of them in words; ``at most ...`` where it is allowed."""
    found = int(values.max()) if values.size else None
    return f"at most {allowed}" if found is not None and found <= allowed else str(found)


def check_attributes(arrays: Arrays, dataset: DatasetFile, where: str) -> None:
    """Raise ConfigurationError where the parameter file promises an attribute that its reader does not give."""
    given = [key.removeprefix("names_") for key in arrays if key.startswith("names_")]
    if unknown := [name for name in dataset.attributes if name not in given]:
        raise ConfigurationError(
            f"{where}: attributes: reader {dataset.reader} with these options gives none called "
            f"{unknown[0]!r}{nearest(unknown[0], given)}"
        )


def check_classes(arrays: Arrays, dataset: DatasetFile, where: str) -> None:
    """Raise DataError where the raw files name their classes, and otherwise than the parameter file."""
    if "classes" not in arrays:
        return
    found = [str(name) for name in arrays["classes"]]
    for number, (expected, name) in enumerate(zip_longest(dataset.classes, found)):
        if expected != name:
            raise DataError(f"{where}: class {number} is {expected!r}, in the raw files {name!r}")


def content_hash(arrays: Arrays, dataset: DatasetFile) -> str:
    """sha256 that identifies the data: contents, shapes and types of the arrays, and the class names."""
    parts = {
        key: [
            hashlib.sha256(np.ascontiguousarray(arrays[key])).hexdigest(),
            list(arrays[key].shape),
            str(arrays[key].dtype),
        ]
        for key in columns(dataset)
    }
    return digest({"arrays": parts, "classes": list(dataset.classes)})


def moments(x: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel x[:, c], in float64; 1 for a channel that never changes.

    0 and 1 for a channel of zeros and ones: it is an indicator, and the ones of a rare category would become
    enormous, one in n of them sqrt(n - 1).
    """
    axes = (0, *range(2, x.ndim))
    mean, std = x.mean(axes, dtype=np.float64), x.std(axes, dtype=np.float64)
    indicator = ((x == 0) | (x == 1)).all(axes)
    return np.where(indicator, 0.0, mean).tolist(), np.where((std > 0) & ~indicator, std, 1.0).tolist()


def describe(name: str, dataset: DatasetFile, source: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """The manifest without the list of files. `counts` are samples for each class, in class order."""
    known = len(dataset.classes)
    mean, std = list(dataset.mean), list(dataset.std)
    if dataset.kind in ("signal", "table"):
        mean, std = moments(arrays["train_x"])
    return {
        "name": name,
        "title": dataset.title,
        "hash": content_hash(arrays, dataset),
        "form": source["form"],
        "note": source["note"],
        "stand_ins": source.get("stand_ins", {}),
        "kind": dataset.kind,
        "classes": list(dataset.classes),
        "shape": list(dataset.shape),
        "maximum": dataset.maximum,
        "mean": mean,
        "std": std,
        "attributes": {
            key: attribute.model_dump() | {"names": [str(name) for name in arrays[f"names_{key}"]]}
            for key, attribute in dataset.attributes.items()
        },
        "samples": {split: len(arrays[f"{split}_y"]) for split in SPLITS},
        "counts": {split: np.bincount(arrays[f"{split}_y"], minlength=known).tolist() for split in SPLITS},
    }
