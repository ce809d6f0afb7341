"""How the local work of a cohort is computed; every executor gives the same answer."""

from __future__ import annotations

from heterobench.executor import distributed
from heterobench.executor.local import Executor

NAMES = ("auto", "loop", "vmap", "workers")


def make(name: str, workers: int = 1, device: str = "cpu") -> Executor:
    """The executor called `name`; "auto" takes workers where several CPU cores are given, else the loop.

    Under torchrun the cohort is split over the ranks, whatever the name.
    """
    if distributed.started_by_torchrun():
        return distributed.Distributed()
    if name == "auto":
        name = "workers" if workers > 1 and device == "cpu" else "loop"
    if name == "workers":
        from heterobench.executor.workers import Workers

        return Workers(workers)
    if name == "vmap":
        from heterobench.executor.vmap import Vmap

        return Vmap()
    from heterobench.executor.loop import Loop

    return Loop()
