"""Card anarchic-fl (Yang et al. 2022), for synchronous rounds: its invariants and traps, through the real engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.linear import LinearTask, linear
from contract.quadratic import DIMENSIONS, Quadratics, QuadraticTask, build, run, setting
from contract.spies import Listening, attending, noisy, rounds
from heterobench.channel import COUNT_BYTES
from heterobench.config.schema import LocalWork, ScheduleFile
from heterobench.engine.synchronous import begin

FORMS = {"AFA-CD": "cross-device", "AFA-CS": "cross-silo"}
both = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
SIZES = (4, 5, 3, 6)
WORK = ScheduleFile(title="any number of steps", local_work=LocalWork(min=0.1))


def afa(form, **more):
    return build("anarchic-fl", form=form, **more)[0]


def theta(state):
    return state.server["theta"].numpy()


# invariants ---------------------------------------------------------------------------------------------------------


@both
def test_invariant_1_one_step_of_everybody_is_sgd_with_the_mean_gradient(form):
    """anarchic-fl 1: the step is eta eta_L."""
    federation, task = noisy(SIZES), QuadraticTask()
    s = setting(afa(form, lr=0.1, server_lr=3.0), federation, epochs=1)
    x = begin(s).server["theta"]
    for state in rounds(s, 5):
        x = x - 0.3 * torch.stack([task.grad(x, federation.pool.batch(rows))[0] for rows in federation.train]).mean(0)
        torch.testing.assert_close(state.server["theta"], x, atol=1e-14, rtol=0)


def test_invariant_2_everybody_every_round_makes_both_the_same():
    """anarchic-fl 2: also with unequal numbers of steps."""
    given = {"federation": noisy(SIZES), "epochs": 4, "batch_size": 2, "schedule": WORK}
    device, silo = (setting(afa(form, lr=0.05, server_lr=2.0), **given) for form in FORMS.values())
    for one, other in zip(rounds(device, 8), rounds(silo, 8), strict=True):
        torch.testing.assert_close(one.server["theta"], other.server["theta"], atol=1e-13, rtol=0)


def test_invariant_3_the_server_keeps_the_mean_of_all_latest_updates():
    """anarchic-fl 3: G_t = G_{t-1} + (1/M) sum of the changes, from the round in which all are known."""
    present = np.random.default_rng(2).random((16, 4)) < 0.4
    spy = Listening(afa("cross-silo", lr=0.05, server_lr=2.0))
    s = attending(setting(spy.algorithm, noisy(SIZES), rounds=len(present), epochs=2, batch_size=2), present)
    latest, seen, before, G = {}, 0, begin(s).server["theta"], None
    steps = [2 * -(-n // 2) for n in SIZES]
    for t, state in enumerate(rounds(s, 16)):
        old = dict(latest)
        for i in map(int, np.flatnonzero(present[t])):
            latest[i] = -spy.deltas[seen] / (0.05 * steps[i])
            seen += 1
        now = state.server
        if not present[t].any():
            assert now["theta"] is before
            continue
        assert int(now["known"]) == len(latest)
        torch.testing.assert_close(now["total"] / now["known"], torch.stack(list(latest.values())).mean(0))
        torch.testing.assert_close(now["theta"], before - 0.1 * now["total"] / now["known"], atol=1e-14, rtol=0)
        for i, v in latest.items():
            torch.testing.assert_close(state.clients[i]["v"], v, atol=1e-13, rtol=0)
        if len(old) == 4:
            change = sum(latest[i] - old[i] for i in map(int, np.flatnonzero(present[t]))) / 4
            torch.testing.assert_close(now["total"] / 4, G + change, atol=1e-13, rtol=0)
        before, G = now["theta"], now["total"] / 4
    assert len(latest) == 4


GRADIENTS = np.random.default_rng(3).normal(size=(4, DIMENSIONS))
TURNS = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]])


def steps_of(form) -> tuple[np.ndarray, np.ndarray]:
    """Movements [rounds, d] of the server under constant gradients, and the client means in order of arrival."""
    given = {"rounds": 5, "epochs": 6, "batch_size": 2, "schedule": WORK}
    s = setting(afa(form, lr=0.1, server_lr=2.0), linear(GRADIENTS, [2, 7, 4, 5]), LinearTask(), **given)
    states = [begin(s), *rounds(attending(s, TURNS), 5)]
    return np.diff([theta(state) for state in states], axis=0)


def test_invariant_4_with_constant_gradients_afa_cd_depends_on_who_comes():
    """anarchic-fl 4: G_i = g_i for every number of steps."""
    expected = [-0.2 * GRADIENTS[row.astype(bool)].mean(0) for row in TURNS]
    np.testing.assert_allclose(steps_of("cross-device"), expected, atol=1e-13)


def test_invariant_4_with_constant_gradients_afa_cs_has_the_mean_once_all_are_known():
    """anarchic-fl 4: before that, the mean of those that are known."""
    known = np.maximum.accumulate(TURNS).astype(bool)
    expected = [-0.2 * GRADIENTS[row].mean(0) for row in known]
    found = steps_of("cross-silo")
    np.testing.assert_allclose(found, expected, atol=1e-13)
    np.testing.assert_allclose(found[2:], np.tile(-0.2 * GRADIENTS.mean(0), (3, 1)), atol=1e-13)


def test_invariant_5_fixed_points_under_unequal_frequencies():
    """anarchic-fl 5: AFA-CD sum q a b / sum q a, AFA-CS sum a b / sum a; one step, small rates."""
    problem, q = Quadratics.draw(clients=3), np.array([0.5, 0.25, 0.25])[:, None]
    turns = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]])
    a, b = problem.a, problem.b
    bent, fair = (q * a * b).sum(0) / (q * a).sum(0), (a * b).sum(0) / a.sum(0)
    apart = np.abs(bent - fair).max()
    for form, point, other in (("cross-device", bent, fair), ("cross-silo", fair, bent)):
        s = setting(afa(form, lr=0.01), problem.federation(), rounds=2500, epochs=1)
        *_, found = (theta(state) for state in rounds(attending(s, turns), 2500))
        assert np.abs(found - point).max() < 0.05 * apart
        assert np.abs(found - other).max() > 0.9 * apart


@pytest.mark.parametrize("eta", [1.0, 4.0])
def test_invariant_6_equal_steps_are_fedavg_with_a_server_step(eta):
    """anarchic-fl 6: eta eta_L / (eta_L K) = eta / K on the mean difference, K = 4."""
    half = ScheduleFile(title="half", participation=0.5)
    given = {"federation": noisy((6, 6, 6, 6)), "epochs": 2, "batch_size": 3, "schedule": half}
    ours = setting(afa("cross-device", lr=0.1, server_lr=eta), **given)
    plain = setting(build("fedavg", lr=0.1, weighting="uniform", server_lr=eta / 4)[0], **given)
    for one, other in zip(rounds(ours, 6), rounds(plain, 6), strict=True):
        torch.testing.assert_close(one.server["theta"], other.server["theta"], atol=1e-14, rtol=0)


# traps --------------------------------------------------------------------------------------------------------------


def test_trap_memory_begins_without_zeros():
    """The first round of AFA-CS is that of AFA-CD: workers that never reported do not shorten the step."""
    given = {"federation": noisy(SIZES), "epochs": 2, "batch_size": 2}
    first = [run(attending(setting(afa(form), **given), TURNS)).server["theta"] for form in FORMS.values()]
    torch.testing.assert_close(*first, atol=1e-15, rtol=0)


@both
def test_the_server_step_follows_the_local_step_size(form):
    """eta_L of the round: with constant gradients a decay of 1/2 halves the steps."""
    s = setting(afa(form, lr=0.1, lr_decay=0.5), linear(GRADIENTS, [1, 1, 1, 1]), LinearTask(), epochs=3)
    found = np.diff([theta(state) for state in (begin(s), *rounds(s, 4))], axis=0)
    np.testing.assert_allclose(found, [-0.1 * 0.5**t * GRADIENTS.mean(0) for t in range(4)], atol=1e-14)


@both
def test_traffic(form):
    """8 P per returned update; AFA-CS one number more, the flag of a first report."""
    p = len(nets.task().init(0))
    state = run(setting(afa(form), nets.federation(), nets.task(), epochs=1, rounds=2))
    flag = 4 if form == "cross-silo" else 0
    assert state.bytes_down == 2 * 4 * 4 * p
    assert state.bytes_up == 2 * 4 * (4 * p + flag + COUNT_BYTES)


@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"weighting": "weighted"}, {"form": "gossip"}], ids=str)
def test_what_is_not_offered_is_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build("anarchic-fl", **settings)
