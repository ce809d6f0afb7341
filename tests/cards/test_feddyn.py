"""Card feddyn (Acar et al. 2021): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.quadratic import DIMENSIONS, Quadratics, QuadraticTask, build, run, setting
from contract.spies import noisy
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import advance, begin
from heterobench.federation import batches
from heterobench.schedule import cohort

HALF = ScheduleFile(title="half", participation=0.5)


def calm(clients=6) -> Quadratics:
    """Curvatures in 0.5..2, so that a few dozen steps solve a local problem exactly."""
    rng = np.random.default_rng(2)
    a, b = rng.uniform(0.5, 2.0, (clients, DIMENSIONS)), rng.normal(size=(clients, DIMENSIONS))
    return Quadratics(a, b, np.full(clients, 2))


def exact(alpha: float) -> dict:
    """Step size and epochs that solve (a + alpha)-curved problems to rounding."""
    low, high = 0.5 + alpha, 2.0 + alpha
    contraction = (high - low) / (high + low)
    return {"lr": 2 / (low + high), "alpha": alpha}, int(np.ceil(np.log(1e-15) / np.log(contraction)))


def linear_terms(state, clients):
    return np.stack([state.client(i)["h"].numpy() for i in range(clients)])


class Listening:
    """An algorithm that remembers the updates y_i - x of its clients."""

    def __init__(self, algorithm):
        self.deltas = []

        def finish(work, down, client, done):
            self.deltas.append((work["theta"] - down["theta"]).numpy().copy())
            return algorithm.finish(work, down, client, done)

        self.algorithm = replace(algorithm, finish=finish)


# invariants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [ScheduleFile(title="all"), HALF], ids=["all", "half"])
def test_invariant_1_first_round_is_fedprox_plus_the_mean_of_h(schedule):
    """feddyn 1: mu = alpha; the server adds (1/N) sum over S of (y_i - x)."""
    task, federation = nets.task(), nets.federation()
    dyn = setting(build("feddyn", lr=0.1, alpha=0.3)[0], federation, task, epochs=3, batch_size=4, schedule=schedule)
    prox, _ = build("fedprox", lr=0.1, mu=0.3, weighting="uniform")
    ours = advance(dyn, begin(dyn))
    theirs = run(setting(prox, federation, task, epochs=3, batch_size=4, schedule=schedule)).server["theta"]
    assert torch.equal(ours.server["mean"], theirs)

    share = len(cohort(schedule, 0, 0, np.arange(4))) / 4
    expected = theirs + share * (theirs - task.init(0))
    torch.testing.assert_close(ours.server["theta"], expected, atol=1e-6, rtol=0)
    added = torch.stack([ours.client(i)["h"] for i in range(4)]).mean(0)
    torch.testing.assert_close(ours.server["theta"], theirs + added, atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_invariant_2_exact_local_minimisers_make_h_the_gradient(alpha):
    """feddyn 2: h_i = -grad f_i(y_i)/alpha, in every round."""
    problem = calm()
    hp, steps = exact(alpha)
    algorithm, _ = build("feddyn", **hp)
    s = setting(algorithm, problem.federation(), epochs=steps)
    state = begin(s)
    for _ in range(3):
        x, before = state.server["theta"].numpy(), linear_terms(state, 6)
        state = advance(s, state)
        h = linear_terms(state, 6)
        y = x + h - before
        np.testing.assert_allclose(h, -problem.a * (y - problem.b) / alpha, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0])
def test_invariant_3_converges_to_the_optimum_for_any_alpha(alpha):
    """feddyn 3: exact local solves; the clients disagree at first and agree in the end."""
    problem = calm()
    hp, steps = exact(alpha)
    s = setting(build("feddyn", **hp)[0], problem.federation(), epochs=steps)
    first = advance(s, begin(s))
    assert linear_terms(first, 6).std(0).min() > 0.05
    state = first
    for _ in range(100):
        state = advance(s, state)
    optimum = (problem.a * problem.b).sum(0) / problem.a.sum(0)
    np.testing.assert_allclose(state.server["theta"].numpy(), optimum, atol=1e-6)
    before = linear_terms(state, 6)
    x = state.server["theta"].numpy()
    y = x + linear_terms(advance(s, state), 6) - before
    np.testing.assert_allclose(y, np.tile(optimum, (6, 1)), atol=1e-6)


def bookkeeping_errors(algorithm, clients=6):
    """After each round: |sum of h_i - sum of all past updates|, and |server's h - mean over all N of h_i|."""
    spy = Listening(algorithm)
    s = setting(spy.algorithm, noisy((4, 5, 3, 6, 2, 7)), epochs=2, batch_size=3, schedule=HALF)
    state, errors = begin(s), []
    for _ in range(8):
        state = advance(s, state)
        h = linear_terms(state, clients)
        errors += [np.abs(h.sum(0) - np.sum(spy.deltas, axis=0)).max()]
        errors += [np.abs(h.mean(0) - state.server["h"].numpy()).max()]
    return errors


