"""Disparity as information, its decomposition, and the accuracy that limits on it leave."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from heterobench.keyed import generator
from heterobench.metrics.aglfop import accuracy_limit
from heterobench.metrics.group_fairness import cross_counts
from heterobench.metrics.information import (
    decompose,
    global_disparity,
    local_disparity,
    parity_differences,
)

FREE = 10.0  # bits: a limit that binds nobody


def binary_entropy(p):
    return 0.0 if p in (0, 1) else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def table(in_cell, positive):
    """[2, 2, 2] from the shares `in_cell`(s, z) and P(1 | s, z) = `positive`(s, z)."""
    made = np.zeros((2, 2, 2))
    for s in (0, 1):
        for z in (0, 1):
            made[s, z] = in_cell(s, z) * np.array([1 - positive(s, z), positive(s, z)])
    return made


def random_table(key, shape=(2, 2, 2), power=2):
    made = generator(0, "disparity table", key).random(shape) ** power
    return made / made.sum()


def independent(s, z):
    return 0.25


def same(s, z):
    return 0.5 * (s == z)


# --- mutual information and its decomposition


@pytest.mark.parametrize(
    ("in_cell", "positive", "expected"),
    [
        (independent, lambda s, z: z, (1, 0, 0)),  # the prediction is the group
        (same, lambda s, z: z, (0, 1, 0)),  # and so is the client
        (independent, lambda s, z: s ^ z, (0, 0, 1)),  # the group shows only within clients
        (independent, lambda s, z: 0.5, (0, 0, 0)),
    ],
)
def test_canonical_decompositions(in_cell, positive, expected):
    made = decompose(table(in_cell, positive))
    assert made[2:] == pytest.approx(expected, abs=1e-7)
    assert (made.global_, made.local) == pytest.approx((expected[0] + expected[1], expected[0] + expected[2]), abs=1e-7)


@pytest.mark.parametrize("shape", [(2, 2, 2), (7, 2, 2), (3, 4, 2), (3, 2, 5), (1, 2, 2)])
def test_parts_add_up_and_are_not_negative(shape):
    for key in range(5):
        made = decompose(random_table(key, shape))
        assert made.unique + made.redundant == pytest.approx(made.global_, abs=1e-12)
        assert made.unique + made.masked == pytest.approx(made.local, abs=1e-12)
        assert min(made) >= -1e-7


def test_information_is_that_of_entropies():
    p = random_table(3, (3, 4, 2))

    def entropy(*axes):
        margin = p.sum(axis=tuple({0, 1, 2} - set(axes)))
        return -(margin * np.log2(margin)).sum()

    assert global_disparity(p) == pytest.approx(entropy(1) + entropy(2) - entropy(1, 2), abs=1e-12)
    assert local_disparity(p) == pytest.approx(entropy(0, 1) + entropy(0, 2) - entropy(0) - entropy(0, 1, 2), abs=1e-12)
    assert global_disparity(1000 * p) == pytest.approx(global_disparity(p), abs=1e-12)  # counts as well


@pytest.mark.parametrize("key", range(6))
def test_unique_part_is_the_least_information_by_search(key):
    """Two clients and groups: Q has one free number per group, Q(z, prediction 1, client 1)."""
    p = random_table(key, power=3)
    with_prediction, with_client = p.sum(axis=0), p.sum(axis=2)
    low = np.maximum(0, with_prediction[:, 1] + with_client[1] - p.sum(axis=(0, 2)))
    high = np.minimum(with_prediction[:, 1], with_client[1])

    def information(share):
        both = low + np.clip(share, 0, 1) * (high - low)
        q = np.empty((2, 2, 2))
        q[1, :, 1] = both
        q[0, :, 1] = with_prediction[:, 1] - both
        q[1, :, 0] = with_client[1] - both
        q[0, :, 0] = with_prediction[:, 0] - q[1, :, 0]
        return local_disparity(np.maximum(q, 0))

    grid = np.linspace(0, 1, 9)
    start = min((information((a, b)), (a, b)) for a in grid for b in grid)[1]
    found = minimize(information, start, method="L-BFGS-B", bounds=[(0, 1)] * 2, options={"ftol": 1e-14, "gtol": 1e-10})
    assert decompose(p).unique == pytest.approx(min(found.fun, information(start)), abs=2e-6)


def test_client_that_screens_the_group_off_leaves_nothing_unique():
    """Z - S - prediction is a Markov chain."""
    random = generator(0, "chain")
    in_cell, rates = random.dirichlet(np.ones(8)).reshape(4, 2), random.random(4)
    made = decompose(in_cell[:, :, None] * np.stack([1 - rates, rates], axis=-1)[:, None, :])
    assert made.unique == pytest.approx(0, abs=1e-7)
    assert made.local == pytest.approx(0, abs=1e-12)
    assert made.redundant > 1e-3


def test_one_client_has_nothing_redundant_or_masked():
    made = decompose(random_table(1, (1, 3, 2)))
    assert (made.redundant, made.masked) == pytest.approx((0, 0), abs=1e-7)
    assert made.unique > 1e-3


def test_axes_are_client_then_group():
    """Twice the same client: nothing changes; twice the same group: everything does."""
    p = random_table(2)
    made = decompose(np.repeat(p, 2, axis=0))
    assert made == pytest.approx(decompose(p), abs=1e-7)
    assert decompose(p.transpose(1, 0, 2)).local != pytest.approx(made.local, rel=1e-3)


@pytest.mark.parametrize("key", range(10))
def test_local_fairness_implies_global_fairness_when_clients_share_the_groups(key):
    random = generator(0, "shared groups", key)
    in_cell = np.outer(random.dirichlet(np.ones(3)), random.dirichlet(np.ones(2)))
    rates = random.random((3, 2))
    p = in_cell[:, :, None] * np.stack([1 - rates, rates], axis=-1)
    assert global_disparity(p) < local_disparity(p)
    assert decompose(p).redundant == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("key", range(5))
def test_parity_gaps_of_the_joint_are_those_of_predictions(key):
    random = generator(0, "parity", key)
    client, group = random.integers(0, 2, 300), random.integers(0, 2, 300)
    prediction = (random.random(300) < 0.2 + 0.3 * client + 0.2 * group * client).astype(int)
    joint = cross_counts({"client": (client, 2), "group": (group, 2), "prediction": (prediction, 2)})
    overall, local = parity_differences(joint)
    assert overall == pytest.approx(prediction[group == 1].mean() - prediction[group == 0].mean(), abs=1e-12)
    for s in (0, 1):
        rates = [prediction[(group == z) & (client == s)].mean() for z in (0, 1)]
        assert local[s] == pytest.approx(rates[1] - rates[0], abs=1e-12)
    joint[1, 0] = 0
    assert np.isnan(parity_differences(joint)[1]).tolist() == [False, True]


# --- the accuracy that limits leave


def labels(in_cell, rate):
    return table(in_cell, rate)


UNEQUAL = labels(independent, lambda s, z: 0.7 if z else 0.3)


@pytest.mark.parametrize(
    ("joint", "global_limit", "local_limit", "error"),
    [
        (UNEQUAL, 0, FREE, 0.2),
        (UNEQUAL, FREE, FREE, 0),
        (labels(same, lambda s, z: 0.7 if z else 0.3), FREE, 0, 0),  # within a client there is one group
        (labels(same, lambda s, z: 0.7 if z else 0.3), 0, FREE, 0.2),
        (labels(independent, lambda s, z: s ^ z), 0, FREE, 0),
        (labels(independent, lambda s, z: s ^ z), FREE, 0, 0.5),
        (labels(independent, lambda s, z: s ^ z), 0, 0, 0.5),
    ],
)
def test_least_error_in_closed_form(joint, global_limit, local_limit, error):
    made = accuracy_limit(joint, global_limit, local_limit)
    assert made.error == pytest.approx(error, abs=1e-9)
    assert made.bound == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize("limit", [1e-6, 1e-4, 0.01, 0.05, 0.1])
@pytest.mark.parametrize("which", ["global", "local"])
def test_least_error_between_free_and_fair(limit, which):
    """Rates .5 +- d around base rates .3 and .7 cost .2 - d and tell 1 - h(.5 + d) bits."""
    d = 0.2 - accuracy_limit(UNEQUAL, *((limit, FREE) if which == "global" else (FREE, limit))).error
    assert 0 < d <= 0.2
    assert d == pytest.approx(_half_gap(limit), abs=2e-6)


def _half_gap(bits):
    low, high = 0.0, 0.2
    if 1 - binary_entropy(0.7) <= bits:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - binary_entropy(0.5 + middle) < bits else (low, middle)
    return low


@pytest.mark.parametrize(("clients", "limits"), [(2, (0.01, 0.02)), (3, (0.0, 0.02)), (3, (0.01, 0.0)), (4, (0, 0))])
def test_rates_keep_the_limits_and_make_the_error(clients, limits):
    joint = random_table(clients, (clients, 2, 2))
    made = accuracy_limit(joint, *limits)
    members = joint.sum(axis=2)
    predicted = members[:, :, None] * np.stack([1 - made.rates, made.rates], axis=-1)
    assert global_disparity(predicted) <= limits[0] + 1e-12
    assert local_disparity(predicted) <= limits[1] + 1e-12
    assert made.confusion.sum(axis=-1) == pytest.approx(joint, abs=1e-12)  # labels stay
    assert made.confusion.sum(axis=-2) == pytest.approx(predicted, abs=1e-12)
    assert made.confusion.min() >= -1e-12
    assert made.confusion[..., 0, 1].sum() + made.confusion[..., 1, 0].sum() == pytest.approx(made.error, abs=1e-12)
    assert 0 <= made.error - made.bound <= 1e-6


@pytest.mark.parametrize("key", range(3))
def test_no_general_solver_finds_less(key):
    """The program over false negatives and false positives of each cell, from several starts."""
    joint, limits = random_table(10 + key), (0.004, 0.01)
    members, wanted = joint.sum(axis=2), joint[:, :, 1]

    def predicted(x):
        positive = np.clip(wanted - x[:4].reshape(2, 2) + x[4:].reshape(2, 2), 1e-12, members - 1e-12)
        return np.stack([members - positive, positive], axis=-1)

    constraints = [
        {"type": "ineq", "fun": lambda x: limits[0] - global_disparity(predicted(x))},
        {"type": "ineq", "fun": lambda x: limits[1] - local_disparity(predicted(x))},
    ]
    bounds = [(0, top) for top in np.concatenate([wanted.ravel(), (members - wanted).ravel()])]
    made = accuracy_limit(joint, *limits)
    random = generator(0, "starts", key)
    found = []
    for _ in range(4):
        start = random.random(8) * np.array(bounds)[:, 1]
        solved = minimize(
            np.sum, start, method="SLSQP", bounds=bounds, constraints=constraints, options={"ftol": 1e-10}
        )
        if solved.success and min(each["fun"](solved.x) for each in constraints) > -1e-7:
            found.append(solved.fun)
    assert found
    assert made.error == pytest.approx(min(found), abs=2e-5)


def test_error_falls_and_is_convex_in_both_limits():
    joint = random_table(20)
    grid = np.linspace(0, 0.04, 5)
    errors = np.array([[accuracy_limit(joint, a, b).error for b in grid] for a in grid])
    for axis in (0, 1):
        assert (np.diff(errors, axis=axis) <= 2e-6).all()
        assert (np.diff(errors, 2, axis=axis) >= -4e-6).all()
    assert (errors[:-2, :-2] + errors[2:, 2:] - 2 * errors[1:-1, 1:-1] >= -4e-6).all()  # along the diagonal
    assert errors[0, 0] > errors[-1, -1] + 0.01
    # jointly convex: at the middle of any two pairs of limits the error is at most the mean of theirs
    random = generator(0, "segments")
    for _ in range(10):
        ends = 0.04 * random.random((2, 2))
        middle = accuracy_limit(joint, *ends.mean(axis=0)).error
        assert middle <= np.mean([accuracy_limit(joint, *end).error for end in ends]) + 2e-6


@pytest.mark.parametrize(
    ("clients", "groups", "limits"), [(30, 2, (0.001, 0.01)), (5, 3, (0.3, 1e-5)), (4, 3, (1e-6, 0.3))]
)
def test_many_clients_several_groups_and_narrow_limits(clients, groups, limits):
    joint = generator(0, "many clients", clients).integers(0, 3, (clients, groups, 2)).astype(float)
    made = accuracy_limit(joint, *limits)
    assert 0 <= made.error - made.bound <= 1e-6
    members = joint.sum(axis=2, keepdims=True) / joint.sum()
    rates = np.nan_to_num(made.rates)[:, :, None]
    predicted = members * np.concatenate([1 - rates, rates], axis=-1)
    assert global_disparity(predicted) <= limits[0] + 1e-12
    assert local_disparity(predicted) <= limits[1] + 1e-12
    assert accuracy_limit(joint, 0, 0).error >= made.bound  # a narrower problem


def test_limits_of_the_perfect_classifier_cost_nothing():
    joint = random_table(21, (3, 2, 2))
    own = global_disparity(joint), local_disparity(joint)
    assert accuracy_limit(joint, *own).error == pytest.approx(0, abs=1e-9)
    assert accuracy_limit(joint, own[0] / 2, own[1]).error > 1e-3
    assert accuracy_limit(joint, own[0], own[1] / 2).error > 1e-3


def test_clients_and_groups_without_examples_change_nothing():
    joint = random_table(22)
    wide = np.zeros((3, 3, 2))
    wide[::2, ::2] = joint
    for limits in [(0, 0), (0.005, 0.01), (0, 0.01), (0.005, 0)]:
        made = accuracy_limit(wide, *limits)
        assert made.error == pytest.approx(accuracy_limit(joint, *limits).error, abs=2e-6)
        assert np.isnan(made.rates[1]).all()
        assert np.isfinite(made.rates[::2, ::2]).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"^joint: shape"):
        decompose(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"^joint: must"):
        global_disparity(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=r"^joint: must"):
        local_disparity(-np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match=r"^joint: 3 labels"):
        accuracy_limit(np.ones((2, 2, 3)), 0, 0)
    with pytest.raises(ValueError, match=r"^global_limit:"):
        accuracy_limit(UNEQUAL, -0.1, 0)
    with pytest.raises(ValueError, match=r"^local_limit:"):
        accuracy_limit(UNEQUAL, 0.1, math.nan)
    with pytest.raises(ValueError, match=r"^joint: shape"):
        parity_differences(np.ones((2, 3, 2)))
