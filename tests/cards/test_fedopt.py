"""Card fedopt (Reddi et al. 2021; FedAvgM: Hsu et al. 2019): invariants and traps, through the real engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.arms import CASES
from contract.linear import LinearTask, linear
from contract.quadratic import DIMENSIONS, Quadratics, build, run, setting
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import RunState, advance, begin
from heterobench.schedule import cohort

RULES = ("momentum", "adagrad", "adam", "yogi")
ADAPTIVE = RULES[1:]
HALF = ScheduleFile(title="half", participation=0.5)


def constant(delta, **settings):
    """A setting in which the averaged update is `delta` [d] in every round, and its first state."""
    algorithm, _ = build("fedopt", lr=0.1, **settings)
    s = setting(algorithm, linear(np.tile(-10 * np.asarray(delta), (2, 1)), [1, 1]), LinearTask(), epochs=1)
    return s, begin(s)


def listening(algorithm):
    """The algorithm, and a list that its averaged updates are written to."""
    deltas = []

    def serve(server, up, info):
        deltas.append(up["delta"].clone())
        return algorithm.serve(server, up, info)

    return replace(algorithm, serve=serve), deltas


def with_v(state, v):
    return replace(state, server=state.server | {"v": torch.full_like(state.server["v"], v)})


DELTA = np.array([0.5, -0.2, 0.01, -1.0, 0.0])


# invariants ---------------------------------------------------------------------------------------------------------


def test_invariant_1_momentum_without_beta_is_fedavg():
    """fedopt 1: FedAvgM with beta = 0, eta_g = 1, to the bit."""
    ours, plain = (
        run(
            setting(
                build(name, lr=0.1, **more)[0],
                nets.federation(),
                nets.task(),
                rounds=3,
                epochs=2,
                batch_size=4,
            )
        )
        for name, more in (("fedopt", {"optimizer": "momentum", "beta1": 0.0}), ("fedavg", {}))
    )
    assert torch.equal(ours.server["theta"], plain.server["theta"])


@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("rule", ADAPTIVE)
def test_invariant_1_an_endless_tau_takes_the_adaptivity_away(rule, beta1):
    """fedopt 1: with eta_g = tau = 1e8 and v_{-1} = 0 the step is m, for beta1 = 0 that of FedAvg.

    From the published start v_{-1} = tau^2 the divisor is sqrt(v) + tau with v = tau^2 (adagrad, yogi) or
    beta2 tau^2 (adam) in the first round, so the same step is m/2, and m/(1 + sqrt(beta2)).
    """
    problem, big = Quadratics.draw(unequal=True), 1e8
    algorithm, _ = build("fedopt", lr=0.1, optimizer=rule, beta1=beta1, tau=big, server_lr=big)
    s = setting(algorithm, problem.federation())
    plain = setting(build("fedavg", lr=0.1)[0], problem.federation())
    state = begin(s)
    x = state.server["theta"].numpy()
    delta = advance(plain, begin(plain)).server["theta"].numpy() - x
    m = (1 - beta1) * delta
    np.testing.assert_allclose(advance(s, with_v(state, 0.0)).server["theta"].numpy(), x + m, atol=1e-7)
    share = 1 / (1 + np.sqrt(0.99)) if rule == "adam" else 0.5
    np.testing.assert_allclose(advance(s, state).server["theta"].numpy(), x + share * m, atol=1e-7)


def test_invariant_2_adagrad_sums_all_squares():
    """fedopt 2: v_T = v_{-1} + sum of Delta_t^2, with v_{-1} = tau^2."""
    real, _ = build("fedopt", lr=0.1, optimizer="adagrad", beta1=0.0, tau=0.05, server_lr=0.1)
    algorithm, deltas = listening(real)
    s = setting(algorithm, Quadratics.draw(unequal=True).federation(), rounds=7, schedule=HALF)
    v = run(s).server["v"]
    assert len(deltas) == 7
    torch.testing.assert_close(v, 0.05**2 + torch.stack(deltas).square().sum(0), rtol=1e-13, atol=0)


def test_invariant_3_yogi_and_adam_agree_in_the_first_round():
    """fedopt 3: from v = 0 both give (1 - beta2) Delta^2."""
    for rule in ("adam", "yogi"):
        s, state = constant(DELTA, optimizer=rule, beta2=0.9)
        v = advance(s, with_v(state, 0.0)).server["v"].numpy()
        np.testing.assert_allclose(v, 0.1 * DELTA**2, rtol=1e-12)


def test_invariant_3_yogi_moves_by_a_fixed_amount():
    """fedopt 3: afterwards Yogi's v goes up or down by (1 - beta2) Delta^2, towards Delta^2."""
    real, _ = build("fedopt", lr=0.1, optimizer="yogi", beta2=0.9, server_lr=0.5, tau=0.1)
    algorithm, deltas = listening(real)
    s = setting(algorithm, Quadratics.draw(unequal=True).federation(), epochs=3)
    state, signs = begin(s), set()
    for _ in range(12):
        before = state.server["v"]
        state = advance(s, state)
        change, square = state.server["v"] - before, deltas[-1].square()
        torch.testing.assert_close(change.abs(), 0.1 * square, rtol=1e-6, atol=1e-15)
        assert torch.equal(change.sign(), (square - before).sign())
        signs |= set(change.sign().tolist())
    assert signs == {-1.0, 1.0}


