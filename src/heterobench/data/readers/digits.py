"""scikit-learn's digits: 64 pixel values (0 to 16) and the class in each line; no official split.

The split is fixed for ever by a keyed draw: of each class, a fifth (rounded) is test data; both parts keep the order
of the file.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data.holdout import held_out_rows
from heterobench.data.readers import Arrays
from heterobench.data.whole import whole


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    path = raw / "digits.csv.gz"
    with gzip.open(path, "rt", encoding="ascii") as stream:
        table = np.loadtxt(stream, delimiter=",")
    x, y = whole(table[:, :-1], 16, path).reshape(-1, 1, 8, 8), whole(table[:, -1], 9, path, np.int64)
    is_test = held_out_rows(y, "digits split")
    return {"train_x": x[~is_test], "train_y": y[~is_test], "test_x": x[is_test], "test_y": y[is_test]}
