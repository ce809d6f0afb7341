"""Corrected test labels beside the published ones."""

import gzip
import math
import os
from pathlib import Path

import numpy as np
import pytest

from heterobench.data.fetch import MIRROR, obtain_file
from heterobench.data.schema import load_dataset_file
from heterobench.keyed import generator
from heterobench.metrics.corrected_labels import (
    CIFAR10,
    CORRECTIONS,
    DROPPED,
    MNIST,
    accuracy_at,
    at_prevalence,
    corrected_labels,
    corrected_scores,
    crossing,
    judge,
    noise_prevalence,
)
from heterobench.project import Project

BOTH = pytest.mark.parametrize("corrections", [MNIST, CIFAR10], ids=["mnist", "cifar10"])
# votes (published, guessed, neither) on the MNIST errors: mturk/mnist_mturk.json of github.com/cleanlab/label-errors
VOTES = {
    947: (0, 5, 0), 1621: (2, 3, 0), 1901: (2, 3, 0), 2130: (2, 2, 1), 2462: (0, 4, 1), 2597: (0, 4, 1),
    2654: (0, 2, 3), 3520: (2, 0, 3), 3558: (1, 4, 0), 5937: (1, 3, 1), 6651: (0, 5, 0), 6783: (2, 3, 0),
    8527: (2, 2, 1), 9679: (2, 0, 3), 9729: (2, 3, 0),
}  # fmt: skip


def published(corrections):
    """Labels that fit the corrections, drawn elsewhere."""
    labels = generator(0, "published labels").integers(0, 10, corrections.examples)
    for i, (old, _) in corrections.changed.items():
        labels[i] = old
    return labels


def official(name, file, target):
    """The label file of a set's published form, from the mirror, checked against its checksum."""
    dataset = load_dataset_file(Project(Path(__file__).resolve().parents[2]), name)
    for form in dataset.forms:
        for download in form.downloads:
            if download.path == file:
                obtain_file(download, target)
                return target
    raise LookupError(f"{name}: no download {file}")


@pytest.mark.parametrize(("name", "errors", "changed", "dropped"), [("mnist", 15, 10, 5), ("cifar10", 54, 18, 36)])
def test_numbers_of_errors_are_those_of_the_paper(name, errors, changed, dropped):
    made = CORRECTIONS[name]
    assert (len(made.changed), len(set(made.dropped))) == (changed, dropped)
    assert len(made.changed.keys() | set(made.dropped)) == errors
    assert all(old != new and 0 <= old < 10 and 0 <= new < 10 for old, new in made.changed.values())
    assert list(made.dropped) == sorted(made.dropped)


@pytest.mark.skipif(not os.environ.get(MIRROR), reason=f"{MIRROR} is not set: needs the real label files")
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_published_labels_are_those_the_corrections_start_from(name, tmp_path):
    if name == "mnist":
        raw = gzip.decompress(official(name, "t10k-labels-idx1-ubyte.gz", tmp_path / "labels.gz").read_bytes())
        labels = np.frombuffer(raw, np.uint8, offset=8)
    else:
        labels = np.load(official(name, "cifar10_labels.npz", tmp_path / "labels.npz"))["test_labels"]
    corrections = CORRECTIONS[name]
    made = corrected_labels(labels, corrections)
    assert {i: (labels[i], made[i]) for i in corrections.changed} == corrections.changed
    assert (np.flatnonzero(made != labels) == sorted([*corrections.changed, *corrections.dropped])).all()
    with pytest.raises(ValueError, match="official order"):
        corrected_labels(np.roll(labels, 1), corrections)


def test_votes_make_the_corrections_of_mnist():
    made = {i: judge(given, guessed) for i, (given, guessed, _) in VOTES.items()}
    assert {i for i, verdict in made.items() if verdict == "changed"} == set(MNIST.changed)
    assert {i for i, verdict in made.items() if verdict == "dropped"} == set(MNIST.dropped)


