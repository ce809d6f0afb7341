"""The local work of one client in one round: what every executor has to compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from heterobench import keyed
from heterobench.algorithm import Algorithm, Done, LocalData, Phase, State, Step
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
    """One client's part in a round: its state, its number of epochs and its step size `lr`.

    `share` of the mini-batches of these epochs are done, at least one.
    """

    client: int
    round: int
    epochs: int
    lr: float
    state: State
    share: float = 1.0


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


def batches_of(local: Local, work: Work, down: State | None = None) -> list[np.ndarray]:
    """The mini-batches of this work: indices into the pool, decided by (seed, round, client) alone.

    Or chosen by the algorithm, which looks at the downlink, the client's state and the losses of its examples.
    """
    rows = np.asarray(local.federation.at(work.round, local.rounds).train[work.client])
    whole = _plan(local, down, work, rows)
    return whole[: max(int(work.share * len(whole) + 0.5), 1)]


def _plan(local: Local, down: State | None, work: Work, rows: np.ndarray) -> list[np.ndarray]:
    """The mini-batches of the whole of this work."""
    if (choose := local.at(work.round).batches) is None:
        return batches(local.seed, work.round, work.client, rows, work.epochs, local.batch_size)

    def losses(theta: Tensor) -> np.ndarray:
        # a copy: wherever the downlink lies in memory, the last bits are the same
        return local.task.scores(theta.clone(), local.federation.pool.chunks(rows))["loss"].double().cpu().numpy()

    def generator(purpose: str) -> np.random.Generator:
        return keyed.generator(local.seed, purpose, work.round, work.client)

    data = LocalData(len(rows), local.batch_size, work.epochs, losses, generator)
    return [rows[chosen] for chosen in choose(down, client_state(local, work), data)]


def client_state(local: Local, work: Work) -> State:
    """C as `start` and `finish` see it: what the client keeps and, where the algorithm asks for it, its chance."""
    if not local.at(work.round).chance:
        return work.state
    drawn = keyed.generator(local.seed, "chance", work.round, work.client).random()
    return {**work.state, "chance": torch.tensor(drawn, dtype=torch.float64, device=local.task.device)}


def local_training(local: Local, down: State, work: Work) -> Result:
    """start, then grad and step for every batch, then finish."""
    algorithm, task, pool = local.at(work.round), Counted(local.task), local.federation.pool
    client = client_state(local, work)
    state = algorithm.start(down, client)
    loss, steps = 0.0, 0
    for rows in batches_of(local, work, down):
        g, aux = algorithm.grad(state, pool.batch(rows), task)
        state = algorithm.step(state, g, Step(steps, work.lr))
        loss = loss + aux["loss"]
        steps += 1
    uplink, kept = algorithm.finish(state, down, client, Done(steps, steps * work.lr, work.round))
    return Result(uplink, kept, float(loss) / steps, int(task.examples))
