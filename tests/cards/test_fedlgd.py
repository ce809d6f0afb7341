"""Card fedlgd (Huang et al. 2024): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from contract import nets
from contract.quadratic import build, setting
from contract.spies import Spy, attending, rounds
from heterobench import keyed
from heterobench.algorithms import _distillation
from heterobench.algorithms._distillation import Descent, distribution_loss, gradient_loss
from heterobench.algorithms._siamese import KINDS, drawn
from heterobench.algorithms._similarity import supervised_contrast
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import RunState, advance, begin
from heterobench.executor.local import Work, local_training, prepared
from heterobench.federation import Examples, Federation
from heterobench.task import Batch

F64 = torch.float64
SMALL = {"per_class": 3, "server_per_class": 2, "warmup_steps": 3, "refresh_steps": 3, "distil_steps": 3}
SIZES = (12, 9, 14)


def fedlgd(*, task=None, schedule=None, rounds=12, batch_size=4, sizes=SIZES, **settings):
    algorithm, _ = build("fedlgd", **{"lr": 0.05, "image_lr": 0.1} | SMALL | settings)
    more = {"schedule": schedule} if schedule else {}
    fed = nets.federation(sizes, dtype=F64)
    return setting(algorithm, fed, task or nets.task(F64), rounds=rounds, epochs=1, batch_size=batch_size, **more)


def given(s, state: RunState, client: int):
    """What a client goes over in the next round."""
    down = s.local.at(state.round).downlink(state.server)
    return prepared(s.local, down, Work(client, state.round, 1, 0.05, state.client(client)))


def images(n: int, side=4, seed=0) -> torch.Tensor:
    return torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(seed), dtype=F64)


# invariants ---------------------------------------------------------------------------------------------------------


def test_invariant_1_without_the_servers_set_and_refreshes_it_is_fedavg_on_the_virtual_sets():
    """fedlgd 1: with uniform weights, to the bit; the server's set is taken away by hand."""
    s = fedlgd(similarity=0.0, updates=0)
    state = advance(s, begin(s))
    state.server.update(known=torch.zeros(3, dtype=F64), sent=torch.zeros((), dtype=F64))
    sets = [given(s, state, i).examples for i in range(3)]
    pool = Examples(torch.cat([one.x for one in sets]), torch.cat([one.y for one in sets]))
    rows = np.split(np.arange(len(pool)), np.cumsum([len(one) for one in sets])[:-1])
    fed = Federation(pool, rows, rows, rows, pool)
    plain = setting(build("fedavg", lr=0.05, weighting="uniform")[0], fed, s.task, rounds=12, epochs=1, batch_size=4)
    other = RunState(1, {"theta": state.server["theta"]}, {})
    for one, two in zip(rounds(s, 3, state), rounds(plain, 3, other), strict=True):
        assert torch.equal(one.server["theta"], two.server["theta"])
        assert len(pool) < sum(SIZES) + 3 * 3 * 3


@pytest.mark.parametrize("kind", KINDS)
def test_invariant_2_nothing_is_left_to_match_where_virtual_examples_are_the_real_ones(kind, monkeypatch):
    """fedlgd 2: loss and gradient 0, whatever the change is; and not 0 where they are others."""
    monkeypatch.setattr(_distillation, "drawn", partial(drawn, kind=kind))
    task = nets.task(F64)
    represent = partial(task.represent, task.init(0))
    real = [images(5, seed=1), images(3, seed=2)]
    made = [x.clone().requires_grad_() for x in real]
    loss = distribution_loss(represent, real, made, keyed.generator(0, "test"))
    assert loss.detach() < 1e-30
    assert all((g.abs() < 1e-15).all() for g in torch.autograd.grad(loss, made))
    others = [x.detach()[:2].clone() for x in made]
    assert distribution_loss(represent, real, others, keyed.generator(0, "test")) > 1e-6


def test_invariant_3_matching_the_gradient_of_the_very_examples():
    """fedlgd 3: 0 after one full-batch step on them; the length of the change does not matter."""
    task = nets.task(F64)
    theta, batch = task.init(0), nets.federation(dtype=F64).pool.batch(np.arange(9))
    g, _ = task.grad(theta, batch)
    step = theta - 0.3 * g
    for scale in (1.0, 100.0, 1e-3):
        assert abs(float(gradient_loss(g, scale * (theta - step), task.shapes))) < 1e-12
    other, _ = task.grad(theta, nets.federation(dtype=F64).pool.batch(np.arange(9, 20)))
    first, second = (gradient_loss(g, scale * other, task.shapes) for scale in (1.0, 50.0))
    assert first > 1e-3
    torch.testing.assert_close(first, second, atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [2, 7])
