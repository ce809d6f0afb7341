"""The plain executor: one client after the other, in this process."""

from __future__ import annotations

from heterobench.algorithm import State
from heterobench.executor.local import Local, Result, Work, local_training


class Loop:
    """An `Executor` without processes or memory of its own."""

    def run(self, local: Local, down: State, cohort: list[Work]) -> list[Result]:
        return [local_training(local, down, work) for work in cohort]

    def close(self) -> None:
        pass
