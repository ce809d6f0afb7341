"""Card fedprox (Li et al. 2020): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contract import nets
from contract.quadratic import DIMENSIONS, Quadratics, QuadraticTask, build, run, setting
from heterobench import models
from heterobench.algorithm import Step
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import RunState, advance
from heterobench.federation import Examples, Federation
from heterobench.schedule import epochs
from heterobench.task import Classification

HALF = ScheduleFile(title="half", participation=0.5)


class WithoutAnchor:
    """A task whose gradient has -mu x added: with weight decay mu on top it is the proximal gradient."""

    def __init__(self, task, mu, anchor):
        self._task, self._mu, self._anchor = task, mu, anchor

    def __getattr__(self, name):
        return getattr(self._task, name)

    def grad(self, theta, batch, term=None):
        g, aux = self._task.grad(theta, batch, term)
        return g - self._mu * self._anchor, aux


def one_round(algorithm, federation, theta, task=None, **more):
    theta = torch.as_tensor(theta)
    s = setting(algorithm, federation, task, **more)
    return advance(s, RunState(0, algorithm.init_server(theta), algorithm.init_client(theta))).server["theta"].numpy()


def fixed_point(algorithm, federation, **more):
    """Where repeated rounds end [d]; a small problem, so that a mutant needs no time either."""
    s = setting(algorithm, federation, rounds=250, **more)
    return run(s).server["theta"].numpy()


# invariants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [ScheduleFile(title="all"), HALF], ids=["all", "half"])
@pytest.mark.parametrize("local", [{}, {"momentum": 0.9, "weight_decay": 1e-3}], ids=["sgd", "momentum"])
def test_invariant_1_without_mu_it_is_fedavg_to_the_bit(schedule, local):
    """fedprox 1: the same seeds, no stragglers."""
    ours, plain = (
        run(
            setting(
                build(name, lr=0.1, **local, **more)[0],
                nets.federation(),
                nets.task(),
                rounds=3,
                epochs=2,
                batch_size=4,
                schedule=schedule,
            )
        ).server["theta"]
        for name, more in (("fedprox", {"mu": 0.0}), ("fedavg", {}))
    )
    assert torch.equal(ours, plain)


def test_invariant_2_one_local_step_is_the_same_for_every_mu():
    """fedprox 2: the proximal gradient is zero at the start."""
    task, federation = nets.task(), nets.federation()
    found = [
        run(setting(build("fedprox", lr=0.1, mu=mu)[0], federation, task, epochs=1)).server["theta"]
        for mu in (0.0, 0.01, 1.0, 1e6)
    ]
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("mu", [0.01, 1.0])
@pytest.mark.parametrize("steps", [1, 4, 60])
def test_invariant_3_path_towards_the_proximal_point(mu, steps):
    """fedprox 3: y_K = y* + (1 - eta (a + mu))^K (x - y*), y* = (a b + mu x)/(a + mu)."""
    problem = Quadratics.draw(clients=1)
    a, b = problem.a[0], problem.b[0]
    x = np.linspace(-2, 3, DIMENSIONS)
    found = one_round(build("fedprox", lr=0.15, mu=mu)[0], problem.federation(), x, epochs=steps)
    exact = (a * b + mu * x) / (a + mu)
    np.testing.assert_allclose(found, exact + (1 - 0.15 * (a + mu)) ** steps * (x - exact), atol=1e-13)


def test_invariant_4_a_larger_mu_never_moves_further():
    """fedprox 4, with eta (a + mu) <= 1."""
    problem = Quadratics.draw(clients=1)
    x = np.linspace(-2, 3, DIMENSIONS)
    grid = [0.0, 0.01, 0.1, 0.5, 1.0, 3.0, 8.0]
    lr = 1 / (problem.a.max() + grid[-1])
    moved = [
        np.linalg.norm(one_round(build("fedprox", lr=lr, mu=mu)[0], problem.federation(), x, epochs=20) - x)
        for mu in grid
    ]
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 0.5 * moved[0]


def test_invariant_4_an_endless_mu_holds_the_model():
    """fedprox 4: mu -> infinity with eta = 1/(a + mu) gives no movement."""
    problem = Quadratics.draw(clients=1)
    x = np.linspace(-2, 3, DIMENSIONS)
    for mu in (1e4, 1e8):
        lr = 1 / (problem.a.max() + mu)
        found = one_round(build("fedprox", lr=lr, mu=mu)[0], problem.federation(), x, epochs=20)
        assert np.abs(found - x).max() < 100 / mu


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_invariant_5_weight_decay_form_is_the_explicit_form(momentum):
    """fedprox 5: weight decay mu and the linear term -mu <y, x>; with momentum both enter its buffer."""
    single, mu = nets.federation(), 0.5
    pool = Examples(single.pool.x.double(), single.pool.y)
    federation = Federation(pool, single.train, single.validation, single.test, pool)
    task = Classification(lambda: models.build(nets.MLP, (1, 4, 4), 3, "test").double())
    explicit, _ = build("fedprox", lr=0.1, mu=mu, momentum=momentum)
    decayed, _ = build("fedavg", lr=0.1, weight_decay=mu, momentum=momentum)
    first = second = RunState(0, {"theta": task.init(0)}, {})
    for _ in range(3):
        first = advance(setting(explicit, federation, task, epochs=3, batch_size=4), first)
        linear = WithoutAnchor(task, mu, second.server["theta"])
        second = advance(setting(decayed, federation, linear, epochs=3, batch_size=4), second)
        torch.testing.assert_close(first.server["theta"], second.server["theta"], atol=1e-13, rtol=0)


# traps --------------------------------------------------------------------------------------------------------------


def pull(algorithm, distance):
    """The part of the local gradient [d] that the method adds at `distance` [d] from the server's model."""
    task, federation = QuadraticTask(), Quadratics.draw(clients=1).federation()
    batch, anchor = federation.pool.batch(np.arange(1)), torch.ones(DIMENSIONS, dtype=torch.float64)
    work = algorithm.start({"theta": anchor}, algorithm.init_client(anchor))
    work["theta"].add_(torch.as_tensor(distance))
    g, aux = algorithm.grad(work, batch, task)
    plain, expected = task.grad(work["theta"], batch)
    assert aux["loss"] == expected["loss"]  # trap: the proximal loss is no part of the reported training loss
    return (g - plain).numpy()


