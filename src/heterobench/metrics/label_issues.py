"""Examples whose label a model trained without them doubts: confident learning.

What is found is flagged, not validated: show it to people. Source: Northcutt, Jiang and Chuang, "Confident Learning:
Estimating Uncertainty in Dataset Labels", JAIR 70 (2021), arXiv 1911.00068, section 3. Throughout `probabilities`
[n, C] are out of sample (from folds that did not train on the example) and `labels` int [n] the labels as given.
"""

from __future__ import annotations

import numpy as np

from heterobench.metrics.calibration import checked


def _suspected(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The class each example confidently belongs to, int64 [n]; -1 where it reaches no class's threshold.

    The threshold of a class is the mean probability of it over the examples that carry its label; one that nobody
    carries cannot be reached.
    """
    classes = probabilities.shape[1]
    count = np.bincount(labels, minlength=classes)
    own = np.bincount(labels, weights=probabilities[np.arange(len(labels)), labels], minlength=classes)
    threshold = np.divide(own, count, out=np.full(classes, np.inf), where=count > 0)
    reached = np.where(probabilities >= threshold, probabilities, -np.inf)
    return np.where(np.isinf(reached).all(axis=1), -1, reached.argmax(axis=1))


def confident_joint(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts int64 [C, C] of examples by label as given (rows) and class that they confidently belong to (columns)."""
    probabilities, labels = checked(probabilities, labels, "probabilities")
    suspected = _suspected(probabilities, labels)
    held = suspected >= 0
    joint = np.zeros((probabilities.shape[1],) * 2, dtype=np.int64)
    np.add.at(joint, (labels[held], suspected[held]), 1)
    return joint


def estimated_joint(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Estimated P(label as given, true class), float64 [C, C], sum 1: rows of `confident_joint` scaled to label counts.

    A row without a confident example is put on the diagonal.
    """
    joint = confident_joint(probabilities, labels).astype(np.float64)
    empty = joint.sum(axis=1) == 0
    joint[empty, empty] = 1
    scaled = joint / joint.sum(axis=1, keepdims=True) * np.bincount(labels, minlength=len(joint))[:, None]
    return scaled / scaled.sum()


def margins(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability of the label less the highest of another class, float64 [n] in [-1, 1]; low is suspicious."""
    probabilities, labels = checked(probabilities, labels, "probabilities")
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    return probabilities[rows, labels] - others.max(axis=1)


def flag_label_issues(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Positions int64 of the examples off the diagonal of `confident_joint`, most suspicious (lowest margin) first."""
    probabilities, labels = checked(probabilities, labels, "probabilities")
    suspected = _suspected(probabilities, labels)
    found = np.flatnonzero((suspected >= 0) & (suspected != labels))
    return found[np.argsort(margins(probabilities, labels)[found], kind="stable")]
