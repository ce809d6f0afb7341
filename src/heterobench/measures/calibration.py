"""Calibration on the global test set, before and after temperature scaling.

=================  ==================================================================================================
nll                negative log likelihood, nats, in float64: ``test_loss`` up to rounding
brier              Brier score, summed over classes, in [0, 2]
ece, ece_mass      expected calibration error of the predicted class, 15 bins of equal width, of equal count
ece_classwise      mean over classes of the error of every class's probability, 15 bins of equal width
ece_debiased       root mean square calibration error less what chance adds, 15 bins of equal width
overconfidence     mean confidence less accuracy, signed
confidence_auroc   P(confidence of a right answer > that of a wrong one); NaN unless there are both
risk_coverage      area under the risk-coverage curve (AURC)
temperature        T that minimises the likelihood loss on all clients' validation examples together
nll_scaled         nll of softmax(logits / T) ...
ece_scaled         ... and its ece
=================  ==================================================================================================

T is one for the whole federation, fitted on the examples that also choose the round, never on the test set; without
validation examples the last three are NaN, and so is everything where logits are not finite. Rank by ``nll`` and
``brier``: calibration errors are biased upwards and no proper scores. Sources: `heterobench.metrics.calibration` and
`temperature`.

Personal models: means over the clients' own models, each judged on the whole global test set and scaled by a T of its
own, fitted on all clients' validation examples as well: the same examples for every model of a table.
"""

from __future__ import annotations

import math

import numpy as np

from heterobench.measures.context import Answers, EvaluatedModel
from heterobench.metrics import calibration as of
from heterobench.metrics.temperature import fit_temperature, scaled_probabilities

SCORES = {
    "brier": of.brier,
    "ece": of.expected_calibration_error,
    "ece_mass": lambda p, y: of.expected_calibration_error(p, y, scheme="mass"),
    "ece_classwise": of.classwise_calibration_error,
    "ece_debiased": of.debiased_calibration_error,
    "overconfidence": of.overconfidence,
    "confidence_auroc": of.confidence_auroc,
    "risk_coverage": of.area_under_risk_coverage,
}
SCALED = ("temperature", "nll_scaled", "ece_scaled")


def measure(model: EvaluatedModel) -> dict[str, float]:
    """The metrics of the table above."""
    return model.mean(calibration)


def calibration(answers: Answers) -> dict[str, float]:
    """The same of one model's logits."""
    logits, labels = answers.test.numpy(), answers.test_labels.numpy()
    if not np.isfinite(logits).all():
        return dict.fromkeys(("nll", *SCORES, *SCALED), math.nan)
    probabilities = np.exp(of.log_softmax(logits))
    nll = {"nll": of.negative_log_likelihood_of_logits(logits, labels)}
    return nll | {name: score(probabilities, labels) for name, score in SCORES.items()} | _scaled(answers)


def _scaled(answers: Answers) -> dict[str, float]:
    logits, labels = answers.test.numpy(), answers.test_labels.numpy()
    fit = answers.validation.numpy()
    if not len(fit) or not np.isfinite(fit).all():
        return dict.fromkeys(SCALED, math.nan)
    temperature = fit_temperature(fit, answers.validation_labels.numpy()).value
    nll = of.negative_log_likelihood_of_logits(logits.astype(np.float64) / temperature, labels)
    ece = of.expected_calibration_error(scaled_probabilities(logits, temperature), labels)
    return dict(zip(SCALED, (temperature, nll, ece), strict=True))
