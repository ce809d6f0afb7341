"""Confident learning: labels that a model trained without them doubts."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from heterobench.keyed import generator
from heterobench.metrics.label_issues import confident_joint, estimated_joint, flag_label_issues, margins

PROBABILITIES = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9], [0.3, 0.7]])
LABELS = np.array([0, 0, 0, 1, 1, 1])


def test_confident_joint_by_hand():
    # thresholds: class 0 (.9 + .7 + .2) / 3 = .6, class 1 (.4 + .9 + .7) / 3 = .667
    assert confident_joint(PROBABILITIES, LABELS).tolist() == [[2, 1], [1, 2]]
    assert estimated_joint(PROBABILITIES, LABELS) == pytest.approx(np.array([[2, 1], [1, 2]]) / 6)
    assert margins(PROBABILITIES, LABELS) == pytest.approx([0.8, 0.4, -0.6, -0.2, 0.8, 0.4])
    assert flag_label_issues(PROBABILITIES, LABELS).tolist() == [2, 3]


def test_an_example_below_every_threshold_is_not_counted():
    probabilities = np.array([[0.9, 0.1], [0.55, 0.45], [0.1, 0.9], [0.2, 0.8]])
    labels = np.array([0, 1, 1, 0])
    # thresholds .55 and .675: the second reaches that of class 0, the fourth that of class 1
    assert confident_joint(probabilities, labels).tolist() == [[1, 1], [1, 1]]
    probabilities[1] = [0.5, 0.5]
    assert confident_joint(probabilities, labels).tolist() == [[1, 1], [0, 1]]
    # rows keep the shares of the labels as given
    assert estimated_joint(probabilities, labels) == pytest.approx(np.array([[0.25, 0.25], [0, 0.5]]))


def test_a_class_that_no_label_names_is_never_suspected():
    wide = np.concatenate([PROBABILITIES * 0.5, np.full((6, 1), 0.5)], axis=1)
    assert confident_joint(wide, LABELS)[:, 2].tolist() == [0, 0, 0]
    assert flag_label_issues(wide, LABELS).tolist() == [2, 3]
    assert estimated_joint(wide, LABELS).sum() == pytest.approx(1)


def overlapping_blobs():
    return make_blobs(n_samples=800, centers=[(0, 0), (4, 0), (0, 4), (4, 4)], cluster_std=1.5, random_state=0)


@pytest.mark.parametrize("load", [lambda: load_digits(return_X_y=True), overlapping_blobs], ids=["digits", "blobs"])
def test_flipped_labels_are_found(load):
    features, true = load()
    classes = int(true.max()) + 1
    random = generator(0, "flipped labels")
    flipped = random.random(len(true)) < 0.2
    labels = np.where(flipped, (true + random.integers(1, classes, len(true))) % classes, true)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=60, C=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a stop before convergence is fine: any model out of its sample will do
        scaled = features / np.abs(features).max()
        probabilities = cross_val_predict(model, scaled, labels, cv=folds, method="predict_proba")
    found = flag_label_issues(probabilities, labels)
    recall, precision = flipped[found].sum() / flipped.sum(), flipped[found].mean()
    assert recall > 0.6
    assert precision > 0.2  # flipping at random would find this
    half = found[: len(found) // 2]
    assert flipped[half].mean() > precision  # the most suspicious come first


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"^labels:"):
        flag_label_issues(PROBABILITIES, LABELS[1:])
    with pytest.raises(ValueError, match=r"^probabilities:"):
        margins(PROBABILITIES[0], LABELS)
