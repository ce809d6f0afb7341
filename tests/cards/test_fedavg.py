"""Card fedavg (McMahan et al. 2017): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contract import nets
from contract.quadratic import DIMENSIONS, Quadratics, QuadraticTask, build, run, setting
from contract.spies import noisy
from heterobench import models
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import RunState, advance, begin
from heterobench.executor.local import Local, Work, local_training
from heterobench.federation import Examples, Federation, batches
from heterobench.schedule import cohort
from heterobench.task import Batch, Classification

THIRD = ScheduleFile(title="a third", participation=0.34)


class Spy:
    """A task that remembers every batch it was asked about."""

    def __init__(self, task):
        self._task, self.seen = task, []

    def __getattr__(self, name):
        return getattr(self._task, name)

    def grad(self, theta, batch, term=None):
        self.seen.append(batch.x[:, -1].tolist())
        return self._task.grad(theta, batch, term)


def exact_net() -> Classification:
    """The small net in float64."""
    return Classification(lambda: models.build(nets.MLP, (1, 4, 4), 3, "test").double())


def exact_federation(sizes) -> Federation:
    single = nets.federation(sizes=sizes)
    pool = Examples(single.pool.x.double(), single.pool.y)
    return Federation(pool, single.train, single.validation, single.test, pool)


def one_round(algorithm, federation, theta, **more):
    """The server's model after one round that starts from `theta` [d]."""
    theta = torch.as_tensor(theta)
    s = setting(algorithm, federation, **more)
    return advance(s, RunState(0, algorithm.init_server(theta), algorithm.init_client(theta))).server["theta"].numpy()


def fixed_point(algorithm, federation, **more):
    """Fixed point [d] of a round that maps theta to slope * theta + constant, coordinate by coordinate."""
    constant = one_round(algorithm, federation, np.zeros(DIMENSIONS), **more)
    slope = one_round(algorithm, federation, np.ones(DIMENSIONS), **more) - constant
    return constant / (1 - slope)


# invariants ---------------------------------------------------------------------------------------------------------


