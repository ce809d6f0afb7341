"""Card fedavg-m-scaffold-m (Cheng et al. 2024), FedAvg-M: invariants 1-4 and 6 and traps, through the real engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.quadratic import DIMENSIONS, Quadratics, QuadraticTask, build, run, setting
from contract.spies import Listening, Spy, noisy, rounds
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import begin

SIZES = (4, 5, 3, 7)
HALF = ScheduleFile(title="half", participation=0.5)


# invariants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server_lr", [1.0, 0.5])
def test_invariant_1_without_momentum_it_is_fedavg(server_lr):
    """fedavg-m 1: beta = 1 and gamma = server_lr eta K, every client with the same K."""
    federation, task = nets.federation(sizes=(10, 10, 10, 10), dtype=torch.float64), nets.task(torch.float64)
    ours, plain = (
        run(
            setting(
                build(name, lr=0.1, server_lr=server_lr, weight_decay=0.02, weighting="uniform", **more)[0],
                federation,
                task,
                rounds=4,
                epochs=2,
                batch_size=4,
                schedule=HALF,
            )
        ).server["theta"]
        for name, more in (("fedavg-m", {"beta": 1.0}), ("fedavg", {}))
    )
    torch.testing.assert_close(ours, plain, atol=1e-13, rtol=0)


@pytest.mark.parametrize("local", [{}, {"lr_decay": 0.6}], ids=["constant", "decay"])
@pytest.mark.parametrize("schedule", [ScheduleFile(title="all"), HALF], ids=["all", "half"])
def test_invariant_2_g_is_beta_times_the_average_gradient_plus_the_old_g(local, schedule):
    """fedavg-m 2: also with a decaying step size (trap: eta of the round that produced g).

    The average over S of each client's mean over its OWN K steps (trap: dividing by the largest K).
    """
    spy, beta, lr = Spy(QuadraticTask()), 0.3, 0.1
    algorithm, _ = build("fedavg-m", lr=lr, beta=beta, **local)
    s = setting(algorithm, noisy(SIZES), spy, epochs=2, batch_size=3, schedule=schedule)
    g, steps = torch.zeros(DIMENSIONS, dtype=torch.float64), set()
    x = begin(s).server["theta"]
    for state in rounds(s, 6):
        starts = [k for k, theta in enumerate(spy.thetas) if torch.equal(theta, x)]
        paths = [spy.gradients[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
        steps |= {len(path) for path in paths}
        mean = torch.stack([torch.stack(path).mean(0) for path in paths]).mean(0)
        g, x = beta * mean + (1 - beta) * g, state.server["theta"]
        torch.testing.assert_close(state.server["g"], g, atol=1e-12, rtol=0)
        spy.gradients.clear()
        spy.thetas.clear()
    assert len(steps) > 1


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_invariant_3_one_step_is_heavy_ball_whoever_holds_the_data(beta):
    """fedavg-m 3: K = 1, everybody: g <- beta grad F(x) + (1 - beta) g, x <- x - gamma g."""
    problem, lr = Quadratics.draw(), 0.2
    a, b = problem.a, problem.b
    mixed = Quadratics(np.tile(a.mean(0), (10, 1)), np.tile((a * b).mean(0) / a.mean(0), (10, 1)), problem.n)
    s, same = (setting(build("fedavg-m", lr=lr, beta=beta)[0], p.federation(), epochs=1) for p in (problem, mixed))
    x, g = begin(s).server["theta"].numpy(), np.zeros(DIMENSIONS)
    for state, other in zip(rounds(s, 20), rounds(same, 20), strict=True):
        g = beta * (a * (x - b)).mean(0) + (1 - beta) * g
        x = x - lr * g
        np.testing.assert_allclose(state.server["theta"].numpy(), x, atol=1e-12)
        np.testing.assert_allclose(other.server["theta"].numpy(), x, atol=1e-12)


@pytest.mark.parametrize("beta", [0.2, 0.5, 1.0])
def test_invariant_4_fixed_point_is_fedavgs_with_local_rate_beta_eta(beta):
    """fedavg-m 4: several steps, full participation, quadratics."""
    problem = Quadratics.draw()
    s = setting(build("fedavg-m", lr=0.1, beta=beta)[0], problem.federation(), rounds=250, epochs=5)
    found = run(s).server["theta"].numpy()
    np.testing.assert_allclose(found, problem.fixed_point("uniform", beta * 0.1, np.full(10, 5)), atol=1e-9)


def test_invariant_4_drift_shrinks_linearly_with_beta():
    """fedavg-m 4: the distance to the true optimum, for small beta eta."""
    problem = Quadratics.draw(clients=5)
    optimum = problem.optimum("uniform")
    distances = []
    for beta in (0.2, 0.1):
        s = setting(build("fedavg-m", lr=0.02, beta=beta)[0], problem.federation(), rounds=400, epochs=5)
        distances.append(np.abs(run(s).server["theta"].numpy() - optimum).max())
    assert distances[0] / distances[1] == pytest.approx(2, rel=0.02)


def test_invariant_6_server_model_is_the_mean_of_the_local_models():
    """fedavg-m 6: gamma = eta K (server_lr = 1)."""
    spy = Listening(build("fedavg-m", lr=0.1, beta=0.3)[0])
    s = setting(spy.algorithm, noisy((6, 6, 6, 6)), epochs=2, batch_size=4, schedule=HALF)
    x = begin(s).server["theta"]
    for state in rounds(s, 5):
        mean, x = x + torch.stack(spy.deltas[-2:]).mean(0), state.server["theta"]
        torch.testing.assert_close(x, mean, atol=1e-13, rtol=0)


# traps --------------------------------------------------------------------------------------------------------------


def test_trap_g_is_the_same_for_all_clients_and_constant_in_a_round():
    """No momentum of a client's own: equal clients send equal bits, and none keeps a state."""
    problem = Quadratics.draw(clients=1)
    same = Quadratics(problem.a[[0, 0]], problem.b[[0, 0]], np.full(2, 3))
    spy = Listening(build("fedavg-m", lr=0.1)[0])
    state = run(setting(spy.algorithm, same.federation(), rounds=3))
    assert torch.equal(spy.deltas[-1], spy.deltas[-2])
    assert not state.client(0)


