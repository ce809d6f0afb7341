"""Card fedamd (Wu et al. 2023): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.quadratic import Quadratics, QuadraticTask, build, run, setting
from contract.spies import Listening, Spy, attending, exact_net, noisy, rounds
from heterobench import channel, keyed, schedule
from heterobench.algorithms.fedamd import anchor_probability
from heterobench.config.schema import LocalWork, ScheduleFile
from heterobench.engine.synchronous import begin
from heterobench.executor.local import Local, Work, client_state, local_training
from heterobench.federation import Federation

F64 = torch.float64
HALF = ScheduleFile(title="half", participation=0.5)
EVERYTHING = 10**6


def slopes(task, federation: Federation, theta) -> torch.Tensor:
    """Exact local gradients [N, P]."""
    return torch.stack([task.grad(theta, federation.pool.batch(np.asarray(rows)))[0] for rows in federation.train])


def caches(state, clients: int) -> torch.Tensor:
    return torch.stack([state.client(i)["v"] for i in range(clients)])


def coin(p: float, round: int, client: int, seed: int = 0) -> bool:
    """Is the client an anchor?"""
    return keyed.generator(seed, "chance", round, client).random() < p


def mine(algorithm, federation, task, down, *, epochs, size=EVERYTHING, lr=0.1, client=0):
    """Directions [K, P] and update [P] of a client that is a miner."""
    directions = []

    def step(work, g, step):
        directions.append(g.clone())
        return algorithm.step(work, g, step)

    local = Local(replace(algorithm, step=step), task, federation, size, 0)
    down = down | {"p": torch.zeros((), dtype=F64)}
    result = local_training(local, down, Work(client, 1, epochs, lr, algorithm.init_client(down["theta"])))
    assert result.uplink["miner"] == 1
    return torch.stack(directions), result.uplink["sent"]


# invariants ---------------------------------------------------------------------------------------------------------


def test_invariant_1_a_round_of_anchors_caches_the_local_gradients_and_does_not_move():
    """fedamd 1: over batches of unequal size, and several passes; in the first round and where the period is over."""
    task, federation = exact_net()
    s = setting(build("fedamd", lr=0.3, p=2)[0], federation, task, epochs=3, batch_size=4)
    before = begin(s)
    first, second, third = rounds(s, 3)
    for earlier, later in ((before, first), (second, third)):
        theta = earlier.server["theta"]
        assert torch.equal(later.server["theta"], theta)
        torch.testing.assert_close(caches(later, 4), slopes(task, federation, theta), atol=1e-14, rtol=0)
    assert not torch.equal(second.server["theta"], first.server["theta"])


def test_invariant_2_one_step_on_everything_is_centralised_gradient_descent():
    """fedamd 2: with fresh caches x <- x - server_lr lr mean of the local gradients, whatever the clients' batches."""
    task, federation = exact_net()
    s = setting(build("fedamd", lr=0.3, server_lr=0.7, p=2)[0], federation, task, epochs=1, batch_size=EVERYTHING)
    x = begin(s).server["theta"]
    for index, state in enumerate(rounds(s, 6)):
        if index % 2:
            x = x - 0.7 * 0.3 * slopes(task, federation, x).mean(0)
        torch.testing.assert_close(state.server["theta"], x, atol=1e-14, rtol=0)


def test_invariant_2_the_first_step_is_along_the_mean_of_the_caches():
    """fedamd 2: whatever the caches and the batch, because the two gradients cancel."""
    algorithm, _ = build("fedamd")
    task, federation = QuadraticTask(), noisy([7, 5])
    vbar = torch.arange(5, dtype=F64) - 2.2
    directions, _ = mine(algorithm, federation, task, {"theta": task.init(1), "vbar": vbar}, epochs=1, size=3)
    torch.testing.assert_close(directions[0], vbar, atol=1e-15, rtol=0)
    assert (directions[1] - vbar).abs().max() > 1e-3


