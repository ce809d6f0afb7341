"""Card ggeur (Ma et al. 2025): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from contract import nets
from contract.quadratic import build, run, setting
from contract.spies import attending, rounds
from heterobench import keyed
from heterobench.algorithms._gaussians import around, root
from heterobench.algorithms.ggeur import sources
from heterobench.config.schema import ModelFile, ScheduleFile
from heterobench.engine.synchronous import advance, begin
from heterobench.executor.local import Work, prepared
from heterobench.federation import Federation

F64 = torch.float64
N = 60
RANDOM = ModelFile(title="", architecture="random_features", options={"width": 8})
SPLITS = {"one client": [N], "ten": [6] * 10, "one example each": [1] * N, "uneven": [1, 2, 30, 4, 23]}


def random_features(dtype: torch.dtype = F64):
    """A net with nothing to train but its last layer."""
    return nets.task(dtype, RANDOM)


def federation(sizes=(20, 25, 15), order=None, dtype=F64) -> Federation:
    whole = nets.federation((N,), dtype=dtype)
    rows = np.split(np.arange(N) if order is None else order, np.cumsum(sizes)[:-1])
    return replace(whole, train=rows, validation=rows, test=rows)


def by_class() -> np.ndarray:
    return np.argsort(nets.federation((N,)).pool.y.numpy(), kind="stable")


def ggeur(fed: Federation, task=None, *, schedule=None, rounds=4, **settings):
    algorithm, _ = build("ggeur", **{"lr": 0.5, "target": 25, "draws": 10} | settings)
    more = {"schedule": schedule} if schedule else {}
    return setting(algorithm, fed, task or random_features(), rounds=rounds, epochs=1, batch_size=10**6, **more)


def told(s, state=None):
    """(downlink, work of each client) of the first round after the statistics."""
    state = state or advance(s, begin(s))
    down = s.local.at(state.round).downlink(state.server)
    return down, [Work(i, state.round, 1, 0.5, state.client(i)) for i in range(len(s.federation))]


def rows_of(s, client: int):
    """z, y of the examples that a client trains on, and z, y of its own."""
    down, work = told(s)
    given = prepared(s.local, down, work[client])
    own = s.federation.pool.batch(s.federation.train[client])
    return given.examples.x, given.examples.y, s.task.features(down["theta"], own), own.y


def biased(z: torch.Tensor) -> torch.Tensor:
    apart = z - z.mean(0)
    return apart.T @ apart / len(z)


# invariants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("order", [np.arange(N), by_class()], ids=["mixed", "by class"])
def test_invariant_1_covariances_are_those_of_the_pooled_features(sizes, order):
    """ggeur 1: of every class, biased, for any partition; clients of one example have no covariance of their own."""
    s = ggeur(federation(sizes, order))
    server = advance(s, begin(s)).server
    pool = s.federation.pool
    z = s.task.features(server["theta"], pool.batch(np.arange(N)))
    for c in range(3):
        torch.testing.assert_close(server["covariance"][c], biased(z[pool.y == c]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
@pytest.mark.parametrize("target", [25, 8, 100])
def test_invariant_2_as_many_rows_as_asked_for_and_its_own_unchanged(target, dtype):
    """ggeur 2: bit for bit, in their order, in front; where it has more it keeps them; no class that it lacks."""
    fed = federation([20, 25, 15], by_class(), dtype)
    s, lacked = ggeur(fed, random_features(dtype), target=target), 0
    for client in range(3):
        z, y, own, classes = rows_of(s, client)
        assert torch.equal(z[: len(own)], own)
        assert torch.equal(y[: len(own)], classes)
        held = torch.bincount(classes, minlength=3)
        lacked += int((held == 0).sum())
        assert torch.bincount(y, minlength=3).tolist() == [max(int(n), target) if n else 0 for n in held]
        assert z.dtype == own.dtype == dtype
    assert lacked


def test_invariant_3_roots_are_symmetric_and_square_to_the_covariance():
    """ggeur 3: of a singular covariance, and of one with an eigenvalue below 0."""
    s = ggeur(federation())
    for covariance in advance(s, begin(s)).server["covariance"]:
        found = root(covariance, 1e-6)
        assert torch.equal(found, found.T) or (found - found.T).abs().max() < 1e-15
        torch.testing.assert_close(found @ found, covariance + 1e-6 * torch.eye(8, dtype=F64), atol=1e-12, rtol=0)
    negative = torch.diag(torch.tensor([2.0, -1.0, 0.5], dtype=F64))
    torch.testing.assert_close(root(negative), torch.diag(torch.tensor([2.0, 0.0, 0.5], dtype=F64).sqrt()))


def test_invariant_3_without_covariance_every_row_is_its_source_up_to_the_jitter():
    """ggeur 3: a client of one example whose class nobody else has, with jitter and without."""
    y = nets.federation((N,)).pool.y.numpy()
    alone = np.array([np.flatnonzero(y == 0)[0]])
    fed = replace(federation(), train=[alone, np.flatnonzero(y == 1)])
    z, _, own, _ = rows_of(ggeur(fed, jitter=0.0), 0)
    torch.testing.assert_close(z, own.expand(25, -1), atol=0, rtol=0)
    z, _, own, _ = rows_of(ggeur(fed, target=1000), 0)
    spread = (z[1:] - own).std(0)
    torch.testing.assert_close(spread, torch.full((8,), 1e-3, dtype=F64), atol=0, rtol=0.15)  # six standard errors


def test_invariant_4_draws_around_a_row_have_its_mean_and_the_covariance():
    """ggeur 4: within five standard errors of 200,000 draws."""
    s = ggeur(federation())
    covariance, count = advance(s, begin(s)).server["covariance"][1], 200_000
    z = torch.arange(8, dtype=F64)
    found = around(z, root(covariance, 1e-6), keyed.generator(0, "draws").standard_normal((count, 8)))
    spread = (covariance.diagonal() + 1e-6).sqrt()
    assert ((found.mean(0) - z).abs() <= 5 * spread / count**0.5).all()
    expected = covariance + 1e-6 * torch.eye(8, dtype=F64)
    assert ((torch.cov(found.T) - expected).abs() <= 5 * (2 / count) ** 0.5 * spread[:, None] * spread).all()


@pytest.mark.parametrize("copies", [1, 3])
def test_invariant_5_of_copies_of_one_client_the_covariance_is_its_own(copies):
    """ggeur 5."""
    fed = federation()
    fed = replace(fed, train=[fed.train[0]] * copies)
    s = ggeur(fed)
    server = advance(s, begin(s)).server
    own = fed.pool.batch(fed.train[0])
    z = s.task.features(server["theta"], own)
    for c in range(3):
        torch.testing.assert_close(server["covariance"][c], biased(z[own.y == c]), atol=1e-12, rtol=0)


def test_invariant_6_one_client_with_full_batches_is_gradient_descent_on_the_rows():
    """ggeur 6: by torch's autograd on the same rows, from the initial model on."""
    s = ggeur(federation([N]))
    z, y, *_ = rows_of(s, 0)
    assert torch.bincount(y).tolist() == [25] * 3
    layer = [part.clone().requires_grad_() for part in s.task.head.read(s.task.init(0))]
    sgd = torch.optim.SGD(layer, lr=0.5)
    for _ in range(3):
        sgd.zero_grad()
        functional.cross_entropy(functional.linear(z, *layer), y).backward()
        sgd.step()
    found = s.task.head.read(run(s).server["theta"])
    for one, other in zip(found, layer, strict=True):
        torch.testing.assert_close(one, other.detach(), atol=1e-13, rtol=0)
        assert one.abs().max() > 1e-3


