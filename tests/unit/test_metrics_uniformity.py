"""How evenly scores are shared by clients."""

import math

import numpy as np
import pytest

from heterobench.keyed import generator
from heterobench.metrics import uniformity as u
from heterobench.metrics.clients import spread

WORKED = np.array([0.9, 0.8, 0.5, 0.4])
SIZES = np.array([100, 100, 100, 700])


def scores(accuracies, sizes):
    """Right and wrong answers, client after client, with these accuracies."""
    pairs = zip(accuracies, sizes, strict=True)
    return np.concatenate([np.arange(size) < round(accuracy * size) for accuracy, size in pairs])


def test_worked_vector():
    made = spread(scores(WORKED, SIZES), SIZES)
    assert made["weighted"] == pytest.approx(0.5)
    assert made["mean"] == pytest.approx(0.65)
    assert made["std"] == pytest.approx(0.2062, abs=5e-5)
    assert u.worst_share(WORKED, 25) == pytest.approx(0.4)
    assert u.jain(WORKED) == pytest.approx(0.9086, abs=5e-5)
    assert u.gini(WORKED) == pytest.approx(0.1731, abs=5e-5)


def test_numbers_of_the_worked_vector_by_their_definitions():
    pairs = np.abs(WORKED[:, None] - WORKED).sum()
    assert u.gini(WORKED) == pytest.approx(pairs / (2 * 16 * WORKED.mean()))
    shares = WORKED / WORKED.sum()
    assert u.divergence_from_uniform(WORKED) == pytest.approx(math.log(4) + (shares * np.log(shares)).sum())
    ones = np.ones(4)
    cosine = WORKED @ ones / (np.linalg.norm(WORKED) * np.linalg.norm(ones))
    assert u.cosine_to_uniform(WORKED) == pytest.approx(cosine)
    assert u.coefficient_of_variation(WORKED) == pytest.approx(WORKED.std() / WORKED.mean())
    assert u.best_share(WORKED, 25) == 0.9
    assert u.best_share(WORKED, 26) == pytest.approx(0.85)  # rounded up


@pytest.mark.parametrize("value", [0.7, 1.0, 0.0])
def test_equal_clients(value):
    values = np.full(13, value)
    numbers = (u.coefficient_of_variation, u.gini, u.divergence_from_uniform)
    assert [f(values) for f in numbers] == pytest.approx([0, 0, 0], abs=1e-12)
    assert u.jain(values) == pytest.approx(1)
    assert u.cosine_to_uniform(values) == pytest.approx(1)
    assert u.worst_share(values) == pytest.approx(value)
    assert u.best_share(values) == pytest.approx(value)
    made = spread(scores(values, np.full(13, 10)), np.full(13, 10))
    assert made["std"] == pytest.approx(0, abs=1e-12)
    assert [made[name] for name in ("mean", "weighted", "worst_decile")] == pytest.approx([value] * 3)


def test_one_client_that_has_everything():
    values = np.array([0.0, 0, 0, 0, 0.8])
    assert u.gini(values) == pytest.approx(1 - 1 / 5)
    assert u.jain(values) == pytest.approx(1 / 5)
    assert u.divergence_from_uniform(values) == pytest.approx(math.log(5))


@pytest.mark.parametrize("clients", [1, 3, 10, 37])
def test_lowest_worst_mean_best_in_order(clients):
    values = generator(0, "clients", clients).random(clients)
    mean = values.mean()
    assert values.min() <= u.worst_share(values) <= mean + 1e-12
    assert mean - 1e-12 <= u.best_share(values) <= values.max()
    assert u.worst_share(values, 100) == pytest.approx(mean)
    assert u.worst_share(values, 10) == spread(values, np.ones(clients, dtype=int))["worst_decile"]


def test_weighted_mean_is_the_accuracy_on_all_data():
    random = generator(0, "pooled")
    sizes = random.integers(1, 50, 20)
    right = random.random(sizes.sum()) < 0.6
    assert spread(right, sizes)["weighted"] == pytest.approx(right.mean(), rel=1e-14)


def test_duplicated_clients_change_nothing():
    values = generator(0, "twice").random(20)
    twice = np.concatenate([values, values])
    for number in (u.coefficient_of_variation, u.gini, u.jain, u.divergence_from_uniform, u.worst_share, u.best_share):
        assert number(twice) == pytest.approx(number(values), rel=1e-12)
    made, again = (spread(each, np.ones(len(each), dtype=int)) for each in (values, twice))
    assert again == pytest.approx(made, rel=1e-12)
    assert made["std"] > 0


