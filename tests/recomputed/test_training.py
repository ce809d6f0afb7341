"""A whole run computed again with numpy alone: who comes, local steps, weighted mean, scores, bytes and time."""

from __future__ import annotations

import math
from hashlib import sha256

import numpy as np
import pytest
from scipy.special import softmax

from recomputed import raw
from recomputed.project import CREDITS, DIGITS, DOWN, EPOCHS, RATE, ROUNDS, SEEDS, SERVER, SHARE, SPEED, UP
from recomputed.raw import PERSONAL, RUNS, Key

pytestmark = pytest.mark.xdist_group("recomputed")
CLASSES = {DIGITS: 10, CREDITS: 2}


def came(key: Key, round: int, clients: int) -> list[int]:
    """The cohort: a draw without replacement by Philox, keyed by seed, word and round."""
    count = math.floor(SHARE * clients + 0.5) if key.scenario == DIGITS else clients
    if count == clients:
        return list(range(clients))
    word = int.from_bytes(sha256(b"cohort").digest()[:8], "little")
    philox = np.random.Philox(np.random.SeedSequence((key.seed, word, round)))
    return sorted(np.random.Generator(philox).choice(clients, count, replace=False).tolist())


def cohorts(left, key: Key) -> list[list[int]]:
    rows = left.parts(key.scenario, key.seed)["train"]
    return [came(key, round, len(rows)) for round in range(ROUNDS[key.scenario])]


def descent(theta, x, y, rate):
    """`EPOCHS` steps of gradient descent on mean cross-entropy from theta [C, d + 1]; (theta, losses on the way)."""
    ones = np.hstack([x, np.ones((len(x), 1))])
    theta, losses = theta.copy(), []
    for _ in range(EPOCHS):
        outputs = ones @ theta.T
        losses.append(raw.losses(outputs, y).mean())
        theta -= rate * (softmax(outputs, axis=1) - np.eye(len(theta))[y]).T @ ones / len(y)
    return theta, losses


def federated(left, key: Key):
    """Round -> (server's theta, mean training loss); begins at zero, as softmax regression does."""
    data, rows = left.data(key.scenario), left.parts(key.scenario, key.seed)["train"]
    theta, found = np.zeros((CLASSES[key.scenario], data.x.shape[1] + 1)), {}
    for round, cohort in enumerate(cohorts(left, key), 1):
        n = np.array([len(rows[k]) for k in cohort])
        ends, losses = zip(
            *(descent(theta, data.x[rows[k]], data.y[rows[k]], RATE[key.arm]) for k in cohort), strict=True
        )
        theta = sum(share * end for share, end in zip(n / n.sum(), ends, strict=True))
        found[round] = theta, float((n / n.sum()) @ np.mean(losses, axis=1))
    return found


@pytest.mark.parametrize("scenario", [DIGITS, CREDITS])
def test_fedavg_is_the_mean_of_the_cohorts_models_weighted_by_their_examples(left, scenario):
    for seed in SEEDS:
        key = Key(scenario, "fedavg", seed)
        found = federated(left, key)
        for row in left.rounds(key):
            weight, bias = left.at_round(key, row["round"])
            theta, loss = found[row["round"]]
            np.testing.assert_allclose(np.hstack([weight, bias[:, None]]), theta, atol=2e-6)
            assert row["train_loss"] == pytest.approx(loss, rel=1e-4)
        moved = np.abs(theta).max()
        assert moved > 0.1  # so that an agreement says something


def test_a_personal_model_is_its_clients_own_descent(left):
    """Round after round where it comes, at its own number; who never comes keeps the first model."""
    absent = 0
    for seed in SEEDS:
        key = Key(DIGITS, PERSONAL, seed)
        data, rows = left.data(DIGITS), left.parts(DIGITS, seed)["train"]
        weight, bias = left.model(key, "final.safetensors")
        times = np.bincount(np.concatenate(cohorts(left, key)), minlength=len(rows))
        for k, own in enumerate(rows):
            theta = np.zeros((10, 65))
            for _ in range(times[k]):
                theta, _ = descent(theta, data.x[own], data.y[own], RATE[PERSONAL])
            np.testing.assert_allclose(np.hstack([weight[k], bias[k][:, None]]), theta, atol=2e-6)
        absent += (times == 0).sum()
    assert absent


def test_bytes_gradients_and_time_of_every_round(left):
    """Four bytes a parameter each way and eight for a count; the slowest client of a cohort makes the round's time."""
    for key in RUNS:
        rows, data = left.parts(key.scenario, key.seed)["train"], left.data(key.scenario)
        size = 4 * CLASSES[key.scenario] * (data.x.shape[1] + 1)
        silent = key.arm == PERSONAL
        up, down, gradients, seconds, after = 0, 0, 0, 0.0, {}
        for round, cohort in enumerate(cohorts(left, key), 1):
            each = [0 if silent else size, 0 if silent else size + 8]
            down, up = down + len(cohort) * each[0], up + len(cohort) * each[1]
            work = [EPOCHS * len(rows[k]) for k in cohort]
            gradients += sum(work)
            seconds += max(each[0] / DOWN + n / SPEED + each[1] / UP for n in work) + (0 if silent else SERVER)
            after[round] = {"bytes_up": up, "bytes_down": down, "gradient_examples": gradients, "seconds": seconds}
        for row in left.rounds(key):
            expected = after[row["round"]]
            assert row["simulated_seconds"] == pytest.approx(expected.pop("seconds"), rel=1e-12)
            assert {name: row[name] for name in expected} == expected, key


def test_everybody_comes_as_often_as_sampling_says(left):
    """Cohorts of different rounds differ, have the asked size, and nobody twice."""
    key = Key(DIGITS, "fedavg", 0)
    found = cohorts(left, key)
    assert {len(set(cohort)) for cohort in found} == {8}
    assert len({tuple(cohort) for cohort in found}) == len(found)