def test_invariant_1_fedsgd_is_one_full_batch_step_on_pooled_data():
    """fedavg 1: one epoch with one full batch, everybody, weighted."""
    task, federation = nets.task(), nets.federation()
    algorithm, _ = build("fedavg", lr=0.3)
    found = run(setting(algorithm, federation, task, epochs=1)).server["theta"]

    theta = task.init(0)
    everything = federation.pool.batch(np.concatenate(federation.train))
    expected = theta - 0.3 * task.grad(theta, everything)[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    uniform, _ = build("fedavg", lr=0.3, weighting="uniform")
    other = run(setting(uniform, federation, task, epochs=1)).server["theta"]
    assert (other - expected).abs().max() > 1e-4


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_invariant_2_local_path_on_a_quadratic(steps):
    """fedavg 2: y = b + (1 - eta a)^K (x - b)."""
    problem = Quadratics.draw(clients=1)
    algorithm, _ = build("fedavg", lr=0.2)
    x = np.linspace(-2, 3, DIMENSIONS)
    found = one_round(algorithm, problem.federation(), x, epochs=steps)
    a, b = problem.a[0], problem.b[0]
    np.testing.assert_allclose(found, b + (1 - 0.2 * a) ** steps * (x - b), atol=1e-13)


@pytest.mark.parametrize("weighting", ["weighted", "uniform"])
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_invariant_2_fixed_point_is_sum_p_r_b_over_sum_p_r(weighting, steps):
    """fedavg 2: r = 1 - (1 - eta a)^K; the optimum only for one step."""
    problem = Quadratics.draw(unequal=True)
    algorithm, _ = build("fedavg", lr=0.2, weighting=weighting)
    found = fixed_point(algorithm, problem.federation(), epochs=steps)
    p = problem.n / problem.n.sum() if weighting == "weighted" else np.full(10, 0.1)
    r = 1 - (1 - 0.2 * problem.a) ** steps
    np.testing.assert_allclose(found, (p @ (r * problem.b)) / (p @ r), atol=1e-12)
    optimum = (p @ (problem.a * problem.b)) / (p @ problem.a)
    distance = np.abs(found - optimum).max()
    assert distance < 1e-12 if steps == 1 else distance > 1e-3


def test_invariant_2_equal_curvatures_have_no_bias():
    """fedavg 2: with equal a_i the fixed point is the optimum for any number of steps."""
    drawn = Quadratics.draw()
    problem = Quadratics(np.repeat(drawn.a[:1], 10, axis=0), drawn.b, drawn.n)
    algorithm, _ = build("fedavg", lr=0.2)
    found = fixed_point(algorithm, problem.federation(), epochs=10)
    np.testing.assert_allclose(found, problem.b.mean(0), atol=1e-12)


def test_invariant_3_order_of_clients_does_not_matter():
    """fedavg 3, on a net with full batches (batches are keyed by the client's number)."""
    task, federation = exact_net(), exact_federation((9, 5, 12, 7))
    order = [2, 0, 3, 1]
    moved = Federation(
        federation.pool, [federation.train[i] for i in order], *[federation.validation] * 2, federation.pool
    )
    algorithm, _ = build("fedavg", lr=0.3)
    first, second = (run(setting(algorithm, f, task, rounds=3, epochs=4)).server["theta"] for f in (federation, moved))
    torch.testing.assert_close(first, second, atol=1e-13, rtol=0)


def test_invariant_3_two_clones_of_half_the_weight_are_one_client():
    """fedavg 3: 6 examples in one place or 3 + 3 in two, the same number of steps."""
    a, b = Quadratics.draw(clients=2).a, Quadratics.draw(clients=2).b
    whole = Quadratics(a, b, np.array([6, 4]))
    halves = Quadratics(a[[0, 0, 1]], b[[0, 0, 1]], np.array([3, 3, 4]))
    algorithm, _ = build("fedavg", lr=0.3)
    found = [run(setting(algorithm, p.federation(), rounds=5)).server["theta"].numpy() for p in (whole, halves)]
    np.testing.assert_allclose(*found, atol=1e-13)


@pytest.mark.parametrize("weighting", ["weighted", "uniform"])
def test_invariant_4_weights_of_a_cohort_add_up_to_one(weighting):
    """fedavg 4: under partial participation the new model is the average of the cohort's models.

    The models lie far from 0 (the trap: dividing by all clients' examples shrinks the model towards 0).
    """
    problem = Quadratics.draw(unequal=True)
    algorithm, _ = build("fedavg", lr=0.1, weighting=weighting)
    x = np.full(DIMENSIONS, 1000.0)
    a, b, n = problem.a, problem.b, problem.n
    s = setting(algorithm, problem.federation(), rounds=4, epochs=3, schedule=THIRD)
    theta = torch.from_numpy(x)
    state = RunState(0, algorithm.init_server(theta), algorithm.init_client(theta))
    for round in range(4):
        chosen = cohort(THIRD, 0, round, np.arange(10))
        assert len(chosen) == 3
        state = advance(s, state)
        y = b[chosen] + (1 - 0.1 * a[chosen]) ** 3 * (x - b[chosen])
        x = np.average(y, axis=0, weights=n[chosen] if weighting == "weighted" else None)
        np.testing.assert_allclose(state.server["theta"].numpy(), x, rtol=1e-13)


def test_invariant_5_one_client_is_plain_sgd():
    """fedavg 5: the local path has the bits of plain SGD; the server's sum x + (y - x) rounds once per round.

    (The declared deviation: differences are sent. So the models agree to rounding, the local steps to the bit.)
    """
    task, federation = exact_net(), exact_federation((23,))
    algorithm, _ = build("fedavg", lr=0.1)
    rows = np.asarray(federation.train[0])

    def sgd(theta, round):
        theta = theta.clone()
        optimiser = torch.optim.SGD([theta], lr=0.1)
        for index in batches(0, round, 0, rows, 2, 5):
            theta.grad = task.grad(theta, federation.pool.batch(index))[0]
            optimiser.step()
        return theta

    theta = task.init(0)
    local = Local(algorithm, task, federation, 5, 0)
    sent = local_training(local, {"theta": theta}, Work(0, 0, 2, 0.1, {})).uplink["delta"]
    assert torch.equal(sent, sgd(theta, 0) - theta)

    found = run(setting(algorithm, federation, task, rounds=4, epochs=2, batch_size=5)).server["theta"]
    for round in range(4):
        theta = sgd(theta, round)
    torch.testing.assert_close(found, theta, atol=1e-14, rtol=0)


# update rule --------------------------------------------------------------------------------------------------------


def test_server_step_size_scales_the_average_update():
    """x + eta_g * sum_i w_i (y_i - x)."""
    problem = Quadratics.draw(unequal=True)
    x = np.linspace(-1, 1, DIMENSIONS)
    plain, scaled = (
        one_round(build("fedavg", lr=0.1, server_lr=rate)[0], problem.federation(), x) for rate in (1.0, 0.3)
    )
    np.testing.assert_allclose(scaled - x, 0.3 * (plain - x), atol=1e-14)


def test_step_size_decays_between_rounds():
    """One step per round from the same point: its length falls by the factor of the decay."""
    problem = Quadratics.draw(clients=1)
    algorithm, _ = build("fedavg", lr=0.2, lr_decay=0.5)
    s = setting(algorithm, problem.federation(), epochs=1)
    theta = torch.zeros(DIMENSIONS, dtype=torch.float64)
    for round in range(4):
        moved = advance(s, RunState(round, {"theta": theta}, {})).server["theta"]
        np.testing.assert_allclose(moved.numpy(), 0.2 * 0.5**round * problem.a[0] * problem.b[0], rtol=1e-13)


def test_momentum_starts_at_zero_in_every_round():
    """Optimiser states are made anew: two rounds of three steps, not one path of six."""
    problem = Quadratics.draw(clients=1)
    a, b = problem.a[0], problem.b[0]
    algorithm, _ = build("fedavg", lr=0.1, momentum=0.9)
    s = setting(algorithm, problem.federation(), rounds=2, epochs=3)
    found = run(s).server["theta"].numpy()

    def path(x, restarts):
        velocity = np.zeros(DIMENSIONS)
        for step in range(6):
            if step in restarts:
                velocity = np.zeros(DIMENSIONS)
            velocity = 0.9 * velocity + a * (x - b)
            x = x - 0.1 * velocity
        return x

    start = begin(s).server["theta"].numpy()
    np.testing.assert_allclose(found, path(start, {0, 3}), atol=1e-13)
    assert np.abs(found - path(start, {0})).max() > 1e-3


def test_weight_decay_acts_in_every_local_step():
    """Without a gradient, K steps leave (1 - eta lambda)^K of the model."""
    algorithm, _ = build("fedavg", lr=0.1, weight_decay=0.5)
    nothing = Quadratics(np.zeros((3, DIMENSIONS)), np.ones((3, DIMENSIONS)), np.array([1, 2, 3]))
    found = one_round(algorithm, nothing.federation(), np.full(DIMENSIONS, 7.0), epochs=4)
    np.testing.assert_allclose(found, 7 * 0.95**4, rtol=1e-13)


# traps --------------------------------------------------------------------------------------------------------------


def test_trap_batch_order_differs_between_rounds_and_between_clients():
    spy = Spy(QuadraticTask())
    federation = noisy((8, 8))
    algorithm, _ = build("fedavg")
    run(setting(algorithm, federation, spy, rounds=2, epochs=2, batch_size=1))
    ids = {float(v): i % 8 for i, v in enumerate(federation.pool.x[:, -1])}
    orders = [[ids[v[0]] for v in spy.seen[first : first + 8]] for first in range(0, 64, 8)]
    assert len(spy.seen) == 64
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(order) for order in orders}) == 8  # 2 rounds, 2 clients, 2 epochs: all different


