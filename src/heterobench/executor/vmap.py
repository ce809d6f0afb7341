"""Many clients at once: their models stacked, each operation done for all of them together (torch.func.vmap).

It pays on a GPU with small nets, where one client at a time leaves most of the device idle. The arithmetic is that
of the loop executor up to rounding, because sums may be taken in another order.

On a GPU each shape of a step is recorded as a CUDA graph and replayed (`heterobench.executor.stack`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heterobench.algorithm import Algorithm, Done, State
from heterobench.executor.local import Local, Prepared, Result, Work, prepared, trained
from heterobench.executor.stack import FixedStack, Plan, Recorder, Stack, cuda_graph
from heterobench.federation import Examples, Viewed

MEMORY = 2 * 2**30  # bytes; fixed, because the size of a chunk touches the last bits of a result


class Vmap:
    """An `Executor` that stacks as many clients as fit into `memory` bytes (at least one).

    The hooks `grad` and `step` must be free of data-dependent Python control flow (no ``.item()``, no ``if`` on a
    tensor) and of global random numbers; torch raises RuntimeError where they are not.
    """

    def __init__(self, memory: int = MEMORY, recorder: Recorder | None = None):
        """`recorder` records steps on any device; without one, CUDA graphs do it on a GPU."""
        self.memory, self._recorder = memory, recorder
        self._local: Local | None = None
        self._algorithm: Algorithm | None = None
        self._stack: Stack | None = None

    def run(self, local: Local, down: State, cohort: list[Work]) -> list[Result]:
        given = [prepared(local, down, work) for work in cohort]
        order = sorted(range(len(cohort)), key=lambda i: len(given[i].batches), reverse=True)
        algorithm = local.at(cohort[0].round)
        if local is not self._local or algorithm is not self._algorithm:
            self._begin(local, algorithm, down, given[0])
        longest = max(len(rows) for one in given for rows in one.batches)
        size = max(1, int(self.memory // (self._state + longest * self._example)))  # clients trained at once
        results: dict[int, Result] = {}
        for first in range(0, len(order), size):
            chunk = order[first : first + size]
            if len(chunk) == 1:  # nothing to stack
                results[chunk[0]] = trained(local, down, cohort[chunk[0]], given[chunk[0]])
            else:
                together = _train(self._stack, down, [cohort[i] for i in chunk], [given[i] for i in chunk])
                results.update(zip(chunk, together, strict=True))
        return [results[i] for i in range(len(cohort))]

    def _begin(self, local: Local, algorithm: Algorithm, down: State, given: Prepared) -> None:
        self._state, self._example = _bytes(local, algorithm, down, given)
        recorder = self._recorder or (cuda_graph if local.task.device.type == "cuda" else None)
        if algorithm.virtual:  # a recording holds the address of the examples, which here are others every round
            recorder = None
        self._stack = FixedStack(local, algorithm, recorder) if recorder else Stack(local, algorithm)
        self._local, self._algorithm = local, algorithm

    def close(self) -> None:
        self._local = self._algorithm = self._stack = None


class _Computed(TorchDispatchMode):
    """Adds up the bytes of all tensors that are computed (views are none)."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if not func.is_view:
            self.total += sum(t.nbytes for t in tree_leaves(result) if isinstance(t, Tensor))
        return result


def _bytes(local: Local, algorithm: Algorithm, down: State, given: Prepared) -> tuple[int, int]:
    """Upper estimate of what one client needs: bytes for its states, and bytes for each example of a batch.

    Counted is everything that a gradient computes, as if nothing were freed on the way. It is linear in the number of
    examples, so one and two of them tell it for every batch: the estimate is the same in whatever round it is made,
    and a resumed run is cut into the chunks of the straight one.
    """
    task, state = local.task.functional(), algorithm.start(down, given.client)

    def computed(examples: int) -> int:
        with _Computed() as mode:
            algorithm.grad(state, given.examples.batch(np.zeros(examples, dtype=np.int64)), task)
        return mode.total

    one, two = computed(1), computed(2)
    states = sum(tensor.nbytes for tensor in state.values()) + 2 * state["theta"].nbytes  # what a step computes
    return states + 2 * one - two, two - one


def _joined(given: list[Prepared]) -> tuple[Examples | Viewed, list[Plan]]:
    """The examples of a chunk and the mini-batches in them: one pool, or what each client has made itself in a row."""
    pool, plans = given[0].examples, [one.batches for one in given]
    if all(one.examples is pool for one in given):
        return pool, plans
    x, y = (torch.cat([getattr(one.examples, name) for one in given]) for name in ("x", "y"))
    first = np.cumsum([0, *(len(one.examples) for one in given)])
    return Examples(x, y), [[rows + start for rows in plan] for plan, start in zip(plans, first, strict=False)]


def _train(stack: Stack, down: State, cohort: list[Work], given: list[Prepared]) -> list[Result]:
    """Results of a chunk in its order, which is descending in the number of steps."""
    algorithm, lr = stack.algorithm, cohort[0].lr
    assert all(work.lr == lr for work in cohort), "the step size is the same for every client of a round"
    examples, plans = _joined(given)
    stack.load([algorithm.start(down, one.client) for one in given], examples)
    ended = dict(stack.train(plans, lr))
    results = []
    counts = zip(cohort, given, stack.losses.tolist(), stack.examples.tolist(), strict=False)
    for index, (work, one, loss, counted) in enumerate(counts):
        steps = len(one.batches)
        uplink, kept = algorithm.finish(ended[index], down, one.client, Done(steps, steps * lr, work.round))
        results.append(Result(uplink, kept, loss / steps, counted))
    return results
