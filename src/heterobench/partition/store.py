"""Partitions on disk: one parquet file per content, one small manifest per seed.

A row of the file is a client: its examples (Arrow's lists are compressed rows, so reading copies nothing),
its label counts and its measured heterogeneity. The name carries the content hash: another setting is another
file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from heterobench.config.schema import PartitionFile
from heterobench.errors import PartitionError, RunError
from heterobench.files import atomic, read_sealed, write_sealed
from heterobench.partition import heterogeneity
from heterobench.partition.partition import ABSENT, DETAILS, Partition, draw
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
    attributes: Mapping[str, np.ndarray] | None = None,
    inputs: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Draw, measure and store the partition `name` of `dataset` for each seed; returns the manifests.

    labels: int [n], of the official training examples, below `classes`; `attributes` int64 [n] each. data_hash
    identifies the prepared data. inputs: numbers [n, ...], for the distance between clients' features; left out, it is
    not measured.
    """
    given = (np.asarray(labels), attributes, inputs)
    return [_make(project, dataset, data_hash, *given, classes, file, name, seed) for seed in seeds]


def _make(project, dataset, data_hash, labels, attributes, inputs, classes, file, name, seed) -> dict[str, Any]:
    partition = draw(file, labels, seed, f"partition {name} of {dataset}, seed {seed}", attributes)
    if labels.max() >= classes:
        raise PartitionError(f"partition {name} of {dataset}: label {labels.max()}, but {classes} classes")
    counts = heterogeneity.label_counts(partition, labels, classes)
    measured = heterogeneity.measure(counts, partition, labels, inputs)
    staged = heterogeneity.stage_counts(partition, labels, classes) if "stage" in partition.details else None
    path = save(project, dataset, name, partition, counts, measured, staged)
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
    write_sealed(project.partition_manifest(dataset, name, seed), manifest)
    return manifest


def save(
    project: Project,
    dataset: str,
    name: str,
    partition: Partition,
    counts: np.ndarray,
    measured: dict[str, np.ndarray],
    staged: np.ndarray | None = None,
) -> Path:
    """Write a partition with its label counts [clients, classes] and measurements; returns the file.

    staged: label counts of a stream, [clients, stages, classes].

    A file that is there already and holds the same is left untouched. Equal contents give equal bytes
    (with one version of Arrow).
    """
    path = project.partition_store(dataset) / f"{name}-{partition.hash[:SHORT]}.parquet"
    table = _table(partition, counts, measured, staged)
    if path.exists() and _holds(path, table):
        return path
    with atomic(path) as temporary:
        pq.write_table(
            table,
            temporary,
            row_group_size=max(len(table), 1),
            compression="zstd",
            use_dictionary=False,
            column_encoding={
                f"{field.name}.list.element": "DELTA_BINARY_PACKED"
                for field in table.schema
                if pa.types.is_large_list(field.type)
            },
            write_page_checksum=True,
        )
    return path


def load(path: Path, expected: str | None = None) -> Partition:
    """Read a partition and hash it again; `expected` is its hash (default: the digits in the file's name).

    Raises PartitionError if the file is missing, unreadable or altered.
    """
    path = Path(path)
    expected = expected or path.stem.rpartition("-")[2]
    table = _read(path)
    try:
        partition = _partition(table)
    except (ValueError, KeyError, IndexError) as error:
        raise PartitionError(_altered(path, f"its rows do not fit together: {error}")) from None
    if len(expected) < SHORT or not partition.hash.startswith(expected):
        raise PartitionError(_altered(path, f"expected content {expected}, found {partition.hash}"))
    return partition


def load_counts(path: Path) -> np.ndarray:
    """int64 [clients, classes]: the label counts stored with a partition."""
    return _stacked(_read(path, ["label_counts"])["label_counts"])


def load_measured(path: Path) -> dict[str, np.ndarray]:
    """The measured heterogeneity stored with a partition, each [clients]; see `heterogeneity.measure`."""
    return _measured(_read(path))


def load_shown(path: Path) -> dict[str, Any]:
    """What a picture shows, as arguments of `picture.draw_picture`: counts, beside, held_out and stages."""
    table = _read(path)
    counts, measured = _stacked(table["label_counts"]), _measured(table)
    stages = None
    if "stage_label_counts" in table.column_names:
        stages = _stacked(table["stage_label_counts"]).reshape(len(counts), -1, counts.shape[1])
    beside = {name.replace("_", " "): measured[name] for name in ("label_noise", "labelled_share") if name in measured}
    return {"counts": counts, "beside": beside | _transforms(table), "held_out": _held_out(table), "stages": stages}


