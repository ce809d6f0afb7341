"""Calibration: does a probability of 0.8 come true eight times in ten?

Everywhere: `probabilities` [n, C] with rows that sum to one, `labels` int [n] in 0..C-1, computed in float64. The
prediction is the class with the highest probability (the lowest index among equals), the confidence is that
probability. Calibration errors are biased upwards for few examples a bin and are not proper scores: compare methods by
`negative_log_likelihood` and `brier`, and calibration errors only at the same number of bins and examples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BINS = 15  # Guo et al., arXiv 1706.04599
SCHEMES = ("width", "mass")
FLOOR = 1e-12  # of a probability inside a logarithm
SUM_TOLERANCE = 1e-3  # rows of half precision sum to one no better than this


class Reliability(NamedTuple):
    """What a reliability diagram draws: one entry for each bin that holds an example, each array [bins held].

    `count` examples (int), `confidence` the mean probability claimed, `frequency` the share that came true.
    """

    count: np.ndarray
    confidence: np.ndarray
    frequency: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """Share of the examples in each bin; sums to one."""
        return self.count / self.count.sum()

    @property
    def gap(self) -> np.ndarray:
        """|frequency - confidence| of each bin."""
        return np.abs(self.frequency - self.confidence)


def checked(values: np.ndarray, labels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """`values` as float64 [n, C] and `labels` as int64 [n]; ValueError names the argument that does not fit."""
    values, labels = np.asarray(values, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name}: shape {values.shape}, must be [examples, classes] with at least one of each")
    if labels.shape != values.shape[:1]:
        raise ValueError(f"labels: shape {labels.shape}, must be ({len(values)},) as {name} has that many rows")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels: dtype {labels.dtype}, must be integers")
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise ValueError(f"labels: from {labels.min()} to {labels.max()}, must lie in 0..{values.shape[1] - 1}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: must be finite")
    return values, labels.astype(np.int64)


def _checked_probabilities(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities, labels = checked(probabilities, labels, "probabilities")
    if probabilities.min() < 0 or probabilities.max() > 1 + SUM_TOLERANCE:
        raise ValueError("probabilities: must lie in [0, 1] (these look like logits)")
    if np.abs(probabilities.sum(axis=1) - 1).max() > SUM_TOLERANCE:
        raise ValueError("probabilities: every row must sum to one")
    return probabilities, labels


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax over the last axis, float64, same shape; finite for any finite `logits`."""
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray, floor: float = FLOOR) -> float:
    """Mean of -ln p(label), in nats; probabilities below `floor` count as `floor` (0: a miss may cost infinity).

    Confident networks saturate in a low precision: `negative_log_likelihood_of_logits` needs no floor.
    """
    probabilities, labels = _checked_probabilities(probabilities, labels)
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(probabilities[np.arange(len(labels)), labels], floor))
    return float(-logs.mean())


