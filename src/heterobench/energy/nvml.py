"""NVML: the energy of a whole NVIDIA GPU, from its counter, or where it has none from samples of its power.

Asked through the module ``pynvml`` of the package nvidia-ml-py, which need not be there. A power is an average over 25
to 100 ms by itself, so what is sampled needs runs of ten seconds or more.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

from heterobench.energy.sampling import Sampled
from heterobench.energy.units import trapezoid

SECONDS_COUNTER, SECONDS_POWER = 60.0, 0.05
SCOPE = "whole GPU"
MILLI = 1e-3


def uuid(device: str) -> str:
    """The identity of a torch device, which does not depend on CUDA_VISIBLE_DEVICES as its number does."""
    import torch

    return str(torch.cuda.get_device_properties(device).uuid)


def meter(uuid: str, library: Any = None) -> Sampled | None:
    """A meter of the GPU with this UUID (without "GPU-" before it); None where NVML, or this GPU, does not answer."""
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except ImportError:
            return None
    try:
        library.nvmlInit()
    except library.NVMLError:
        return None
    try:
        handle = _handle(library, uuid)
        try:
            return _Meter("NVML counter", _counted(library, handle), SECONDS_COUNTER, library)
        except library.NVMLError:  # before Volta
            return _Meter("NVML power", _sampled(library, handle), SECONDS_POWER, library)
    except library.NVMLError:
        library.nvmlShutdown()
        return None


class _Meter(Sampled):
    def __init__(self, method: str, look: Callable[[], float], seconds: float, library: Any):
        super().__init__(method, SCOPE, look, seconds, library.NVMLError)
        self._library = library

    def close(self) -> None:
        super().close()
        self._library.nvmlShutdown()


def _handle(library: Any, uuid: str) -> Any:
    """The GPU; of a MIG instance, the GPU that it is a part of."""
    try:
        return library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except library.NVMLError:
        part = library.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
        return library.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)


def _counted(library: Any, handle: Any) -> Callable[[], float]:
    """J since the last call, from the counter (mJ since the driver was loaded)."""
    last = library.nvmlDeviceGetTotalEnergyConsumption(handle)

    def look() -> float:
        nonlocal last
        before, last = last, library.nvmlDeviceGetTotalEnergyConsumption(handle)
        return MILLI * (last - before)

    return look


def _sampled(library: Any, handle: Any, clock: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """J since the last call, from the power (mW) at both ends."""
    last = clock(), MILLI * library.nvmlDeviceGetPowerUsage(handle)

    def look() -> float:
        nonlocal last
        before, last = last, (clock(), MILLI * library.nvmlDeviceGetPowerUsage(handle))
        return trapezoid((before[1], last[1]), (before[0], last[0]))

    return look