def test_trap_the_pull_is_mu_times_the_distance():
    """The squared norm: twice as far, twice the pull. The loss that is reported is the plain one."""
    algorithm, _ = build("fedprox", mu=0.3)
    distance = np.linspace(1, 3, DIMENSIONS)
    for factor in (1, 2, 10):
        np.testing.assert_allclose(pull(algorithm, factor * distance), 0.3 * factor * distance, atol=1e-13)


def test_trap_the_anchor_does_not_move_with_the_local_model():
    algorithm, _ = build("fedprox", mu=0.3)
    theta = torch.ones(DIMENSIONS, dtype=torch.float64)
    work = algorithm.start({"theta": theta}, {})
    work = algorithm.step(work, torch.ones_like(theta), Step(0, 0.5))
    assert torch.equal(work["anchor"], torch.ones_like(theta))
    assert torch.equal(theta, torch.ones_like(theta))
    assert torch.equal(work["theta"], torch.full_like(theta, 0.5))


def test_trap_too_large_mu_diverges():
    """eta (mu + a) > 2: every step is longer than the one before."""
    problem = Quadratics.draw(clients=1)
    x = np.full(DIMENSIONS, 5.0)
    near, far = (
        np.abs(one_round(build("fedprox", lr=0.5, mu=5.0)[0], problem.federation(), x, epochs=k) - x).min()
        for k in (10, 30)
    )
    assert far > 100 * near


def test_stragglers_send_their_partial_work():
    """Each client runs the epochs that the schedule says, and nobody is dropped."""
    problem = Quadratics.draw(unequal=True)
    schedule = ScheduleFile(title="most straggle", stragglers=0.9)
    mu, lr, x = 0.4, 0.1, np.linspace(-2, 3, DIMENSIONS)
    done = np.array([epochs(schedule, 0, 0, i, 6) for i in range(10)])
    assert len(set(done)) > 2
    assert done.min() >= 1
    found = one_round(build("fedprox", lr=lr, mu=mu)[0], problem.federation(), x, epochs=6, schedule=schedule)
    exact = (problem.a * problem.b + mu * x) / (problem.a + mu)
    y = exact + (1 - lr * (problem.a + mu)) ** done[:, None] * (x - exact)
    np.testing.assert_allclose(found, np.average(y, axis=0, weights=problem.n), atol=1e-13)


def test_average_is_weighted_by_examples_of_the_cohort():
    """sum n_i y_i / sum n_i over the cohort (the authors' code), far from 0 so that shrinking would show."""
    problem = Quadratics.draw(clients=8)
    same = Quadratics(problem.a[[0] * 8], problem.b[[0] * 8], np.arange(1, 9))
    x, a, b = np.full(DIMENSIONS, 1e4), problem.a[0], problem.b[0]
    found = one_round(build("fedprox", lr=0.1, mu=0.2)[0], same.federation(), x, epochs=3, schedule=HALF)
    exact = (a * b + 0.2 * x) / (a + 0.2)
    np.testing.assert_allclose(found, exact + (1 - 0.1 * (a + 0.2)) ** 3 * (x - exact), rtol=1e-13)


# the oracle has teeth -----------------------------------------------------------------------------------------------


def accepts(algorithm) -> bool:
    """Do repeated rounds end at the fixed point of FedProx with mu = 0.5?"""
    problem = Quadratics.draw(clients=4, unequal=True)
    found = fixed_point(algorithm, problem.federation(), epochs=5)
    expected = problem.fixed_point("weighted", 0.2, np.full(4, 5), 0.5)
    return bool(np.abs(found - expected).max() < 1e-7)


def test_oracle_accepts_fedprox():
    assert accepts(build("fedprox", lr=0.2, mu=0.5)[0])


def test_oracle_rejects_the_norm_that_is_not_squared():
    """Mutation: a pull of constant length mu, the gradient of mu ||y - x||."""
    real, _ = build("fedprox", lr=0.2, mu=0.5)
    plain, _ = build("fedavg", lr=0.2)

    def grad(work, batch, task):
        g, aux = plain.grad(work, batch, task)
        away = work["theta"] - work["anchor"]
        return g + 0.5 * away / away.norm().clamp(min=1e-12), aux

    mutant = replace(real, grad=grad)
    assert not accepts(mutant)
    np.testing.assert_allclose(pull(mutant, np.ones(5)), pull(mutant, 2 * np.ones(5)))


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 2.0])
def test_oracle_rejects_a_wrong_factor(factor):
    """Mutations: the wrong sign, no pull at all, mu/2 instead of mu, 2 mu."""
    real, _ = build("fedprox", lr=0.2, mu=0.5)
    plain, _ = build("fedavg", lr=0.2)

    def grad(work, batch, task):
        g, aux = plain.grad(work, batch, task)
        return g + factor * 0.5 * (work["theta"] - work["anchor"]), aux

    assert not accepts(replace(real, grad=grad))
