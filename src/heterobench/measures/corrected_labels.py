"""Accuracy by corrected test labels, where people have corrected them: MNIST and CIFAR-10, in the official test order.

``corrected_accuracy``: on the examples that are kept, with corrected labels. On the few whose label changed:
``error_accuracy_published`` by the published label (high: the model learned the noise) and
``error_accuracy_corrected`` by the corrected one. Beside them stands ``test_accuracy``, by all published labels.
Differences below 0.15 points on MNIST and 0.54 on CIFAR-10 are inside what label errors can do. For reporting only.
Source: `heterobench.metrics.corrected_labels`.

Personal models: means over the clients' own models. A model that has diverged has NaN. Other data sets: no metric.
"""

from __future__ import annotations

import math

from heterobench.errors import DataError
from heterobench.measures.context import Answers, EvaluatedModel
from heterobench.metrics.corrected_labels import CIFAR10, MNIST, Corrections, corrected_labels, corrected_scores

CORRECTED: dict[str, Corrections] = {"mnist": MNIST, "mnist-by-writer": MNIST, "cifar10": CIFAR10}
"""By data set; those of MNIST hold for every set with its test images in their order."""


def measure(model: EvaluatedModel) -> dict[str, float]:
    """The metrics of this module.

    Raises DataError where a published label is not the one that the corrections start from: another order of the
    examples, or another set.
    """
    name = model.data.dataset
    if name not in CORRECTED:
        return {}
    published = model.data.federation.global_test.y.cpu().numpy()
    try:
        corrected = corrected_labels(published, CORRECTED[name])
    except ValueError as error:
        raise DataError(f"data set {name}: labels of the global test set: {error}") from None

    def scores(answers: Answers) -> dict[str, float]:
        found = corrected_scores(answers.test.argmax(1).numpy(), published, corrected)
        scores = {
            "corrected_accuracy": found.corrected,
            "error_accuracy_published": found.errors_original,
            "error_accuracy_corrected": found.errors_corrected,
        }
        return scores if answers.test.isfinite().all() else dict.fromkeys(scores, math.nan)

    return model.mean(scores)