def test_votes():
    assert [judge(given, 0) for given in range(6)] == ["dropped"] * 3 + ["valid"] * 3
    assert [judge(0, guessed) for guessed in range(6)] == ["dropped"] * 3 + ["changed"] * 3
    with pytest.raises(ValueError, match="5, 5"):  # a control, where the guess is the published class
        judge(5, 5)
    with pytest.raises(ValueError, match="-1"):
        judge(-1, 2)


# positions and labels as the source lists them, to be compared with what this module holds
LISTED = {
    "mnist": (
        "947 8→9, 1621 0→6, 1901 9→4, 2462 2→0, 2597 5→3, 3558 5→0, 5937 5→3, 6651 0→6, 6783 1→6, 9729 5→6",
        "2130, 2654, 3520, 8527, 9679",
    ),
    "cifar10": (
        "1227 3→5, 1718 0→8, 2405 3→6, 2592 2→4, 2804 3→5, 4794 4→2, 5191 3→5, 5468 5→3, 5632 3→5, 5690 7→4, "
        "5960 2→3, 6877 0→8, 6966 0→8, 7657 2→7, 7846 6→3, 8058 4→7, 9227 1→9, 9352 1→9",
        "165, 792, 882, 1300, 1684, 1969, 2010, 2128, 2232, 2532, 2840, 2940, 3113, 3168, 3183, 3192, 3490, 3600, "
        "3753, 3977, 4055, 4198, 4614, 4643, 4910, 4965, 5166, 5211, 5882, 6522, 6792, 7311, 8296, 8620, 9643, 9793",
    ),
}


@pytest.mark.parametrize("name", LISTED)
def test_corrections_are_those_that_the_source_lists(name):
    changed, dropped = (text.split(", ") for text in LISTED[name])
    pairs = (entry.replace("→", " ").split() for entry in changed)
    assert CORRECTIONS[name].changed == {int(i): (int(old), int(new)) for i, old, new in pairs}
    assert CORRECTIONS[name].dropped == tuple(map(int, dropped))


@BOTH
def test_corrected_labels_change_what_is_listed_and_nothing_else(corrections):
    labels = published(corrections)
    before = labels.copy()
    made = corrected_labels(labels, corrections)
    assert (labels == before).all()
    assert (made[list(corrections.dropped)] == DROPPED).all()
    assert [made[i] for i in corrections.changed] == [new for _, new in corrections.changed.values()]
    others = np.setdiff1d(np.arange(10_000), [*corrections.changed, *corrections.dropped])
    assert (made[others] == labels[others]).all()


@BOTH
def test_another_order_is_refused(corrections):
    labels = published(corrections)
    first = next(iter(corrections.changed))
    labels[first] = corrections.changed[first][1]
    with pytest.raises(ValueError, match=rf"position {first}, must be {corrections.changed[first][0]}; 1 of"):
        corrected_labels(labels, corrections)
    with pytest.raises(ValueError, match=r"^original: shape"):
        corrected_labels(labels[:-1], corrections)


@BOTH
def test_who_predicts_the_corrected_labels_is_right_and_loses_on_the_published_ones(corrections):
    labels = published(corrections)
    made = corrected_labels(labels, corrections)
    errors = len(corrections.changed) + len(corrections.dropped)
    scores = corrected_scores(made, labels, made)
    assert scores == (pytest.approx(1 - errors / 10_000), 1, 0, 1)
    noise = corrected_scores(labels, labels, made)
    kept = 10_000 - len(corrections.dropped)
    assert noise == (1, pytest.approx(1 - len(corrections.changed) / kept), 1, 0)
    assert noise_prevalence(labels, made) == pytest.approx(len(corrections.changed) / kept)


@BOTH
@pytest.mark.parametrize("accuracy", [0.3, 0.9, 0.99])
def test_corrections_move_accuracy_by_no_more_than_the_share_of_errors(corrections, accuracy):
    random = generator(0, "predictions")
    labels = published(corrections)
    made = corrected_labels(labels, corrections)
    predictions = np.where(random.random(10_000) < accuracy, labels, random.integers(0, 10, 10_000))
    scores = corrected_scores(predictions, labels, made)
    errors = len(corrections.changed) + len(corrections.dropped)
    # changed labels move it by their share at most; without the dropped ones the mean moves by theirs at most
    assert abs(scores.corrected - scores.original) <= errors / (10_000 - len(corrections.dropped))


