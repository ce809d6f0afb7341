"""A small classification federation with a real net, for tests about bits."""

from __future__ import annotations

import numpy as np

from heterobench import models
from heterobench.config.schema import ModelFile
from heterobench.federation import Examples, Federation
from heterobench.task import Classification

MLP = ModelFile(title="small MLP", architecture="mlp", options={"hidden": [8]})


def task() -> Classification:
    return Classification(lambda: models.build(MLP, (1, 4, 4), 3, "test"))


def federation(sizes=(9, 5, 12, 7), seed=3) -> Federation:
    """Clients with `sizes` examples of random 4x4 images in 3 classes; a fifth of each is for validation and test."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    y = rng.integers(0, 3, n)
    x = np.clip(rng.normal(80 + 40 * y[:, None], 40, (n, 16)), 0, 255).astype(np.uint8).reshape(n, 1, 4, 4)
    pool = Examples.images(x, y, [0.5], [0.25], 255)
    rows = np.split(np.arange(n), np.cumsum(sizes)[:-1])
    cut = [len(row) - len(row) // 5 for row in rows]
    train = [row[:c] for row, c in zip(rows, cut, strict=True)]
    held = [row[c:] for row, c in zip(rows, cut, strict=True)]
    return Federation(pool, train, held, held, pool)