def open_partition(project: Project, dataset: str, name: str, seed: int) -> tuple[Partition, dict[str, Any]]:
    """The stored partition of one seed, and its manifest; PartitionError if either cannot be used."""
    manifest = read_manifest(project, dataset, name, seed)
    return load(project.root / manifest["file"], manifest["hash"]), manifest


def read_manifest(project: Project, dataset: str, name: str, seed: int) -> dict[str, Any]:
    """The manifest of the partition of one seed; PartitionError if it cannot be used."""
    path = project.partition_manifest(dataset, name, seed)
    try:
        return read_sealed(path)
    except FileNotFoundError:
        command = f"heterobench partition {dataset} {name} --seeds {seed}"
        raise PartitionError(f"{path}: no such manifest; make partition {name} of {dataset} first: {command}") from None
    except (OSError, RunError) as error:
        raise PartitionError(_altered(path, f"it is not a partition's manifest ({error})")) from None


def _table(partition: Partition, counts: np.ndarray, measured: dict, staged: np.ndarray | None) -> pa.Table:
    columns = {"client": pa.array(np.arange(partition.clients))}
    columns |= {name: _lists(part) for name, part in zip(PARTS, partition.parts, strict=True)}
    for name, values in partition.details.items():  # beside each list of examples, what is to be known of them
        for part, rows in zip(PARTS, partition.parts, strict=True):
            columns[f"{part}_{name}"] = _lists(Rows(rows.offsets, values[rows.indices]))
    if partition.held_out is not None:
        columns["held_out"] = pa.array(partition.held_out)
    columns |= {f"transform_{name}": pa.array(values) for name, values in partition.transforms.items()}
    columns["label_counts"] = _equal_lists(counts)
    if staged is not None:
        columns["stage_label_counts"] = _equal_lists(staged.reshape(len(staged), -1))
    table = pa.table(columns | {name: pa.array(values) for name, values in measured.items()})
    if not (partition.details or partition.per_stage):
        return table
    examples = {len(values) for values in partition.details.values()}
    about = {"examples": max(examples, default=0), "per_stage": list(partition.per_stage)}
    if partition.server is not None:
        about["server"] = partition.server.tolist()
    return table.replace_schema_metadata({"heterobench": json.dumps(about)})


def _partition(table: pa.Table) -> Partition:
    """What `_table` was made from. ValueError or KeyError where columns do not fit together."""
    about = json.loads((table.schema.metadata or {}).get(b"heterobench", "{}"))
    parts = tuple(_rows(table[part]) for part in PARTS)
    details = {}
    for name, dtype in DETAILS.items():
        if f"train_{name}" in table.column_names:
            details[name] = np.full(about["examples"], ABSENT[name], dtype)
            for part, rows in zip(PARTS, parts, strict=True):
                details[name][rows.indices] = _rows(table[f"{part}_{name}"]).indices
    server = np.array(about["server"], np.int64) if "server" in about else None
    return Partition(*parts, details, _held_out(table), _transforms(table), tuple(about.get("per_stage", ())), server)


def _held_out(table: pa.Table) -> np.ndarray | None:
    return table["held_out"].to_numpy() if "held_out" in table.column_names else None


def _transforms(table: pa.Table) -> dict[str, np.ndarray]:
    prefix = "transform_"
    return {n.removeprefix(prefix): table[n].to_numpy() for n in table.column_names if n.startswith(prefix)}


def _measured(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: table[name].to_numpy() for name in heterogeneity.MEASURES if name in table.column_names}


def _equal_lists(rows: np.ndarray) -> pa.Array:
    return _lists(Rows(np.arange(len(rows) + 1) * rows.shape[1], rows.ravel()))


def _lists(rows: Rows) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(rows.offsets), pa.array(rows.indices))


def _rows(column: pa.ChunkedArray) -> Rows:
    lists = column.combine_chunks()
    # not to_numpy: it imports pandas, half a second of every job
    return Rows(np.from_dlpack(lists.offsets), np.from_dlpack(lists.values))


def _stacked(column: pa.ChunkedArray) -> np.ndarray:
    """Lists of one length, as a matrix."""
    rows = _rows(column)
    return rows.indices.reshape(len(rows), -1)


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        # not pq.read_table: it imports pandas too
        with pq.ParquetFile(path, page_checksum_verification=True, memory_map=False) as file:
            if missing := set(columns or ()) - set(file.schema_arrow.names):
                raise KeyError(f"no column {min(missing)!r}")
            return file.read(columns)
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
