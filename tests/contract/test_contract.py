"""The contract that every algorithm fulfils, generated over all that are found (DESIGN: contract tests).

A known exception is declared in the algorithm's file as EXCEPTIONS[test] = reason, and asserted here to be real.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contract import nets
from contract.arms import CASES, PROJECT
from contract.quadratic import DIMENSIONS, Quadratics, QuadraticTask, build, run, setting, settle
from heterobench import channel, registry
from heterobench.algorithms import diloco, feddyn, fedprox
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import Setting, advance, begin
from heterobench.executor.local import Local, Work, local_training
from heterobench.executor.loop import Loop
from heterobench.federation import batches
from heterobench.records import record
from heterobench.records.recorder import Recorder
from heterobench.resolve import algorithm_files
from heterobench.training import thetas, train

every = pytest.mark.parametrize("case", CASES, ids=str)
corrected = pytest.mark.parametrize(
    "case", [c for c in CASES if {"drift-free", "stateful"} <= c.build()[0].tags], ids=str
)

# Settings that reach the fixed point in few rounds; the point itself depends on none of them. The adaptive server
# rules overshoot for ever where server_lr / tau is large; less momentum makes swings die out sooner; a larger alpha
# lets FedDyn and FedSpeed learn their linear terms faster. AdamW does not settle at a step size that stays; DiLoCo's
# outer steps do. Every second round FedAMD's clients are anchors, so that no coin decides; its cached gradients are
# late, hence slow.
ADAPTIVE = {"server_lr": 1.0, "tau": 1.0, "beta1": 0.5}
BRISK = {"beta1": 0.5}
DUAL = {"alpha": 0.5}
CALM = {
    "fedopt": BRISK,
    "fedavgm": BRISK,
    "fedavg-m": {"beta": 0.5},
    "scaffold-m": {"beta": 0.5},
    "fedadagrad": ADAPTIVE,
    "fedadam": ADAPTIVE,
    "fedyogi": ADAPTIVE,
    "feddyn": DUAL,
    "fedspeed": DUAL,
    "diloco": diloco.PLAIN,
    "fedamd": {"p": 2, "server_lr": 0.5},
}
RATE = 0.1
NORMALISED = ("anarchic-fl", "fedavg-m", "fednova")  # updates are divided by numbers of steps


def calm(case):
    return case.build(lr=RATE, **CALM.get(case.name, {}))


def pull(hp) -> float:
    """Strength s of the term s/2 ||y - x||^2 in the local loss."""
    if isinstance(hp, feddyn.HyperParameters):
        return hp.alpha
    return hp.mu if isinstance(hp, fedprox.HyperParameters) else 0.0


def expected(case, problem: Quadratics, algorithm, hp, steps: np.ndarray) -> np.ndarray:
    """The point [d], or points [N, d], that theory promises."""
    if "personalised" in algorithm.tags:
        return problem.b
    weighting = getattr(hp, "weighting", "weighted")
    if "drift-free" in algorithm.tags:
        rho = getattr(hp, "rho", 0.0)  # gradients taken uphill have an optimum of their own
        return problem.sharp_optimum(weighting, rho) if rho else problem.optimum(weighting)
    rate = RATE * hp.beta if case.algorithm == "fedavg-m" else RATE  # at its fixed point the momentum is zero
    return problem.fixed_point(weighting, rate, steps, pull(hp), case.algorithm in NORMALISED)


def assert_settled(case, found: np.ndarray, point: np.ndarray) -> None:
    """The point that theory promises is reached, or missed where the method's file says why."""
    if reason := getattr(case.module, "EXCEPTIONS", {}).get("quadratics"):
        assert np.isfinite(found).all()
        assert np.abs(found - point).max() > 1e-3, reason
    else:
        np.testing.assert_allclose(found, point, atol=1e-7)


def patience(case, rounds: int) -> int:
    """Rounds until a method has settled; few of one that does not go where theory says."""
    return 20 if "quadratics" in getattr(case.module, "EXCEPTIONS", {}) else rounds


def settled(s: Setting, clients: int, rounds: int) -> np.ndarray:
    return thetas(s, settle(s, clients, rounds), clients).numpy()


# 1 -- quadratic federation ------------------------------------------------------------------------------------------


@every
def test_quadratic_federation_ends_where_theory_says(case):
    """Different minimisers and curvatures, 5 exact local steps: the optimum, or the known biased point."""
    problem = Quadratics.draw(clients=4)
    algorithm, hp = calm(case)
    found = settled(setting(algorithm, problem.federation()), 4, patience(case, 600))
    assert_settled(case, found, expected(case, problem, algorithm, hp, np.full(4, 5)))