def test_clients_count_equally_although_they_differ_in_their_own_numbers():
    """Card: a uniform mean. Two steps of full batches, by torch's autograd on each client's rows."""
    s = ggeur(federation([50, 10]), rounds=3)
    data = [rows_of(s, client)[:2] for client in range(2)]
    theta = [part.clone() for part in s.task.head.read(s.task.init(0))]
    for _ in range(2):
        ended = []
        for z, y in data:
            layer = [part.clone().requires_grad_() for part in theta]
            loss = functional.cross_entropy(functional.linear(z, *layer), y)
            ended.append([p.detach() - 0.5 * g for p, g in zip(layer, torch.autograd.grad(loss, layer), strict=True)])
        theta = [(one + other) / 2 for one, other in zip(*ended, strict=True)]
    for found, expected in zip(s.task.head.read(run(s).server["theta"]), theta, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


def test_statistics_are_those_of_the_first_round_in_which_anybody_comes():
    """Nobody in the first two of six rounds: then statistics of all that came, then training."""
    s = attending(ggeur(federation([20, 25, 15]), rounds=6), [[False] * 3] * 2 + [[True] * 3] * 4)
    states = list(rounds(s, 6))
    assert all(state.server.keys() == {"theta"} for state in states[:2])
    pool, theta = s.federation.pool, s.task.init(0)
    z = s.task.features(theta, pool.batch(np.arange(N)))
    for c in range(3):
        torch.testing.assert_close(states[2].server["covariance"][c], biased(z[pool.y == c]), atol=1e-10, rtol=0)
    moved = [not torch.equal(state.server["theta"], theta) for state in states]
    assert moved == [False, False, False, True, True, True]


# which rows are chosen ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "target"), [(10, 15), (10, 20), (3, 40), (1, 40), (40, 40), (50, 40), (0, 40)])
def test_sources(n, target):
    """Each own row once at most where there are enough; else none more often than it has draws."""
    _, hp = build("ggeur", target=target, draws=15)
    chosen = sources(n, 0, hp, keyed.generator(0, "sources"))
    assert len(chosen) == (max(target - n, 0) if n else 0)
    most = np.bincount(chosen, minlength=1).max()
    assert most <= (1 if target - n <= n else max(15, target - n))
    if n == 3:
        assert np.bincount(chosen).min() > 0
    assert ((chosen >= 0) & (chosen < max(n, 1))).all()


def test_sources_with_prototypes():
    """In proportion to their numbers of draws; a class that the client lacks has prototypes only."""
    _, hp = build("ggeur", target=4000, draws=100, prototype_draws=300)
    chosen = sources(50, 2, hp, keyed.generator(0, "sources"))  # 5,000 draws around own rows, 600 around the others
    assert len(chosen) == 3950
    others = (chosen >= 50).sum()
    expected, spread = 3950 * 600 / 5600, (3950 * 600 / 5600 * 5000 / 5600 * 1650 / 5599) ** 0.5
    assert abs(others - expected) < 5 * spread
    assert np.bincount(chosen, minlength=52)[50:].max() <= 300
    lacking = sources(0, 2, hp, keyed.generator(0, "sources"))
    assert len(lacking) == 4000
    assert np.bincount(lacking).tolist() == [2000, 2000]


# the rounds ---------------------------------------------------------------------------------------------------------


def test_rows_are_the_same_in_every_round_and_others_for_another_client_or_seed():
    s = ggeur(federation([30, 30]))
    one, two = list(rounds(s, 2))
    first, second = (prepared(s.local, down, work[0]).examples.x for down, work in (told(s, one), told(s, two)))
    assert torch.equal(first, second)
    copies = replace(s.federation, train=[s.federation.train[0]] * 2)
    same = ggeur(copies)
    down, work = told(same)
    a, b = (prepared(same.local, down, w).examples.x for w in work)
    assert not torch.equal(a, b)
    other = replace(same, seed=1)
    assert not torch.equal(prepared(other.local, down, work[0]).examples.x, a)


def test_the_geometry_is_sent_once_where_everybody_takes_part():
    """Model, covariances and statistics in float64; then the model alone."""
    s = ggeur(federation())
    p, c, f, clients = len(s.task.init(0)), 3, 8, 3
    one, two, three = list(rounds(s, 3))
    geometry, statistics = 8 * c * f * f, 8 * c * (f * f + f + 1)
    assert one.bytes_down == clients * 8 * p
    assert one.bytes_up == clients * (statistics + 8)
    assert two.bytes_down - one.bytes_down == clients * (8 * p + geometry)
    assert three.bytes_down - two.bytes_down == clients * 8 * p
    assert three.bytes_up - two.bytes_up == clients * (8 * p + 8)
    assert two.server.keys() == {"theta"}
    assert one.gradient_examples == 0
    assert two.gradient_examples == sum(len(rows_of(s, i)[1]) for i in range(3))


def test_with_a_part_of_the_clients_in_a_round_the_geometry_goes_to_everybody_who_comes_later():
    s = ggeur(federation([6] * 10), schedule=ScheduleFile(title="", participation=0.3), rounds=6)
    states = list(rounds(s, 6))
    assert all("covariance" in state.server for state in states)
    came = set(states[-1].clients) - set(states[0].clients)
    assert came
    for client in came:
        torch.testing.assert_close(
            states[-1].client(client)["root"], torch.stack([root(v, 1e-6) for v in states[0].server["covariance"]])
        )


def test_the_first_round_trains_nothing():
    s = ggeur(federation())
    before = begin(s)
    assert torch.equal(before.server["theta"], advance(s, before).server["theta"])


@pytest.mark.parametrize("lacking", [True, False])
def test_prototypes_are_the_other_clients(lacking):
    """Draws without covariance and jitter are copies: of own rows, and of the others' means, not of its own mean."""
    y = nets.federation((N,)).pool.y.numpy()
    zero = np.flatnonzero(y == 0)
    fed = replace(federation(), train=[np.flatnonzero(y == 1) if lacking else zero[:3], zero[3:6], zero[6:]])
    s = ggeur(fed, prototype_draws=10, jitter=0.0, target=40)
    state = advance(s, begin(s))
    state.server["covariance"] = torch.zeros_like(state.server["covariance"])
    down, work = told(s, state)
    given = prepared(s.local, down, work[0])
    features = partial(s.task.features, down["theta"])
    means = [features(fed.pool.batch(fed.train[i])).mean(0) for i in (0, 1, 2)]
    found = given.examples.x[given.examples.y == 0]
    assert len(found) == 40

    def near(z, expected):
        return (z - expected).abs().max(1).values < 1e-12

    for i in (1, 2):
        assert near(found, means[i]).sum() > 1
    assert not near(found, means[0]).any()
    own = torch.stack([near(found, row) for row in features(fed.pool.batch(zero[:3]))]).any(0)
    assert own.any() != lacking
    assert (own | near(found, means[1]) | near(found, means[2])).all()
    assert down.keys() == {"theta", "covariance", "mean", "count"}


def test_generated_rows_help_clients_that_lack_shape():
    """Not a number to reach: the sum of both gradients differs, so the rows are really trained on."""
    plain, filled = (run(ggeur(federation([6] * 10, by_class()), target=t)).server["theta"] for t in (1, 40))
    assert (plain - filled).abs().max() > 1e-3


def test_gradient_of_the_last_layer_is_that_of_the_net():
    """On a net that has nothing else, and as that part of a net that has more; every other entry is 0."""
    for task in (random_features(), nets.task(F64)):
        theta = task.init(3) + 0.1
        batch = federation().pool.batch(np.arange(7))
        weight = torch.tensor([0.5, 0.25, 0.25, 0, 0, 0, 0], dtype=F64)
        for given in (batch, batch._replace(weight=weight)):
            g, aux = task.head_grad(theta, given._replace(x=task.features(theta, batch)))
            expected, expected_aux = task.functional().grad(theta, given)
            for one, other in zip(task.head.read(g), task.head.read(expected), strict=True):
                torch.testing.assert_close(one, other, atol=1e-14, rtol=0)
            assert not g[: task.head.first].any()
            torch.testing.assert_close(aux["loss"], expected_aux["loss"], atol=1e-14, rtol=0)
