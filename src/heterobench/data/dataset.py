"""A prepared data set, opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from heterobench.config.reading import check_name, shown
from heterobench.data.checksums import mismatch
from heterobench.errors import ConfigurationError, DamagedFile, DataError
from heterobench.files import in_a_line, read_json
from heterobench.project import Project


@dataclass(frozen=True, eq=False)
class Dataset:
    """Read-only arrays on disk; pages are read when they are touched and shared between processes.

    x: [n, *shape] in the type of `kind` (`heterobench.data.schema.KINDS`). y: int64 [n]. `train` and `test` hold the
    attributes, name -> int64 [n] (-1: not known); what their values are called stands in the manifest. `mean` and
    `std`, one number a channel, hold for x / maximum (for x where there is no maximum); tokens have none. `hash`
    identifies contents, shapes and class names.
    """

    name: str
    hash: str
    kind: str
    train_x: np.memmap
    train_y: np.memmap
    test_x: np.memmap
    test_y: np.memmap
    train: dict[str, np.memmap]
    test: dict[str, np.memmap]
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    maximum: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    manifest: dict[str, Any]

    def seen(self, inputs: str) -> Dataset:
        """The same data as a net sees them whose file says `inputs` (`ModelFile`).

        Raises ConfigurationError where "unit interval" is asked of data that have no maximum.
        """
        if inputs == "standardised":
            return self
        if self.maximum is None:
            raise ConfigurationError(
                f"data set {self.name}: inputs: {inputs!r} divides by a maximum, which data of kind {self.kind} "
                "have not; allowed here: 'standardised'"
            )
        return replace(self, mean=(0.0,) * len(self.mean), std=(1.0,) * len(self.std))


def open_dataset(project: Project, name: str, verify: bool = False) -> Dataset:
    """Open ``data/prepared/<name>`` in about a millisecond: sizes are checked, checksums only with `verify`.

    Whoever computes results from the data verifies them, once in a process: a second for some 1.5 GB.

    Raises DataError where the prepared form is missing or not what its manifest says.
    """
    check_name(project, "datasets", name, "open_dataset")
    folder = project.prepared(name)
    again = f"run `snakemake`, or `heterobench prepare {name}`"
    damaged = f"is damaged. What to do: remove {shown(project, folder)} and {again}"
    try:
        return _opened(project, name, folder, read_json(folder / "manifest.json"), verify, damaged)
    except FileNotFoundError:
        raise DataError(f"{shown(project, folder)}: data set {name} is not prepared. What to do: {again}") from None
    except (DamagedFile, KeyError, TypeError, AttributeError) as error:
        where = shown(project, folder / "manifest.json")
        raise DataError(f"{where}: not the manifest of a data set ({error!r}): it {damaged}") from None


def _opened(project: Project, name: str, folder: Path, manifest: Any, verify: bool, damaged: str) -> Dataset:
    arrays = {}
    for file, entry in manifest["files"].items():
        path = folder / file
        if problem := mismatch(path, entry["sha256"] if verify or not path.is_file() else None, entry["bytes"]):
            raise DataError(f"{shown(project, path)}: {problem}: it {damaged}")
        try:
            arrays[path.stem] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{shown(project, path)}: no array ({in_a_line(error)}): it {damaged}") from None
    train, test = ({key: arrays.pop(f"{split}_{key}") for key in manifest["attributes"]} for split in ("train", "test"))
    return Dataset(
        name=name,
        hash=manifest["hash"],
        kind=manifest["kind"],
        train=train,
        test=test,
        classes=tuple(manifest["classes"]),
        shape=tuple(manifest["shape"]),
        maximum=manifest["maximum"],
        mean=tuple(manifest["mean"]),
        std=tuple(manifest["std"]),
        manifest=manifest,
        **arrays,
    )
