"""Card diloco (Douillard et al. 2023): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.quadratic import DIMENSIONS, Quadratics, QuadraticTask, build, run, setting
from contract.spies import Listening, exact_net, noisy, rounds
from heterobench.algorithm import Info
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import begin
from heterobench.federation import Federation, batches

PLAIN = {"optimiser": "sgd", "max_norm": 0.0}
AVERAGE = {"server_lr": 1.0, "outer_momentum": 0.0}
F64 = torch.float64


def torch_adamw(theta, federation, task, client, rounds_, *, lr, epochs, size, wd=0.0, clip=1.0, schedule=None):
    """theta [P] after inner training with torch's own AdamW, one optimiser over all rounds; no outer step."""
    y = theta.clone()
    optimiser = torch.optim.AdamW([y], lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=wd)
    rate = schedule and torch.optim.lr_scheduler.LambdaLR(optimiser, schedule)
    for round in range(rounds_):
        for rows in batches(0, round, client, np.asarray(federation.train[client]), epochs, size):
            y.grad = task.grad(y, federation.pool.batch(rows))[0]
            if clip:
                torch.nn.utils.clip_grad_norm_([y], clip)
            optimiser.step()
            if rate:
                rate.step()
    return y


# invariants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [{}, PLAIN], ids=["adamw", "sgd"])
@pytest.mark.parametrize("weighting", ["uniform", "weighted"])
def test_invariant_1_outer_sgd_of_rate_1_averages_the_models(inner, weighting):
    """diloco 1: x = mean of y_j; with inner SGD it is FedAvg, to the bit."""
    spy = Listening(build("diloco", lr=0.05, weighting=weighting, **AVERAGE, **inner)[0])
    task, federation = exact_net()
    s = setting(spy.algorithm, federation, task, epochs=2, batch_size=4)
    x = begin(s).server["theta"]
    n = torch.tensor([float(len(rows)) for rows in federation.train], dtype=F64)
    weight = n / n.sum() if weighting == "weighted" else torch.full((4,), 0.25, dtype=F64)
    for state in rounds(s, 3):
        mean = weight @ torch.stack([x + delta for delta in spy.deltas[-4:]])
        x = state.server["theta"]
        torch.testing.assert_close(x, mean, atol=1e-14, rtol=0)
    if inner:
        plain, _ = build("fedavg", lr=0.05, weighting=weighting)
        *_, other = rounds(setting(plain, federation, task, epochs=2, batch_size=4), 3)
        assert torch.equal(x, other.server["theta"])


def test_invariant_2_one_inner_step_is_data_parallel_sgd():
    """diloco 2: H = 1, inner SGD(eta), outer SGD of rate 1, shards of one size: SGD on all the data."""
    federation, task = noisy((6, 6, 6, 6)), QuadraticTask()
    s = setting(build("diloco", lr=0.2, **PLAIN, **AVERAGE)[0], federation, task, epochs=1)
    theta, everything = task.init(0), federation.pool.batch(np.arange(24))
    for state in rounds(s, 6):
        theta = theta - 0.2 * task.grad(theta, everything)[0]
        torch.testing.assert_close(state.server["theta"], theta, atol=1e-13, rtol=0)


def outer_moves(count, settings=None):
    """Movements [count, 3] of the server for a constant outer gradient D = (1, -2, 0.5)."""
    algorithm, _ = build("diloco", **settings or {})
    gradient = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    server, moves = algorithm.init_server(torch.zeros(3, dtype=F64)), []
    for round in range(count):
        after = algorithm.serve(server, {"delta": -gradient}, Info(round, 4, 4))
        moves.append(after["theta"] - server["theta"])
        server = after
    return torch.stack(moves), gradient


def test_invariant_3_outer_steps_for_a_constant_gradient():
    """diloco 3: -1.33 D at first (not -0.7 D), -7 D in the end."""
    moves, gradient = outer_moves(400)
    torch.testing.assert_close(moves[0], -1.33 * gradient, atol=1e-14, rtol=0)
    torch.testing.assert_close(moves[-1], -7 * gradient, atol=1e-12, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"server_lr": 0.3, "outer_momentum": 0.5}], ids=["default", "other"])
