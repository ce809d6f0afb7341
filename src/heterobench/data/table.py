"""Tables of mixed columns as numbers: a column is a number, or an indicator for each of its categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from heterobench.config.strict import nearest
from heterobench.errors import DataError

Columns = Mapping[str, tuple[str, ...] | None]
"""Inputs in their order: name -> categories, or None where the column is a number."""


def encode(cells: Mapping[str, Sequence[str]], columns: Columns, where: str) -> np.ndarray:
    """float32 [n, width] of the texts ``cells[name]``, n of each: one number, or one indicator for each category.

    Raises DataError, opened by `where`, for a text that is no number or none of the categories.
    """
    blocks = []
    for name, categories in columns.items():
        place = f"{where}: column {name!r}"
        if categories is None:
            blocks.append(numbers(cells[name], place)[:, None].astype(np.float32))
        else:
            indicators = np.eye(len(categories), dtype=np.float32)
            blocks.append(indicators[positions(cells[name], categories, place)])
    return np.hstack(blocks, dtype=np.float32)


def numbers(texts: Sequence[str], where: str) -> np.ndarray:
    """float64 [n]; raises DataError for what is not a finite number."""
    values = np.array([number(text) for text in texts])
    if not np.isfinite(values).all():
        raise DataError(f"{where}: {texts[int(np.isfinite(values).argmin())]!r} is not a number")
    return values


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def positions(texts: Sequence[str], categories: Sequence[str], where: str, missing: str | None = None) -> np.ndarray:
    """int64 [n]: the place of each text among the categories, -1 where it is `missing`. Raises DataError."""
    place = {category: at for at, category in enumerate(categories)}
    if missing is not None:
        place[missing] = -1
    if unknown := sorted(set(texts) - place.keys()):
        raise DataError(f"{where}: unknown value {unknown[0]!r}{nearest(unknown[0], place)}")
    return np.array([place[text] for text in texts], np.int64)
