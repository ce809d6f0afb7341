"""A fixed split for sets that come without one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from heterobench import keyed

SHARE = 0.2


def held_out_rows(strata: np.ndarray, purpose: str, share: float = SHARE) -> np.ndarray:
    """Which rows are test data, bool [n]: of each stratum (int [n]) a share, rounded to the nearest whole number.

    Fixed for ever by a keyed draw (seed 0, `purpose`); each part keeps the order of the file.
    """
    draw = keyed.generator(0, purpose)
    chosen = np.zeros(len(strata), bool)
    for stratum in np.unique(strata):
        members = draw.permutation(np.flatnonzero(strata == stratum))
        chosen[members[: round(share * len(members))]] = True
    return chosen


def divided(columns: Mapping[str, np.ndarray], is_test: np.ndarray) -> dict[str, np.ndarray]:
    """``train_<name>`` and ``test_<name>`` of each column [n, ...], in the order of the rows; `is_test` is bool [n]."""
    parts = {"train": ~is_test, "test": is_test}
    return {f"{split}_{name}": values[rows] for split, rows in parts.items() for name, values in columns.items()}
