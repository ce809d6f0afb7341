"""Numbers of raw files that a narrow type cannot hold are told, never wrapped round."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from heterobench.data.readers import digits
from heterobench.errors import DataError


def write(folder, row):
    rows = [[*([0] * 64), label] for label in range(10) for _ in range(10)]
    rows[3][:65] = row
    with gzip.open(folder / "digits.csv.gz", "wt") as stream:
        stream.write("\n".join(",".join(map(str, each)) for each in rows))


@pytest.mark.parametrize(("value", "said"), [(256, "256.0"), (17, "17.0"), (-1, "-1.0"), (0.5, "0.5"), ("nan", "nan")])
def test_a_pixel_out_of_range_is_named_and_not_wrapped(tmp_path, value, said):
    """256 once became 0, -1 became 255, 0.5 became 0."""
    write(tmp_path, [*([0] * 7), value, *([0] * 56), 0])
    with pytest.raises(DataError, match=rf"digits\.csv\.gz: value {said} at \[3, 7\]: .* from 0 to 16"):
        digits.read(tmp_path, digits.Options())


def test_a_label_that_is_cut_off_is_named(tmp_path):
    write(tmp_path, [*([0] * 64), 1.7])
    with pytest.raises(DataError, match=r"value 1\.7"):
        digits.read(tmp_path, digits.Options())


def test_pixels_in_range_are_as_they_were(tmp_path):
    write(tmp_path, [*range(16), 16, *([0] * 47), 0])
    arrays = digits.read(tmp_path, digits.Options())
    both = np.concatenate([arrays["train_x"], arrays["test_x"]])
    assert (both.dtype, both.max(), both.sum()) == (np.uint8, 16, sum(range(17)))
