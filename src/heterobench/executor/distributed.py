"""One run over several processes or machines: torch.distributed, started by torchrun.

Every rank runs the whole engine on the same state and computes its share of each cohort: client number k of the
cohort belongs to rank k modulo the number of ranks. The ranks then exchange results, so that each holds all of them
in the order of the cohort and goes on exactly like one process alone: neither a sum nor its order depends on the
number of ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from heterobench.algorithm import Algorithm, State
from heterobench.errors import MachineError
from heterobench.executor.local import Local, Result, Work, local_training

STORE = "HETEROBENCH_RANKS_MEET_IN"
"""Environment variable: the file in which the ranks of one machine find each other."""


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def join(device: str) -> None:
    """Join the group that the environment describes: NCCL between GPUs, gloo between CPUs.

    Ranks of one machine that `heterobench.executor.launch` has started meet in a file, others at torchrun's address.
    """
    if dist.is_initialized():
        return
    backend = "nccl" if device.startswith("cuda") else "gloo"
    if (file := os.environ.get(STORE)) is None:
        dist.init_process_group(backend)
        return
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, store=dist.FileStore(file, ranks), rank=rank, world_size=ranks)


@contextmanager
def together() -> Iterator[None]:
    """Around what all ranks do at the same time: where one of them has ended, the others cannot go on."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).splitlines() or [""])[0]
        raise MachineError(f"another rank of this run has ended; its own message says why ({reason})") from None


def leave() -> None:
    """Leave the group together: a rank that ended first would take the others' connections with it."""
    if dist.is_initialized():
        with together():
            dist.barrier()
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 where there is no group."""
    return dist.get_rank() if dist.is_initialized() else 0


def agreed(value: Any) -> Any:
    """Rank 0's value, on every rank; all ranks have arrived here when it returns."""
    if not dist.is_initialized():
        return value
    box = [value]
    with together():
        dist.broadcast_object_list(box, src=0)
        dist.barrier()
    return box[0]


def computed(compute: Callable[[], Any]) -> Any:
    """What rank 0 computes, on every rank."""
    return agreed(compute() if rank() == 0 else None)


def first_here() -> bool:
    """Whether this process is the first of its run on this machine."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def total(value: float) -> float:
    """The sum of all ranks' values, on every rank; the value itself where there is no group."""
    if not dist.is_initialized():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    summed = torch.tensor(value, dtype=torch.float64, device=device)
    with together():
        dist.all_reduce(summed)
    return float(summed)


class Distributed:
    """An `Executor` whose cohort is split over the ranks of the default process group."""

    def __init__(self) -> None:
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self._blank: Result | None = None
        self._algorithm: Algorithm | None = None

    def run(self, local: Local, down: State, cohort: list[Work]) -> list[Result]:
        algorithm = local.at(cohort[0].round)
        mine = [local_training(local, down, work) for work in cohort[self.rank :: self.ranks]]
        if self._blank is None or algorithm is not self._algorithm:
            self._blank, self._algorithm = self._learn_shapes(mine, local), algorithm
        share = -(-len(cohort) // self.ranks)
        mine += [self._blank] * (share - len(mine))  # equal shares: collective operations want equal shapes
        uplinks = {name: self._exchange([r.uplink[name] for r in mine]) for name in self._blank.uplink}
        states = {name: self._exchange([r.state[name] for r in mine]) for name in self._blank.state}
        numbers = [(r.loss, r.examples) for r in mine]  # float64 holds whole numbers up to 2^53
        numbers = self._exchange(list(torch.tensor(numbers, dtype=torch.float64, device=local.task.device)))
        return [
            Result(
                {name: values[k] for name, values in uplinks.items()},
                {name: values[k] for name, values in states.items()},
                float(numbers[k][0]),
                int(numbers[k][1]),
            )
            for k in range(len(cohort))
        ]

    def _learn_shapes(self, mine: list[Result], local: Local) -> Result:
        """A result of zeros. Rank 0 has a client in every cohort; others may have none in the first."""
        described = None
        if self.rank == 0:
            described = [{k: (v.shape, v.dtype) for k, v in part.items()} for part in mine[0][:2]]
        box = [described]
        with together():
            dist.broadcast_object_list(box, src=0)
        uplink, state = (
            {name: torch.zeros(shape, dtype=dtype, device=local.task.device) for name, (shape, dtype) in part.items()}
            for part in box[0]
        )
        return Result(uplink, state, 0.0, 0)

    def _exchange(self, mine: list[Tensor]) -> list[Tensor]:
        """All ranks' tensors, in the order of the cohort (blanks at the end)."""
        stacked = torch.stack(mine)
        gathered = [torch.empty_like(stacked) for _ in range(self.ranks)]
        with together():
            dist.all_gather(gathered, stacked)
        return [part[k] for k in range(len(stacked)) for part in gathered]

    def close(self) -> None:
        self._blank = self._algorithm = None
