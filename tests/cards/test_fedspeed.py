"""Card fedspeed (Sun et al. 2023): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.quadratic import DIMENSIONS, Quadratics, QuadraticTask, build, run, setting, settle
from contract.spies import Listening, Spy, exact_net, noisy, rounds
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import begin
from heterobench.federation import batches

ALL, HALF = ScheduleFile(title="all"), ScheduleFile(title="half", participation=0.5)
SIZES = (4, 5, 3, 6)


def dual(state, clients):
    """All clients' h_i, [clients, P]."""
    return torch.stack([state.client(i)["h"] for i in range(clients)])


def direction(y, b, a=2.0, **settings):
    """FedSpeed's local direction at y [d] for the quadratic a/2 ||y - b||^2, and its pull to x = y (which is 0)."""
    algorithm, _ = build("fedspeed", **settings)
    y, b = (torch.as_tensor(v, dtype=torch.float64) for v in (y, b))
    work = algorithm.start({"theta": y}, {"h": torch.zeros_like(y)})
    x = torch.cat([torch.full_like(y, a), b])[None]
    problem = Quadratics(np.full((1, len(y)), a), b.numpy()[None], np.array([1]))
    batch = problem.federation().pool.batch(np.arange(1))
    assert torch.equal(batch.x, x)
    g, _ = algorithm.grad(work, batch, QuadraticTask())
    assert torch.equal(work["theta"], y)
    return g.numpy()


# invariants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [ALL, HALF], ids=["all", "half"])
@pytest.mark.parametrize("kind", ["net", "quadratic"])
def test_invariant_1_without_ascent_it_is_feddyn_to_the_bit(kind, schedule):
    """fedspeed 1: rho = 0; the second pass is there and changes nothing. The models that are evaluated differ."""
    task, federation = (nets.task(), nets.federation()) if kind == "net" else (QuadraticTask(), noisy(SIZES))
    found = [
        run(
            setting(
                build(name, lr=0.1, alpha=0.3, weight_decay=0.01, **more)[0],
                federation,
                task,
                rounds=4,
                epochs=2,
                batch_size=3,
                schedule=schedule,
            )
        )
        for name, more in (("fedspeed", {"rho": 0}), ("feddyn", {}))
    ]
    assert all(torch.equal(found[0].server[key], found[1].server[key]) for key in ("theta", "mean", "h"))
    assert torch.equal(dual(found[0], 4), dual(found[1], 4))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_invariant_2_exact_local_minimisers_make_h_the_gradient(alpha):
    """fedspeed 2: rho = 0; h_i = -grad f_i(y_i)/alpha, in every round."""
    rng = np.random.default_rng(2)
    a, b = rng.uniform(0.5, 2.0, (6, DIMENSIONS)), rng.normal(size=(6, DIMENSIONS))
    algorithm, _ = build("fedspeed", rho=0, alpha=alpha, lr=2 / (2.5 + 2 * alpha))
    s = setting(algorithm, Quadratics(a, b, np.full(6, 2)).federation(), epochs=80)
    before = begin(s)
    for state in rounds(s, 3):
        h = dual(state, 6)
        y = before.server["theta"] + h - dual(before, 6)
        np.testing.assert_allclose(h.numpy(), -a * (y.numpy() - b) / alpha, atol=1e-12)
        before = state


@pytest.mark.parametrize("ascent", ["normalised", "plain"])
@pytest.mark.parametrize("merge", [1.0, 0.4])
def test_invariant_3_paper_form_gives_the_same_models(ascent, merge):
    """fedspeed 3: full participation; a plain loop in the paper's variables (g^_i, lambda, z_i), the same batches."""
    lam, rho, lr, federation, task = 2.5, 0.2, 0.1, noisy(SIZES), QuadraticTask()
    algorithm, _ = build("fedspeed", lr=lr, alpha=1 / lam, rho=rho, merge=merge, ascent=ascent)
    s = setting(algorithm, federation, task, epochs=2, batch_size=3)
    x, correction = begin(s).server["theta"].numpy(), np.zeros((4, DIMENSIONS))
    for round, state in enumerate(rounds(s, 8)):
        sent = []
        for i in range(4):
            y = x.copy()
            for rows in batches(0, round, i, federation.train[i], 2, 3):
                batch = federation.pool.batch(rows)
                g1 = task.grad(torch.from_numpy(y), batch)[0].numpy()
                e = rho * g1 / (np.linalg.norm(g1) + 1e-7) if ascent == "normalised" else rho * g1
                g2 = task.grad(torch.from_numpy(y + e), batch)[0].numpy()
                y = y - lr * ((1 - merge) * g1 + merge * g2 - correction[i] + (y - x) / lam)
            correction[i] -= (y - x) / lam
            sent.append(y - lam * correction[i])
        x = np.mean(sent, axis=0)
        np.testing.assert_allclose(algorithm.model(state.server).numpy(), x, atol=1e-12)


