"""What tests of algorithms look at: tasks and algorithms that remember, and data on which batches matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from contract import nets
from contract.quadratic import DIMENSIONS
from heterobench.engine.synchronous import RunState, Setting, advance, begin
from heterobench.federation import Examples, Federation
from heterobench.task import Classification


def noisy(sizes, seed=0) -> Federation:
    """Quadratic examples [a, b] that differ within a client, float64."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    x = np.hstack([rng.uniform(0.2, 2.0, (n, DIMENSIONS)), rng.normal(size=(n, DIMENSIONS))])
    pool = Examples(torch.from_numpy(x), torch.zeros(n, dtype=torch.int64))
    rows = np.split(np.arange(n), np.cumsum(sizes)[:-1])
    return Federation(pool, rows, rows, rows, pool)


def exact_net() -> tuple[Classification, Federation]:
    """The small net and its federation in float64."""
    return nets.task(torch.float64), nets.federation(dtype=torch.float64)


class Spy:
    """A task that remembers the calls of `grad`: theta [P], gradient [P] and batch of each."""

    def __init__(self, task):
        self._task = task
        self.thetas, self.gradients, self.batches = [], [], []

    def __getattr__(self, name):
        return getattr(self._task, name)

    def grad(self, theta, batch, *more):
        g, aux = self._task.grad(theta, batch, *more)
        self.thetas.append(theta.clone())
        self.gradients.append(g.clone())
        self.batches.append(batch)
        return g, aux


class Listening:
    """An algorithm that remembers the updates y_i - x of its clients, each [P]."""

    def __init__(self, algorithm):
        self.deltas = []

        def finish(work, down, client, done):
            self.deltas.append((work["theta"] - down["theta"]).clone())
            return algorithm.finish(work, down, client, done)

        self.algorithm = replace(algorithm, finish=finish)


def rounds(setting: Setting, count: int, state: RunState | None = None):
    """The states after each of `count` rounds."""
    state = state or begin(setting)
    for _ in range(count):
        state = advance(setting, state)
        yield state


def attending(setting: Setting, pattern) -> Setting:
    """The setting with `pattern` [rounds, clients] of who is there, which begins anew after its last round."""
    pattern = np.asarray(pattern, bool)
    setting.__dict__["attendance"] = lambda round: pattern[round % len(pattern)]  # a cached property, filled by hand
    return setting
