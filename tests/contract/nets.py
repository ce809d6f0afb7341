"""A small classification federation with a real net, for tests about bits."""

from __future__ import annotations

import numpy as np
import torch

from heterobench import models
from heterobench.config.schema import ModelFile
from heterobench.federation import Examples, Federation
from heterobench.task import Classification

MLP = ModelFile(title="small MLP", architecture="mlp", options={"hidden": [8]})


def task(dtype: torch.dtype = torch.float32, model: ModelFile = MLP, side: int = 4) -> Classification:
    """A net (by default a small MLP) for `side` x `side` grey images in 3 classes."""
    return Classification(lambda: models.build(model, (1, side, side), 3, "test").to(dtype))


def federation(sizes=(9, 5, 12, 7), seed=3, dtype: torch.dtype = torch.float32, side: int = 4) -> Federation:
    """Clients with `sizes` examples of random `side` x `side` images in 3 classes.

    A fifth of each client's examples is for validation and test.
    """
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    y = rng.integers(0, 3, n)
    x = np.clip(rng.normal(80 + 40 * y[:, None], 40, (n, side**2)), 0, 255)
    x = x.astype(np.uint8).reshape(n, 1, side, side)
    pool = Examples.normalised(x, y, [0.5], [0.25], 255)
    pool = Examples(pool.x.to(dtype), pool.y)
    rows = np.split(np.arange(n), np.cumsum(sizes)[:-1])
    cut = [len(row) - len(row) // 5 for row in rows]
    train = [row[:c] for row, c in zip(rows, cut, strict=True)]
    held = [row[c:] for row, c in zip(rows, cut, strict=True)]
    return Federation(pool, train, held, held, pool)
