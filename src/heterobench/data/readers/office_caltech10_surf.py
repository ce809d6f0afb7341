"""Office-Caltech10: bags of 800 visual words (SURF), ten classes, four domains.

Gong, Shi, Sha, Grauman, Geodesic Flow Kernel for Unsupervised Domain Adaptation, CVPR 2012. Each ``.mat`` has
``fts``, counts [n, 800], and ``labels``, 1 to 10. An image's counts are divided by their sum, which takes out how many
points were found in it; published code that reads these files does the same before it standardises the columns.
There is no official split: ours makes a fifth of each class of each domain test data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io

from heterobench.config.strict import Strict
from heterobench.data.holdout import held_out_rows
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

DOMAINS = {"amazon": "amazon", "caltech": "Caltech10", "dslr": "dslr", "webcam": "webcam"}
WORDS = 800


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    parts = [domain(raw / f"{name}_SURF_L10.mat") for name in DOMAINS.values()]
    x, y = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    where = np.repeat(np.arange(len(parts)), [len(labels) for _, labels in parts])
    is_test = held_out_rows(10 * where + y, "office-caltech10-surf split")
    return {
        "train_x": x[~is_test],
        "train_y": y[~is_test],
        "train_domain": where[~is_test],
        "test_x": x[is_test],
        "test_y": y[is_test],
        "test_domain": where[is_test],
        "names_domain": np.array(list(DOMAINS)),
    }


def domain(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the words, float32 [n, 800], and classes, float64 [n] from 0. Raises DataError."""
    with decoding(path, "not a MATLAB file with fts and labels"):
        content = scipy.io.loadmat(path, variable_names=["fts", "labels"])
        counts, labels = content["fts"].astype(np.float64), content["labels"].ravel().astype(np.float64) - 1
    if counts.ndim != 2 or counts.shape[1] != WORDS or len(labels) != len(counts):
        raise DataError(f"{path}: expected fts [n, {WORDS}] and n labels, found {counts.shape} and {labels.shape}")
    total = counts.sum(axis=1, keepdims=True)
    if not len(counts) or counts.min() < 0 or total.min() <= 0:
        raise DataError(f"{path}: fts are not counts: an image needs at least one word, and none below 0")
    return (counts / total).astype(np.float32), labels
