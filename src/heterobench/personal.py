"""Scores of personal models: each client's examples under its own model, many clients in one call."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from heterobench.federation import Examples, Rows, sizes
from heterobench.task import CHUNK, Batch, Task

TOGETHER = 64  # clients in one call, at most
EXAMPLES = 4 * CHUNK  # examples in one call, padding included, at most


def scores(task: Task, pool: Examples, thetas: Tensor, rows: Rows) -> dict[str, Tensor]:
    """Score name -> float [n], one for each example of `rows`, one client after the other; thetas [clients, P].

    Clients are judged together where the task can (`Classification.scores_many`), else one by one.
    """
    count = sizes(rows)
    many = getattr(task, "scores_many", None)
    parts: list[dict[str, Tensor]] = [{}] * len(rows)
    for group in _groups(count):
        if many is None or len(group) == 1:
            for i in group:
                parts[i] = task.scores(thetas[i], pool.chunks(np.array(rows[i])))
            continue
        # padded with the client's first example: what it scores is left out below
        index = np.stack([np.resize(rows[i], count[group].max()) for i in group])
        batch = pool.batch(index.reshape(-1))
        together = Batch(*(v.reshape(*index.shape, *v.shape[1:]) for v in (batch.x, batch.y)))
        found = many(thetas[torch.from_numpy(group).to(thetas.device)], together)
        for row, i in enumerate(group):
            parts[i] = {name: values[row, : count[i]] for name, values in found.items()}
    full = [part for part in parts if part]
    if not full:
        return task.scores(thetas[0], pool.chunks(np.empty(0, np.int64)))
    return {name: torch.cat([part[name] for part in full]) for name in full[0]}


def _groups(count: np.ndarray) -> Iterator[np.ndarray]:
    """Ids of the clients with examples, those of like numbers together, so that little is padded."""
    order = np.argsort(count, kind="stable")
    order = order[count[order] > 0]
    while len(order):
        size = min(TOGETHER, len(order))
        while size > 1 and size * count[order[size - 1]] > EXAMPLES:
            size -= 1
        yield order[:size]
        order = order[size:]
