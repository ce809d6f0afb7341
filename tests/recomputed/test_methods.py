"""What methods compute, against numpy: sums over all examples, directions of updates, means, published defaults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contract.nets import federation, task
from contract.quadratic import build, setting
from contract.spies import rounds
from heterobench.config.schema import LocalWork, ScheduleFile

pytestmark = pytest.mark.xdist_group("recomputed")
F64 = torch.float64
BRIEF = ScheduleFile(title="brief", local_work=LocalWork(min=0.1, max=0.3))
CLASSES = 3


def features(theta: torch.Tensor, x: torch.Tensor) -> np.ndarray:
    """What the last layer of the small net reads [n, 8]: of one hidden layer with ReLU."""
    theta, x = theta.numpy(), x.flatten(1).numpy()
    hidden = theta[: 8 * 16].reshape(8, 16), theta[8 * 16 : 8 * 17]
    return np.maximum(x @ hidden[0].T + hidden[1], 0)


def heard(name: str, schedule=BRIEF, count=1, **settings):
    """(task, federation, the uplinks that the server reduced round by round, the states after each round)."""
    net, data = task(F64), federation(dtype=F64)
    found = []

    def listening(algorithm):
        if algorithm is None:
            return None

        def serve(server, up, info):
            found.append({name: tensor.clone() for name, tensor in up.items()})
            return algorithm.serve(server, up, info)

        return replace(algorithm, serve=serve)

    algorithm, _ = build(name, **settings)
    changed = replace(listening(algorithm), at=algorithm.at and (lambda phase: listening(algorithm.at(phase))))
    made = setting(changed, data, net, rounds=count, epochs=3, batch_size=2, schedule=schedule)
    return net, data, found, list(rounds(made, count))


def everything(data):
    """Training examples of all clients: (x, y), and which client holds each."""
    rows = [np.asarray(own) for own in data.train]
    joined = np.concatenate(rows)
    return data.pool.x[joined], data.pool.y[joined].numpy(), np.repeat(np.arange(len(rows)), [len(own) for own in rows])


# statistics are of all examples, however little local work a schedule leaves


def test_afl_solves_least_squares_over_all_examples():
    net, data, _, (state,) = heard("afl-analytic")
    x, y, _ = everything(data)
    z = np.hstack([features(net.init(0), x), np.ones((len(x), 1))])
    solution = np.linalg.lstsq(z, np.eye(CLASSES)[y], rcond=1e-12)[0]
    found = state.server["theta"].numpy()[-9 * CLASSES :]
    weight, bias = found[: 8 * CLASSES].reshape(CLASSES, 8), found[8 * CLASSES :]
    # directions without data have no weight, as in numpy's shortest solution
    np.testing.assert_allclose(z @ np.vstack([weight.T, bias]), z @ solution, atol=1e-6)


@pytest.mark.parametrize("name", ["ccvr", "ggeur"])
def test_gaussians_are_of_all_examples(name):
    """Number, mean and unbiased covariance of the features of each class at each client."""
    net, data, (up, *_), _ = heard(name)
    x, y, owner = everything(data)
    z = features(net.init(0), x)
    for k in range(len(data)):
        for c in range(CLASSES):
            own = z[(owner == k) & (y == c)]
            assert float(up["count"][k, c]) == len(own)
            if len(own):
                np.testing.assert_allclose(up["mean"][k, c].numpy(), own.mean(0), atol=1e-12)
            if len(own) > 1:
                np.testing.assert_allclose(up["covariance"][k, c].numpy(), np.cov(own.T), atol=1e-10)


def updates(name: str, **settings):
    """(federation, models from the first one on, the clients' updates round by round [K, P] or none)."""
    net, data = task(F64), federation(dtype=F64)
    algorithm, _ = build(name, **settings)
    sent: dict[int, list[np.ndarray]] = {}

    def listening(one):
        def finish(work, down, client, done):
            up, kept = one.finish(work, down, client, done)
            sent.setdefault(done.round, []).extend([up["delta"].numpy().copy()] if "delta" in up else [])
            return up, kept

        return replace(one, finish=finish)

    changed = replace(listening(algorithm), at=algorithm.at and (lambda phase: listening(algorithm.at(phase))))
    states = rounds(setting(changed, data, net, rounds=3, epochs=2, batch_size=4), 3)
    models = [net.init(0), *(state.server["theta"] for state in states)]
    assert len(set(map(len, data.train))) > 1  # weighted and plain means differ
    return data, [model.numpy() for model in models], [np.array(sent[round]) for round in range(3)]


# GGEUR


def test_ggeur_takes_the_plain_mean():
    """The update of the server is that mean of the clients' updates, from the second round on: none by default."""
    data, models, sent = updates("ggeur", target=1, lr=0.5)  # nobody draws any row
    n = np.ones(len(data))
    assert np.array_equal(models[0], models[1])
    for round in (1, 2):
        moved = models[round + 1] - models[round]
        np.testing.assert_allclose(moved, n / n.sum() @ sent[round], atol=1e-13)
        assert np.abs(moved).max() > 1e-3


def test_ggeur_draws_with_the_covariance_of_all_clients_together():
    """Biased: the mean square about the common mean, whoever holds what."""
    net, data, _, (state,) = heard("ggeur")
    x, y, _ = everything(data)
    z = features(net.init(0), x)
    for c in range(CLASSES):
        expected = np.cov(z[y == c].T, bias=True)
        np.testing.assert_allclose(state.server["covariance"][c].numpy(), expected, atol=1e-12)


# FedLD


def principal(rows: np.ndarray, k: int) -> np.ndarray:
    """mean r_i with `k` directions, each projection and unit vector by itself (card fedld)."""
    m = len(rows)
    s, v = np.linalg.eigh(rows @ rows.T / m)
    s, v = s[::-1], v[:, ::-1]
    total = np.zeros(rows.shape[1])
    for g in rows:
        for j in range(k):
            w = rows.T @ v[:, j]
            projection = (g @ w) / (w @ w) * w
            total += projection / np.linalg.norm(projection) * np.linalg.norm(g) * s[j] / s.sum()
    return total / m


@pytest.mark.parametrize(("m", "share", "k"), [(7, 0.8, 5), (7, 0.4, 2), (9, 0.75, 6), (4, 0.99, 3), (5, 0.8, 4)])
def test_fedld_rounds_the_number_of_directions_down(m, share, k):
    from heterobench.algorithms.fedld import principal_mean

    rows = np.random.default_rng(m).normal(size=(m, 20)) + 0.5
    found = principal_mean(torch.from_numpy(rows), share).numpy()
    np.testing.assert_allclose(found, principal(rows, k), atol=1e-10)
    assert np.abs(principal(rows, k) - principal(rows, k + 1)).max() > 1e-6


# DiLoCo

PUBLISHED = {
    "optimiser": "adamw",
    "beta1": 0.9,
    "beta2": 0.95,
    "max_norm": 1.0,
    "server_lr": 0.7,
    "outer_momentum": 0.9,
}


def test_diloco_has_the_published_settings_by_default():
    """arXiv 2311.08105, section 3 and OpenDiLoCo: inner AdamW, outer Nesterov momentum 0.9 at 0.7, plain mean."""
    _, hp = build("diloco")
    assert {name: getattr(hp, name) for name in PUBLISHED} == PUBLISHED
    assert hp.weighting == "uniform"


def test_dilocos_outer_steps_are_nesterov_on_the_plain_mean():
    """By default, with clients of different sizes: as many steps, and all updates count the same."""
    _, models, sent = updates("diloco", lr=0.05)
    v = 0
    for round in range(3):
        gradient = -sent[round].mean(0)
        v = 0.9 * v + gradient
        np.testing.assert_allclose(models[round + 1], models[round] - 0.7 * (gradient + 0.9 * v), atol=1e-13)
        assert np.abs(gradient).max() > 1e-3