def test_invariant_4_h_sums_all_past_updates():
    """feddyn 4: under partial participation; the server's h is the mean over all N clients, not over S."""
    assert max(bookkeeping_errors(build("feddyn", lr=0.1, alpha=0.3)[0])) < 1e-13


def test_invariant_4_trap_the_mean_of_h_over_the_cohort_is_noticed():
    """feddyn 4, trap: averaging h over S instead of N."""
    real, _ = build("feddyn", lr=0.1, alpha=0.3)
    mutant = replace(real, serve=lambda server, up, info: real.serve(server, up, info._replace(population=info.cohort)))
    assert max(bookkeeping_errors(mutant)) > 1e-3


def test_invariant_4_trap_a_forgotten_h_is_noticed():
    """feddyn 4, trap: a client's h is not kept between its rounds."""
    real, _ = build("feddyn", lr=0.1, alpha=0.3)

    def finish(work, down, client, done):
        up, _ = real.finish(work, down, client, done)
        return up, {"h": up["delta"]}

    assert max(bookkeeping_errors(replace(real, finish=finish))) > 1e-3


def test_invariant_5_server_moves_by_mean_update_plus_mean_h():
    """feddyn 5: full participation; in round 1 twice the mean update."""
    spy = Listening(build("feddyn", lr=0.1, alpha=0.3)[0])
    s = setting(spy.algorithm, noisy((4, 5, 3, 6)), epochs=2, batch_size=3)
    state = begin(s)
    for round in range(5):
        x, known = state.server["theta"].numpy(), len(spy.deltas)
        state = advance(s, state)
        update, moved = np.mean(spy.deltas[known:], axis=0), state.server["theta"].numpy() - x
        np.testing.assert_allclose(moved, update + linear_terms(state, 4).mean(0), atol=1e-13)
        if round == 0:
            np.testing.assert_allclose(moved, 2 * update, atol=1e-13)


@pytest.mark.parametrize("schedule", [ScheduleFile(title="all"), HALF], ids=["all", "half"])
def test_invariant_6_paper_form_gives_the_same_models(schedule):
    """feddyn 6: a plain loop in the variables of the paper (stored gradients, server h), the same batches."""
    alpha, lr, federation, task = 0.4, 0.1, noisy((4, 5, 3, 6)), QuadraticTask()
    algorithm, _ = build("feddyn", lr=lr, alpha=alpha)
    s = setting(algorithm, federation, task, epochs=2, batch_size=3, schedule=schedule)
    state = begin(s)
    x = state.server["theta"].numpy()
    stored, h = np.zeros((4, DIMENSIONS)), np.zeros(DIMENSIONS)
    for round in range(8):
        chosen, models = cohort(schedule, 0, round, np.arange(4)), []
        for i in chosen:
            y = x.copy()
            for rows in batches(0, round, i, federation.train[i], 2, 3):
                g = task.grad(torch.from_numpy(y), federation.pool.batch(rows))[0].numpy()
                y = y - lr * (g - stored[i] + alpha * (y - x))
            stored[i] -= alpha * (y - x)
            models.append(y)
        h = h - alpha / 4 * sum(y - x for y in models)
        mean = np.mean(models, axis=0)
        x = mean - h / alpha
        state = advance(s, state)
        np.testing.assert_allclose(state.server["theta"].numpy(), x, atol=1e-12)
        np.testing.assert_allclose(algorithm.model(state.server).numpy(), mean, atol=1e-12)


# traps --------------------------------------------------------------------------------------------------------------