def test_invariant_3_outer_steps_are_torchs_nesterov(settings):
    """diloco 3: torch.optim.SGD(nesterov=True) on outer gradients that change."""
    algorithm, hp = build("diloco", **settings)
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(7, dtype=F64)
    server = algorithm.init_server(x.clone())
    optimiser = torch.optim.SGD([x], lr=hp.server_lr, momentum=hp.outer_momentum, nesterov=True)
    for round in range(10):
        x.grad = torch.randn(7, generator=generator, dtype=F64)
        server = algorithm.serve(server, {"delta": -x.grad}, Info(round, 4, 4))
        optimiser.step()
        torch.testing.assert_close(server["theta"], x, atol=1e-14, rtol=0)


def test_invariant_4_one_worker_is_plain_inner_training():
    """diloco 4: k = 1, outer rate 1, no outer momentum, against torch's AdamW over all rounds (and invariant 6)."""
    task, federation = exact_net()
    alone = Federation(federation.pool, federation.train[:1], federation.test[:1], federation.test[:1], federation.pool)
    algorithm, _ = build("diloco", lr=0.02, weight_decay=0.1, **AVERAGE)
    found = run(setting(algorithm, alone, task, rounds=4, epochs=2, batch_size=3)).server["theta"]
    expected = torch_adamw(task.init(0), alone, task, 0, 4, lr=0.02, epochs=2, size=3, wd=0.1)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_invariant_5_workers_begin_alike_and_their_order_does_not_matter():
    """diloco 5: everybody starts from the same x; permuted workers (full batches) give the same models."""
    problem = Quadratics.draw(clients=4)
    order = [2, 0, 3, 1]
    moved = Quadratics(problem.a[order], problem.b[order], problem.n[order])
    real, _ = build("diloco", lr=0.02)
    begun = []

    def start(down, client):
        begun.append(down["theta"])
        return real.start(down, client)

    first, second = (
        run(setting(replace(real, start=start), p.federation(), rounds=4)).server["theta"] for p in (problem, moved)
    )
    torch.testing.assert_close(first, second, atol=1e-13, rtol=0)
    assert all(torch.equal(begun[k], begun[k - k % 4]) for k in range(16))


def test_invariant_6_inner_moments_continue():
    """diloco 6: the step counter counts all inner steps; without their persistence the path is another."""
    task, federation = exact_net()
    algorithm, _ = build("diloco", lr=0.02)
    s = setting(algorithm, federation, task, epochs=2, batch_size=4)
    for round, state in enumerate(rounds(s, 3)):
        for i in range(4):
            per_round = len(batches(0, 0, i, federation.train[i], 2, 4))
            assert float(state.client(i)["count"]) == (round + 1) * per_round
    forgetful = replace(algorithm, finish=lambda w, d, c, done: (algorithm.finish(w, d, c, done)[0], c))
    *_, other = rounds(setting(forgetful, federation, task, epochs=2, batch_size=4), 3)
    assert (other.server["theta"] - state.server["theta"]).abs().max() > 1e-4


def test_invariant_6_who_is_absent_keeps_the_moments():
    task, federation = exact_net()
    half = ScheduleFile(title="half", participation=0.5)
    s = setting(build("diloco", lr=0.02)[0], federation, task, epochs=1, batch_size=4, schedule=half)
    before = begin(s)
    for state in rounds(s, 4):
        same = [torch.equal(state.client(i)["m"], before.client(i)["m"]) for i in range(4)]
        assert sum(same) == 2
        before = state


# traps and details --------------------------------------------------------------------------------------------------


