"""The local work of one client in one round: what every executor has to compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from heterobench import keyed
from heterobench.algorithm import Algorithm, Done, LocalData, OwnData, Phase, State, Step
from heterobench.federation import Examples, Federation, Viewed, batches
from heterobench.task import Batch, Task, Term


@dataclass(frozen=True, eq=False)
class Local:
    """What all local training of a run shares. `rounds` is the run's length, which decides the stages of a stream.

    turns [rounds + 1]: in how many rounds before each one, and in all of them, anybody takes part; None: in every one.
    """

    algorithm: Algorithm
    task: Task
    federation: Federation
    batch_size: int
    seed: int
    rounds: int = 1
    turns: Sequence[int] | None = None

    def turn(self, round: int) -> int:
        """In how many rounds before this one anybody takes part."""
        return round if self.turns is None else self.turns[round]

    def at(self, round: int) -> Algorithm | None:
        """The algorithm of a round; None where the method has ended before."""
        if self.algorithm.at is None:
            return self.algorithm
        rounds, turns = (self.rounds, self.turn(self.rounds)) if "length" in self.algorithm.tags else (None, None)
        progress = (round, rounds, self.turn(round), turns)
        return self.algorithm.at(Phase(*progress, self.task.head, tuple(self.federation.pool.x.shape[1:])))


class Work(NamedTuple):
    """One client's part in a round: its state, its number of epochs and its step size `lr`.

    `share` of the mini-batches of these epochs are done, at least one; all where the algorithm needs them.
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
        self._count(batch)
        return self._task.grad(theta, batch, term)

    def head_grad(self, theta: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        self._count(batch)
        return self._task.head_grad(theta, batch)

    def _count(self, batch: Batch) -> None:
        self.examples = self.examples + (len(batch.y) if batch.weight is None else (batch.weight > 0).sum())


class Prepared(NamedTuple):
    """A client's state as its local training sees it, and mini-batches: numbers of `examples`."""

    client: State
    examples: Examples | Viewed
    batches: list[np.ndarray]


def prepared(local: Local, down: State, work: Work) -> Prepared:
    """What comes before `start`: examples that the client makes itself, where the algorithm has it do so; batches."""
    algorithm, client = local.at(work.round), client_state(local, work)
    if algorithm.virtual is None:
        return Prepared(client, *_seen(local, work, batches_of(local, work, down)))
    own = local.federation.pool.batch(_rows(local, work))

    def generator(purpose: str, *more: int) -> np.random.Generator:
        return keyed.generator(local.seed, purpose, work.client, *more)

    client, x, y = algorithm.virtual(down, client, OwnData(own.x, own.y, local.task, generator))
    plan = batches(local.seed, work.round, work.client, np.arange(len(y)), work.epochs, local.batch_size)
    return Prepared(client, Examples(x, y), _done(algorithm, down, client, work, plan))


def _seen(local: Local, work: Work, plan: list[np.ndarray]) -> tuple[Examples | Viewed, list[np.ndarray]]:
    """Mini-batches of the pool as local training sees them: where there are views, under newly drawn ones."""
    if (viewed := local.federation.viewed) is None or local.at(work.round).statistics:
        return local.federation.pool, plan
    generator = keyed.generator(local.seed, "views", work.round, work.client)
    return viewed, [viewed.drawn(rows, generator) for rows in plan]


def batches_of(local: Local, work: Work, down: State | None = None) -> list[np.ndarray]:
    """The mini-batches of this work: indices into the pool, decided by (seed, round, client) alone.

    Or chosen by the algorithm, which looks at the downlink, the client's state and the losses of its examples.
    """
    client = client_state(local, work)
    return _done(local.at(work.round), down, client, work, _plan(local, down, client, work))


def _rows(local: Local, work: Work) -> np.ndarray:
    """The client's training examples in this round: indices into the pool."""
    return np.asarray(local.federation.at(work.round, local.rounds).train[work.client])


def _done(
    algorithm: Algorithm, down: State | None, client: State, work: Work, plan: list[np.ndarray]
) -> list[np.ndarray]:
    """Those of the planned mini-batches that are done."""
    whole = algorithm.statistics or algorithm.whole(down, client)
    return plan if whole else plan[: max(int(work.share * len(plan) + 0.5), 1)]


def _plan(local: Local, down: State | None, client: State, work: Work) -> list[np.ndarray]:
    """The mini-batches of all of this work."""
    rows = _rows(local, work)
    if (choose := local.at(work.round).batches) is None:
        return batches(local.seed, work.round, work.client, rows, work.epochs, local.batch_size)

    def losses(theta: Tensor) -> np.ndarray:
        # a copy: wherever the downlink lies in memory, the last bits are the same
        return local.task.scores(theta.clone(), local.federation.pool.chunks(rows))["loss"].double().cpu().numpy()

    def generator(purpose: str) -> np.random.Generator:
        return keyed.generator(local.seed, purpose, work.round, work.client)

    data = LocalData(len(rows), local.batch_size, work.epochs, losses, generator)
    return [rows[chosen] for chosen in choose(down, client, data)]


def client_state(local: Local, work: Work) -> State:
    """C as `start` and `finish` see it: what the client keeps and, where the algorithm asks for it, its chance."""
    if not local.at(work.round).chance:
        return work.state
    drawn = keyed.generator(local.seed, "chance", work.round, work.client).random()
    return {**work.state, "chance": torch.tensor(drawn, dtype=torch.float64, device=local.task.device)}


def local_training(local: Local, down: State, work: Work) -> Result:
    """start, then grad and step for every batch, then finish."""
    return trained(local, down, work, prepared(local, down, work))


def trained(local: Local, down: State, work: Work, given: Prepared) -> Result:
    """`local_training` of what has been prepared."""
    algorithm, task = local.at(work.round), Counted(local.task)
    state = algorithm.start(down, given.client)
    loss, steps = 0.0, 0
    for rows in given.batches:
        g, aux = algorithm.grad(state, given.examples.batch(rows), task)
        state = algorithm.step(state, g, Step(steps, work.lr))
        loss = loss + aux["loss"]
        steps += 1
    uplink, kept = algorithm.finish(state, down, given.client, Done(steps, steps * work.lr, work.round))
    return Result(uplink, kept, float(loss) / steps, int(task.examples))
