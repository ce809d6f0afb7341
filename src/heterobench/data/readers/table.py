"""Own tables: CSV files (UTF-8, with a header) or Parquet files, one or several; see docs/own-data.md.

Inputs are the columns of the option `inputs` in its order: a number, or an indicator (0 or 1) for each of the listed
categories. A value that is missing, no number or none of the categories is an error. Several files are read in the
order of their names, as if they were one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from heterobench.data import own
from heterobench.data.holdout import divided
from heterobench.data.readers import Arrays


class Options(own.Files):
    inputs: dict[str, Literal["number"] | list[str]] = Field(
        min_length=1, description="column: number, or the list of its categories"
    )


def read(raw: Path, options: Options) -> Arrays:
    rows, is_test = own.read_rows(raw, options, list(options.inputs))
    blocks = []
    for name, categories in options.inputs.items():
        if categories == "number":
            blocks.append(rows.numbers(name).astype(np.float32)[:, None])
        else:
            blocks.append(np.eye(len(categories), dtype=np.float32)[rows.positions(name, categories)])
    places, names = own.attributes(rows, options.attributes)
    columns = {"x": np.hstack(blocks, dtype=np.float32), "y": rows.labels(options.label)} | places
    return divided(columns, is_test) | names