def test_tilted_loss_rises_from_the_mean_to_the_maximum():
    losses, weights = np.array([0.2, 1.0, 3.0]), np.array([5, 3, 2])
    mean = (losses * weights).sum() / 10
    tilts = [0, 1e-6, 0.1, 1, 10, 1000]
    made = [u.tilted_loss(losses, t, weights) for t in tilts]
    assert made[0] == pytest.approx(mean)
    assert made[1] == pytest.approx(mean, abs=1e-5)
    assert (np.diff(made) > 0).all()
    assert made[-1] == pytest.approx(3.0, abs=2e-3)  # ln(.2) / 1000 below
    assert made[0] == min(made) < max(made) < 3.0
    assert u.tilted_loss(losses, -1000, weights) == pytest.approx(0.2, abs=2e-3)
    assert u.tilted_loss(losses, 1, weights) == pytest.approx(math.log((np.exp(losses) * weights).sum() / 10))


def test_value_at_risk_from_the_mean_to_the_maximum():
    losses, weights = np.array([1.0, 4.0, 2.0]), np.array([5, 1, 4])
    assert u.conditional_value_at_risk(losses, 1, weights) == pytest.approx(1.7)
    assert u.conditional_value_at_risk(losses, 1e-9, weights) == pytest.approx(4)
    # the worst .3: all of the client with .1, and half of that with .4
    assert u.conditional_value_at_risk(losses, 0.3, weights) == pytest.approx((0.1 * 4 + 0.2 * 2) / 0.3)
    shares = np.linspace(0.05, 1, 20)
    assert (np.diff([u.conditional_value_at_risk(losses, share, weights) for share in shares]) <= 1e-12).all()
    assert u.agnostic_loss(losses) == 4


def test_q_fair_objective():
    losses, weights = np.array([1.0, 2.0]), np.array([3, 1])
    assert u.q_fair_objective(losses, 0, weights) == pytest.approx(1.25)
    assert u.q_fair_objective(losses, 2, weights) == pytest.approx((0.75 + 0.25 * 8) / 3)


def test_spread_of_chance_alone_is_the_binomial_floor():
    random = generator(0, "binomial")
    sizes = np.full(4000, 40)
    accuracies = random.binomial(sizes, 0.7) / sizes
    assert u.binomial_floor(np.full(3, 0.7), np.full(3, 40)) == pytest.approx(math.sqrt(0.21 / 40))
    # relative error of a variance from 4000 values: sqrt(2 / 4000), times 5; the floor itself is 1 / 40 low
    assert u.binomial_floor(accuracies, sizes) ** 2 == pytest.approx(accuracies.var(), rel=0.15)
    true = random.normal(0, 0.1, 4000).clip(-0.3, 0.3) + 0.65
    noisy = random.binomial(sizes, true) / sizes
    assert u.excess_spread(noisy, sizes) == pytest.approx(true.std(), rel=0.08)
    assert noisy.std() > 1.15 * true.std()
    assert u.excess_spread(np.full(5, 0.5), np.full(5, 10)) == 0


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: u.gini(np.array([0.1, math.nan])), "values"),
        (lambda: u.jain(np.array([])), "values"),
        (lambda: u.gini(np.array([-0.1, 0.2])), "values"),
        (lambda: u.worst_share(np.ones(3), 0), "percent"),
        (lambda: u.best_share(np.ones(3), 101), "percent"),
        (lambda: u.tilted_loss(np.ones(3), 1, np.ones(2)), "weights"),
        (lambda: u.conditional_value_at_risk(np.ones(3), 0.5, np.zeros(3)), "weights"),
        (lambda: u.conditional_value_at_risk(np.ones(3), 0), "share"),
        (lambda: u.q_fair_objective(np.ones(3), -1), "q"),
        (lambda: u.q_fair_objective(np.array([-1.0]), 1), "losses"),
        (lambda: u.binomial_floor(np.ones(2), np.array([3, 0])), "sizes"),
        (lambda: u.binomial_floor(np.array([55.0]), np.array([3])), "values"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=f"^{named}:"):
        call()