def test_invariant_3_full_batches_telescope():
    """fedamd 3: g_k = vbar + grad f(y_k) - grad f(x)."""
    algorithm, _ = build("fedamd")
    task, federation = exact_net()
    x, vbar = task.init(0), 0.3 * task.init(1)
    directions, delta = mine(algorithm, federation, task, {"theta": x, "vbar": vbar}, epochs=6)
    whole, y = federation.pool.batch(np.asarray(federation.train[0])), x
    for g in directions:
        expected = vbar + task.grad(y, whole)[0] - task.grad(x, whole)[0]
        torch.testing.assert_close(g, expected, atol=1e-13, rtol=0)
        y = y - 0.1 * g
    torch.testing.assert_close(delta, y - x, atol=1e-14, rtol=0)


def test_invariant_4_closed_form_of_a_miners_path_on_a_quadratic():
    """fedamd 4: y_K - x = -(vbar / a)(1 - (1 - eta a)^K)."""
    algorithm, _ = build("fedamd")
    problem, task, k, lr = Quadratics.draw(clients=2), QuadraticTask(), 7, 0.1
    vbar = torch.linspace(-1, 1, 5, dtype=F64)
    _, delta = mine(algorithm, problem.federation(), task, {"theta": task.init(3), "vbar": vbar}, epochs=k, client=1)
    a = problem.a[1]
    np.testing.assert_allclose(delta.numpy(), -vbar.numpy() / a * (1 - (1 - lr * a) ** k), atol=1e-14)


def test_invariant_5_the_mean_of_the_caches_is_kept_and_only_anchors_renew_theirs():
    """fedamd 5: half of 12 clients in a round, coins of 0.4; clients that were never anchors have no cache."""
    task, federation, p = QuadraticTask(), noisy(range(1, 13)), 0.4
    s = setting(build("fedamd", lr=0.05, p=p)[0], federation, task, epochs=2, batch_size=3, schedule=HALF)
    before, seen, mixed = begin(s), 0, 0
    for index, state in enumerate(rounds(s, 8)):
        took_part = [int(i) for i in schedule.cohort(HALF, 0, index, np.arange(12))]
        anchors = [i for i in took_part if index == 0 or coin(p, index, i)]
        mixed += 0 < len(anchors) < len(took_part)
        expected = slopes(task, federation, before.server["theta"])
        for i in range(12):
            wanted = expected[i] if i in anchors else before.client(i)["v"]
            torch.testing.assert_close(state.client(i)["v"], wanted, atol=1e-14, rtol=0)
        owners = [i for i in range(12) if state.client(i)["known"]]
        mean = torch.stack([state.client(i)["v"] for i in owners]).mean(0)
        torch.testing.assert_close(s.algorithm.downlink(state.server)["vbar"], mean, atol=1e-13, rtol=0)
        seen, before = max(seen, len(owners)), state
    assert 6 < seen <= 12
    assert mixed > 3


def test_invariant_6_nothing_moves_at_a_stationary_point():
    """fedamd 6: fresh caches there, full batches, several steps, clients that disagree."""
    problem = Quadratics.draw()
    optimum = torch.from_numpy(problem.optimum("uniform"))
    s = setting(build("fedamd", lr=0.1, p=2)[0], problem.federation(), epochs=9)
    start = begin(s)
    start = replace(start, server=start.server | {"theta": optimum})
    fresh, later = rounds(s, 2, start)
    assert caches(fresh, 10).abs().max() > 0.1
    torch.testing.assert_close(later.server["theta"], optimum, atol=1e-14, rtol=0)


# update rule and traps ----------------------------------------------------------------------------------------------