def test_invariant_4_constant_update_under_momentum():
    """fedopt 4: v_t = Delta (1 - beta^t)/(1 - beta), without a damping factor (1 - beta)."""
    s, state = constant(DELTA, optimizer="momentum", beta1=0.8, server_lr=0.3)
    x = np.zeros(DIMENSIONS)
    for t in range(1, 8):
        state = advance(s, state)
        v = DELTA * (1 - 0.8**t) / (1 - 0.8)
        x = x + 0.3 * v
        np.testing.assert_allclose(state.server["m"].numpy(), v, rtol=1e-12)
        np.testing.assert_allclose(state.server["theta"].numpy(), x, rtol=1e-12)


@pytest.mark.parametrize("rule", ADAPTIVE)
def test_invariant_4_constant_update_under_adaptive_rules(rule):
    """fedopt 4: m_t = Delta (1 - beta1^t), so the first step is 0.1 Delta/(sqrt(v) + tau); no bias correction."""
    s, state = constant(DELTA, optimizer=rule, beta1=0.9, beta2=0.99, tau=0.05, server_lr=0.3)
    first = {
        "adagrad": 0.05**2 + DELTA**2,
        "adam": 0.99 * 0.05**2 + 0.01 * DELTA**2,
        "yogi": 0.05**2 + np.where(DELTA**2 > 0.05**2, 1, -1) * 0.01 * DELTA**2,
    }[rule]
    for t in range(1, 8):
        state = advance(s, state)
        np.testing.assert_allclose(state.server["m"].numpy(), DELTA * (1 - 0.9**t), rtol=1e-12)
        if t == 1:
            step = 0.3 * 0.1 * DELTA / (np.sqrt(first) + 0.05)
            np.testing.assert_allclose(state.server["theta"].numpy(), step, rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_invariant_5_a_round_without_update(rule):
    """fedopt 5: Delta = 0 leaves x fixed if m = 0; otherwise the momentum carries on."""
    s, state = constant(np.zeros(DIMENSIONS), optimizer=rule, beta1=0.9, server_lr=0.5, tau=0.1)
    theta = torch.linspace(1, 2, DIMENSIONS, dtype=torch.float64)
    state = replace(state, server=state.server | {"theta": theta})
    assert torch.equal(advance(s, state).server["theta"], theta)

    m = torch.from_numpy(DELTA)
    moved = advance(s, replace(state, server=state.server | {"m": m})).server["theta"] - theta
    v = {"adagrad": 0.01, "adam": 0.99 * 0.01, "yogi": 0.01}
    divisor = 1.0 if rule == "momentum" else np.sqrt(v[rule]) + 0.1
    np.testing.assert_allclose(moved.numpy(), 0.5 * 0.9 * DELTA / divisor, atol=1e-14)


@pytest.mark.parametrize("rule", RULES)
def test_invariant_6_permuting_or_merging_clients_changes_nothing(rule):
    """fedopt 6: 3 + 3 examples in two places or 6 in one; any order."""
    a, b = Quadratics.draw(clients=3).a, Quadratics.draw(clients=3).b
    federations = [
        Quadratics(a[i], b[i], np.array(n)).federation()
        for i, n in (([0, 1, 2], [6, 4, 2]), ([2, 0, 1], [2, 6, 4]), ([0, 0, 1, 2], [3, 3, 4, 2]))
    ]
    algorithm, _ = build("fedopt", lr=0.1, optimizer=rule, tau=0.1, server_lr=0.1)
    found = [run(setting(algorithm, f, rounds=5)).server["theta"] for f in federations]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-12, rtol=0)


