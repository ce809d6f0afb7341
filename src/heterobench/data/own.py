"""What readers of people's own tables share: which files, which columns, and which rows are test data."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet
from pydantic import Field, model_validator

from heterobench.config.strict import Strict, nearest
from heterobench.data.holdout import held_out_rows
from heterobench.data.labels import whole
from heterobench.data.schema import SOURCE
from heterobench.data.table import number
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

PARQUET = ".parquet"


class TestRows(Strict):
    """Rows whose value in `column` is one of `values` are test data, all others training data."""

    column: str
    values: list[str] = Field(min_length=1)


class Files(Strict):
    """Options that say where examples are and which of them are test data."""

    train: list[str] = Field(min_length=1, description="names of raw files, or patterns such as train-*.parquet")
    test: list[str] = Field([], description="the same for test data, where these are files of their own")
    test_rows: TestRows | None = Field(None, description="or rows that a column marks")
    holdout: float | None = Field(None, strict=True, gt=0, lt=1, description="or a share of each class, drawn once")
    label: str = Field(description="column")
    attributes: dict[str, str] = Field({}, description="attribute of the parameter file: its column")
    delimiter: str = Field(",", min_length=1, max_length=1, description="of CSV files")

    @model_validator(mode="after")
    def _one_way_to_test_data(self) -> Files:
        if sum([bool(self.test), self.test_rows is not None, self.holdout is not None]) != 1:
            raise ValueError("say where test data come from by exactly one of: test, test_rows, holdout")
        return self


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of several files, one after the other; `files` holds each path with its number of rows."""

    table: pa.Table
    files: tuple[tuple[Path, int], ...]

    def __len__(self) -> int:
        return len(self.table)

    def place(self, row: int) -> str:
        """Where a row is from: file, and number from 1 without the header."""
        for path, length in self.files:
            if row < length:
                return f"{path}: row {row + 1} (without the header)"
            row -= length
        raise IndexError(row)

    def column(self, name: str, complete: bool = True) -> pa.Array:
        """Raises DataError for a missing value, unless the column need not be complete."""
        values = self.table[name].combine_chunks()
        values = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
        if complete and values.null_count:
            row = pc.index(values.is_null(), True).as_py()
            raise DataError(
                f"{self.place(row)}: column {name!r} has no value, as in {values.null_count} of {len(self)} rows. What "
                "to do: leave such rows out of the file, or fill them in"
            )
        return values

    def texts(self, name: str, complete: bool = True) -> list[str | None]:
        """Values as texts; None where one is missing."""
        return pc.cast(self.column(name, complete), pa.string()).to_pylist()

    def numbers(self, name: str) -> np.ndarray:
        """float64 [n]. Raises DataError for what is no finite number."""
        column = self.column(name)
        try:
            values = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:  # a text that is no number: the slow way finds it
            values = np.array([number(text) for text in self.texts(name)])
        except pa.ArrowNotImplementedError:
            raise DataError(f"{self.files[0][0]}: column {name!r} holds {column.type}, not numbers") from None
        if not np.isfinite(values).all():
            row = int(np.isfinite(values).argmin())
            raise DataError(f"{self.place(row)}: column {name!r}: {column[row].as_py()!r} is not a number")
        return values

    def positions(self, name: str, categories: Sequence[str]) -> np.ndarray:
        """int64 [n]: the place of each value among the categories. Raises DataError."""
        at = {category: place for place, category in enumerate(categories)}
        values = self.texts(name)
        for row, value in enumerate(values):
            if value not in at:
                raise DataError(
                    f"{self.place(row)}: column {name!r}: {value!r} is none of its categories{nearest(value, at)}"
                )
        return np.array([at[value] for value in values], np.int64)

    def labels(self, name: str) -> np.ndarray:
        """[n], as they are: integers, real numbers, truth values or texts."""
        return np.array(self.column(name).to_pylist())


