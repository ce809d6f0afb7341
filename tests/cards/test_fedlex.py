"""Card fedlex (Interno et al. 2024): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.quadratic import DIMENSIONS, Quadratics, build, run, setting
from contract.spies import Listening, exact_net, rounds
from heterobench.algorithms._local_adamw import LocalAdamW
from heterobench.algorithms.fedlex import minmax
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import RunState, advance, begin
from heterobench.federation import batches
from heterobench.schedule import cohort

F64 = torch.float64
HALF = ScheduleFile(title="half", participation=0.5)


def guided(algorithm, theta, guidance) -> RunState:
    """A state after the exploration, with a chosen M [P]."""
    server = algorithm.init_server(theta) | {"guidance": guidance, "exploring": theta.new_zeros(())}
    return RunState(1, server, algorithm.init_client(theta))


def after(algorithm, theta, guidance, count=3, **more):
    """theta [P] after some rounds of a net that begin with M."""
    task, federation = exact_net()
    s = setting(algorithm, federation, task, epochs=2, batch_size=4, **more)
    *_, state = rounds(s, count, guided(algorithm, theta, guidance))
    return state.server["theta"]


# invariants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_invariant_1_guidance_of_ones_is_fedavg_with_server_momentum(beta):
    """fedlex 1: beta = 0 is plain FedAvg, to the bit."""
    task, federation = exact_net()
    theta = task.init(0)
    algorithm, _ = build("fedlex", lr=0.1, server_momentum=beta)
    plain, _ = build("fedavg", lr=0.1)
    s = setting(plain, federation, task, epochs=2, batch_size=4)
    x, buffer = theta, torch.zeros_like(theta)
    for round in range(1, 4):
        y = advance(s, RunState(round, {"theta": x}, {})).server["theta"]
        buffer = beta * buffer + (1 - beta) * (x - y)
        x = x - buffer if beta else y
    found = after(algorithm, theta, torch.ones_like(theta))
    assert torch.equal(found, x) if not beta else torch.allclose(found, x, atol=1e-14, rtol=0)
    without, _ = build("fedlex", lr=0.1, server_momentum=beta, guidance="none")
    *_, state = rounds(
        setting(without, federation, task, epochs=2, batch_size=4), 3, RunState(1, without.init_server(theta), {})
    )
    assert torch.equal(state.server["theta"], found)


def test_invariant_2_guidance_spans_0_to_1_in_every_tensor():
    """fedlex 2: in every tensor with non-constant D (trap: a constant one has M = 1)."""
    d = torch.tensor([1.0, 3.0, 2.0, 5.0, 5.0, 0.0, 0.0, 7.0, 0.0, 4.0], dtype=F64)
    expected = [0, 1, 0.5, 1, 1, 1, 1, 1, 0, 4 / 7]
    assert minmax(d, (3, 2, 2, 3)).tolist() == pytest.approx(expected)
    task, federation = exact_net()
    s = setting(build("fedlex", lr=0.1)[0], federation, task, epochs=2, batch_size=4)
    for part in task.layout.split(advance(s, begin(s)).server["guidance"]).values():
        assert (float(part.min()), float(part.max())) == (0, 1)


@pytest.mark.parametrize("c", [1e-6, 0.3, 1e6])
def test_invariant_2_scale_of_the_deviations_does_not_matter(c):
    d = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=F64)
    torch.testing.assert_close(minmax(c * d, (12, 8)), minmax(d, (12, 8)), atol=1e-13, rtol=0)


@pytest.mark.parametrize("explorers", [1, 3])
def test_invariant_3_identical_explorers_are_one(explorers):
    """fedlex 3: D = (s_1 - b)^2 with b the initial model; in closed form on a quadratic."""
    problem = Quadratics.draw(clients=1)
    a, b = (np.repeat(v, explorers, axis=0) for v in (problem.a, problem.b))
    s = setting(build("fedlex", lr=0.1)[0], Quadratics(a, b, np.full(explorers, 2)).federation(), epochs=5)
    x = begin(s).server["theta"].numpy()
    d = ((1 - (1 - 0.1 * a[0]) ** 5) * (b[0] - x)) ** 2
    found = advance(s, begin(s)).server["guidance"].numpy()
    np.testing.assert_allclose(found, (d - d.min()) / (d.max() - d.min()), atol=1e-13)


def test_invariant_3_several_explorers_are_averaged():
    """D is the mean of squares, not the square of the mean; explorers weigh as in averaging (declared)."""
    task, federation = exact_net()
    for weighting in ("weighted", "uniform"):
        spy = Listening(build("fedlex", lr=0.1, weighting=weighting)[0])
        s = setting(spy.algorithm, federation, task, epochs=2, batch_size=4, schedule=HALF)
        found = advance(s, begin(s)).server["guidance"]
        n = [len(federation.train[i]) for i in cohort(HALF, 0, 0, np.arange(4))]
        d = np.average(torch.stack(spy.deltas).numpy() ** 2, axis=0, weights=n if weighting == "weighted" else None)
        torch.testing.assert_close(found, minmax(torch.from_numpy(d), task.sizes), atol=1e-13, rtol=0)


def test_invariant_4_parameters_without_guidance_never_change():
    """fedlex 4: to the bit, under SGD without weight decay."""
    task, federation = exact_net()
    algorithm, _ = build("fedlex", lr=0.1, momentum=0.5)
    states = list(rounds(setting(algorithm, federation, task, epochs=2, batch_size=4), 5))
    frozen = states[0].server["guidance"] == 0
    assert 0 < frozen.sum() < 10
    theta = states[-1].server["theta"]
    assert torch.equal(theta[frozen], task.init(0)[frozen])
    assert (theta != task.init(0))[~frozen].double().mean() > 0.8


def test_invariant_5_constant_guidance_is_a_step_size_under_sgd():
    """fedlex 5: M = 0.5 is half the step size, to the bit (0.5 is a power of two)."""
    theta = exact_net()[0].init(0)
    half = after(build("fedlex", lr=0.2)[0], theta, torch.full_like(theta, 0.5))
    slow = after(build("fedlex", lr=0.1)[0], theta, torch.ones_like(theta))
    assert torch.equal(half, slow)


def test_invariant_5_constant_guidance_does_nothing_under_adam():
    """fedlex 5: but for epsilon, which weighs twice as much."""
    theta = exact_net()[0].init(0)
    adam = {"lr": 0.01, "optimiser": "adamw", "epsilon": 1e-12}
    half, whole = (after(build("fedlex", **adam)[0], theta, torch.full_like(theta, m)) for m in (0.5, 1.0))
    torch.testing.assert_close(half, whole, atol=1e-7, rtol=0)
    assert (whole - theta).abs().max() > 1e-3


def test_invariant_6_explorer_order_does_not_matter():
    """fedlex 6."""
    problem, order = Quadratics.draw(clients=4, unequal=True), [2, 0, 3, 1]
    moved = Quadratics(problem.a[order], problem.b[order], problem.n[order])
    found = []
    for p in (problem, moved):
        s = setting(build("fedlex", lr=0.1)[0], p.federation())
        found.append(advance(s, begin(s)).server["guidance"])
    torch.testing.assert_close(*found, atol=1e-13, rtol=0)


# update rule and traps ----------------------------------------------------------------------------------------------


def test_a_quadratic_run_ends_where_theory_says():
    """FedAvg with a step size for each parameter; the one with M = 0 stays at its initial value."""
    problem = Quadratics.draw()
    s = setting(build("fedlex", lr=0.05)[0], problem.federation(), epochs=5)
    x = begin(s).server["theta"].numpy()
    m = advance(s, begin(s)).server["guidance"].numpy()
    *_, state = rounds(s, 400)
    r = 1 - (1 - 0.05 * m * problem.a) ** 5
    moving = m > 0.05  # the others need many more rounds
    expected = (r * problem.b)[:, moving].sum(0) / r[:, moving].sum(0)
    assert moving.sum() >= 3
    np.testing.assert_allclose(state.server["theta"].numpy()[moving], expected, atol=1e-6)
    assert state.server["theta"].numpy()[m == 0] == x[m == 0]


def test_trap_exploration_does_not_train_the_server_model():
    """Every explorer begins at the initial model and the server keeps it; the round counts in budget and traffic."""
    spy = Listening(build("fedlex", lr=0.1)[0])
    task, federation = exact_net()
    s = setting(spy.algorithm, federation, task, epochs=2, batch_size=4)
    first = advance(s, begin(s))
    assert torch.equal(first.server["theta"], task.init(0))
    assert not first.server["buffer"].any()
    for i, delta in enumerate(spy.deltas):
        y = task.init(0)
        for rows in batches(0, 0, i, federation.train[i], 2, 4):
            y = y - 0.1 * task.grad(y, federation.pool.batch(rows))[0]
        torch.testing.assert_close(delta, y - task.init(0), atol=1e-14, rtol=0)
    assert first.bytes_up > 0


def test_exploration_happens_once():
    task, federation = exact_net()
    states = list(rounds(setting(build("fedlex", lr=0.1)[0], federation, task, epochs=1, batch_size=4), 4))
    assert all(torch.equal(state.server["guidance"], states[0].server["guidance"]) for state in states)
    assert not any(torch.equal(a.server["theta"], b.server["theta"]) for a, b in pairwise(states))


def test_traffic_is_three_vectors():
    """Down x and M (and one flag), up one vector, in every round."""
    task = nets.task()
    found = run(setting(build("fedlex")[0], nets.federation(), task, rounds=2, epochs=1))
    p = len(task.init(0))
    assert found.bytes_down == 2 * 4 * (8 * p + 4)
    assert found.bytes_up == 2 * 4 * (4 * p + 8)


def test_local_adamw_is_torchs():
    """Weight decay and moments, new in every round."""
    hp = LocalAdamW(optimiser="adamw", lr=0.03, weight_decay=0.2, beta1=0.8, beta2=0.95, epsilon=1e-4)
    theta = torch.linspace(-1, 1, DIMENSIONS, dtype=F64)
    work, y = hp.begin(theta), theta.clone()
    optimiser = torch.optim.AdamW([y], lr=0.03, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.2)
    for k in range(6):
        y.grad = (k + 1) * y.sin() + 0.1
        work = hp.adamw(work, y.grad, 0.03)
        optimiser.step()
        torch.testing.assert_close(work["theta"], y, atol=1e-14, rtol=0)
    assert torch.equal(theta, torch.linspace(-1, 1, DIMENSIONS, dtype=F64))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"server_lr": 0.5}, "server_lr"),
        ({"guidance": "robust"}, "guidance"),
        ({"optimiser": "adamw", "momentum": 0.9}, "momentum"),
    ],
)
def test_what_is_not_offered_is_refused(settings, key):
    with pytest.raises(ValidationError, match=key):
        build("fedlex", **settings)