# independent references ---------------------------------------------------------------------------------------------


def trajectory(rule, **settings):
    """Models and averaged updates of 10 rounds of the real engine under partial participation."""
    real, _ = build("fedopt", lr=0.1, optimizer=rule, **settings)
    algorithm, deltas = listening(real)
    s = setting(algorithm, Quadratics.draw(unequal=True).federation(), epochs=3, schedule=HALF)
    state = begin(s)
    models = [state.server["theta"].clone()]
    for _ in range(10):
        state = advance(s, state)
        models.append(state.server["theta"])
    return models, deltas


@pytest.mark.parametrize("rule", ["momentum", "adagrad"])
def test_torch_optimisers_on_minus_delta_take_the_same_steps(rule):
    """torch's SGD with momentum has no damping; its Adagrad adds eps outside the root. Both subtract."""
    models, deltas = trajectory(rule, beta1=0.9 if rule == "momentum" else 0.0, tau=0.05, server_lr=0.2)
    x = models[0].clone()
    if rule == "momentum":
        optimiser = torch.optim.SGD([x], lr=0.2, momentum=0.9)
    else:
        optimiser = torch.optim.Adagrad([x], lr=0.2, initial_accumulator_value=0.05**2, eps=0.05)
    for delta, expected in zip(deltas, models[1:], strict=True):
        x.grad = -delta
        optimiser.step()
        torch.testing.assert_close(x, expected, atol=1e-12, rtol=0)


def test_trap_adam_of_torch_is_another_method():
    """Bias correction and v_{-1} = 0 make torch's Adam take other steps."""
    models, deltas = trajectory("adam", tau=0.05, server_lr=0.2)
    x = models[0].clone()
    optimiser = torch.optim.Adam([x], lr=0.2, betas=(0.9, 0.99), eps=0.05)
    x.grad = -deltas[0]
    optimiser.step()
    assert (x - models[1]).abs().max() > 1e-2


@pytest.mark.parametrize("rule", ADAPTIVE)
def test_plain_loop_takes_the_same_steps(rule):
    """The formulas of the card, in NumPy."""
    models, deltas = trajectory(rule, beta1=0.8, beta2=0.9, tau=0.05, server_lr=0.2)
    x, m, v = models[0].numpy(), np.zeros(DIMENSIONS), np.full(DIMENSIONS, 0.05**2)
    for delta, expected in zip((d.numpy() for d in deltas), models[1:], strict=True):
        m = 0.8 * m + 0.2 * delta
        if rule == "adagrad":
            v = v + delta**2
        elif rule == "adam":
            v = 0.9 * v + 0.1 * delta**2
        else:
            v = v - 0.1 * delta**2 * np.sign(v - delta**2)
        x = x + 0.2 * m / (np.sqrt(v) + 0.05)
        np.testing.assert_allclose(expected.numpy(), x, atol=1e-12)


# traps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ADAPTIVE)
@pytest.mark.parametrize("tau", [1e-3, 0.1])
def test_trap_v_starts_at_tau_squared(rule, tau):
    """A tiny update then makes a first step of about eta_g m/(2 tau), not eta_g m/tau."""
    s, state = constant(1e-9 * np.ones(DIMENSIONS), optimizer=rule, beta1=0.0, tau=tau, server_lr=1.0)
    np.testing.assert_allclose(state.server["v"].numpy(), tau**2, rtol=1e-15)
    np.testing.assert_allclose(advance(s, state).server["theta"].numpy(), 1e-9 / (2 * tau), rtol=0.01)


