"""The plain executor: one client after the other, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from heterobench.algorithm import Algorithm, Done, State, Step
from heterobench.federation import Examples
from heterobench.task import Task


class Work(NamedTuple):
    """What one client has to do in a round: its state, its mini-batches (indices into the pool), its step size."""

    client: int
    state: State
    batches: Sequence[np.ndarray]
    lr: float


class Result(NamedTuple):
    """Uplink, new client state, and the mean loss of the local batches."""

    uplink: State
    state: State
    loss: float


def local_training(algorithm: Algorithm, task: Task, pool: Examples, down: State, work: Work) -> Result:
    """start, then grad and step for every batch, then finish."""
    state = algorithm.start(down, work.state)
    loss = 0.0
    for index, rows in enumerate(work.batches):
        g, aux = algorithm.grad(state, pool.batch(rows), task)
        state = algorithm.step(state, g, Step(index, work.lr))
        loss = loss + aux["loss"]
    steps = len(work.batches)
    uplink, kept = algorithm.finish(state, down, work.state, Done(steps, steps * work.lr))
    return Result(uplink, kept, float(loss) / steps)


def run(algorithm: Algorithm, task: Task, pool: Examples, down: State, cohort: Sequence[Work]) -> list[Result]:
    """Results in the order of `cohort`, which is the order of client ids."""
    return [local_training(algorithm, task, pool, down, work) for work in cohort]
