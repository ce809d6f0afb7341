"""Many clients at once: their models stacked, each operation done for all of them together (torch.func.vmap).

It pays on a GPU with small nets, where one client at a time leaves most of the device idle. The arithmetic is that
of the loop executor up to rounding, because sums may be taken in another order.

Clients stand in descending order of their numbers of steps, so those that still have work are always the first ones
of the stack and nobody takes idle steps. Batches of unequal size are filled up with examples of weight 0. Working
states are stacked entry by entry, so hooks see one client's tensors, and what they do in place is done in the stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heterobench.algorithm import Done, State, Step
from heterobench.executor.local import Local, Result, Work, batches_of, local_training
from heterobench.task import Batch

MEMORY = 2 * 2**30  # bytes; fixed, because the size of a chunk touches the last bits of a result

Plan = list[np.ndarray]
"""The mini-batches of one client in one round: indices into the pool."""


class Vmap:
    """An `Executor` that stacks as many clients as fit into `memory` bytes (at least one).

    The hooks `grad` and `step` must be free of data-dependent Python control flow (no ``.item()``, no ``if`` on a
    tensor) and of global random numbers; torch raises RuntimeError where they are not.
    """

    def __init__(self, memory: int = MEMORY):
        self.memory = memory
        self._local: Local | None = None

    def run(self, local: Local, down: State, cohort: list[Work]) -> list[Result]:
        plans = [batches_of(local, work) for work in cohort]
        order = sorted(range(len(cohort)), key=lambda i: len(plans[i]), reverse=True)
        size = self._chunk(local, down, cohort[0], plans) if len(cohort) > 1 else 1
        results: dict[int, Result] = {}
        for first in range(0, len(order), size):
            chunk = order[first : first + size]
            if len(chunk) == 1:  # nothing to stack
                results[chunk[0]] = local_training(local, down, cohort[chunk[0]])
            else:
                trained = _train(local, down, [cohort[i] for i in chunk], [plans[i] for i in chunk])
                results.update(zip(chunk, trained, strict=True))
        return [results[i] for i in range(len(cohort))]

    def _chunk(self, local: Local, down: State, work: Work, plans: list[Plan]) -> int:
        """How many clients are trained at once."""
        if local is not self._local:
            self._state, self._example = _bytes(local, down, work)
            self._local = local
        longest = max(len(rows) for plan in plans for rows in plan)
        return max(1, int(self.memory // (self._state + longest * self._example)))

    def close(self) -> None:
        self._local = None


class _Computed(TorchDispatchMode):
    """Adds up the bytes of all tensors that are computed (views are none)."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if not func.is_view:
            self.total += sum(t.nbytes for t in tree_leaves(result) if isinstance(t, Tensor))
        return result


def _bytes(local: Local, down: State, work: Work) -> tuple[int, int]:
    """Upper estimate of what one client needs: bytes for its states, and bytes for each example of a batch.

    Counted is everything that a gradient computes, as if nothing were freed on the way. It is linear in the number of
    examples, so one and two of them tell it for every batch: the estimate is the same in whatever round it is made,
    and a resumed run is cut into the chunks of the straight one.
    """
    task, pool, state = local.task.functional(), local.federation.pool, local.algorithm.start(down, work.state)

    def computed(examples: int) -> int:
        with _Computed() as mode:
            task.grad(state["theta"], pool.batch(np.zeros(examples, dtype=np.int64)))
        return mode.total

    one, two = computed(1), computed(2)
    states = sum(tensor.nbytes for tensor in state.values()) + 2 * state["theta"].nbytes  # what a step computes
    return states + 2 * one - two, two - one


def _train(local: Local, down: State, cohort: list[Work], plans: list[Plan]) -> list[Result]:
    """Results of a chunk in its order, which is descending in the number of steps."""
    algorithm, task, lr = local.algorithm, local.task.functional(), cohort[0].lr
    assert all(work.lr == lr for work in cohort), "the step size is the same for every client of a round"

    def local_step(state: State, batch: Batch, step: Step) -> tuple[State, Tensor]:
        g, aux = algorithm.grad(state, batch, task)
        return algorithm.step(state, g, step), aux["loss"]

    state = _stack([algorithm.start(down, work.state) for work in cohort])
    losses = state["theta"].new_zeros(len(cohort))
    ended: list[State] = []  # the last clients first
    for index, batch in enumerate(_batches(local, plans, state["theta"])):
        state = _retire(state, len(batch.y), ended)
        state, loss = torch.func.vmap(partial(local_step, step=Step(index, lr)))(state, batch)
        losses[: len(loss)] += loss
    _retire(state, 0, ended)

    results = []
    for work, plan, loss in zip(cohort, plans, losses.tolist(), strict=True):
        own, steps = ended.pop(), len(plan)
        uplink, kept = algorithm.finish(own, down, work.state, Done(steps, steps * lr))
        results.append(Result(uplink, kept, loss / steps))
    return results


def _stack(states: list[State]) -> State:
    """Entry [...] of m clients -> entry [m, ...]; what is one tensor for all of them is not copied."""

    def join(tensors: list[Tensor]) -> Tensor:
        first = tensors[0]
        return first.expand(len(tensors), *first.shape) if all(t is first for t in tensors) else torch.stack(tensors)

    return {name: join([state[name] for state in states]) for name in states[0]}


def _retire(state: State, going: int, ended: list[State]) -> State:
    """The stack of the first `going` clients; the others' states are appended to `ended`, from the last one on.

    Copies, because what a client keeps between rounds must not hold the whole stack in memory.
    """
    count = len(state["theta"])
    if going == count:
        return state
    ended += [{name: tensor[i].clone() for name, tensor in state.items()} for i in reversed(range(going, count))]
    return {name: tensor[:going] for name, tensor in state.items()}


def _filled(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Indices [m, B] and weights [m, B] of m batches with at most B examples; the examples after them weigh 0."""
    longest = max(len(r) for r in rows)
    index = np.stack([np.pad(r, (0, longest - len(r)), mode="edge") for r in rows])
    weight = np.stack([(np.arange(longest) < len(r)) / len(r) for r in rows])
    return index, weight


def _batches(local: Local, plans: list[Plan], like: Tensor) -> Iterator[Batch]:
    """Step by step, the batches of the m clients that still have one: x [m, B, *shape], y and weight [m, B].

    Indices and weights go to the device of `like` at once, weights in its dtype.
    """
    steps = [_filled([plan[t] for plan in plans if len(plan) > t]) for t in range(len(plans[0]))]
    sizes = [index.size for index, _ in steps]
    indices = torch.from_numpy(np.concatenate([index.ravel() for index, _ in steps])).to(like.device)
    weights = torch.from_numpy(np.concatenate([weight.ravel() for _, weight in steps])).to(like.device, like.dtype)
    for (index, _), flat, weight in zip(steps, indices.split(sizes), weights.split(sizes), strict=True):
        x, y, _ = local.federation.pool.batch(flat)
        yield Batch(x.unflatten(0, index.shape), y.view(index.shape), weight.view(index.shape))