def test_trap_miners_take_the_caches_of_before_the_round_and_anchors_add_nothing():
    """A mixed cohort: x moves by the mean over its miners, each on a path that begins with the old vbar."""
    task, federation, p = QuadraticTask(), noisy([4] * 10), 0.5
    spy = Listening(build("fedamd", lr=0.1, p=p)[0])
    s = setting(spy.algorithm, federation, task, epochs=1, batch_size=EVERYTHING)
    *_, old, new = rounds(s, 4)
    anchors = [coin(p, 3, i) for i in range(10)]
    assert 0 < sum(anchors) < 10
    vbar = caches(old, 10).mean(0)
    for anchor, delta in zip(anchors, spy.deltas[-10:], strict=True):
        torch.testing.assert_close(delta, 0 * vbar if anchor else -0.1 * vbar, atol=1e-14, rtol=0)
    torch.testing.assert_close(new.server["theta"], old.server["theta"] - 0.1 * vbar, atol=1e-14, rtol=0)
    assert (caches(new, 10).mean(0) - vbar).abs().max() > 1e-3


def test_trap_both_gradients_are_of_the_same_batch():
    spy = Spy(QuadraticTask())
    theta = spy.init(0)
    mine(build("fedamd")[0], noisy([7, 5]), spy, {"theta": theta, "vbar": theta}, epochs=2, size=3)
    assert len(spy.batches) == 12
    for here, before in zip(spy.batches[::2], spy.batches[1::2], strict=True):
        assert torch.equal(here.x, before.x)


def test_trap_period_one_means_always():
    """Everybody is an anchor in every round: the model never moves."""
    s = setting(build("fedamd", lr=0.3, p=1)[0], nets.federation(), nets.task(), rounds=3, epochs=1, batch_size=4)
    assert torch.equal(run(s).server["theta"], begin(s).server["theta"])


def test_a_period_makes_anchors_of_everybody_in_every_pth_round():
    s = setting(build("fedamd", lr=0.3, p=3)[0], nets.federation(), nets.task(), epochs=1, batch_size=4)
    thetas = [begin(s).server["theta"]] + [state.server["theta"] for state in rounds(s, 7)]
    assert [torch.equal(*pair) for pair in pairwise(thetas)] == [i % 3 == 0 for i in range(7)]


@pytest.mark.parametrize("empty", [{2}, {1, 2, 3}, {0, 1}, {3, 5}], ids=str)
def test_rounds_in_which_nobody_comes_are_not_counted_by_the_period(empty):
    """Every second round with participants has anchors alone, whichever rounds they are."""
    there = np.array([[round not in empty] * 4 for round in range(9)])
    s = setting(build("fedamd", lr=0.3, p=2)[0], nets.federation(), nets.task(), rounds=9, epochs=1, batch_size=4)
    s = attending(s, there)
    thetas = [begin(s).server["theta"]] + [state.server["theta"] for state in rounds(s, 9)]
    moved = [round for round in range(9) if not torch.equal(thetas[round], thetas[round + 1])]
    assert moved == np.flatnonzero(there.any(1))[1::2].tolist()


