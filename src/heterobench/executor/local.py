"""The local work of one client in one round: what every executor has to compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from heterobench.algorithm import Algorithm, Done, Phase, State, Step
from heterobench.federation import Federation, batches
from heterobench.task import Batch, Task, Term


@dataclass(frozen=True, eq=False)
class Local:
    """What all local training of a run shares. `rounds` is the run's length, which decides the stages of a stream."""

    algorithm: Algorithm
    task: Task
    federation: Federation
    batch_size: int
    seed: int
    rounds: int = 1

    def at(self, round: int) -> Algorithm | None:
        """The algorithm of a round; None where the method has ended before."""
        if self.algorithm.at is None:
            return self.algorithm
        return self.algorithm.at(Phase(round, self.rounds, self.task.head))


class Work(NamedTuple):
    """One client's part in a round: its state, its number of epochs and its step size `lr`."""

    client: int
    round: int
    epochs: int
    lr: float
    state: State


class Result(NamedTuple):
    """Uplink, new client state, mean loss of the local batches, and the number of `examples` whose gradient it took.

    An example counts as often as its gradient was computed (`Counted`).
    """

    uplink: State
    state: State
    loss: float
    examples: int


class Executor(Protocol):
    """Computes a cohort; all executors give the same answer."""

    def run(self, local: Local, down: State, cohort: list[Work]) -> list[Result]:
        """Results in the order of `cohort`, which is the order of client ids."""

    def close(self) -> None:
        """Give back processes and memory."""


class Counted:
    """A task that counts the `examples` of the batches that it is asked a gradient of.

    Those of weight 0 only fill up a batch and do not count; where there are weights the count is an int64 tensor [].
    Forward passes alone, which `features` is, are not counted.
    """

    def __init__(self, task: Task):
        self._task = task
        self.examples: int | Tensor = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def grad(self, theta: Tensor, batch: Batch, term: Term | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        self.examples = self.examples + (len(batch.y) if batch.weight is None else (batch.weight > 0).sum())
        return self._task.grad(theta, batch, term)


def batches_of(local: Local, work: Work) -> list[np.ndarray]:
    """The mini-batches of this work: indices into the pool, decided by (seed, round, client) alone."""
    rows = np.asarray(local.federation.at(work.round, local.rounds).train[work.client])
    return batches(local.seed, work.round, work.client, rows, work.epochs, local.batch_size)


def local_training(local: Local, down: State, work: Work) -> Result:
    """start, then grad and step for every batch, then finish."""
    algorithm, task, pool = local.at(work.round), Counted(local.task), local.federation.pool
    state = algorithm.start(down, work.state)
    loss, steps = 0.0, 0
    for rows in batches_of(local, work):
        g, aux = algorithm.grad(state, pool.batch(rows), task)
        state = algorithm.step(state, g, Step(steps, work.lr))
        loss = loss + aux["loss"]
        steps += 1
    uplink, kept = algorithm.finish(state, down, work.state, Done(steps, steps * work.lr))
    return Result(uplink, kept, float(loss) / steps, int(task.examples))
