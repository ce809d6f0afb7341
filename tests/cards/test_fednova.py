"""Card fednova (Wang et al. 2020): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract.linear import LinearTask, linear
from contract.quadratic import DIMENSIONS, Quadratics, build, run, setting
from heterobench.algorithms.fednova import accumulated_weight
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import RunState, advance
from heterobench.schedule import epochs

STRAGGLERS = ScheduleFile(title="all straggle", stragglers=1.0)
SOLVERS = {"plain": {}, "momentum": {"momentum": 0.9}, "proximal": {"mu": 0.5}}
solvers = pytest.mark.parametrize("solver", SOLVERS)


def one_round(algorithm, federation, theta, task=None, round=0, **more):
    theta = torch.as_tensor(theta)
    s = setting(algorithm, federation, task, **more)
    state = RunState(round, algorithm.init_server(theta), algorithm.init_client(theta))
    return advance(s, state).server["theta"].numpy()


def fixed_point(algorithm, federation, **more):
    """Fixed point [d] of a round that maps theta to slope * theta + constant, coordinate by coordinate."""
    constant = one_round(algorithm, federation, np.zeros(DIMENSIONS), **more)
    slope = one_round(algorithm, federation, np.ones(DIMENSIONS), **more) - constant
    return constant / (1 - slope)


def norm(solver, tau):
    """||a||_1 in the closed form of the card, for eta mu = 0.05 and rho = 0.9."""
    if solver == "momentum":
        return (tau - 0.9 * (1 - 0.9**tau) / 0.1) / 0.1
    return (1 - 0.95**tau) / 0.05 if solver == "proximal" else tau


# invariants ---------------------------------------------------------------------------------------------------------


def test_invariant_1_equal_numbers_of_steps_are_fedavg():
    """fednova 1: plain SGD, several rounds, weights of unequal clients (full batches: equal tau)."""
    problem = Quadratics.draw(unequal=True)
    ours, plain = (
        run(setting(build(name, lr=0.1)[0], problem.federation(), rounds=5, epochs=4)).server["theta"]
        for name in ("fednova", "fedavg")
    )
    torch.testing.assert_close(ours, plain, atol=1e-13, rtol=0)


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_invariant_2_recursion_is_the_closed_form_with_momentum(rho):
    """fednova 2: [tau - rho (1 - rho^tau)/(1 - rho)]/(1 - rho)."""
    for tau in range(1, 60):
        closed = (tau - rho * (1 - rho**tau) / (1 - rho)) / (1 - rho)
        assert accumulated_weight(tau, rho, 0.0) == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize("eta_mu", [0.01, 0.1])
def test_invariant_2_recursion_is_the_closed_form_with_a_proximal_term(eta_mu):
    """fednova 2: (1 - (1 - eta mu)^tau)/(eta mu); plain SGD is tau."""
    for tau in range(1, 60):
        closed = (1 - (1 - eta_mu) ** tau) / eta_mu
        assert accumulated_weight(tau, 0.0, eta_mu) == pytest.approx(closed, rel=1e-12)
        assert accumulated_weight(tau, 0.0, 0.0) == tau


def test_invariant_3_small_steps_end_at_the_optimum_of_the_average():
    """fednova 3: eta -> 0 with unequal tau; FedAvg ends at the optimum of a re-weighted objective."""
    problem = Quadratics.draw(unequal=True)
    p, a, b, tau = problem.n / problem.n.sum(), problem.a, problem.b, 2 * problem.n
    nova = (p @ (a * b)) / (p @ a)
    avg = ((p * tau) @ (a * b)) / ((p * tau) @ a)
    assert np.abs(nova - avg).max() > 0.05
    for name, limit in (("fednova", nova), ("fedavg", avg)):
        errors = []
        for lr in (1e-2, 1e-3, 1e-4):
            algorithm, _ = build(name, lr=lr)
            found = fixed_point(algorithm, problem.federation(), epochs=2, batch_size=1)
            errors.append(np.abs(found - limit).max())
        assert errors[1] < 0.2 * errors[0]
        assert errors[2] < 0.2 * errors[1] < 1e-3


@pytest.mark.parametrize("weighting", ["weighted", "uniform"])
def test_invariant_4_fixed_point_of_a_finite_step_size(weighting):
    """fednova 4: s_i = (1 - (1 - eta a_i)^tau_i)/tau_i."""
    problem = Quadratics.draw(unequal=True)
    algorithm, _ = build("fednova", lr=0.2, weighting=weighting)
    found = fixed_point(algorithm, problem.federation(), epochs=3, batch_size=1)
    tau = 3 * problem.n[:, None]
    p = problem.n / problem.n.sum() if weighting == "weighted" else np.full(10, 0.1)
    s = (1 - (1 - 0.2 * problem.a) ** tau) / tau
    np.testing.assert_allclose(found, (p @ (s * problem.b)) / (p @ s), atol=1e-12)


def constant_gradient_step(algorithm, schedule=None, sizes=(1, 2, 3, 4, 7)):
    """Movement [d] of a round in which every client has the same gradient; tau = 2 n_i."""
    g = np.linspace(1, 2, DIMENSIONS)
    more = {"schedule": schedule} if schedule else {}
    federation = linear(np.tile(g, (len(sizes), 1)), sizes)
    x = np.full(DIMENSIONS, 3.0)
    return one_round(algorithm, federation, x, LinearTask(), epochs=2, batch_size=1, **more) - x, g


@solvers
def test_invariant_5_the_same_constant_gradient_everywhere(solver):
    """fednova 5: the step is -eta tau_eff g whatever the mixture of tau_i; tau_eff is sum p_i ||a_i||_1,
    for the proximal solver sum p_i tau_i."""
    sizes = np.array([1, 2, 3, 4, 7])
    moved, g = constant_gradient_step(build("fednova", lr=0.1, **SOLVERS[solver])[0], sizes=sizes)
    p, tau = sizes / sizes.sum(), 2 * sizes
    effective = p @ (tau if solver == "proximal" else np.array([norm(solver, t) for t in tau]))
    np.testing.assert_allclose(moved, -0.1 * effective * g, rtol=1e-12)


@solvers
def test_invariant_6_more_steps_do_not_change_the_relative_weight(solver):
    """fednova 6: with constant gradients e_i the step points to sum p_i e_i, whoever took more steps.

    Stragglers give the same clients other numbers of steps in each round; FedAvg's direction follows them.
    """
    sizes = np.array([1, 2, 3, 1, 4])
    federation, p = linear(np.eye(DIMENSIONS), sizes), sizes / sizes.sum()
    work = [[epochs(STRAGGLERS, 0, t, i, 6) for i in range(5)] for t in range(4)]
    assert len({tuple(row) for row in work}) == 4
    for name, biased in (("fednova", False), ("fedprox", True)):
        settings = {"lr": 0.1, "mu": 0.0} | SOLVERS[solver]
        algorithm, _ = build(name, **settings)
        for round in range(4):
            moved = one_round(algorithm, federation, np.zeros(5), LinearTask(), round, epochs=6, schedule=STRAGGLERS)
            gap = np.abs(moved / moved.sum() - p).max()
            assert gap > 0.02 if biased else gap < 1e-12


# traps --------------------------------------------------------------------------------------------------------------


def test_trap_the_normaliser_is_not_tau_under_momentum():
    """The two differ by a factor that grows with tau, up to 1/(1 - rho)."""
    assert accumulated_weight(1, 0.9, 0.0) == 1
    assert accumulated_weight(200, 0.9, 0.0) == pytest.approx(200 / 0.1 - 0.9 / 0.01, rel=1e-6)


def test_trap_weights_are_those_of_the_cohort():
    """Under partial participation the weights of average and tau_eff add up to one (equal tau: -eta tau g)."""
    half = ScheduleFile(title="half", participation=0.5)
    g = np.linspace(1, 2, DIMENSIONS)
    federation = linear(np.tile(g, (6, 1)), np.arange(1, 7))
    moved = one_round(build("fednova", lr=0.1)[0], federation, np.zeros(5), LinearTask(), epochs=4, schedule=half)
    np.testing.assert_allclose(moved, -0.1 * 4 * g, rtol=1e-12)


def test_trap_the_step_size_of_the_round_normalises():
    """With a decay, round t moves eta decay^t tau g."""
    g = np.ones((3, DIMENSIONS))
    algorithm, _ = build("fednova", lr=0.1, lr_decay=0.5, mu=0.5)
    moved = one_round(algorithm, linear(g, (1, 2, 3)), np.zeros(5), LinearTask(), round=3, epochs=4)
    np.testing.assert_allclose(moved, -0.1 * 0.5**3 * 4, rtol=1e-12)


def test_momentum_and_proximal_term_together_are_refused():
    """Declared: the authors' recursion is not the l1 norm of that solver."""
    with pytest.raises(ValidationError, match="mu and momentum cannot both be set"):
        build("fednova", mu=0.1, momentum=0.9)


