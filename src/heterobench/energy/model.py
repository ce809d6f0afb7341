"""Energy where nothing can be read: a declared power for every second of CPU time.

    P = TDP x share of the machine's CPU time  =>  E = TDP / threads x CPU seconds

without a floor, as CodeCarbon 3.3 does in its mode "process" (codecarbon/core/cpu.py, DEFAULT_POWER_PER_CORE = 4 for
processors that it does not know: 4 W per hardware thread). The TDP is the packages' long-term limit where Linux tells
it. This is no measurement: it ranks methods by their CPU time, and says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import time
from functools import cache
from pathlib import Path
from typing import Any

from heterobench.energy import rapl

WATTS_PER_THREAD = 4.0


def modelled(cpu_seconds: float, watts_per_thread: float = WATTS_PER_THREAD) -> float:
    """J of `cpu_seconds` on hardware threads of this power."""
    return cpu_seconds * watts_per_thread


def cpu_seconds() -> float:
    """CPU time of this process, of its children that have ended, and of the processes that it runs (multiprocessing).

    Costs some microseconds.
    """
    running = multiprocessing.active_children()  # first: it waits for those that have ended, and so they are counted
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(_cpu_seconds(child.pid) for child in running)


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process that runs; 0 when it has just ended, for then it is counted the next time.

    The clock of another process (POSIX) is exact and costs a microsecond; psutil reads files that count in 10 ms.
    """
    if (clock_of := _clock_of()) is None:
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            return times.user + times.system
        return 0.0
    clock = ctypes.c_int()
    with contextlib.suppress(OSError):
        return 0.0 if clock_of(pid, ctypes.byref(clock)) else time.clock_gettime(clock.value)
    return 0.0


@cache
def _clock_of() -> Any:
    """clock_getcpuclockid, or None where the C library has none (macOS)."""
    return getattr(ctypes.CDLL(None), "clock_getcpuclockid", None)


class Modelled:
    """A meter of this process and its children."""

    method, measured = "modelled", False

    def __init__(self, root: Path = rapl.ROOT):
        threads, tdp = os.cpu_count() or 1, rapl.tdp(root)
        self._watts = tdp / threads if tdp else WATTS_PER_THREAD
        self._source = "TDP of the packages" if tdp else "declared constant"
        self._start, self._most = cpu_seconds(), 0.0

    def joules(self) -> float:
        self._most = max(self._most, cpu_seconds() - self._start)  # a child that is just ending is missed once
        return modelled(self._most, self._watts)

    def about(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "measured": False,
            "scope": "CPU time of this process and its children",
            "watts_per_thread": self._watts,
            "watts_source": self._source,
        }

    def close(self) -> None:
        pass