def test_invariant_4_of_equal_features_the_contrast_is_log_n_minus_1(n):
    """fedlgd 4: one class, only positives; any temperature."""
    z, y = torch.ones(n, 5, dtype=F64), torch.zeros(n, dtype=torch.int64)
    for temperature in (0.07, 1.0):
        found = supervised_contrast(z, y, torch.ones(n, dtype=torch.bool), temperature)
        assert float(found) == pytest.approx(math.log(n - 1), abs=1e-12)


def test_invariant_5_labels_stay_and_blocks_keep_their_class():
    """fedlgd 5: over refreshes and distillations; only the images of a class follow that class's examples."""
    s = fedlgd(refresh_every=2, distil_every=3)
    held = [sorted(set(s.federation.pool.y[s.federation.train[i]].tolist())) for i in range(3)]
    for state in rounds(s, 7):
        for i in range(3):
            expected = [c for c in held[i] for _ in range(3)] + [c for c in range(3) for _ in range(2)]
            found = given(s, state, i)
            assert found.examples.y.tolist() == expected
            own = found.client["images"][held[i]].flatten(0, 1)
            assert torch.equal(found.examples.x[: len(own)], own)


def test_invariant_5_a_class_follows_its_own_examples_alone():
    """Other examples of class 1 change neither the images of class 0 nor those of class 2."""
    s = fedlgd()
    moved = s.federation.pool.x.clone()
    moved[s.federation.pool.y == 1] += 1
    other = replace(s, federation=replace(s.federation, pool=Examples(moved, s.federation.pool.y)))
    one, two = (given(x, begin(x), 0).client["images"] for x in (s, other))
    assert (one[1] - two[1]).abs().max() > 0.1
    assert torch.equal(one[[0, 2]], two[[0, 2]])


def test_invariant_6_local_training_sees_no_real_example():
    """fedlgd 6: every row of every batch is one of the virtual sets."""
    s = fedlgd()
    state = list(rounds(s, 2))[-1]
    virtual = given(s, state, 0)
    spied = replace(s, task=Spy(s.task))
    down = s.local.at(2).downlink(state.server)
    local_training(spied.local, down, Work(0, 2, 1, 0.05, virtual.client))
    allowed = torch.cat([virtual.examples.x, state.server["images"].flatten(0, 1)]).flatten(1)
    assert spied.task.batches
    for batch in spied.task.batches:
        assert (torch.cdist(batch.x.flatten(1), allowed) == 0).any(1).all()


# what is matched ----------------------------------------------------------------------------------------------------


def naive_contrast(z, y, temperature):
    z = functional.normalize(z, dim=1)
    total = 0.0
    for i in range(len(y)):
        others = [a for a in range(len(y)) if a != i]
        positive = [p for p in others if y[p] == y[i]]
        below = sum(torch.exp(z[i] @ z[a] / temperature) for a in others)
        total -= sum(torch.log(torch.exp(z[i] @ z[p] / temperature) / below) for p in positive) / max(len(positive), 1)
    return total / len(y)


def test_contrast_is_the_papers_sum():
    """A row that is alone in its class adds 0, and counts; rows that are not there count for nothing."""
    z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    y = torch.tensor([0, 1, 0, 2, 1, 0, 1, 1])
    there = torch.tensor([True] * 6 + [False, True])
    expected = naive_contrast(z[there], y[there], 0.5)
    torch.testing.assert_close(supervised_contrast(z, y, there, 0.5), expected, atol=1e-12, rtol=0)
    moved = z.clone()
    moved[6] += 5
    torch.testing.assert_close(supervised_contrast(moved, y, there, 0.5), expected, atol=1e-12, rtol=0)


def test_contrast_has_finite_gradients_at_equal_and_zero_rows():
    z = torch.zeros(4, 3, dtype=F64)
    z[:2] = 1
    z.requires_grad_()
    loss = supervised_contrast(z, torch.tensor([0, 0, 1, 2]), torch.ones(4, dtype=torch.bool), 0.07)
    assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


