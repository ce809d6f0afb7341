"""Is there a barrier between the last model of a run and that of the baseline?

The metrics of `heterobench.metrics.landscape.connectivity`, from the baseline's last model of the same seed (the same
initial weights, cohorts and batches) to the run's own, on the training probe (at most 256 examples, the same for all
methods; `heterobench.measures.context`). The baseline is FedAvg, or what stands for it in a table.

The baseline's barriers to itself are zero. Personal models and models that are not finite have no metric here, and no
model has one while the baseline's is not there.
"""

from __future__ import annotations

import torch

from heterobench.measures.context import EvaluatedModel
from heterobench.metrics.landscape import connectivity


def measure(model: EvaluatedModel) -> dict[str, float]:
    """The metrics of this module."""
    ends = (model.baseline, model.theta)
    if model.personal or not all(end is not None and torch.isfinite(end).all() for end in ends):
        return {}
    return connectivity(model.data.task, *ends, model.data.probe)