def test_trap_outer_gradient_is_old_minus_new():
    """The server moves towards the workers: on a quadratic the distance to its minimum falls."""
    problem = Quadratics.draw(clients=1)
    algorithm, _ = build("diloco", lr=0.01, server_lr=0.5, outer_momentum=0.0, **PLAIN)
    s = setting(algorithm, problem.federation(), epochs=3)
    away = (begin(s).server["theta"] - torch.from_numpy(problem.b[0])).abs()
    for state in rounds(s, 3):
        now = (state.server["theta"] - torch.from_numpy(problem.b[0])).abs()
        assert (now < away).all()
        away = now


def test_trap_weight_decay_is_decoupled_and_inner():
    """Without gradients, K inner steps leave (1 - lr lambda)^K; the outer step only averages."""
    nothing = Quadratics(np.zeros((3, DIMENSIONS)), np.ones((3, DIMENSIONS)), np.full(3, 2))
    algorithm, _ = build("diloco", lr=0.1, weight_decay=0.5, **AVERAGE)
    s = setting(algorithm, nothing.federation(), epochs=4)
    found = run(s).server["theta"] / begin(s).server["theta"]
    torch.testing.assert_close(found, torch.full_like(found, 0.95**4), atol=1e-13, rtol=0)


@pytest.mark.parametrize(("warmup", "total"), [(0, 0), (3, 0), (0, 30), (4, 30)])
def test_trap_step_size_follows_the_inner_steps_of_all_rounds(warmup, total):
    """Linear warm-up, then cosine, over rounds; against torch's LambdaLR."""

    def schedule(t):
        if t < warmup:
            return t / warmup
        return 0.5 * (1 + np.cos(np.pi * (t - warmup) / (total - warmup))) if total else 1.0

    task, federation = exact_net()
    alone = Federation(federation.pool, federation.train[:1], federation.test[:1], federation.test[:1], federation.pool)
    algorithm, _ = build("diloco", lr=0.02, warmup_steps=warmup, total_steps=total, **AVERAGE)
    found = run(setting(algorithm, alone, task, rounds=4, epochs=2, batch_size=3)).server["theta"]
    expected = torch_adamw(task.init(0), alone, task, 0, 4, lr=0.02, epochs=2, size=3, schedule=schedule)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_schedule_ends_at_zero():
    """After total_steps nothing moves any more."""
    task, federation = exact_net()
    algorithm, _ = build("diloco", lr=0.02, total_steps=3, **AVERAGE)
    states = list(rounds(setting(algorithm, federation, task, epochs=4, batch_size=4), 3))
    assert torch.equal(states[1].server["theta"], states[2].server["theta"])


@pytest.mark.parametrize("norm", [0.1, 1e6, 0.0])
def test_gradients_are_clipped_as_in_torch(norm):
    task, federation = exact_net()
    batch, theta = federation.pool.batch(np.arange(6)), task.init(0)
    algorithm, _ = build("diloco", max_norm=norm)
    g, _ = algorithm.grad({"theta": theta}, batch, task)
    expected = theta.clone()
    expected.grad = task.grad(theta, batch)[0]
    if norm:
        torch.nn.utils.clip_grad_norm_([expected], norm)
    torch.testing.assert_close(g, expected.grad, atol=1e-15, rtol=1e-12)
    assert norm != 0.1 or float(g.norm()) == pytest.approx(0.1, rel=1e-4)


def test_traffic_is_that_of_fedavg():
    """4 P up and 4 P down: the moments stay where they are."""
    ours, plain = (
        run(setting(build(name)[0], nets.federation(), nets.task(), epochs=1)) for name in ("diloco", "fedavg")
    )
    assert (ours.bytes_up, ours.bytes_down) == (plain.bytes_up, plain.bytes_down)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"momentum": 0.9}, "beta1"),
        ({"optimiser": "sgd", "warmup_steps": 3}, "warmup_steps"),
        ({"warmup_steps": 3, "total_steps": 3}, "total_steps"),
        ({"optimiser": "lion"}, "optimiser"),
    ],
)
def test_what_is_not_offered_is_refused(settings, key):
    with pytest.raises(ValidationError, match=key):
        build("diloco", **settings)
