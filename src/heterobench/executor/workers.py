"""Persistent processes, one thread each, that share parameters in memory: the executor for several CPU cores.

The first client of a run, or of a phase of it, is computed here, to learn the shapes of what clients return; then the
processes are forked, so that data, nets and algorithms are theirs without a copy. In a round the downlink and the
cohort's states are written to shared memory, each process takes the next client that nobody has taken, and writes its
result into that client's place: results stand in the order of the cohort whoever computed them, and every client's
arithmetic is that of the loop executor, bit for bit.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import traceback
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

import torch
from torch import Tensor

from heterobench.algorithm import Algorithm, State
from heterobench.errors import MachineError, RunError
from heterobench.executor.local import Local, Result, Work, local_training
from heterobench.memory import keep_freed_memory


def _shared(like: Tensor, count: int) -> Tensor:
    return torch.empty((count, *like.shape), dtype=like.dtype).share_memory_()


def _places(like: State, count: int) -> State:
    """Shared memory for `count` states like this one: entry -> [count, ...]."""
    return {name: _shared(tensor, count) for name, tensor in like.items()}


def _write(places: State, index: int, state: State) -> None:
    for name, tensor in state.items():
        places[name][index].copy_(tensor)


def _read(places: State, index: int) -> State:
    return {name: tensor[index] for name, tensor in places.items()}


class Workers:
    """An `Executor` of `count` processes; they end with this one, however it ends."""

    def __init__(self, count: int):
        self.count = count
        self._local: Local | None = None
        self._algorithm: Algorithm | None = None
        self._pipes: list[Any] = []
        self._processes: list[Any] = []

    def run(self, local: Local, down: State, cohort: list[Work]) -> list[Result]:
        results: list[Result] = []
        algorithm = local.at(cohort[0].round)
        known = local is self._local and algorithm is self._algorithm and self._down.keys() == down.keys()
        if not known or len(cohort) > self._room:
            first = local_training(local, down, cohort[0])
            self._begin(local, down, first, cohort)
            self._algorithm = algorithm
            results, cohort = [first], cohort[1:]
        _write(self._down, 0, down)
        for index, work in enumerate(cohort):
            _write(self._given, index, work.state)
        self._next.value = 0
        plain = [work._replace(state={}) for work in cohort]
        self._wait(plain)
        for index in range(len(cohort)):
            # copies: the places are written again in the next round
            uplink = {name: tensor.clone() for name, tensor in _read(self._uplinks, index).items()}
            kept = {name: tensor.clone() for name, tensor in _read(self._kept, index).items()}
            results.append(Result(uplink, kept, float(self._losses[index]), int(self._examples[index])))
        return results

    def _wait(self, cohort: Sequence[Work]) -> None:
        """Have the cohort computed. RunError as soon as a process fails or dies; the others then end as well."""
        try:
            for pipe in self._pipes:
                pipe.send(cohort)
            waiting = set(self._pipes)
            while waiting:
                # all at once: one that was killed may hold what another waits for
                for pipe in wait(waiting):
                    if (error := pipe.recv()) is not None:
                        raise RunError(f"local training failed in a worker process:\n{error}")
                    waiting.discard(pipe)
        except (EOFError, OSError):
            self._end()
            ended = "a worker process ended unexpectedly (killed, or out of memory)"
            advice = "start the same command again, perhaps with fewer workers: it goes on from its last checkpoint"
            raise MachineError(f"local training failed: {ended}. What to do: {advice}") from None
        except BaseException:
            self._end()
            raise

    def _begin(self, local: Local, down: State, first: Result, cohort: Sequence[Work]) -> None:
        self.close()
        self._local, self._room = local, len(cohort)
        self._down = _places(down, 1)
        self._given, self._kept = _places(cohort[0].state, self._room), _places(first.state, self._room)
        self._uplinks = _places(first.uplink, self._room)
        self._losses = torch.empty(self._room, dtype=torch.float64).share_memory_()
        self._examples = torch.empty(self._room, dtype=torch.int64).share_memory_()
        context = multiprocessing.get_context("fork")  # no pickling: algorithms are closures, data sets are large
        self._next = context.Value("q", 0)
        for _ in range(self.count):
            ours, theirs = context.Pipe()
            process = context.Process(target=self._serve, args=(theirs, [*self._pipes, ours]), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def _serve(self, pipe: Any, others: list[Any]) -> None:
        """A worker's life: until its pipe is closed, or the process at the other end has died."""
        for other in others:
            other.close()  # else our copy would keep the pipe open when the parent dies
        torch.set_num_threads(1)
        keep_freed_memory()
        with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
            while True:
                cohort = pipe.recv()
                pipe.send(self._compute(cohort))

    def _compute(self, cohort: list[Work]) -> str | None:
        """Compute clients until none is left; the traceback where one fails."""
        try:
            down = _read(self._down, 0)
            while (index := self._take()) < len(cohort):
                # copies: the last bit of a matrix product depends on how its operands lie in memory
                state = {name: tensor.clone() for name, tensor in _read(self._given, index).items()}
                work = cohort[index]._replace(state=state)
                result = local_training(self._local, down, work)
                _write(self._uplinks, index, result.uplink)
                _write(self._kept, index, result.state)
                self._losses[index] = result.loss
                self._examples[index] = result.examples
        except Exception:
            return traceback.format_exc()
        return None

    def _take(self) -> int:
        with self._next.get_lock():
            taken = self._next.value
            self._next.value += 1
        return taken

    def _end(self) -> None:
        """End the processes whatever they do."""
        for process in self._processes:
            process.kill()
        self.close()

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()
        self._pipes, self._processes, self._local, self._algorithm = [], [], None, None