def test_gradients_of_a_step_are_those_of_the_two_losses():
    """Cross-entropy of the batch alone, plus the contrast over batch and all of the server's set."""
    s = fedlgd(similarity=2.0, temperature=0.3)
    state = list(rounds(s, 1))[-1]
    algorithm = s.local.at(1)
    virtual = given(s, state, 0)
    work = algorithm.start(state.server, virtual.client)
    batch = virtual.examples.batch(np.array([0, 3, 5, 1]))
    theta = work["theta"].clone().requires_grad_()
    anchors, classes = state.server["images"].flatten(0, 1), torch.arange(3).repeat_interleave(2)
    z = s.task.represent(theta, torch.cat((batch.x, anchors)))
    contrast = naive_contrast(z, torch.cat((batch.y, classes)), 0.3)
    (expected,) = torch.autograd.grad(s.task.mean_loss(theta, batch) + 2.0 * contrast, theta)
    g, aux = algorithm.grad(work, batch, s.task)
    torch.testing.assert_close(g, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(aux["loss"], s.task.mean_loss(work["theta"], batch), atol=1e-12, rtol=0)
    filled = virtual.examples.batch(np.array([0, 3, 5, 1, 1, 1]))
    weight = torch.tensor([0.25] * 4 + [0, 0], dtype=F64)
    torch.testing.assert_close(algorithm.grad(work, filled._replace(weight=weight), s.task)[0], g, atol=1e-12, rtol=0)


def test_gradient_loss_is_by_rows_and_without_biases():
    g, goal = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    shapes = (torch.Size([2, 3]), torch.Size([2]))
    expected = sum(1 - functional.cosine_similarity(g[r : r + 3], goal[r : r + 3], dim=0) for r in (0, 3))
    torch.testing.assert_close(gradient_loss(g, goal, shapes), expected, atol=1e-12, rtol=0)
    moved = goal.clone()
    moved[6:] += 1
    assert torch.equal(gradient_loss(g, moved, shapes), gradient_loss(g, goal, shapes))


def test_both_distillations_descend():
    """Each loss is smaller afterwards, with the net and the change held fixed."""
    task, fed = nets.task(F64), nets.federation(dtype=F64)
    theta, y = task.init(0), torch.arange(3).repeat_interleave(2)
    real = [fed.pool.x[fed.pool.y == c] for c in range(3)]
    represent, begun = partial(task.represent, theta), images(6).view(3, 2, 1, 4, 4)
    goal, _ = task.grad(theta, fed.pool.batch(np.arange(20)))

    def distribution(made):
        return sum(((represent(m).mean(0) - represent(x).mean(0)) ** 2).sum() for m, x in zip(made, real, strict=True))

    def gradient(made):
        at = theta.clone().requires_grad_()
        (g,) = torch.autograd.grad(task.mean_loss(at, Batch(made.flatten(0, 1), y)), at, create_graph=True)
        return gradient_loss(g, goal, task.shapes)

    for loss in (distribution, gradient):
        assert loss(Descent(30, 0.1, 0.5)(begun, loss)) < 0.9 * loss(begun)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_descent_is_torchs_sgd(momentum):
    x, goal = images(4), images(4, seed=1)
    found = Descent(5, 0.1, momentum)(x, lambda made: ((made - goal) ** 3).abs().sum())
    leaf = x.clone().requires_grad_()
    sgd = torch.optim.SGD([leaf], lr=0.1, momentum=momentum)
    for _ in range(5):
        sgd.zero_grad()
        ((leaf - goal) ** 3).abs().sum().backward()
        sgd.step()
    torch.testing.assert_close(found, leaf.detach(), atol=1e-13, rtol=0)
    assert torch.equal(x, images(4))


@pytest.mark.parametrize("kind", KINDS)
def test_one_change_for_all_images(kind):
    """The same for every image of every batch, another one for another draw, differentiable, of the same shape."""
    x = images(6, side=8)
    changes = [drawn(keyed.generator(seed, "change"), kind) for seed in range(20)]
    for change in changes:
        torch.testing.assert_close(torch.cat((change(x[:2]), change(x[2:]))), change(x), atol=1e-12, rtol=0)
        assert change(x).shape == x.shape
    kinds = len({tuple(change(x)[0].flatten().tolist()) for change in changes})
    assert kinds == 2 if kind == "flip" else kinds >= (5 if kind == "crop" else 15)
    leaf = x.clone().requires_grad_()
    assert torch.autograd.grad(changes[0](leaf).sum(), leaf)[0].abs().sum() > 0
    table = torch.randn(3, 5)
    assert torch.equal(changes[0](table), table)


# the rounds ---------------------------------------------------------------------------------------------------------


def test_when_sets_change():
    """S_i before the first round and in rounds 2 and 4, S_g after 0, 3 and 6 (updates = 2); nothing later."""
    s = fedlgd(refresh_every=2, distil_every=3, updates=2)
    states = list(rounds(s, 10))
    own = [state.client(0)["images"] for state in states]
    assert [r for r in range(1, 10) if not torch.equal(own[r], own[r - 1])] == [2, 4]
    servers = [state.server["images"] for state in states]
    assert [r for r in range(1, 10) if not torch.equal(servers[r], servers[r - 1])] == [3, 6]
    assert servers[0].abs().max() > 0.1


def test_rounds_in_which_nobody_comes_change_no_set_and_are_not_counted():
    """The rounds of the test above, with gaps before the first, between, and on those in which sets would change."""
    s = fedlgd(refresh_every=2, distil_every=3, updates=2, rounds=14)
    empty = [0, 3, 4, 8]
    s = attending(s, [[round not in empty] * 3 for round in range(14)])
    come = [state for round, state in enumerate(rounds(s, 14)) if round not in empty]
    for which, changes in (("client", [2, 4]), ("server", [3, 6])):
        sets = [(state.client(0) if which == "client" else state.server)["images"] for state in come]
        assert [r for r in range(1, 10) if not torch.equal(sets[r], sets[r - 1])] == changes
    assert come[0].server["known"].all()
    assert come[0].server["images"].abs().max() > 0.1


def test_virtual_examples_begin_with_mean_and_deviation_of_their_class():
    """Within five standard errors; before any matching."""
    s = fedlgd(warmup_steps=0, distil_steps=0, per_class=400, server_per_class=400)
    state = advance(s, begin(s))
    pool, found = s.federation.pool, state.client(0)["images"]
    own = pool.batch(s.federation.train[0])
    for c in range(3):
        real = own.x[own.y == c]
        spread = real.std(correction=0)
        assert abs(found[c].mean() - real.mean()) < 5 * spread / (400 * 16) ** 0.5
        assert abs(found[c].std() - spread) < 5 * spread / (2 * 400 * 16) ** 0.5
    held = [pool.batch(rows) for rows in s.federation.train]
    for c in range(3):
        mean = torch.stack([b.x[b.y == c].mean() for b in held if (b.y == c).any()]).mean()
        assert abs(state.server["images"][c].mean() - mean) < 0.05


def test_traffic():
    """Statistics once; the server's set after each change, to everybody."""
    s = fedlgd(distil_every=3, updates=1)
    p, clients = len(s.task.init(0)), 3
    model, virtual, statistics = 8 * p, 8 * (3 * 2 * 16 + 3), 8 * (3 + 3 + 3)
    down, up = [], []
    for state in rounds(s, 7):
        down.append(state.bytes_down // clients)
        up.append(state.bytes_up // clients)
    assert np.diff(down, prepend=0).tolist() == [model + virtual * (r in (1, 4)) for r in range(7)]
    assert np.diff(up, prepend=0).tolist() == [model + 8 + statistics * (r == 0) for r in range(7)]


def test_with_a_part_of_the_clients_everybody_has_both_sets():
    """Whoever comes later makes its own set then, and is sent the server's."""
    s = fedlgd(sizes=(6,) * 8, schedule=ScheduleFile(title="", participation=0.4), distil_every=2)
    states = list(rounds(s, 6))
    came = set(states[-1].clients) - set(states[0].clients)
    assert came
    for i in came:
        client = states[-1].client(i)
        assert client["held"].any()
        assert client["anchors"].abs().max() > 0
    assert all(torch.isfinite(state.server["theta"]).all() for state in states)


def test_a_class_that_nobody_holds_has_no_virtual_examples():
    s = fedlgd()
    fed = s.federation
    keep = [rows[fed.pool.y[rows].numpy() != 2] for rows in fed.train]
    s = replace(s, federation=replace(fed, train=keep))
    state = advance(s, begin(s))
    assert state.server["known"].tolist() == [1, 1, 0]
    assert set(given(s, state, 0).examples.y.tolist()) == {0, 1}