def test_trap_unequal_work_weighs_the_same():
    """Fixed point with K_i steps each: each client's movement divided by its own K_i."""
    problem = Quadratics.draw(unequal=True)
    s = setting(build("fedavg-m", lr=0.1, beta=0.5)[0], problem.federation(), rounds=250, epochs=2, batch_size=1)
    expected = problem.fixed_point("uniform", 0.05, 2 * problem.n, normalised=True)
    np.testing.assert_allclose(run(s).server["theta"].numpy(), expected, atol=1e-9)


def test_weight_decay_is_part_of_the_fresh_gradient():
    """Heavy ball on f + lambda/2 ||x||^2: its fixed point is that of the decayed objective, whatever beta."""
    problem = Quadratics.draw(clients=3)
    s = setting(build("fedavg-m", lr=0.1, beta=0.2, weight_decay=0.5)[0], problem.federation(), rounds=250, epochs=1)
    a, b = problem.a, problem.b
    np.testing.assert_allclose(run(s).server["theta"].numpy(), (a * b).sum(0) / (a + 0.5).sum(0), atol=1e-9)


def test_trap_not_fedavgm():
    """The momentum of fedopt stays on the server: with 5 local steps the paths differ."""
    federation = Quadratics.draw().federation()
    ours, theirs = (
        run(setting(build(name, lr=0.1, **more)[0], federation, rounds=5)).server["theta"]
        for name, more in (("fedavg-m", {"beta": 0.5}), ("fedopt", {"beta1": 0.5, "server_lr": 0.5}))
    )
    assert (ours - theirs).abs().max() > 1e-2


def test_traffic_is_three_vectors():
    """Down x and g, up one vector (and the length of its path): 12 P bytes."""
    task = nets.task()
    found = run(setting(build("fedavg-m")[0], nets.federation(), task, epochs=1))
    p = len(task.init(0))
    assert found.bytes_down == 4 * 8 * p
    assert found.bytes_up == 4 * (4 * p + 4 + 8)


@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"weighting": "weighted"}, {"beta": 0.0}], ids=str)
def test_what_is_not_offered_is_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build("fedavg-m", **settings)
