"""Own images in Parquet files, as Hugging Face stores data sets; see docs/own-data.md.

The column of images holds encoded files: bytes, or structures {bytes, path}. Labels are names of classes, or numbers;
where the file says the names of its numbers (a ClassLabel of Hugging Face), they must be those of the parameter file.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field

from heterobench.data import own
from heterobench.data.holdout import divided
from heterobench.data.pictures import Pictures, decoded
from heterobench.data.readers import Arrays
from heterobench.errors import DataError


class Options(own.Files, Pictures):
    image: str = Field("image", description="column")


def read(raw: Path, options: Options) -> Arrays:
    rows, is_test = own.read_rows(raw, options, [options.image])
    column = rows.column(options.image)
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = column.field("bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(
            f"{rows.files[0][0]}: column {options.image!r} holds {column.type}, expected binary, or a structure with "
            "binary `bytes`: the images themselves, encoded"
        )
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise DataError(f"{rows.place(row)}: column {options.image!r} has the path of an image, not its bytes")
    images = ((rows.place(row), data.as_py()) for row, data in enumerate(column))
    places, names = own.attributes(rows, options.attributes)
    x = decoded(images, len(rows), options)
    found = divided({"x": x, "y": rows.labels(options.label)} | places, is_test) | names
    told = class_names(rows.table.schema.metadata, options.label)
    return found | ({"classes": np.array(told)} if told else {})


def class_names(metadata: dict[bytes, bytes] | None, label: str) -> list[str]:
    """The names of a ClassLabel, from what Hugging Face's library writes into a file; empty where it says none."""
    try:
        told = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]
        return [str(name) for name in told["names"]]
    except (KeyError, TypeError, ValueError):
        return []
