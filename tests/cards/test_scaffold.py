"""Card scaffold (Karimireddy et al. 2020): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.quadratic import DIMENSIONS, Quadratics, QuadraticTask, build, run, setting
from contract.spies import Spy
from heterobench import models
from heterobench.config.schema import ScheduleFile
from heterobench.engine.client_states import ClientStates
from heterobench.engine.synchronous import RunState, advance, begin
from heterobench.federation import Examples, Federation, batches
from heterobench.schedule import cohort
from heterobench.task import Classification

THIRD = ScheduleFile(title="a third", participation=0.34)
SIZES = (9, 5, 12, 7, 15, 3)


def exact_net() -> Classification:
    return Classification(lambda: models.build(nets.MLP, (1, 4, 4), 3, "test").double())


def exact_federation(sizes=SIZES) -> Federation:
    single = nets.federation(sizes=sizes)
    pool = Examples(single.pool.x.double(), single.pool.y)
    return Federation(pool, single.train, single.validation, single.test, pool)


def mean_variate(state, clients):
    """Mean over all clients of c_i, those that never took part included."""
    return torch.stack([state.client(i)["c"] for i in range(clients)]).mean(0)


# invariants ---------------------------------------------------------------------------------------------------------


def variate_errors(algorithm, rounds=6):
    """Largest |c - mean over ALL clients of c_i| after each round, two clients of six taking part."""
    s = setting(algorithm, exact_federation(), exact_net(), epochs=2, batch_size=4, schedule=THIRD)
    state, errors = begin(s), []
    for _ in range(rounds):
        state = advance(s, state)
        errors.append(float((state.server["c"] - mean_variate(state, len(SIZES))).abs().max()))
    assert float(state.server["c"].abs().max()) > 1e-3
    return errors


@pytest.mark.parametrize("server_lr", [1.0, 0.5])
def test_invariant_1_c_is_the_mean_over_all_clients_of_c_i(server_lr):
    """scaffold 1: after every round, under partial participation and with unequal clients."""
    assert max(variate_errors(build("scaffold", lr=0.1, server_lr=server_lr)[0])) < 1e-14


def test_invariant_1_trap_dividing_by_the_cohort_breaks_it():
    """scaffold 1, trap: the mean of dc over S instead of 1/N times its sum."""
    real, _ = build("scaffold", lr=0.1)
    mutant = replace(real, serve=lambda server, up, info: real.serve(server, up, info._replace(population=info.cohort)))
    assert min(variate_errors(mutant)) > 1e-3


@pytest.mark.parametrize("local", [{}, {"lr_decay": 0.7}], ids=["constant", "decay"])
def test_invariant_2_new_c_i_is_the_mean_gradient_of_the_path(local):
    """scaffold 2: option II, each client with its own number of steps and the step size really used."""
    spy, federation = Spy(exact_net()), exact_federation()
    algorithm, _ = build("scaffold", lr=0.1, **local)
    s = setting(algorithm, federation, spy, epochs=2, batch_size=4, schedule=THIRD)
    state, steps = begin(s), set()
    for round in range(4):
        spy.gradients.clear()
        state = advance(s, state)
        first = 0
        for i in cohort(THIRD, 0, round, np.arange(len(SIZES))):
            k = len(batches(0, round, i, federation.train[i], 2, 4))
            path = torch.stack(spy.gradients[first : first + k]).mean(0)
            torch.testing.assert_close(state.client(int(i))["c"], path, atol=1e-13, rtol=0)
            first += k
            steps.add(k)
        assert first == len(spy.gradients)
    assert len(steps) > 2


def test_invariant_2_weight_decay_is_part_of_the_variate():
    """scaffold 2 with lambda: c_i is the mean of gradient + lambda y along the path (every step has it)."""
    problem, x = Quadratics.draw(clients=1), np.linspace(-1, 1, DIMENSIONS)
    algorithm, _ = build("scaffold", lr=0.1, weight_decay=0.5)
    theta = torch.from_numpy(x)
    start = RunState(0, algorithm.init_server(theta), algorithm.init_client(theta))
    state = advance(setting(algorithm, problem.federation(), epochs=3), start)
    a, b, path = problem.a[0], problem.b[0], []
    for _ in range(3):
        path.append(a * (x - b) + 0.5 * x)
        x = x - 0.1 * path[-1]
    np.testing.assert_allclose(state.client(0)["c"].numpy(), np.mean(path, axis=0), atol=1e-13)


def test_invariant_3_first_round_is_uniform_fedavg_to_the_bit():
    """scaffold 3: with zero variates."""
    found = [
        run(
            setting(
                build(name, lr=0.1, weighting="uniform")[0],
                nets.federation(),
                nets.task(),
                epochs=3,
                batch_size=4,
            )
        )
        for name in ("scaffold", "fedavg")
    ]
    assert torch.equal(found[0].server["theta"], found[1].server["theta"])


def errors_on_quadratics(algorithm, rounds=(100, 200, 300)):
    """Distance to the true optimum after some numbers of rounds of 5 exact steps on 4 different quadratics."""
    problem = Quadratics.draw(clients=4)
    s = setting(algorithm, problem.federation(), epochs=5)
    state, errors = begin(s), []
    while state.round < rounds[-1]:
        state = advance(s, state)
        if state.round in rounds:
            errors.append(np.abs(state.server["theta"].numpy() - problem.optimum("uniform")).max())
    return np.array(errors)


def test_invariant_4_converges_geometrically_to_the_true_optimum():
    """scaffold 4: FedAvg stops at its biased point."""
    errors = errors_on_quadratics(build("scaffold", lr=0.05)[0], (10, 20, 30, 40))
    assert (errors[1:] < 0.5 * errors[:-1]).all()
    plain = errors_on_quadratics(build("fedavg", lr=0.05, weighting="uniform")[0])
    assert plain.min() > 1e-3
    np.testing.assert_allclose(plain, plain[0], rtol=1e-3)


def test_invariant_5_the_optimum_with_matched_variates_stays():
    """scaffold 5: at x* with c_i = grad f_i(x*) and c = 0 a round changes nothing."""
    problem = Quadratics.draw(clients=6)
    optimum = problem.optimum("uniform")
    algorithm, _ = build("scaffold", lr=0.1)
    c = torch.from_numpy(problem.a * (optimum - problem.b))
    theta = torch.from_numpy(optimum)
    variates = ClientStates.of({i: {"c": c[i]} for i in range(6)})
    state = RunState(0, algorithm.init_server(theta), algorithm.init_client(theta), variates)
    for _ in range(3):
        state = advance(setting(algorithm, problem.federation(), epochs=5), state)
    np.testing.assert_allclose(state.server["theta"].numpy(), optimum, atol=1e-14)
    np.testing.assert_allclose(state.server["c"].numpy(), 0, atol=1e-14)
    for i in range(6):
        np.testing.assert_allclose(state.client(i)["c"].numpy(), c[i].numpy(), atol=1e-13)


def test_invariant_6_clients_outside_the_cohort_keep_their_variate():
    """scaffold 6: to the bit."""
    algorithm, _ = build("scaffold", lr=0.1)
    s = setting(algorithm, nets.federation(SIZES), nets.task(), epochs=2, batch_size=4, schedule=THIRD)
    state = begin(s)
    for round in range(5):
        before = {i: state.client(i)["c"].clone() for i in range(len(SIZES))}
        state = advance(s, state)
        chosen = set(cohort(THIRD, 0, round, np.arange(len(SIZES))).tolist())
        same = {i for i in before if torch.equal(state.client(i)["c"], before[i])}
        assert same == set(before) - chosen


# traps --------------------------------------------------------------------------------------------------------------


def test_trap_all_clients_of_a_round_use_the_old_c():
    """Three clients with the same data and state send the same bits, whoever comes first."""
    problem = Quadratics.draw(clients=1)
    same = Quadratics(problem.a[[0] * 3], problem.b[[0] * 3], np.full(3, 2))
    algorithm, _ = build("scaffold", lr=0.1)
    s = setting(algorithm, same.federation(), rounds=3)
    state = run(s)
    assert torch.equal(state.client(0)["c"], state.client(1)["c"])
    assert torch.equal(state.client(0)["c"], state.client(2)["c"])


def test_trap_variates_start_at_zero():
    algorithm, _ = build("scaffold")
    theta = torch.randn(7)
    assert not algorithm.init_client(theta)["c"].any()
    assert not algorithm.init_server(theta)["c"].any()


def test_traffic_is_twice_that_of_fedavg():
    """Down x and c, up dy and dc: 16 P bytes per client in float32 (and its number of examples)."""
    task, federation = nets.task(), nets.federation()
    found = run(setting(build("scaffold")[0], federation, task, epochs=1))
    p = len(task.init(0))
    assert found.bytes_down == 4 * 8 * p
    assert found.bytes_up == 4 * (8 * p + 8)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"momentum": 1.0}, "momentum"),
        ({"weighting": "median"}, "weighting"),
        ({"option": "I"}, "unknown key 'option'"),
    ],
)
def test_what_is_not_offered_is_refused(settings, key):
    """Option I, among other things."""
    with pytest.raises(ValidationError, match=key):
        build("scaffold", **settings)


def test_beside_momentum_the_correction_stands_outside_of_it():
    """One client's path by hand: v <- rho v + g, y <- y - lr (v + c - c_i), and option II on that path."""
    lr, rho, problem = 0.1, 0.9, Quadratics.draw(clients=2)
    s = setting(build("scaffold", lr=lr, momentum=rho)[0], problem.federation(), epochs=4, rounds=2)
    c, own = np.zeros(DIMENSIONS), np.zeros((2, DIMENSIONS))
    x = begin(s).server["theta"].numpy()
    for _ in range(2):
        ends, before = [], own.copy()
        for i in range(2):
            y, v = x.copy(), np.zeros(DIMENSIONS)
            for _ in range(4):
                v = rho * v + problem.a[i] * (y - problem.b[i])
                y = y - lr * (v + c - before[i])
            own[i] = before[i] - c + (x - y) / (4 * lr)
            ends.append(y)
        x, c = np.mean(ends, axis=0), c + (own - before).mean(axis=0)
    found = run(s)
    np.testing.assert_allclose(found.server["theta"], x, rtol=1e-12)
    np.testing.assert_allclose(found.server["c"], c, rtol=1e-10)