def test_momentum_keeps_no_second_moment():
    _, state = constant(DELTA, optimizer="momentum")
    assert state.server.keys() == {"theta", "m"}


@pytest.mark.parametrize("rule", RULES)
def test_trap_the_server_steps_downhill(rule):
    """The sign: Delta points downhill already."""
    problem = Quadratics.draw(clients=4)
    algorithm, _ = build("fedopt", lr=0.05, optimizer=rule, server_lr=0.05, tau=0.1)
    s = setting(algorithm, problem.federation(), rounds=20)
    losses = [
        0.5 * (problem.a * (state.server["theta"].numpy() - problem.b) ** 2).sum(1).mean()
        for state in (begin(s), run(s))
    ]
    assert losses[1] < losses[0]


def test_trap_the_update_is_weighted_by_examples_of_the_cohort():
    """Always n_i over the sum of the cohort (the declared choice), in every round."""
    problem = Quadratics.draw(unequal=True)
    real, _ = build("fedopt", lr=0.1, optimizer="momentum", beta1=0.5, server_lr=0.1)
    algorithm, deltas = listening(real)
    s = setting(algorithm, problem.federation(), epochs=3, schedule=HALF)
    state = begin(s)
    for round in range(4):
        x, i = state.server["theta"].numpy(), cohort(HALF, 0, round, np.arange(10))
        state = advance(s, state)
        y = problem.b[i] + (1 - 0.1 * problem.a[i]) ** 3 * (x - problem.b[i])
        np.testing.assert_allclose(deltas[-1].numpy(), np.average(y, axis=0, weights=problem.n[i]) - x, atol=1e-13)


@pytest.mark.parametrize("rule", RULES)
def test_clients_are_those_of_fedavg(rule):
    """Stateless, the same messages, the same first update (weight decay and all)."""
    federation, task = nets.federation(), nets.task()
    more = {"rounds": 1, "epochs": 2, "batch_size": 4}
    ours, first = listening(build("fedopt", lr=0.1, optimizer=rule, weight_decay=0.1, momentum=0.5)[0])
    plain, second = listening(build("fedavg", lr=0.1, weight_decay=0.1, momentum=0.5)[0])
    one, two = (run(setting(algorithm, federation, task, **more)) for algorithm in (ours, plain))
    assert torch.equal(first[0], second[0])
    assert (one.bytes_up, one.bytes_down) == (two.bytes_up, two.bytes_down)
    assert one.clients == two.clients == {}


def test_variants_are_the_four_methods():
    found = {case.name: case.settings["optimizer"] for case in CASES if case.algorithm == "fedopt" and case.settings}
    assert found == {"fedavgm": "momentum", "fedadagrad": "adagrad", "fedadam": "adam", "fedyogi": "yogi"}
    assert next(c for c in CASES if c.name == "fedadagrad").settings["beta1"] == 0


@pytest.mark.parametrize(
    "settings",
    [{"optimizer": "rmsprop"}, {"beta1": 1.0}, {"beta2": 1.0}, {"tau": 0.0}, {"server_lr": 0.0}],
    ids=str,
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build("fedopt", **settings)


# the tests have teeth -----------------------------------------------------------------------------------------------


def test_damped_momentum_is_another_method():
    """Mutation: v <- beta v + (1 - beta) Delta. The closed form of invariant 4 tells them apart."""
    s, state = constant(DELTA, optimizer="momentum", beta1=0.8)
    real = s.algorithm

    def serve(server, up, info):
        return real.serve(server, up | {"delta": 0.2 * up["delta"]}, info)

    damped = advance(replace(s, algorithm=replace(real, serve=serve)), state)
    np.testing.assert_allclose(damped.server["m"].numpy(), 0.2 * DELTA, rtol=1e-12)
    np.testing.assert_allclose(advance(s, state).server["m"].numpy(), DELTA, rtol=1e-12)


def test_engine_starts_where_these_tests_say():
    """`begin` takes the state that `make` describes."""
    s, state = constant(DELTA, optimizer="adam")
    theta = s.task.init(0)
    assert isinstance(state, RunState)
    assert torch.equal(state.server["theta"], theta)
    assert not state.server["m"].any()
