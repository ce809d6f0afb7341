"""The loss around the last model of a run: curvature and sharpness of the mean training loss, in nats.

The metrics of `heterobench.metrics.landscape.landscape` on the training probe (at most 256 examples, the same for all
methods; `heterobench.measures.context`). Compare them only between models of about equal training loss, and select
nothing by them.

Personal models have no metric here, and neither has a model that is not finite.
"""

from __future__ import annotations

import torch

from heterobench.measures.context import EvaluatedModel
from heterobench.metrics.landscape import landscape


def measure(model: EvaluatedModel) -> dict[str, float]:
    """The metrics of this module."""
    if model.personal or not torch.isfinite(model.theta).all():
        return {}
    data = model.data
    return landscape(data.task, model.theta, data.probe, data.seed)