@pytest.mark.parametrize("name", ["fedprox", "scaffold", "fednova", "feddyn", "fedopt"])
def test_trap_batch_order_is_the_same_for_all_methods(name):
    def seen(which):
        spy = Spy(QuadraticTask())
        run(setting(build(which)[0], noisy((8, 5, 7)), spy, rounds=3, epochs=2, batch_size=3, schedule=THIRD))
        return spy.seen

    assert seen(name) == seen("fedavg")


def test_trap_last_partial_batch_is_kept():
    """7 examples in batches of 3 are 3 steps, and a client with fewer examples than a batch takes part."""
    spy = Spy(QuadraticTask())
    federation = noisy((7, 2))
    run(setting(build("fedavg")[0], federation, spy, rounds=1, epochs=1, batch_size=3))
    assert [len(batch) for batch in spy.seen] == [3, 3, 1, 2]
    assert sorted(v for batch in spy.seen for v in batch) == sorted(federation.pool.x[:, -1].tolist())


def test_trap_batch_loss_is_a_mean_over_examples():
    """Twice the same examples give the same gradient."""
    task = nets.task()
    x, y, _ = nets.federation().pool.batch(np.arange(6))
    theta = task.init(0)
    once, _ = task.grad(theta, Batch(x, y))
    twice, _ = task.grad(theta, Batch(torch.cat([x, x]), torch.cat([y, y])))
    torch.testing.assert_close(once, twice, atol=1e-7, rtol=0)
