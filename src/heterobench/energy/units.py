"""Energy, power, carbon: pure functions of numbers in SI units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

JOULES = 3.6e6  # of a kilowatt-hour


def kilowatt_hours(joules: float) -> float:
    """kWh of J."""
    return joules / JOULES


def joules(kilowatt_hours: float) -> float:
    """J of kWh."""
    return kilowatt_hours * JOULES


def emissions(joules: float, intensity: float, pue: float = 1.0) -> float:
    """kg of CO2 equivalent: E [kWh] x intensity [kg/kWh] x PUE.

    The intensity is that of the grid where and when it ran: it has no default. The power usage effectiveness of a data
    centre, total energy over that of the machines, is 1 or more. ValueError for others.
    Source: Lacoste et al., "Quantifying the Carbon Emissions of Machine Learning", arXiv 1910.09700.
    """
    if intensity < 0 or pue < 1:
        raise ValueError(f"intensity must be at least 0 and pue at least 1 (found {intensity:g} and {pue:g})")
    return kilowatt_hours(joules) * intensity * pue


def net(joules: float, idle_watts: float, seconds: float) -> float:
    """E_net [J] = E_total - P_idle t: what a run took beyond a machine that does nothing for as long.

    It may come out negative where the idle power was measured on a busier machine; cut off it would no longer add up
    over windows. ValueError for a negative power or time.
    """
    if idle_watts < 0 or seconds < 0:
        raise ValueError(f"power and time must be at least 0 (found {idle_watts:g} W and {seconds:g} s)")
    return joules - idle_watts * seconds


def trapezoid(watts: Sequence[float], times: Sequence[float]) -> float:
    """J under power samples [n] at `times` [n, s, ascending] by the trapezoid rule, exact for a power that is linear.

    ValueError where the two differ in length or time runs backwards.
    """
    if len(watts) != len(times) or (np.diff(times) < 0).any():
        raise ValueError(f"{len(watts)} powers and {len(times)} times, which must be as many and ascending")
    return float(np.trapezoid(watts, times))


def intelligence_per_watt(accuracy: float, watts: float) -> float:
    """Accuracy per mean power of inference [1/W]. It ignores latency: show accuracy, W and s per query beside it.

    Source: Saad-Falcon et al., "Intelligence per Watt", arXiv 2511.07885. ValueError unless the power is above 0.
    """
    if watts <= 0:
        raise ValueError(f"mean power must be above 0 (found {watts:g} W)")
    return accuracy / watts


def proxy(flops: float, network_bytes: float, joules_per_flop: float, joules_per_byte: float) -> float:
    """J that a device would take, from counts that do not depend on the machine: alpha FLOPs + gamma bytes.

    alpha [J/FLOP] and gamma [J/byte] are constants that the caller declares. ValueError for a negative one.
    """
    if joules_per_flop < 0 or joules_per_byte < 0:
        raise ValueError(f"constants must be at least 0 (found {joules_per_flop:g} J/FLOP, {joules_per_byte:g} J/byte)")
    return joules_per_flop * flops + joules_per_byte * network_bytes