def test_trap_the_pull_is_alpha_times_the_distance():
    """The squared norm: twice as far from x - h_i, twice the pull; the plain loss is reported."""
    algorithm, _ = build("feddyn", alpha=0.3)
    task, federation = QuadraticTask(), calm(1).federation()
    batch = federation.pool.batch(np.arange(1))
    x, h = torch.ones(DIMENSIONS, dtype=torch.float64), torch.full((DIMENSIONS,), 0.5, dtype=torch.float64)
    for distance in (1.0, 2.0, 20.0):
        work = algorithm.start({"theta": x}, {"h": h})
        work["theta"].copy_(x - h + distance)
        g, aux = algorithm.grad(work, batch, task)
        plain, expected = task.grad(work["theta"], batch)
        torch.testing.assert_close(g - plain, torch.full_like(g, 0.3 * distance), atol=1e-13, rtol=0)
        assert aux["loss"] == expected["loss"]


def test_trap_the_mean_of_the_local_models_is_evaluated():
    """Not the server's x, which runs ahead of it."""
    algorithm, _ = build("feddyn", lr=0.1)
    state = run(setting(algorithm, noisy((4, 5, 3)), rounds=2, batch_size=3))
    assert algorithm.model(state.server) is state.server["mean"]
    assert (state.server["mean"] - state.server["theta"]).abs().max() > 1e-3


def test_alpha_is_the_same_for_small_and_large_clients():
    """Declared deviation: the paper's form, not the code's alpha / w_i."""
    one = calm(1)
    same = Quadratics(one.a[[0, 0]], one.b[[0, 0]], np.array([1, 9]))
    state = run(setting(build("feddyn", lr=0.1)[0], same.federation(), rounds=2))
    torch.testing.assert_close(state.client(0)["h"], state.client(1)["h"], atol=1e-14, rtol=0)


def test_traffic_is_that_of_fedavg():
    """Down x, up one vector: h never travels."""
    ours, plain = (
        run(setting(build(name)[0], nets.federation(), nets.task(), epochs=1)) for name in ("feddyn", "fedavg")
    )
    assert (ours.bytes_up, ours.bytes_down) == (plain.bytes_up, plain.bytes_down)


@pytest.mark.parametrize(
    "settings", [{"momentum": 0.9}, {"weighting": "weighted"}, {"server_lr": 0.5}, {"alpha": 0.0}], ids=str
)
def test_what_is_not_offered_is_refused(settings):
    """Declared: no local momentum, the uniform mean, no server step size; alpha is a divisor."""
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build("feddyn", **settings)


# the oracle has teeth -----------------------------------------------------------------------------------------------


def accepts(algorithm) -> bool:
    """Do 300 rounds of 5 exact steps end at the optimum of the average?"""
    problem = Quadratics.draw(clients=4)
    found = run(setting(algorithm, problem.federation(), rounds=300, epochs=5)).server["mean"].numpy()
    return bool(np.abs(found - problem.optimum("uniform")).max() < 1e-6)


def mutated(direction):
    """FedDyn with local gradient grad f + alpha * direction(y, x - h)."""
    real, _ = build("feddyn", lr=0.05, alpha=0.5)
    plain, _ = build("fedavg")

    def grad(work, batch, task):
        g, aux = plain.grad(work, batch, task)
        return g + 0.5 * direction(work["theta"], work["target"]), aux

    return replace(real, grad=grad)


def test_oracle_accepts_feddyn():
    assert accepts(build("feddyn", lr=0.05, alpha=0.5)[0])
    assert accepts(mutated(lambda y, target: y - target))


def test_oracle_rejects_a_missing_quadratic_term():
    """Mutation: only the linear term alpha <y, h_i - x> is added."""
    assert not accepts(mutated(lambda y, target: -target))


def test_oracle_rejects_the_norm_that_is_not_squared():
    """Mutation: the pull has constant length alpha."""
    assert not accepts(mutated(lambda y, target: (y - target) / (y - target).norm().clamp(min=1e-12)))


def test_oracle_rejects_linear_terms_that_are_never_learnt():
    """Mutation: h_i stays zero (FedProx with the server's extra step)."""
    real, _ = build("feddyn", lr=0.05, alpha=0.5)

    def finish(work, down, client, done):
        return real.finish(work, down, client, done)[0], client

    assert not accepts(replace(real, finish=finish))