def negative_log_likelihood_of_logits(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -ln softmax(`logits` [n, C])(label), in nats."""
    logits, labels = checked(logits, labels, "logits")
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Brier score: mean over examples of the SUM over classes of (p - 1[class = label])^2; in [0, 2].

    Source: Brier, Monthly Weather Review 78 (1950), in his original form; some authors divide by two or by C.
    """
    probabilities, labels = _checked_probabilities(probabilities, labels)
    errors = probabilities.copy()
    errors[np.arange(len(labels)), labels] -= 1
    return float((errors**2).sum(axis=1).mean())


def top_label(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of the predicted class, float64 [n], and whether it is right, float64 [n] of 0 and 1."""
    probabilities, labels = _checked_probabilities(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    return probabilities[np.arange(len(labels)), predicted], (predicted == labels).astype(np.float64)


def _mean_of_equals(confidence: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Each outcome replaced by the mean outcome of all examples with the same confidence, [n]."""
    _, member = np.unique(confidence, return_inverse=True)
    return (np.bincount(member, weights=outcome) / np.bincount(member))[member]


def reliability(confidence: np.ndarray, outcome: np.ndarray, bins: int = BINS, scheme: str = "width") -> Reliability:
    """Examples binned by confidence; `confidence` [n] in [0, 1], `outcome` [n] 1 where it came true, else 0.

    `scheme` "width": bins ((m-1)/bins, m/bins], closed on the right, 0 in the first (Guo et al., arXiv 1706.04599,
    section 2). "mass": sorted by confidence and cut into `bins` parts of sizes that differ by one at most (the
    adaptive binning of arXiv 1904.01685 and 2002.09437); examples with equal confidences that a cut separates share
    their mean outcome, so the order in which they are listed does not matter.
    """
    confidence, outcome = np.asarray(confidence, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if confidence.ndim != 1 or not len(confidence):
        raise ValueError(f"confidence: shape {confidence.shape}, must be [examples] with at least one")
    if outcome.shape != confidence.shape:
        raise ValueError(f"outcome: shape {outcome.shape}, must be {confidence.shape} as confidence")
    if bins < 1:
        raise ValueError(f"bins: {bins}, must be at least 1")
    if scheme not in SCHEMES:
        raise ValueError(f"scheme: {scheme!r}, must be one of {', '.join(SCHEMES)}")
    if scheme == "width":
        member = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    else:
        outcome = _mean_of_equals(confidence, outcome)
        member = np.empty(len(confidence), dtype=np.int64)
        sizes = [len(part) for part in np.array_split(np.arange(len(confidence)), bins)]
        member[np.argsort(confidence, kind="stable")] = np.repeat(np.arange(bins), sizes)
    count = np.bincount(member, minlength=bins)
    held = count > 0
    sums = (np.bincount(member, weights=values, minlength=bins)[held] for values in (confidence, outcome))
    return Reliability(count[held], *(total / count[held] for total in sums))


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS, scheme: str = "width"
) -> float:
    """ECE of the predicted class: mean gap over bins weighted by examples, in [0, 1].

    Source: Guo et al., arXiv 1706.04599, equation 3; with `scheme` "mass" it is AdaECE (arXiv 2002.09437).
    """
    table = reliability(*top_label(probabilities, labels), bins, scheme)
    return float((table.weight * table.gap).sum())


def maximum_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS, scheme: str = "width"
) -> float:
    """MCE of the predicted class: the largest gap over bins that hold an example (arXiv 1706.04599, equation 5)."""
    return float(reliability(*top_label(probabilities, labels), bins, scheme).gap.max())


def root_mean_square_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS, scheme: str = "width"
) -> float:
    """Square root of the mean squared gap over bins weighted by examples; between ECE and MCE."""
    table = reliability(*top_label(probabilities, labels), bins, scheme)
    return float(np.sqrt((table.weight * table.gap**2).sum()))


def debiased_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS, scheme: str = "width"
) -> float:
    """Root mean square calibration error less what chance alone adds to it: sqrt(max(0, .)).

    Each squared gap loses frequency (1 - frequency) / (count - 1), the unbiased estimate of the variance of the
    frequency; a bin with one example has no such estimate and loses nothing. Source: Kumar et al.,
    arXiv 1909.10155, section 5.
    """
    table = reliability(*top_label(probabilities, labels), bins, scheme)
    chance = table.frequency * (1 - table.frequency) / np.maximum(table.count - 1, 1)
    chance[table.count == 1] = 0
    return float(np.sqrt(max(0.0, (table.weight * (table.gap**2 - chance)).sum())))


def classwise_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS, scheme: str = "width", threshold: float = 0.0
) -> float:
    """Mean over classes k of the calibration error of p(k) against 1[label = k] over ALL examples, in [0, 1].

    `scheme` "width" is classwise-ECE / SCE (arXiv 1910.12656, 1904.01685), "mass" is ACE and, with a `threshold`
    (1e-3), TACE (arXiv 1904.01685): of each class only the examples with p(k) >= threshold are binned and weighted,
    a class without any adds zero. Small for many classes, as most probabilities are near zero: never compare it
    between tasks of different C.
    """
    probabilities, labels = _checked_probabilities(probabilities, labels)
    errors = np.zeros(probabilities.shape[1])
    for k, column in enumerate(probabilities.T):
        kept = column >= threshold
        if kept.any():
            table = reliability(column[kept], labels[kept] == k, bins, scheme)
            errors[k] = (table.weight * table.gap).sum()
    return float(errors.mean())


def overconfidence(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean confidence less accuracy, signed: above zero the model claims more than it holds."""
    confidence, right = top_label(probabilities, labels)
    return float(confidence.mean() - right.mean())


def confidence_auroc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """P(confidence of a right answer > that of a wrong one), equals counted half; NaN unless there are both."""
    from scipy.stats import rankdata

    confidence, right = top_label(probabilities, labels)
    n_right, n_wrong = right.sum(), (1 - right).sum()
    if not n_right or not n_wrong:
        return float("nan")
    return float((rankdata(confidence)[right == 1].sum() - n_right * (n_right + 1) / 2) / (n_right * n_wrong))


def area_under_risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """AURC: mean over j = 1..n of the error rate among the j most confident examples, in [0, 1]; low is good.

    Examples of equal confidence share their mean error. Source: Geifman et al., arXiv 1805.08206.
    """
    confidence, right = top_label(probabilities, labels)
    wrong = _mean_of_equals(confidence, 1 - right)[np.argsort(-confidence, kind="stable")]
    return float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())
