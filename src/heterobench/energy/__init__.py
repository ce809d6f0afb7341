"""How much energy a run took: read from counters of the hardware where there are any, else from a model.

================  ===========================================================================  ========
method            what is counted                                                              measured
================  ===========================================================================  ========
NVML counter      the whole GPU, by its own counter (Volta and later)                          yes
NVML power        the whole GPU, by its power, sampled and integrated                          yes
RAPL              the whole packages (sockets) of the machine                                  yes
modelled          the CPU time of this process and its children, at a declared power           no
================  ===========================================================================  ========

A GPU's energy and that of the CPU add up ("NVML counter + RAPL"), and a sum is measured where all of its parts are.
Counters count everything that runs on the same GPU or socket: numbers of jobs that shared them are no one job's. On a
GPU that cannot be read nothing is known, because the CPU's energy alone would be a wrong answer.

Simulated clients on one machine cost the energy of the simulator, not that of the devices that they stand for.

Sources: Henderson et al., "Towards the Systematic Reporting of the Energy and Carbon Footprints of Machine Learning",
arXiv 2002.05651; CodeCarbon 3.3 (https://github.com/mlco2/codecarbon), mode "process", for the model.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

from heterobench.energy import nvml, rapl
from heterobench.energy.model import Modelled


class Meter(Protocol):
    """Counts from the moment when it is made."""

    method: str
    measured: bool

    def joules(self) -> float:
        """J so far, never falling; NaN where they are not known."""

    def about(self) -> dict[str, Any]:
        """Plain JSON for a run's provenance: `method`, `measured`, `scope`, and the constants of a model."""

    def close(self) -> None:
        """End threads and connections."""


class Together:
    """The sum of meters of different parts of a machine."""

    def __init__(self, parts: list[Meter]):
        self._parts = parts
        self.method = " + ".join(part.method for part in parts)
        self.measured = all(part.measured for part in parts)

    def joules(self) -> float:
        return math.fsum(part.joules() for part in self._parts)

    def about(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for part in self._parts:
            told |= part.about()
        scope = " + ".join(part.about()["scope"] for part in self._parts)
        return told | {"method": self.method, "measured": self.measured, "scope": scope}

    def close(self) -> None:
        for part in self._parts:
            part.close()


class Unknown:
    """No number where a part that matters cannot be read."""

    method, measured = "unknown", False

    def __init__(self, reason: str):
        self._reason = reason

    def joules(self) -> float:
        return math.nan

    def about(self) -> dict[str, Any]:
        return {"method": self.method, "measured": False, "scope": "nothing", "reason": self._reason}

    def close(self) -> None:
        pass


def meter(device: str = "cpu", first: bool = True, root: Path = rapl.ROOT, library: Any = None) -> Meter:
    """The best meter for a run on a torch `device`.

    `first`: whether this process is the first of the run's on its machine; sockets are counted by that one alone.
    `root` is where Linux shows RAPL; `library` stands for the module ``pynvml`` (package nvidia-ml-py).
    """
    parts: list[Meter] = []
    if device.startswith("cuda"):
        gpu = nvml.meter(nvml.uuid(device), library)
        if gpu is None:
            return Unknown("this GPU's energy cannot be read (NVML is asked through the package nvidia-ml-py)")
        parts.append(gpu)
    sockets = rapl.meter(root)
    if sockets is None:
        parts.append(Modelled(root))
    elif first:
        parts.append(sockets)
    else:
        sockets.close()
        parts.append(rapl.CountedElsewhere())
    return parts[0] if len(parts) == 1 else Together(parts)


def continued(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """What to tell about a run that goes on from a checkpoint: `before` was told there, `now` is the meter's.

    A run that was measured for a part of its rounds only was not measured.
    """
    if before is None:
        return now
    methods = before["method"].split(", then ")
    if methods[-1] != now["method"]:
        methods.append(now["method"])
    return now | {"method": ", then ".join(methods), "measured": before["measured"] and now["measured"]}