# the oracle has teeth -----------------------------------------------------------------------------------------------


def accepts(algorithm) -> bool:
    """Does the round's fixed point lie where theory says, with unequal local work?"""
    problem = Quadratics.draw(clients=5, unequal=True)
    found = fixed_point(algorithm, problem.federation(), epochs=2, batch_size=1)
    expected = problem.fixed_point("weighted", 0.1, 2 * problem.n, normalised=True)
    return bool(np.abs(found - expected).max() < 1e-7)


def accepts_momentum(algorithm) -> bool:
    sizes = np.array([1, 2, 3, 4, 7])
    moved, g = constant_gradient_step(algorithm, sizes=sizes)
    effective = sum(n * norm("momentum", 2 * n) for n in sizes) / sizes.sum()
    return np.allclose(moved, -0.1 * effective * g, rtol=1e-9)


def test_oracle_accepts_fednova():
    assert accepts(build("fednova", lr=0.1)[0])
    assert accepts_momentum(build("fednova", lr=0.1, momentum=0.9)[0])


@pytest.mark.parametrize("rescaled", [True, False], ids=["tau_eff kept", "tau_eff 1"])
def test_oracle_rejects_a_normaliser_of_one(rescaled):
    """Mutation: updates are divided by 1."""
    real, _ = build("fednova", lr=0.1)

    def finish(work, down, client, done):
        up, kept = real.finish(work, down, client, done)
        tau = up["tau"] if rescaled else torch.ones_like(up["tau"])
        return {"d": up["d"] * up["tau"], "tau": tau}, kept

    assert not accepts(replace(real, finish=finish))


def test_oracle_rejects_tau_as_the_normaliser_under_momentum():
    """Mutation: d_i divided by tau_i instead of ||a_i||_1."""
    real, _ = build("fednova", lr=0.1, momentum=0.9)

    def finish(work, down, client, done):
        up, kept = real.finish(work, down, client, done)
        return up | {"d": up["d"] * up["tau"] / done.steps}, kept

    assert not accepts_momentum(replace(real, finish=finish))
