"""A federation of constant gradients, for closed forms of local work."""

from __future__ import annotations

import numpy as np
import torch

from contract.quadratic import DIMENSIONS
from heterobench.federation import Examples, Federation


class LinearTask:
    """The gradient of a batch is the mean of its rows x [B, d], wherever theta is."""

    device = torch.device("cpu")
    sizes = (DIMENSIONS,)

    def init(self, seed):
        return torch.zeros(DIMENSIONS, dtype=torch.float64)

    def grad(self, theta, batch, term=None):
        g = batch.x.mean(0)
        return g, {"loss": g @ theta}


def linear(gradients, sizes) -> Federation:
    """Client i holds sizes[i] copies of gradients[i] [d]."""
    x = torch.from_numpy(np.repeat(gradients, sizes, axis=0))
    pool = Examples(x, torch.zeros(len(x), dtype=torch.int64))
    rows = np.split(np.arange(len(x)), np.cumsum(sizes)[:-1])
    return Federation(pool, rows, rows, rows, pool)
