"""Working states of many clients, stacked entry by entry, and one local step of all of them together.

`Stack` computes a step as it comes. `FixedStack` does the same over buffers that never move, which is what a CUDA
graph asks for: on a GPU a step of a small net is hundreds of kernels of a few microseconds each, and launching them
one by one costs more than they do. Captured once and replayed, they cost one launch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from heterobench.algorithm import Algorithm, State, Step
from heterobench.executor.local import Counted, Local
from heterobench.federation import Examples, Viewed
from heterobench.task import Batch

Plan = list[np.ndarray]
"""The mini-batches of one client in one round: numbers of the examples that it is given with."""

Recorder = Callable[[Callable[[], None]], Callable[[], None]]


class Stack:
    """Clients' working states, entry -> [clients, ...].

    `losses` [clients] adds up the losses of their batches, `examples` [clients] the gradients of examples.
    """

    def __init__(self, local: Local, algorithm: Algorithm):
        self.local, self.algorithm, self.task = local, algorithm, local.task.functional()

    def load(self, states: list[State], pool: Examples | Viewed) -> None:
        """Begin with these states, and batches of this pool."""
        self.state, self.pool = _stacked(states), pool
        self.losses = self.state["theta"].new_zeros(len(states))
        self.examples = self.losses.new_zeros(len(states), dtype=torch.int64)

    def train(self, plans: list[Plan], lr: float) -> Iterator[tuple[int, State]]:
        """Yields (client, its working state) as clients end. `plans` descend in their numbers of batches.

        So the clients that still have work are always the first ones, and nobody takes idle steps. Yielded states
        are copies: what a client keeps between rounds must not hold the whole stack in memory.
        """
        going = len(plans)
        for index, (rows, weight) in enumerate(self._batches(plans)):
            for client in reversed(range(len(rows), going)):
                yield client, self._copy(client)
            going = len(rows)
            self._step(rows, weight, Step(index, lr))
        for client in reversed(range(going)):
            yield client, self._copy(client)

    def _copy(self, client: int) -> State:
        return {name: tensor[client].clone() for name, tensor in self.state.items()}

    def _batches(self, plans: list[Plan]) -> Iterator[tuple[Tensor, Tensor]]:
        """Step by step: indices [m, B] and weights [m, B] of the m clients that still have a batch.

        They go to the device at once, weights in the dtype of theta.
        """
        like, width = self.state["theta"], self._width(plans)
        steps = [filled([plan[t] for plan in plans if len(plan) > t], width) for t in range(len(plans[0]))]
        sizes = [index.size for index, _ in steps]
        indices = torch.from_numpy(np.concatenate([index.ravel() for index, _ in steps])).to(like.device)
        weights = torch.from_numpy(np.concatenate([weight.ravel() for _, weight in steps])).to(like.device, like.dtype)
        for (index, _), rows, weight in zip(steps, indices.split(sizes), weights.split(sizes), strict=True):
            yield rows.view(index.shape), weight.view(index.shape)

    def _width(self, plans: list[Plan]) -> int | None:
        """The length to which batches are filled up; None for the longest of each step."""
        return None

    def _step(self, rows: Tensor, weight: Tensor, step: Step) -> None:
        """The step of the first m clients, on examples `rows` [m, B]."""
        going = len(rows)
        state = {name: tensor[:going] for name, tensor in self.state.items()}
        self.state, loss, examples = self._together(state, rows, weight, step)
        self.losses[:going] += loss
        self.examples[:going] += examples

    def _together(
        self, state: State, rows: Tensor, weight: Tensor, step: Step | _Watched
    ) -> tuple[State, Tensor, Tensor]:
        """States, losses [m] and numbers of examples [m] of a step of m clients.

        Hooks see one client's tensors (torch.func.vmap).
        """
        algorithm = self.algorithm
        x, y, _ = self.pool.batch(rows.flatten())

        def one(own: State, batch: Batch) -> tuple[State, Tensor, Tensor]:
            task = Counted(self.task)
            g, aux = algorithm.grad(own, batch, task)
            examples = batch.weight.new_zeros((), dtype=torch.int64) + task.examples
            return algorithm.step(own, g, step), aux["loss"], examples

        return torch.func.vmap(one)(state, Batch(x.unflatten(0, rows.shape), y.view(rows.shape), weight))


class FixedStack(Stack):
    """A stack whose step is recorded once for each of its shapes, and then replayed.

    `recorder` makes a replayable call of a function without arguments, and may call it on the way. Numbers of clients
    are rounded up, so that there are few shapes: rows that only fill up compute with weights 0, and their states have
    been taken already. Where an algorithm looks at the number of a step, no two steps are the same and
    nothing is recorded. The step size is part of a recording: one that changes every round costs a recording every
    round.
    """

    def __init__(self, local: Local, algorithm: Algorithm, recorder: Recorder):
        super().__init__(local, algorithm)
        self._recorder, self._recordings = recorder, {}
        self.state, self._longest = {}, 0

    def load(self, states: list[State], pool: Examples | Viewed) -> None:
        self.pool = pool
        count = _rounded(len(states))
        if not self.state or len(self.losses) < count:
            self._recordings.clear()  # they hold the addresses of the old buffers
            self.state = {name: tensor.new_zeros(count, *tensor.shape) for name, tensor in states[0].items()}
            self.losses = states[0]["theta"].new_zeros(count)
            self.examples = self.losses.new_zeros(count, dtype=torch.int64)
        for name, buffer in self.state.items():
            torch.stack([state[name] for state in states], out=buffer[: len(states)])
        self.losses.zero_()
        self.examples.zero_()

    def _width(self, plans: list[Plan]) -> int:
        self._longest = max(self._longest, *(len(rows) for plan in plans for rows in plan))
        return self._longest

    def _step(self, rows: Tensor, weight: Tensor, step: Step) -> None:
        going, count = len(rows), min(_rounded(len(rows)), len(self.losses))
        key = (count, rows.shape[1], step.lr)
        if key not in self._recordings:
            self._recordings[key] = self._record(count, rows.shape[1], step)
        replay, given_rows, given_weight = self._recordings[key]
        given_rows[:going] = rows
        given_weight[:going] = weight
        given_weight[going:] = 0  # who has ended adds nothing to its loss
        if replay:
            replay()
        else:
            self._compute(given_rows, given_weight, step)

    def _record(self, count: int, width: int, step: Step) -> tuple[Callable[[], None] | None, Tensor, Tensor]:
        """A replayable call, or None where no recording is possible, and its buffers for rows and weights."""
        rows = torch.zeros(count, width, dtype=torch.int64, device=self.losses.device)
        weight = self.losses.new_zeros(count, width)
        buffers = [*self.state.values(), self.losses, self.examples]
        before = [buffer.clone() for buffer in buffers]
        watched = _Watched(step.lr, step.index)
        replay = self._recorder(lambda: self._compute(rows, weight, watched))
        for buffer, content in zip(buffers, before, strict=True):
            buffer.copy_(content)  # recording may have computed
        return None if watched.was_asked else replay, rows, weight

    def _compute(self, rows: Tensor, weight: Tensor, step: Step | _Watched) -> None:
        views = {name: buffer[: len(rows)] for name, buffer in self.state.items()}
        found, loss, examples = self._together(dict(views), rows, weight, step)
        if found.keys() != views.keys():
            raise RuntimeError(f"a local step changes the entries of the working state: {sorted(found)}")
        for name, view in views.items():
            if found[name].data_ptr() != view.data_ptr():  # else the algorithm has worked in place
                view.copy_(found[name])
        self.losses[: len(rows)] += loss
        self.examples[: len(rows)] += examples


def cuda_graph(function: Callable[[], None]) -> Callable[[], None]:
    """A recorder for GPUs. It calls the function twice first, so that libraries choose kernels and make workspaces."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


