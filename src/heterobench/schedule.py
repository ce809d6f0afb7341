"""Who takes part in a round, how much of the local work each client finishes, and how long the round takes.

Functions of (seed, round, client): every method of a table has the same cohorts, the same stragglers and the same
devices.

The simulated clock. A synchronous round ends when its slowest client has ended:

    round = max over the cohort of (bytes down / downlink + gradients of examples / speed + bytes up / uplink) + server

with the real bytes of the messages, and with every gradient of an example that the client computed, so a method that
takes two in a step computes for twice as long. The model and its unit of work, the example, are those of FedScale (Lai
et al., "FedScale: Benchmarking Model and System Performance of Federated Learning at Scale", ICML 2022, arXiv
2105.11367: examples x time of one, plus bytes / bandwidth). Each client has one speed and two links for the whole run:
median x exp(sigma z), z standard normal, independent of each other and of its data. Links are not shared, messages and
computation do not overlap, nobody drops out. The speed is that of an example, whatever the net: seconds of two methods
on one scenario compare, those of two nets do not. A round in which nobody is there costs the server's time alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from heterobench import keyed
from heterobench.availability import Attendance
from heterobench.config.schema import Clock, ScheduleFile


def cohort(
    schedule: ScheduleFile, seed: int, round: int, active: np.ndarray, attendance: Attendance | None = None
) -> np.ndarray:
    """Ids of the participants, ascending: max(round(C N), 1) of the `active` [N], without replacement.

    Source: McMahan et al. 2017, Algorithm 1. With participation 1 everybody takes part and nothing is drawn.
    Where there is an `attendance`, those of the active that are there, which may be nobody.
    """
    if attendance is not None:
        return active[attendance(round)[active]]
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


def share(schedule: ScheduleFile, seed: int, round: int, client: int) -> float:
    """Share of its local steps that a client does: uniform in the range of `local_work`, or 1 without one."""
    work = schedule.local_work
    return keyed.generator(seed, "local work", round, client).uniform(work.min, work.max) if work else 1.0


class Device(NamedTuple):
    """What a client has: gradients of examples per second, bytes per second down and up."""

    examples: float
    down: float
    up: float


class Part(NamedTuple):
    """What a client did in a round: gradients of `examples`, bytes received (`down`) and sent (`up`)."""

    examples: int
    down: int
    up: int


def _spread(clock: Clock) -> tuple[float, ...]:
    """Median and sigma of each part of a device."""
    parts = (clock.examples_per_second, clock.downlink_bytes_per_second, clock.uplink_bytes_per_second)
    return tuple(number for part in parts for number in (part.median, part.sigma))


@lru_cache(maxsize=2**14)
def _device(seed: int, client: int, spread: tuple[float, ...]) -> Device:
    normal = keyed.generator(seed, "clock", client).standard_normal(len(Device._fields)).tolist()
    drawn = zip(spread[::2], spread[1::2], normal, strict=True)
    return Device(*(median * math.exp(sigma * z) for median, sigma, z in drawn))


def device(clock: Clock, seed: int, client: int) -> Device:
    """The device of a client, the same in every round."""
    return _device(seed, client, _spread(clock))


def seconds(clock: Clock, seed: int, cohort: Iterable[int], parts: Iterable[Part]) -> float:
    """How long a round takes (see the module).

    The server has work where something was sent up, and where nobody was there.
    """
    spread, parts, slowest = _spread(clock), list(parts), 0.0
    for client, part in zip(cohort, parts, strict=True):
        own = _device(seed, int(client), spread)
        slowest = max(slowest, part.down / own.down + part.examples / own.examples + part.up / own.up)
    return slowest + (clock.server_seconds if not parts or any(part.up for part in parts) else 0.0)