@pytest.mark.parametrize("share", [0.01, 0.4])
def test_an_anchor_goes_through_all_its_examples_whatever_share_of_its_work_it_does(share):
    """Its cache is the exact local gradient; miners of the same round are cut short."""
    task, federation = exact_net()
    schedule = ScheduleFile(title="", local_work=LocalWork(min=share, max=share))
    s = setting(build("fedamd", lr=0.3, p=0.5)[0], federation, task, epochs=2, batch_size=3, schedule=schedule)
    before, mixed = begin(s), False
    for index, state in enumerate(rounds(s, 5)):
        anchors = [i for i in range(4) if index == 0 or coin(0.5, index, i)]
        expected = slopes(task, federation, before.server["theta"])
        torch.testing.assert_close(caches(state, 4)[anchors], expected[anchors], atol=1e-14, rtol=0)
        n = [len(rows) for rows in federation.train]
        steps = {i: max(int(share * 2 * -(-n[i] // 3) + 0.5), 1) for i in range(4)}
        spent = state.gradient_examples - before.gradient_examples - sum(2 * n[i] for i in anchors)
        most = sum(2 * 3 * steps[i] for i in range(4) if i not in anchors)
        assert (spent > 0) == (most > 0)
        assert spent <= most
        mixed, before = mixed or 0 < len(anchors) < 4, state
    assert mixed


def test_probabilities_by_rule():
    """optb is the positive root of p^2 + 4 (N/A) p = 2 N/A; optc solves p^A = 2/(A + 2)."""
    for cohort, population in ((1, 1), (10, 20), (20, 100), (3, 1000)):
        p, ratio = anchor_probability("optb", 5, cohort, population), population / cohort
        assert 0 < p < 0.5
        assert p**2 + 4 * ratio * p == pytest.approx(2 * ratio)
        assert anchor_probability("optc", 5, cohort, population) ** cohort == pytest.approx(2 / (cohort + 2))
    assert anchor_probability("optc", 1, 2, 9) == pytest.approx(0.5**0.5)
    assert anchor_probability(0.2, 4, 3, 9) == 0.2


def test_a_rule_is_used_from_the_second_round_on():
    s = setting(build("fedamd", p="optc")[0], noisy([3] * 8), QuadraticTask(), epochs=1, schedule=HALF)
    first, second = rounds(s, 2)
    assert begin(s).server["p"] == 1
    for state in (first, second):
        assert float(state.server["p"]) == pytest.approx((2 / 6) ** 0.25)


def test_the_coin_is_decided_by_seed_round_and_client():
    algorithm, _ = build("fedamd")
    federation, task = nets.federation(), nets.task()

    def chance(seed, round, client):
        local = Local(algorithm, task, federation, 4, seed)
        return float(client_state(local, Work(client, round, 1, 0.1, {}))["chance"])

    keys = [(seed, round, client) for seed in (0, 1) for round in (0, 1) for client in (0, 1)]
    assert len({chance(*key) for key in keys}) == len(keys)
    assert chance(1, 2, 3) == chance(1, 2, 3)
    draws = np.array([chance(0, round, 0) for round in range(400)])
    assert abs((draws < 0.3).mean() - 0.3) < 4 * (0.21 / 400) ** 0.5  # four standard deviations
    plain = Local(build("fedavg")[0], task, federation, 4, 0)
    assert client_state(plain, Work(0, 0, 1, 0.1, {})) == {}


def test_trap_what_is_sent_and_computed_is_counted():
    """x, vbar and the probability go down; one vector and two numbers go up. A miner takes two gradients a step."""
    algorithm, _ = build("fedamd", lr=0.1, p=2)
    federation, task = nets.federation(), nets.task()
    s = setting(algorithm, federation, task, epochs=3, batch_size=4)
    first, second = rounds(s, 2)
    size = sum(task.sizes)
    assert first.bytes_down == 4 * len(channel.encode({"theta": torch.zeros(2 * size), "p": torch.zeros(1)}))
    assert first.bytes_up == 4 * (4 * (size + 2) + channel.COUNT_BYTES)
    passes = 3 * sum(len(rows) for rows in federation.train)
    assert first.gradient_examples == passes
    assert second.gradient_examples - first.gradient_examples == 2 * passes


def test_weight_decay_belongs_to_the_local_loss():
    """The fixed point is that of sum of f_i + lambda/2 ||x||^2, which caches and both gradients agree on."""
    problem, decay = Quadratics.draw(clients=4), 0.3
    s = setting(build("fedamd", lr=0.05, p=2, server_lr=0.5, weight_decay=decay)[0], problem.federation(), rounds=500)
    expected = (problem.a * problem.b).mean(0) / (problem.a.mean(0) + decay)
    np.testing.assert_allclose(run(s).server["theta"].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [{"p": 0}, {"p": -0.1}, {"p": 1.5}, {"p": "opta"}, {"momentum": 0.9}, {"weighting": "weighted"}],
    ids=str,
)
def test_what_is_not_offered_is_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build("fedamd", **settings)