def read_rows(raw: Path, options: Files, inputs: Sequence[str]) -> tuple[Rows, np.ndarray]:
    """The needed columns of all files, training files first, and which rows are test data, bool [n]."""
    train, test = matching(raw, options.train), matching(raw, options.test)
    if both := sorted({path.name for path in train} & {path.name for path in test}):
        raise DataError(f"{raw}: {both[0]} is named by train and by test")
    marks = [options.test_rows.column] if options.test_rows else []
    wanted = list(dict.fromkeys([*inputs, options.label, *options.attributes.values(), *marks]))
    parts = {path: read_file(path, wanted, options.delimiter) for path in (*train, *test)}
    try:
        table = pa.concat_tables(parts.values(), promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{raw}: {', '.join(path.name for path in parts)} have different columns: {error}") from None
    rows = Rows(table, tuple((path, len(part)) for path, part in parts.items()))
    if options.test:
        return rows, np.arange(len(rows)) >= sum(len(parts[path]) for path in train)
    if options.holdout is not None:
        return rows, held_out(rows.labels(options.label), options.holdout)
    found = np.array(rows.texts(options.test_rows.column))
    is_test = np.isin(found, options.test_rows.values)
    if is_test.all() or not is_test.any():
        known = ", ".join(np.unique(found)[:10])
        raise DataError(
            f"{train[0]}: column {marks[0]!r}: {is_test.sum()} of {len(rows)} rows are test data, those of "
            f"{', '.join(options.test_rows.values)}; values found: {known}"
        )
    return rows, is_test


def matching(raw: Path, patterns: Sequence[str]) -> list[Path]:
    """The raw files of these names or patterns, each once, in the order of patterns, then of names."""
    there = sorted(path.name for path in raw.iterdir() if path.name != SOURCE)
    found: dict[str, None] = {}
    for pattern in patterns:
        if not (names := fnmatch.filter(there, pattern)):
            raise DataError(f"{raw}: no file {pattern!r}{nearest(pattern, there)}")
        found |= dict.fromkeys(names)
    return [raw / name for name in found]


def read_file(path: Path, wanted: Sequence[str], delimiter: str) -> pa.Table:
    """These columns of a Parquet file, or of a CSV file (UTF-8, with a header), of which all are texts."""
    with decoding(path):
        if path.suffix == PARQUET:
            file = parquet.ParquetFile(path)
            known = file.schema_arrow.names
        else:
            how = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
            with csv.open_csv(path, parse_options=how) as stream:
                known = stream.schema.names
    if absent := [name for name in wanted if name not in known]:
        raise DataError(f"{path}: no column {absent[0]!r}{nearest(absent[0], known)}")
    if twice := [name for name in wanted if known.count(name) > 1]:
        raise DataError(f"{path}: {known.count(twice[0])} columns are called {twice[0]!r}")
    with decoding(path):
        if path.suffix == PARQUET:
            return file.read(columns=list(wanted))
        types = dict.fromkeys(wanted, pa.string())
        convert = csv.ConvertOptions(
            column_types=types, include_columns=list(wanted), null_values=[""], strings_can_be_null=True
        )
        return csv.read_csv(path, parse_options=how, convert_options=convert)


def held_out(labels: np.ndarray, share: float) -> np.ndarray:
    """Which examples are test data, bool [n]: a share of each class. Equal labels give equal draws, for ever."""
    return held_out_rows(np.unique(labels, return_inverse=True)[1].ravel(), "own data split", share)


def attributes(rows: Rows, columns: Mapping[str, str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Attribute -> place of each row's value among its names, int64 [n] (-1: missing); and ``names_<attribute>``."""
    places, names = {}, {}
    for attribute, column in columns.items():
        values = rows.texts(column, complete=False)
        known = set(values) - {None}
        order = sorted(known, key=int) if all(map(whole, known)) else sorted(known)
        at = {value: place for place, value in enumerate(order)} | {None: -1}
        places[attribute] = np.array([at[value] for value in values], np.int64)
        names[f"names_{attribute}"] = np.array(order, dtype=str)
    return places, names