@every
def test_quadratic_federation_with_unequal_local_work(case):
    """1 to 4 examples in batches of one: clients differ in weight and in number of local steps."""
    problem = Quadratics.draw(clients=4, unequal=True)
    algorithm, hp = calm(case)
    batch = 10**6 if "pooled" in algorithm.tags else 1  # pooled single examples would be noisy SGD
    found = settled(setting(algorithm, problem.federation(), epochs=2, batch_size=batch), 4, patience(case, 800))
    assert_settled(case, found, expected(case, problem, algorithm, hp, 2 * problem.n))


@corrected
def test_drift_free_methods_reach_the_optimum_under_partial_participation(case):
    problem = Quadratics.draw(clients=10)
    algorithm, hp = calm(case)
    s = setting(algorithm, problem.federation(), schedule=ScheduleFile(title="", participation=0.25))
    found = settled(s, 10, 1500)
    np.testing.assert_allclose(found, expected(case, problem, algorithm, hp, np.full(10, 5)), atol=1e-6)


@corrected
def test_client_states_end_as_the_clients_gradients_at_the_optimum(case):
    """What removes drift is a state in proportion to the client's own gradient, without anything common to all."""
    problem = Quadratics.draw(clients=5)
    algorithm, hp = calm(case)
    s = setting(algorithm, problem.federation())
    state = settle(s, 5, 600)
    g = problem.a * (algorithm.model(state.server).numpy() - problem.b)
    if rho := getattr(hp, "rho", 0.0):
        g = g + rho * problem.a * g / np.linalg.norm(g, axis=1, keepdims=True)
    (entry,) = (name for name, value in state.client(0).items() if value.shape == (DIMENSIONS,))
    kept = np.stack([state.client(i)[entry].numpy() for i in range(5)])
    factor = (kept * g).sum() / (g * g).sum()
    assert abs(factor) > 1e-3
    np.testing.assert_allclose(kept, factor * g, atol=1e-6 * abs(factor))


@corrected
def test_what_the_server_keeps_of_client_states_is_their_mean(case):
    """Over all clients, also those that have not taken part yet."""
    algorithm, _ = calm(case)
    s = setting(
        algorithm, Quadratics.draw(20).federation(), rounds=4, schedule=ScheduleFile(title="", participation=0.25)
    )
    state = run(s)
    shared = state.server.keys() & state.client(0).keys()
    assert shared
    for entry in shared:
        mean = sum(state.client(i)[entry] for i in range(20)) / 20
        assert mean.abs().max() > 1e-3
        torch.testing.assert_close(state.server[entry], mean, atol=1e-12, rtol=0)


@every
def test_a_long_round_ends_at_the_minimiser_of_the_local_loss(case):
    """Which in the first round is f_i(y) + s/2 ||y - x||^2, with the method's s or 0: (a b + s x)/(a + s)."""
    problem = Quadratics.draw(clients=1)
    algorithm, hp = case.build(lr=0.4, **CALM.get(case.name, {}) | ({"rho": 0.0} if case.name == "fedspeed" else {}))
    algorithm = setting(algorithm, problem.federation(), rounds=2).local.at(0)  # of several phases the first
    ended = []

    def finish(work, *rest):
        ended.append(work["theta"].clone())
        return algorithm.finish(work, *rest)

    s = setting(replace(algorithm, finish=finish, at=None), problem.federation(), epochs=2000)
    run(s)
    strength, x = pull(hp), s.task.init(0).numpy()
    minimiser = ((problem.a * problem.b + strength * x) / (problem.a + strength))[0]
    close = np.allclose(ended[0].numpy(), minimiser, atol=1e-6)
    reason = getattr(case.module, "EXCEPTIONS", {}).get("long_round")
    assert close if reason is None else not close, reason


def test_the_quadratic_test_can_tell_a_biased_method_from_a_right_one():
    problem = Quadratics.draw()
    distance = np.abs(problem.fixed_point("uniform", RATE, np.full(10, 5)) - problem.optimum("uniform")).max()
    assert distance > 1e-3


# 2 -- one client ----------------------------------------------------------------------------------------------------


@every
def test_one_client_is_plain_sgd(case):
    """In the neutral setting where one is declared: T rounds of E epochs are T E epochs of SGD."""
    neutral = getattr(case.module, "NEUTRAL", None)
    algorithm, _ = case.build(lr=0.1, **(neutral.hyperparameters if neutral else {}))
    task, federation = nets.task(), nets.federation(sizes=(23,))
    s = setting(algorithm, federation, task, rounds=4, epochs=2, batch_size=5)
    found = thetas(s, run(s), 1).reshape(-1)

    theta = task.init(0)
    for round in range(4):
        for rows in batches(0, round, 0, np.asarray(federation.train[0]), 2, 5):
            theta = theta - 0.1 * task.grad(theta, federation.pool.batch(rows))[0]
    reason = getattr(case.module, "EXCEPTIONS", {}).get("one_client")
    close = torch.allclose(found, theta, atol=1e-6)
    assert close if reason is None else not close, reason