class _Watched:
    """A `Step` that remembers whether somebody has asked for its number."""

    def __init__(self, lr: float, index: int):
        self.lr, self._index, self.was_asked = lr, index, False

    @property
    def index(self) -> int:
        self.was_asked = True
        return self._index


def _rounded(count: int) -> int:
    """The next of 1, 2, 4, 8, 16, 24, 32, ..."""
    return -(-count // 8) * 8 if count > 8 else 1 << (count - 1).bit_length()


def _stacked(states: list[State]) -> State:
    """Entry [...] of m clients -> entry [m, ...]; what is one tensor for all of them is not copied."""

    def join(tensors: list[Tensor]) -> Tensor:
        first = tensors[0]
        return first.expand(len(tensors), *first.shape) if all(t is first for t in tensors) else torch.stack(tensors)

    return {name: join([state[name] for state in states]) for name in states[0]}


def filled(rows: list[np.ndarray], longest: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Indices [m, B] and weights [m, B] of m batches with at most B examples; the examples after them weigh 0.

    B is `longest`, or the length of the longest batch.
    """
    longest = longest or max(len(r) for r in rows)
    index = np.stack([np.pad(r, (0, longest - len(r)), mode="edge") for r in rows])
    weight = np.stack([(np.arange(longest) < len(r)) / len(r) for r in rows])
    return index, weight
