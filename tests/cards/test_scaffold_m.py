"""Card fedavg-m-scaffold-m (Cheng et al. 2024), SCAFFOLD-M: invariants 1, 4-6 and traps, through the real engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.quadratic import Quadratics, build, run, setting
from contract.spies import Listening, Spy, exact_net, noisy, rounds
from heterobench.config.schema import ScheduleFile
from heterobench.engine.client_states import ClientStates
from heterobench.engine.synchronous import RunState, advance, begin
from heterobench.federation import batches
from heterobench.schedule import cohort

HALF = ScheduleFile(title="half", participation=0.5)


def variates(state, clients):
    """All clients' c_i, [clients, P]."""
    return torch.stack([state.client(i)["c"] for i in range(clients)])


# invariants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server_lr", [1.0, 0.5])
def test_invariant_1_without_momentum_it_is_scaffold(server_lr):
    """scaffold-m 1: beta = 1: server model, server variate and client variates, with equal numbers of steps."""
    federation, task = nets.federation(sizes=(10, 10, 10, 10), dtype=torch.float64), nets.task(torch.float64)
    ours, theirs = (
        run(
            setting(
                build(name, lr=0.1, server_lr=server_lr, weight_decay=0.02, **more)[0],
                federation,
                task,
                rounds=5,
                epochs=2,
                batch_size=4,
                schedule=HALF,
            )
        )
        for name, more in (("scaffold-m", {"beta": 1.0}), ("scaffold", {}))
    )
    for key in ("theta", "c"):
        torch.testing.assert_close(ours.server[key], theirs.server[key], atol=1e-12, rtol=0)
    torch.testing.assert_close(variates(ours, 4), variates(theirs, 4), atol=1e-12, rtol=0)
    assert variates(ours, 4).abs().max() > 1e-2


def error_on_quadratics(algorithm, rounds=300) -> float:
    """Distance to the true optimum after `rounds` rounds of 5 exact steps on 4 different quadratics."""
    problem = Quadratics.draw(clients=4)
    found = run(setting(algorithm, problem.federation(), rounds=rounds, epochs=5)).server["theta"].numpy()
    return float(np.abs(found - problem.optimum("uniform")).max())


@pytest.mark.parametrize("beta", [0.2, 0.5, 1.0])
def test_invariant_4_fixed_point_is_the_true_optimum(beta):
    """scaffold-m 4: where FedAvg-M stalls at a biased point."""
    assert error_on_quadratics(build("scaffold-m", lr=0.05, beta=beta)[0]) < 1e-7
    assert error_on_quadratics(build("fedavg-m", lr=0.05, beta=beta)[0]) > 1e-4


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_invariant_5_c_is_the_mean_of_all_c_i(beta):
    """scaffold-m 5: under partial participation and with unequal clients, those that never took part included."""
    task, federation = exact_net()
    algorithm, _ = build("scaffold-m", lr=0.1, beta=beta)
    s = setting(algorithm, federation, task, epochs=2, batch_size=4, schedule=HALF)
    for state in rounds(s, 6):
        torch.testing.assert_close(state.server["c"], variates(state, 4).mean(0), atol=1e-13, rtol=0)
    assert state.server["c"].abs().max() > 1e-3


def test_invariant_5_trap_dividing_by_the_cohort_is_noticed():
    task, federation = exact_net()
    real, _ = build("scaffold-m", lr=0.1)
    mutant = replace(real, serve=lambda server, up, info: real.serve(server, up, info._replace(population=info.cohort)))
    *_, state = rounds(setting(mutant, federation, task, epochs=2, batch_size=4, schedule=HALF), 4)
    assert (state.server["c"] - variates(state, 4).mean(0)).abs().max() > 1e-3


def test_invariant_5_the_optimum_with_matched_variates_stays():
    """scaffold-m 5: at x* with c_i = grad f_i(x*), c = 0 and g = 0 nothing moves."""
    problem = Quadratics.draw(clients=6)
    optimum = problem.optimum("uniform")
    algorithm, _ = build("scaffold-m", lr=0.1, beta=0.3)
    c, theta = torch.from_numpy(problem.a * (optimum - problem.b)), torch.from_numpy(optimum)
    states = ClientStates.of({i: {"c": c[i]} for i in range(6)})
    state = RunState(0, algorithm.init_server(theta), algorithm.init_client(theta), states)
    for _ in range(3):
        state = advance(setting(algorithm, problem.federation(), epochs=5), state)
    torch.testing.assert_close(state.server["theta"], theta, atol=1e-13, rtol=0)
    for key in ("c", "g"):
        assert state.server[key].abs().max() < 1e-13
    torch.testing.assert_close(variates(state, 6), c, atol=1e-12, rtol=0)


def test_invariant_6_server_model_is_the_mean_of_the_local_models():
    """scaffold-m 6: gamma = eta K (server_lr = 1)."""
    spy = Listening(build("scaffold-m", lr=0.1, beta=0.3)[0])
    s = setting(spy.algorithm, noisy((6, 6, 6, 6)), epochs=2, batch_size=4, schedule=HALF)
    x = begin(s).server["theta"]
    for state in rounds(s, 5):
        mean, x = x + torch.stack(spy.deltas[-2:]).mean(0), state.server["theta"]
        torch.testing.assert_close(x, mean, atol=1e-13, rtol=0)


# traps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [{}, {"lr_decay": 0.6}], ids=["constant", "decay"])
def test_trap_c_i_is_the_mean_of_the_raw_gradients(local):
    """Not of u: each client with its own number of steps, the step size really used, momentum well under way."""
    task, federation = exact_net()
    spy = Spy(task)
    algorithm, _ = build("scaffold-m", lr=0.1, beta=0.2, **local)
    s = setting(algorithm, federation, spy, epochs=2, batch_size=4, schedule=HALF)
    steps = set()
    for round, state in enumerate(rounds(s, 5)):
        first = 0
        for i in cohort(HALF, 0, round, np.arange(4)):
            k = len(batches(0, round, i, federation.train[i], 2, 4))
            path = torch.stack(spy.gradients[first : first + k]).mean(0)
            torch.testing.assert_close(state.client(int(i))["c"], path, atol=1e-11, rtol=0)
            first += k
            steps.add(k)
        assert first == len(spy.gradients)
        spy.gradients.clear()
    assert len(steps) > 1
    assert state.server["g"].abs().max() > 1e-2


def test_trap_a_variate_of_u_is_noticed():
    """Mutation: c_i = (x - y_i)/(K eta), which contains beta and g."""
    real, _ = build("scaffold-m", lr=0.05, beta=0.5)

    def finish(work, down, client, done):
        up, _ = real.finish(work, down, client, done)
        return up | {"dc": up["g"] - client["c"]}, {"c": up["g"]}

    assert error_on_quadratics(replace(real, finish=finish)) > 1e-4
    assert error_on_quadratics(real) < 1e-7


def test_traffic_is_five_vectors():
    """Down x, g and c, up two vectors (and the length of the path): 20 P bytes."""
    task = nets.task()
    found = run(setting(build("scaffold-m")[0], nets.federation(), task, epochs=1))
    p = len(task.init(0))
    assert found.bytes_down == 4 * 12 * p
    assert found.bytes_up == 4 * (8 * p + 4 + 8)


@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"weighting": "weighted"}, {"beta": 0.0}], ids=str)
def test_what_is_not_offered_is_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build("scaffold-m", **settings)