def test_invariant_3_only_under_full_participation():
    """fedspeed 3: with a cohort the code adds the mean over all N of h_i, not over the cohort."""
    spy = Listening(build("fedspeed", lr=0.1, alpha=0.3)[0])
    s = setting(spy.algorithm, noisy(SIZES), epochs=2, batch_size=3, schedule=HALF)
    x, differ = begin(s).server["theta"], 0.0
    for state in rounds(s, 5):
        mean = x + torch.stack(spy.deltas[-2:]).mean(0)
        x = state.server["theta"]
        torch.testing.assert_close(x, mean + dual(state, 4).mean(0), atol=1e-13, rtol=0)
        differ = max(differ, float((dual(state, 4).sum(0) / 2 - dual(state, 4).mean(0)).abs().max()))
    assert differ > 1e-2


@pytest.mark.parametrize("merge", [1.0, 0.3])
def test_invariant_4_merged_gradient_of_a_quadratic(merge):
    """fedspeed 4: plain a (y - b)(1 + merge rho a); normalised in one dimension a (y - b) + merge a rho sign."""
    a, rho, y, b = 2.0, 0.25, [3.0], [1.5]
    plain = direction(y, b, a, rho=rho, merge=merge, ascent="plain")
    np.testing.assert_allclose(plain, a * 1.5 * (1 + merge * rho * a), rtol=1e-13)
    up, down = (direction(v, b, a, rho=rho, merge=merge) for v in (y, [-3.0]))
    np.testing.assert_allclose(up, a * 1.5 + merge * a * rho, rtol=1e-7)  # 1e-7 is added to the norm
    np.testing.assert_allclose(down, -a * 4.5 - merge * a * rho, rtol=1e-7)


def test_invariant_5_h_sums_all_past_updates():
    """fedspeed 5: under partial participation; the server's h is their mean over all N."""
    spy = Listening(build("fedspeed", lr=0.1, alpha=0.3)[0])
    s = setting(spy.algorithm, noisy((4, 5, 3, 6, 2, 7)), epochs=2, batch_size=3, schedule=HALF)
    for state in rounds(s, 8):
        total = torch.stack(spy.deltas).sum(0)
        torch.testing.assert_close(dual(state, 6).sum(0), total, atol=1e-13, rtol=0)
        torch.testing.assert_close(state.server["h"], total / 6, atol=1e-13, rtol=0)


def distance(algorithm, optimum, rounds_=400) -> float:
    """From the model after many rounds of 5 exact steps on 4 different quadratics to `optimum`."""
    problem = Quadratics.draw(clients=4)
    state = settle(setting(algorithm, problem.federation(), epochs=5), 4, rounds_)
    return float(np.abs(algorithm.model(state.server).numpy() - optimum).max())


def test_invariant_6_reaches_the_true_optimum_without_ascent():
    """fedspeed 6: several local steps, and x itself, not only the mean of the y_i."""
    algorithm, _ = build("fedspeed", lr=0.05, alpha=0.5, rho=0)
    assert distance(algorithm, Quadratics.draw(clients=4).optimum("uniform")) < 1e-7


@pytest.mark.parametrize("merge", [1.0, 0.5])
def test_invariant_6_with_ascent_it_reaches_the_zero_of_the_perturbed_gradients(merge):
    """fedspeed 6, rho > 0: (1 - merge) g1 + merge g2 of a quadratic is that of an ascent of length merge rho."""
    problem = Quadratics.draw(clients=4)
    algorithm, _ = build("fedspeed", lr=0.05, alpha=0.5, rho=0.2, merge=merge)
    assert distance(algorithm, problem.sharp_optimum("uniform", merge * 0.2)) < 1e-7
    assert distance(algorithm, problem.optimum("uniform")) > 1e-3


def test_invariant_6_trap_a_correction_that_is_never_learnt_is_noticed():
    real, _ = build("fedspeed", lr=0.05, alpha=0.5, rho=0)
    mutant = replace(real, finish=lambda w, d, c, done: (real.finish(w, d, c, done)[0], c))
    assert distance(mutant, Quadratics.draw(clients=4).optimum("uniform")) > 1e-4