def test_four_accuracies_by_hand():
    original = np.array([0, 1, 2, 3, 4, 0])
    corrected = np.array([0, 2, 2, 1, DROPPED, 0])
    predictions = np.array([0, 2, 0, 3, 4, 0])
    assert corrected_scores(predictions, original, corrected) == (4 / 6, 3 / 5, 1 / 2, 1 / 2)
    assert noise_prevalence(original, corrected) == 2 / 5
    clean = corrected_scores(predictions, original, original)
    assert clean[:2] == (4 / 6, 4 / 6)
    assert math.isnan(clean.errors_original)
    assert math.isnan(clean.errors_corrected)
    with pytest.raises(ValueError, match=r"^predictions:"):
        corrected_scores(predictions[1:], original, corrected)
    with pytest.raises(ValueError, match=r"^corrected:"):
        corrected_scores(predictions, original, corrected[1:])


def test_a_test_set_of_given_prevalence():
    original = np.zeros(1000, dtype=int)
    corrected = original.copy()
    corrected[100:150] = 1
    corrected[900:] = DROPPED
    for prevalence in (50 / 900, 0.1, 0.5, 1.0):
        chosen = at_prevalence(original, corrected, prevalence, generator(0, "chosen"))
        assert np.isin(np.arange(100, 150), chosen).all()
        assert not (corrected[chosen] == DROPPED).any()
        assert (np.diff(chosen) > 0).all()
        assert noise_prevalence(original[chosen], corrected[chosen]) == pytest.approx(prevalence, abs=1e-3)
    with pytest.raises(ValueError, match=r"^prevalence:"):
        at_prevalence(original, corrected, 0.05, generator(0, "chosen"))
    with pytest.raises(ValueError, match=r"^prevalence:"):
        at_prevalence(original, original, 0, generator(0, "chosen"))


def test_accuracy_is_linear_in_the_prevalence_and_models_cross_where_the_formula_says():
    original = np.zeros(2000, dtype=int)
    corrected = original.copy()
    corrected[:200] = 1
    # model: (right on errors, right on clean) of 200 and of 1800
    models = {"noisy": (60, 1710), "robust": (140, 1620)}
    predictions = {}
    for name, (on_errors, on_clean) in models.items():
        predictions[name] = np.full(2000, 2)
        predictions[name][:on_errors] = 1
        predictions[name][200 : 200 + on_clean] = 0
    rates = {name: (on_errors / 200, on_clean / 1800) for name, (on_errors, on_clean) in models.items()}
    assert accuracy_at(0, *rates["noisy"]) == rates["noisy"][1] == 0.95
    star = crossing(rates["robust"], rates["noisy"])
    assert star == pytest.approx(0.05 / 0.45)
    assert star == pytest.approx(crossing(rates["noisy"], rates["robust"]))
    draws = 200
    for prevalence in (0.1, star, 0.3, 0.7):
        made = {name: [] for name in models}
        for draw in range(draws):
            chosen = at_prevalence(original, corrected, prevalence, generator(0, "crossing", draw))
            for name in models:
                made[name].append((predictions[name] == corrected)[chosen].mean())
        size = len(chosen)
        for name in models:
            # means of 0/1 drawn without replacement: Hoeffding, and rounding to whole examples
            tolerance = math.sqrt(math.log(2e6) / (2 * size * draws)) + 1 / size
            assert np.mean(made[name]) == pytest.approx(accuracy_at(prevalence, *rates[name]), abs=tolerance)
        if prevalence != star:
            assert (np.mean(made["robust"]) > np.mean(made["noisy"])) == (prevalence > star)


def test_models_that_never_cross():
    assert math.isnan(crossing((0.5, 0.75), (0.25, 0.5)))  # parallel
    assert crossing((0.5, 0.75), (0.25, 0.625)) == -1  # the first is ahead everywhere in [0, 1]