# 3 -- neutral setting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in registry.algorithms() if hasattr(registry.algorithm(n), "NEUTRAL")])
def test_neutral_setting_is_fedavg(name):
    neutral = registry.algorithm(name).NEUTRAL
    task, federation = nets.task(), nets.federation(sizes=(10, 10, 10))

    def outcome(which, settings):
        algorithm, _ = build(which, lr=0.1, **settings)
        return run(setting(algorithm, federation, task, rounds=3, epochs=2, batch_size=4)).server["theta"]

    ours, plain = outcome(name, neutral.hyperparameters), outcome("fedavg", neutral.fedavg)
    if neutral.tolerance:
        torch.testing.assert_close(ours, plain, atol=1e-6, rtol=0)
    else:
        assert torch.equal(ours, plain)


# 4 -- order of clients ----------------------------------------------------------------------------------------------


@every
def test_relabelling_the_clients_changes_nothing(case):
    problem = Quadratics.draw(unequal=True)
    order = np.random.default_rng(1).permutation(10)
    other = Quadratics(problem.a[order], problem.b[order], problem.n[order])
    algorithm, _ = calm(case)
    first, second = (settled(setting(algorithm, p.federation()), 10, 20) for p in (problem, other))
    if first.ndim == 2:
        first = first[order]
    close = np.allclose(first, second, rtol=0, atol=1e-12)
    reason = getattr(case.module, "EXCEPTIONS", {}).get("relabelling")
    assert close if reason is None else not close, reason


@every
def test_results_come_in_the_order_of_the_cohort(case):
    """A client's result depends on its own work only, not on who came before it in the executor."""
    algorithm, _ = case.build(lr=0.1)
    task, federation = nets.task(), nets.federation()
    local = Local(algorithm, task, federation, 4, 0)
    algorithm, theta = local.at(0), task.init(0)
    server, client = algorithm.init_server(theta), algorithm.init_client(theta)
    down = algorithm.downlink(server)
    work = [Work(i, 0, 1, 0.1, client) for i in range(len(federation))]
    forward = Loop().run(local, down, work)
    backward = Loop().run(local, down, work[::-1])[::-1]
    for one, two in zip(forward, backward, strict=True):
        assert one.uplink.keys() == two.uplink.keys()
        assert all(torch.equal(one.uplink[key], two.uplink[key]) for key in one.uplink)
        assert all(torch.equal(one.state[key], two.state[key]) for key in one.state)


@every
def test_hooks_leave_what_they_read_untouched(case):
    """Only the working state may be changed in place."""
    algorithm, _ = case.build(lr=0.1)
    s = setting(algorithm, nets.federation(), nets.task(), rounds=2, epochs=1, batch_size=4)
    state = advance(s, begin(s))
    before = {key: value.clone() for key, value in state.server.items()}
    clients = {i: {key: value.clone() for key, value in c.items()} for i, c in state.clients.items()}
    advance(s, state)
    assert all(torch.equal(state.server[key], before[key]) for key in before)
    assert all(torch.equal(state.clients[i][key], clients[i][key]) for i in clients for key in clients[i])


# 6 -- kill and resume -----------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


class Mortal:
    """A task that dies at its `life`-th call of `grad` or `features`; `calls` counts them."""

    def __init__(self, task, life=None):
        self._task, self._life, self.calls = task, life, 0

    def features(self, theta, batch):
        self._breathe()
        return self._task.features(theta, batch)

    def _breathe(self):
        self.calls += 1
        if self.calls == self._life:
            raise Killed

    def __getattr__(self, name):
        return getattr(self._task, name)

    def grad(self, theta, batch, *term):
        self._breathe()
        return self._task.grad(theta, batch, *term)


def recorded(case, folder, task):
    algorithm, _ = case.build(lr=0.1)
    federation = nets.federation()
    schedule = ScheduleFile(title="", participation=0.5)
    s = setting(algorithm, federation, task, rounds=6, epochs=1, batch_size=4, schedule=schedule)
    keys = ("run_id", "benchmark", "preset", "scenario", "arm", "seed")
    recorder = Recorder(folder, dict.fromkeys(keys, "test"))
    state, theta, best = train(s, federation, recorder, {}, checkpoint_seconds=0)
    recorder.end("finished")
    return (folder / record.ROUNDS).read_bytes(), state, theta, best


