"""Partitions on disk: one parquet file per content, one small manifest per seed.

A row of the file is a client: its examples (Arrow's lists are compressed rows, so reading copies nothing),
its label counts and its measured heterogeneity. The name carries the content hash: another setting is another
file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from heterobench.config.schema import PartitionFile
from heterobench.errors import PartitionError
from heterobench.files import atomic, read_json, write_json
from heterobench.partition import heterogeneity
from heterobench.partition.partition import Partition, draw
from heterobench.partition.rows import Rows
from heterobench.project import Project

PARTS = ("train", "validation", "test")
SHORT = 16  # digits of the content hash in a file's name


def make(
    project: Project,
    dataset: str,
    data_hash: str,
    labels: np.ndarray,
    classes: int,
    file: PartitionFile,
    name: str,
    seeds: Iterable[int],
) -> list[dict[str, Any]]:
    """Draw, measure and store the partition `name` of `dataset` for each seed; returns the manifests.

    labels: int [n], of the official training examples, below `classes`. data_hash identifies the prepared
    data.
    """
    return [_make(project, dataset, data_hash, np.asarray(labels), classes, file, name, seed) for seed in seeds]


def _make(project, dataset, data_hash, labels, classes, file, name, seed) -> dict[str, Any]:
    partition = draw(file, labels, seed, f"partition {name} of {dataset}, seed {seed}")
    if labels.max() >= classes:
        raise PartitionError(f"partition {name} of {dataset}: label {labels.max()}, but {classes} classes")
    counts = heterogeneity.label_counts(partition, labels, classes)
    measured = heterogeneity.measure(counts)
    path = save(project, dataset, name, partition, counts, measured)
    manifest = {
        "file": path.relative_to(project.root).as_posix(),
        "hash": partition.hash,
        "dataset": dataset,
        "data_hash": data_hash,
        "partition": name,
        "seed": seed,
        "clients": partition.clients,
        "classes": classes,
        "configuration": file.model_dump(mode="json", exclude={"title", "reference"}),
        "heterogeneity": heterogeneity.summary(measured),
    }
    write_json(project.partition_manifest(dataset, name, seed), manifest)
    return manifest


def save(
    project: Project,
    dataset: str,
    name: str,
    partition: Partition,
    counts: np.ndarray,
    measured: dict[str, np.ndarray],
) -> Path:
    """Write a partition with its label counts [clients, classes] and measurements; returns the file.

    A file that is there already and holds the same is left untouched. Equal contents give equal bytes
    (with one version of Arrow).
    """
    path = project.partition_store(dataset) / f"{name}-{partition.hash[:SHORT]}.parquet"
    table = _table(partition, counts, measured)
    if path.exists() and _holds(path, table):
        return path
    with atomic(path) as temporary:
        pq.write_table(
            table,
            temporary,
            row_group_size=max(len(table), 1),
            compression="zstd",
            use_dictionary=False,
            column_encoding={f"{part}.list.element": "DELTA_BINARY_PACKED" for part in PARTS},
            write_page_checksum=True,
        )
    return path


def load(path: Path, expected: str | None = None) -> Partition:
    """Read a partition and hash it again; `expected` is its hash (default: the digits in the file's name).

    Raises PartitionError if the file is missing, unreadable or altered.
    """
    path = Path(path)
    expected = expected or path.stem.rpartition("-")[2]
    table = _read(path, [*PARTS])
    try:
        partition = Partition(*(_rows(table[part]) for part in PARTS))
    except ValueError as error:
        raise PartitionError(_altered(path, f"its rows do not fit together: {error}")) from None
    if len(expected) < SHORT or not partition.hash.startswith(expected):
        raise PartitionError(_altered(path, f"expected content {expected}, found {partition.hash}"))
    return partition


def load_counts(path: Path) -> np.ndarray:
    """int64 [clients, classes]: the label counts stored with a partition; what its picture is drawn from."""
    rows = _rows(_read(path, ["label_counts"])["label_counts"])
    return rows.indices.reshape(len(rows), -1)


def load_measured(path: Path) -> dict[str, np.ndarray]:
    """The measured heterogeneity stored with a partition, each [clients]; see `heterogeneity.measure`."""
    columns = ["examples", "label_total_variation", "label_jensen_shannon", "effective_classes"]
    table = _read(path, columns)
    return {name: table[name].to_numpy() for name in columns}


def open_partition(project: Project, dataset: str, name: str, seed: int) -> tuple[Partition, dict[str, Any]]:
    """The stored partition of one seed, and its manifest; PartitionError if either cannot be used."""
    path = project.partition_manifest(dataset, name, seed)
    try:
        manifest = read_json(path)
        file, expected = project.root / manifest["file"], manifest["hash"]
    except FileNotFoundError:
        raise PartitionError(f"{path}: no such manifest; make partition {name} of {dataset} first") from None
    except (ValueError, KeyError, TypeError):
        raise PartitionError(_altered(path, "it is not a partition's manifest")) from None
    return load(file, expected), manifest


def _table(partition: Partition, counts: np.ndarray, measured: dict[str, np.ndarray]) -> pa.Table:
    columns = {"client": pa.array(np.arange(partition.clients))}
    columns |= {name: _lists(part) for name, part in zip(PARTS, partition.parts, strict=True)}
    columns["label_counts"] = _lists(Rows(np.arange(len(counts) + 1) * counts.shape[1], counts.ravel()))
    return pa.table(columns | {name: pa.array(values) for name, values in measured.items()})


def _lists(rows: Rows) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(rows.offsets), pa.array(rows.indices))


def _rows(column: pa.ChunkedArray) -> Rows:
    lists = column.combine_chunks()
    return Rows(lists.offsets.to_numpy(), lists.values.to_numpy())


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, page_checksum_verification=True, memory_map=False)
    except FileNotFoundError:
        raise PartitionError(f"{path}: no such partition; make it again") from None
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PartitionError(_altered(path, reason)) from None


def _holds(path: Path, table: pa.Table) -> bool:
    try:
        return _read(path).equals(table)
    except PartitionError:
        return False


def _altered(path: Path, reason: str) -> str:
    return f"{path}: altered or damaged: {reason}; delete it and make the partition again"
