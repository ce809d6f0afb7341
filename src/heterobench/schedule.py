"""Who takes part in a round, and how much of the local work each client finishes: functions of (seed, round)."""

from __future__ import annotations

import numpy as np

from heterobench import keyed
from heterobench.config.schema import ScheduleFile


def cohort(schedule: ScheduleFile, seed: int, round: int, active: np.ndarray) -> np.ndarray:
    """Ids of the participants, ascending: max(round(C N), 1) of the `active` [N], without replacement.

    Source: McMahan et al. 2017, Algorithm 1. With participation 1 everybody takes part and nothing is drawn.
    """
    size = max(int(np.floor(schedule.participation * len(active) + 0.5)), 1)
    if size >= len(active):
        return active
    return np.sort(keyed.generator(seed, "cohort", round).choice(active, size, replace=False))


def epochs(schedule: ScheduleFile, seed: int, round: int, client: int, full: int) -> int:
    """Epochs that a client finishes: `full`, or for a straggler a uniform number in 1..full-1.

    Source: the stragglers of Li et al., MLSys 2020 (FedProx), as in the authors' code.
    """
    if not schedule.stragglers or full == 1:
        return full
    generator = keyed.generator(seed, "stragglers", round, client)
    return int(generator.integers(1, full)) if generator.random() < schedule.stragglers else full