@every
@pytest.mark.parametrize("life", [2, 11, 19, 10**6])
def test_killed_and_resumed_is_the_straight_run(case, life, tmp_path):
    """Among others at the very last call, which a method of phases makes in its last one."""
    task = Mortal(nets.task())
    straight, state, theta, best = recorded(case, tmp_path / "straight", task)
    with pytest.raises(Killed):
        recorded(case, tmp_path / "killed", Mortal(nets.task(), min(life, task.calls)))
    resumed, state2, theta2, best2 = recorded(case, tmp_path / "killed", nets.task())
    assert resumed == straight
    assert torch.equal(theta, theta2)
    assert torch.equal(best.theta, best2.theta)
    assert best.round == best2.round
    assert all(torch.equal(state.server[key], state2.server[key]) for key in state.server)


# 8 -- bytes ---------------------------------------------------------------------------------------------------------


@every
def test_declared_bytes_are_the_encoded_bytes(case):
    algorithm, _ = case.build(lr=0.1)
    federation, task = nets.federation(), nets.task()
    s = setting(algorithm, federation, task, rounds=1, epochs=1, batch_size=4)
    state = run(s)
    algorithm, theta = s.local.at(0), task.init(0)
    down = algorithm.downlink(algorithm.init_server(theta))
    client = algorithm.init_client(theta)
    up = local_training(s.local, down, Work(0, 0, 1, 0.1, client)).uplink
    if "pooled" in algorithm.tags:
        assert state.bytes_up == state.bytes_down == 0
    else:
        asked = int(algorithm.select is not None)  # everybody's loss, for which everybody is sent the model
        assert state.bytes_down == len(federation) * len(channel.encode(down)) * (1 + asked)
        overhead = channel.COUNT_BYTES * (bool(up) + asked)
        assert state.bytes_up == len(federation) * (len(channel.encode(up)) + overhead)


# 9 -- seeds ---------------------------------------------------------------------------------------------------------


@every
def test_one_seed_one_result_another_seed_another(case):
    algorithm, _ = case.build(lr=0.1)

    def outcome(seed):
        s = setting(algorithm, nets.federation(), nets.task(), rounds=2, epochs=1, batch_size=4, seed=seed)
        return thetas(s, run(s), 4)

    assert torch.equal(outcome(0), outcome(0))
    assert not torch.equal(outcome(0), outcome(1))


@every
def test_no_draw_depends_on_torchs_or_numpys_global_generator(case):
    algorithm, _ = case.build(lr=0.1)

    def outcome(disturbance):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)
        s = setting(algorithm, nets.federation(), nets.task(), rounds=2, epochs=1, batch_size=4)
        return thetas(s, run(s), 4)

    assert torch.equal(outcome(1), outcome(2))


# 10 -- empty and one-example clients --------------------------------------------------------------------------------


@every
def test_empty_and_one_example_clients(case):
    algorithm, _ = case.build(lr=0.1)
    federation = nets.federation(sizes=(0, 1, 12, 1, 0, 6))
    s = setting(algorithm, federation, nets.task(), rounds=3, epochs=2, batch_size=4)
    state = run(s)
    assert torch.isfinite(thetas(s, state, 6)).all()
    assert np.isfinite(state.train_loss)


# 11 -- sampling everybody -------------------------------------------------------------------------------------------


@every
def test_sampling_everybody_is_full_participation(case):
    algorithm, _ = case.build(lr=0.1)
    everybody = ScheduleFile(title="", participation=0.99)  # 3.96 of 4 clients, rounded
    outcomes = []
    for schedule in (everybody, ScheduleFile(title="")):
        s = setting(algorithm, nets.federation(), nets.task(), rounds=2, epochs=1, batch_size=4, schedule=schedule)
        outcomes.append(thetas(s, run(s), 4))
    assert torch.equal(*outcomes)


# 12 -- parameter files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.algorithms())
def test_parameter_file_validates(name):
    """Defaults, variants and every value of the search space are accepted; every default has a source or is none."""
    file = algorithm_files(PROJECT)[name]
    hyperparameters = registry.algorithm(name).HyperParameters
    for key, space in file.search.items():
        for value in space if isinstance(space, list) else (space.low, space.high):
            hyperparameters(**file.defaults | {key: value})
    assert file.sources.keys() >= file.defaults.keys()
    for variant in file.variants.values():
        assert variant.sources.keys() >= variant.defaults.keys() - {"optimizer", "server_lr"}


def test_quadratic_task_has_the_gradient_of_its_loss():
    task, problem = QuadraticTask(), Quadratics.draw()
    theta = task.init(0).requires_grad_()
    batch = problem.federation().pool.batch(np.arange(6))
    g, aux = task.grad(theta, batch)
    assert g.shape == (DIMENSIONS,)
    torch.testing.assert_close(torch.autograd.grad(aux["loss"], theta)[0], g.detach())
