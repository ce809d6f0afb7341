"""Fairness towards the groups of a protected attribute: over all clients, and within each of them.

For data sets with two classes that declare an attribute with use "protected"; each metric's name ends in
``_<attribute>``. Judged are clients' own test examples whose group is known, those of held out clients aside, all from
one table of counts (client, group, label, prediction). Class 1 counts as positive.

===========================  ========================================================================================
demographic_parity           over all clients: largest less smallest P(prediction 1 | group)
equal_opportunity            the same of the true positive rate
equalised_odds               the larger of the gaps of true and of false positive rates
accuracy_parity              largest less smallest accuracy of a group
worst_group_accuracy         the lowest accuracy of a group
local_<gap>                  of each of the four gaps: mean over clients, weighted by their examples, ...
local_<gap>_max              ... the largest of a client, ...
local_<gap>_undefined        ... and how many clients with examples have none: fewer than two groups with a rate
disparity_global             I(group; prediction), bits
disparity_local              I(group; prediction | client), bits
disparity_unique             what the prediction tells of the group whatever the client; global = unique +
disparity_redundant          redundant (what the client tells as well), local = unique +
disparity_masked             masked (what shows only within clients)
accuracy_limit               the accuracy that AGLFOP leaves to a classifier whose global disparity is at most this
                             model's own ``disparity_global`` and whose local one at most its ``disparity_local``: how
                             far the model is from what is possible without being less fair
===========================  ========================================================================================

A disparity of less than 1e-12 bits (rounding) counts as zero in the limit; others of less than 1e-6 as 1e-6. Gaps over
all clients cannot be had from those of clients. With more than 500 clients the three parts are NaN, since their cost
grows with the third power of the number, and so is what its program does not solve to its accuracy. Sources:
`heterobench.metrics.group_fairness`, `information`, `aglfop`.

Personal models: each client's examples are judged by its own model, which makes one decision rule for all of them.
A model that has diverged, be it one client's, has no metric here.
"""

from __future__ import annotations

import contextlib
import math

import numpy as np

from heterobench.measures.context import Attribute, EvaluatedModel
from heterobench.metrics import group_fairness as gf
from heterobench.metrics.aglfop import accuracy_limit
from heterobench.metrics.information import decompose, global_disparity, local_disparity

GAPS = {
    "demographic_parity": gf.demographic_parity,
    "equal_opportunity": gf.equal_opportunity,
    "equalised_odds": gf.equalised_odds,
    "accuracy_parity": gf.accuracy_parity,
}
MOST_CLIENTS = 500  # of the decomposition
ROUNDING, SMALLEST = 1e-12, 1e-6  # bits


def measure(model: EvaluatedModel) -> dict[str, float]:
    """The metrics of the table above, for each protected attribute."""
    found: dict[str, float] = {}
    if model.data.classes != 2:
        return found
    if not np.isfinite(model.test_scores["accuracy"]).all():
        return found  # a model that has diverged decides nothing
    for name, attribute in model.data.protected.items():
        counts = counted(model, attribute)
        if counts.any():
            found |= {f"{metric}_{name}": value for metric, value in fairness(counts).items()}
    return found


def counted(model: EvaluatedModel, attribute: Attribute) -> np.ndarray:
    """int64 [clients, groups, 2, 2]: clients' own test examples by label and prediction."""
    data = model.data
    group = attribute.values[data.test_rows]
    label = data.federation.pool.y.cpu().numpy()[data.test_rows]
    client = np.repeat(np.arange(len(data.federation)), data.test_sizes)
    prediction = np.where(model.test_scores["accuracy"] > 0, label, 1 - label)
    kept = (group >= 0) & ~data.held_out[client]
    columns = (each[kept] for each in (client, group, label, prediction))
    return gf.group_counts(*columns, len(data.federation), attribute.number)


def fairness(counts: np.ndarray) -> dict[str, float]:
    """The metrics of the table above, from counts [clients, groups, 2, 2] of which one at least is not zero."""
    counts = counts[counts.sum(axis=(1, 2, 3)) > 0]
    whole, examples = counts.sum(axis=0), counts.sum(axis=(1, 2, 3))
    found = {name: float(gap(whole).value) for name, gap in GAPS.items()}
    found["worst_group_accuracy"] = float(gf.worst_group_accuracy(whole))
    for name, gap in GAPS.items():
        local = gf.local(gap(counts), examples)
        found |= {f"local_{name}": local.mean, f"local_{name}_max": local.largest}
        found[f"local_{name}_undefined"] = float(local.undefined)
    return found | information(counts)


def information(counts: np.ndarray) -> dict[str, float]:
    """The disparities in bits, and the accuracy that they leave."""
    predictions, labels = counts.sum(axis=2), counts.sum(axis=3)
    overall, within = global_disparity(predictions), local_disparity(predictions)
    found = {"disparity_global": overall, "disparity_local": within}
    parts = {part: math.nan for part in ("unique", "redundant", "masked")}
    with contextlib.suppress(RuntimeError):  # it did not converge
        if len(counts) <= MOST_CLIENTS:
            parts = decompose(predictions)._asdict()
    found |= {f"disparity_{part}": parts[part] for part in ("unique", "redundant", "masked")}
    found["accuracy_limit"] = math.nan
    with contextlib.suppress(RuntimeError):  # the optimum was not enclosed
        found["accuracy_limit"] = 1 - accuracy_limit(labels, _limit(overall), _limit(within)).error
    return found


def _limit(disparity: float) -> float:
    return 0.0 if disparity < ROUNDING else max(disparity, SMALLEST)