def test_weighted_means_are_of_the_models_alone():
    """The variates stay what they are: c is the mean of all c_i whatever the weights."""
    task, federation = exact_net(), exact_federation()
    found = [run(setting(build("scaffold", weighting=w)[0], federation, task)) for w in ("uniform", "weighted")]
    for state in found:
        np.testing.assert_allclose(state.server["c"], mean_variate(state, len(SIZES)), atol=1e-14)
    assert not torch.equal(found[0].server["theta"], found[1].server["theta"])
    # c was 0, so dy_i = -(sum of the step sizes) c_i
    n = np.array([len(rows) for rows in federation.train])
    dy = sum(w * -5 * 0.1 * found[1].client(i)["c"] for i, w in enumerate(n / n.sum()))
    torch.testing.assert_close(found[1].server["theta"], task.init(0) + dy, rtol=1e-10, atol=1e-12)


# the oracle has teeth -----------------------------------------------------------------------------------------------


def accepts(algorithm) -> bool:
    return bool(errors_on_quadratics(algorithm)[-1] < 1e-7)


def test_oracle_accepts_scaffold():
    assert accepts(build("scaffold", lr=0.05)[0])


@pytest.mark.parametrize("factor", [-1.0, 0.0], ids=["flipped", "dropped"])
def test_oracle_rejects_a_wrong_correction(factor):
    """Mutations: the sign of c - c_i flipped in the local steps, or the correction left out."""
    real, _ = build("scaffold", lr=0.05)

    def start(down, client):
        work = real.start(down, client)
        return work | {"correction": factor * work["correction"]}

    assert not accepts(replace(real, start=start))


def test_oracle_rejects_variates_of_the_server_alone():
    """Mutation: c_i stays zero."""
    real, _ = build("scaffold", lr=0.05)

    def finish(work, down, client, done):
        return real.finish(work, down, client, done)[0], client

    assert not accepts(replace(real, finish=finish))


def test_the_task_of_these_tests_is_exact():
    """Every mini-batch of a quadratic client has the gradient of its whole objective."""
    federation = Quadratics.draw(unequal=True).federation()
    theta = torch.zeros(DIMENSIONS, dtype=torch.float64)
    whole, _ = QuadraticTask().grad(theta, federation.pool.batch(federation.train[3]))
    one, _ = QuadraticTask().grad(theta, federation.pool.batch(federation.train[3][:1]))
    torch.testing.assert_close(whole, one, atol=1e-15, rtol=0)
