"""RAPL: energy counters of a machine's CPU packages, as Linux shows them under /sys/class/powercap.

``intel-rapl:N/energy_uj`` of every package zone, on Intel and AMD alike; sub-zones (cores, uncore) are parts of a
package, DRAM is left out, and so is the platform zone "psys", which has the packages in it. Since CVE-2020-8694 only
root may read the counters, and most virtual machines have none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from heterobench.energy.sampling import Sampled

ROOT = Path("/sys/class/powercap")
SECONDS = 30.0  # between two looks: a counter begins anew after some 262 kJ, which is ten minutes at 400 W
SCOPE = "whole CPU packages"
MICRO = 1e-6


def advanced(before: int, now: int, span: int) -> int:
    """uJ between two readings of a counter that begins anew after `span` (max_energy_range_uj)."""
    return (now - before) % span


def packages(root: Path) -> list[Path]:
    """The zones of the packages, by number."""
    zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
    return [zone for zone in zones if _text(zone / "name").startswith("package")]


def meter(root: Path = ROOT) -> Sampled | None:
    """A meter of all packages together; None where there are none, or one of them cannot be read."""
    try:
        looks = [_look(zone) for zone in packages(root)]
    except (OSError, ValueError, ZeroDivisionError):
        return None
    if not looks:
        return None
    return Sampled("RAPL", SCOPE, lambda: MICRO * sum(look() for look in looks), SECONDS, (OSError, ValueError))


def _look(zone: Path) -> Callable[[], int]:
    """uJ of a package since the last call."""
    span, last = _number(zone / "max_energy_range_uj"), _number(zone / "energy_uj")
    advanced(last, last, span)  # a span of 0 is told now

    def look() -> int:
        nonlocal last
        before, last = last, _number(zone / "energy_uj")
        return advanced(before, last, span)

    return look


def tdp(root: Path = ROOT) -> float | None:
    """W that the machine's packages are made for together: their long-term limits; None where one is not told.

    Unlike the counters, these files are for everybody to read.
    """
    total = 0
    for zone in packages(root):
        limits = [path for path in sorted(zone.glob("constraint_*_name")) if _text(path) == "long_term"]
        try:
            watts = _number(limits[0].with_name(limits[0].name.replace("_name", "_max_power_uw"))) if limits else 0
        except (OSError, ValueError):
            watts = 0
        if watts <= 0:
            return None
        total += watts
    return MICRO * total or None


class CountedElsewhere:
    """Nothing: another process of the same run counts the packages of this machine."""

    method, measured = "RAPL", True

    def joules(self) -> float:
        return 0.0

    def about(self) -> dict[str, Any]:
        return {"method": self.method, "measured": True, "scope": SCOPE}

    def close(self) -> None:
        pass


def _number(path: Path) -> int:
    return int(path.read_text())


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
