"""What a run cost, and what it took to a target accuracy: from its record alone.

===========================  =====================================================================================
rounds                       the last round
bytes_up, bytes_down, bytes  sent by all clients, to all clients, and both, over the whole run
seconds                      wall time of training, evaluation aside
gradient_examples            examples whose gradient was computed, summed over clients; where the record has it
flops                        floating point operations of these gradients; where the record has it
simulated_seconds            time on the simulated clock; where the record has it
joules                       energy; where the record has it
<cost>_to_target             of rounds, bytes, seconds, simulated_seconds and joules: until the target was reached
===========================  =====================================================================================

Costs are cumulative. The target is one of VALIDATION accuracy: the curve is made monotone (best so far), and the first
crossing is found by linear interpolation between evaluated rounds (`heterobench.stats.reaching.cost_to_target`; McMahan
et al., AISTATS 2017); the other costs are interpolated at that crossing. A run that never gets there has infinity: it
is known to need more than it had. Without a target, or where no round has a validation accuracy, there is no such
metric. The test set has no say in any of these.

A run that has diverged and stopped before its last round is not cheap: what it cost over the whole run is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from heterobench.stats.reaching import cost_to_target

FROM_METRICS = ("bytes_up", "bytes_down", "gradient_examples", "flops", "simulated_seconds")
FROM_TIMING = ("seconds", "joules")
TO_TARGET = ("rounds", "bytes", "seconds", "simulated_seconds", "joules")


def costs(
    rounds: np.ndarray,
    metrics: Mapping[str, np.ndarray],
    timing: Mapping[str, np.ndarray],
    target: float | None,
    stopped: bool = False,
) -> dict[str, float]:
    """The metrics of the table above; what the record lacks is left out.

    `rounds` int [T], ascending; `metrics` and `timing` map names to float [T]. `stopped`: a run that has diverged and
    ended there, before its last round.
    """
    if not len(rounds):
        return {}
    spent = {"rounds": rounds.astype(np.float64)}
    spent |= {name: metrics[name] for name in FROM_METRICS if name in metrics}
    spent |= {name: timing[name] for name in FROM_TIMING if name in timing}
    if {"bytes_up", "bytes_down"} <= metrics.keys():
        spent["bytes"] = metrics["bytes_up"] + metrics["bytes_down"]
    found = {name: float(values[-1]) for name, values in spent.items() if math.isfinite(values[-1])}
    if stopped:
        found = dict.fromkeys(found, math.nan)
    accuracy = metrics.get("validation_accuracy", np.full(len(rounds), math.nan))
    if target is None or not (np.isfinite(accuracy).any() or stopped):
        return found
    reached = cost_to_target(spent["rounds"], accuracy, target)
    for name in TO_TARGET:
        if name in spent and np.isfinite(spent[name]).all():
            at = float(np.interp(reached, spent["rounds"], spent[name])) if math.isfinite(reached) else math.inf
            found[f"{name}_to_target"] = at
    return found