def test_invariant_7_without_proximal_term_it_is_not_fedavg():
    """fedspeed 7: lamb = 0: the local path is FedAvg's, but h accumulates and is added at the server."""
    federation = noisy(SIZES)
    ours, plain = (
        run(setting(build(name, lr=0.1, weighting="uniform", **more)[0], federation, rounds=1, batch_size=3))
        for name, more in (("fedspeed", {"alpha": 0, "rho": 0}), ("fedavg", {}))
    )
    assert torch.equal(ours.server["mean"], plain.server["theta"])
    moved = plain.server["theta"] - QuadraticTask().init(0)
    torch.testing.assert_close(ours.server["theta"], plain.server["theta"] + moved, atol=1e-13, rtol=0)
    assert moved.abs().max() > 1e-2


# traps --------------------------------------------------------------------------------------------------------------


def test_trap_one_norm_over_all_parameters():
    """The step uphill has length rho in [P], so single tensors move by less."""
    task, federation = exact_net()
    spy = Spy(task)
    run(setting(build("fedspeed", lr=0.1, rho=0.3)[0], federation, spy, epochs=1, batch_size=4))
    for here, above in zip(spy.thetas[::2], spy.thetas[1::2], strict=True):
        e = above - here
        assert float(e.norm()) == pytest.approx(0.3, rel=1e-5)
        assert all(float(part.norm()) < 0.299 for part in task.layout.split(e).values())


def test_trap_second_pass_has_the_same_batch_and_leaves_y():
    """The path in between two batches is one step long: y is restored exactly."""
    task, federation = exact_net()
    spy, lr = Spy(task), 0.1
    run(setting(build("fedspeed", lr=lr, alpha=0.0, rho=0.3)[0], federation, spy, epochs=3, batch_size=100))
    assert len(spy.batches) == 2 * 3 * 4
    for first, second in zip(spy.batches[::2], spy.batches[1::2], strict=True):
        assert first is second
    for client in range(4):
        own = slice(6 * client, 6 * client + 6)
        y, g = spy.thetas[own][::2], spy.gradients[own][1::2]
        for step in range(2):
            torch.testing.assert_close(y[step + 1], y[step] - lr * g[step], atol=1e-15, rtol=0)


def test_trap_the_pull_has_a_decay_part():
    """A step from y is y - lr (g + alpha h - alpha x + (weight decay + alpha) y)."""
    algorithm, hp = build("fedspeed", lr=0.1, alpha=0.4, rho=0, weight_decay=0.05)
    task, federation = QuadraticTask(), noisy((3,))
    x, h, y = (torch.full((DIMENSIONS,), v, dtype=torch.float64) for v in (1.0, 0.3, -2.0))
    batch = federation.pool.batch(np.arange(3))
    work = algorithm.start({"theta": x}, {"h": h})
    work["theta"].copy_(y)
    g, _ = algorithm.grad(work, batch, task)
    after = hp.step(work, g, type("Step", (), {"lr": 0.1, "index": 0}))["theta"]
    plain = task.grad(y, batch)[0]
    torch.testing.assert_close(after, y - 0.1 * (plain + 0.4 * (h - x) + 0.45 * y), atol=1e-14, rtol=0)


def test_reported_loss_is_the_plain_one_at_y():
    """Not the loss uphill, and without decay or proximal term."""
    task, federation = QuadraticTask(), noisy((3,))
    batch, x = federation.pool.batch(np.arange(3)), torch.ones(DIMENSIONS, dtype=torch.float64)
    algorithm, _ = build("fedspeed", rho=1.0, weight_decay=0.1)
    _, aux = algorithm.grad(algorithm.start({"theta": x}, {"h": x}), batch, task)
    assert aux["loss"] == task.grad(x, batch)[1]["loss"]


def test_traffic_is_that_of_fedavg():
    """8 P bytes per client: h_i stays where it is."""
    ours, plain = (
        run(setting(build(name)[0], nets.federation(), nets.task(), epochs=1)) for name in ("fedspeed", "fedavg")
    )
    assert (ours.bytes_up, ours.bytes_down) == (plain.bytes_up, plain.bytes_down)


@pytest.mark.parametrize(
    "settings", [{"momentum": 0.9}, {"weighting": "weighted"}, {"merge": 1.5}, {"rho": -1}], ids=str
)
def test_what_is_not_offered_is_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build("fedspeed", **settings)
