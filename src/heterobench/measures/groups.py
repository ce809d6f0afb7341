"""The groups of metrics by name, and at which of a run's models they are taken."""

from __future__ import annotations

from collections.abc import Callable, Collection

from heterobench.measures import (
    ALWAYS,
    accuracy,
    calibration,
    clients,
    coherence,
    connectivity,
    corrected_labels,
    fairness,
    landscape,
)
from heterobench.measures.context import EvaluatedModel

Measure = Callable[[EvaluatedModel], dict[str, float]]

ANY: dict[str, Measure] = {
    "accuracy": accuracy.measure,
    "clients": clients.measure,
    "calibration": calibration.measure,
    "fairness": fairness.measure,
    "corrected-labels": corrected_labels.measure,
}
"""Of the selected and of the last model."""

LAST: dict[str, Measure] = {
    "coherence": coherence.measure,
    "landscape": landscape.measure,
    "connectivity": connectivity.measure,
}
"""Of the last model alone: they take time, and what they say is about where training ends."""


def measured(model: EvaluatedModel, chosen: Collection[str], groups: dict[str, Measure]) -> dict[str, float]:
    """The metrics of `groups` (`ANY` or `LAST`) that are in `chosen` or always taken."""
    found: dict[str, float] = {}
    for name, measure in groups.items():
        if name in ALWAYS or name in chosen:
            found |= measure(model)
    return found
