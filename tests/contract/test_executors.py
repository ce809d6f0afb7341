"""Contract test 5: every executor gives the answer of the loop, for every algorithm that is found."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.arms import CASES
from contract.quadratic import Quadratics, QuadraticTask, build, run, setting
from heterobench.config.schema import ModelFile, ScheduleFile
from heterobench.executor import stack, vmap
from heterobench.executor.local import Work
from heterobench.executor.loop import Loop
from heterobench.executor.vmap import Vmap
from heterobench.executor.workers import Workers
from heterobench.federation import Examples
from heterobench.task import Batch


def called_again(function):
    """Stands for a CUDA graph where there is no GPU: what is replayed is the function, over the same buffers."""
    function()
    return function


EXECUTORS = {
    "vmap": Vmap,
    "vmap, one client at a time": lambda: Vmap(memory=1),
    "vmap, recorded": lambda: Vmap(recorder=called_again),
    "vmap, recorded, three clients at a time": lambda: Vmap(memory=30_000, recorder=called_again),
    "workers": lambda: Workers(2),
}

every = pytest.mark.parametrize("case", CASES, ids=str)
each = pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)

# a part of the clients in a round, half of them with fewer epochs
PARTIAL = ScheduleFile(title="", participation=0.7, stragglers=0.5)
SIZES = (9, 1, 12, 0, 7, 1, 16)  # nothing, one example, and last batches of every size


def busy(case):
    """The case with weight decay and, where it takes it, momentum."""
    try:
        return case.build(lr=0.05, weight_decay=0.01, momentum=0.5)[0]
    except ValidationError:
        return case.build(lr=0.05, weight_decay=0.01)[0]


def outcome(s, executor):
    with closing(executor()) as e:
        return run(replace(s, executor=e))


def assert_same(found, expected, tolerance):
    """Two states of a run, or two results of a client, are the same up to `tolerance`."""

    def close(one, other):
        assert one.keys() == other.keys()
        for key in one:
            torch.testing.assert_close(one[key], other[key], atol=tolerance, rtol=tolerance)

    if hasattr(found, "uplink"):
        close(found.uplink, expected.uplink)
        close(found.state, expected.state)
        assert found.loss == pytest.approx(expected.loss, rel=tolerance)
        assert found.examples == expected.examples
        return
    close(found.server, expected.server)
    assert found.clients.keys() == expected.clients.keys()
    for i in expected.clients:
        close(found.clients[i], expected.clients[i])
    assert found.train_loss == pytest.approx(expected.train_loss, rel=tolerance, nan_ok=True)
    assert (found.bytes_up, found.bytes_down) == (expected.bytes_up, expected.bytes_down)
    assert found.gradient_examples == expected.gradient_examples


def noisy_quadratics():
    """Quadratics with 1 to 7 examples per client, all of them different, so that it matters which ones count."""
    problem = Quadratics.draw(clients=8)
    federation = replace(problem, n=1 + np.arange(8) * 3 % 8).federation()
    generator = torch.Generator().manual_seed(1)
    noise = 0.3 * torch.randn(federation.pool.x.shape, generator=generator, dtype=torch.float64)
    return replace(federation, pool=Examples(federation.pool.x + noise, federation.pool.y))


@each
@every
def test_quadratics(case, executor):
    s = setting(busy(case), noisy_quadratics(), rounds=4, epochs=3, batch_size=3, schedule=PARTIAL)
    assert_same(outcome(s, executor), run(s), 1e-10)


def small_net(case, dtype: torch.dtype):
    federation = nets.federation(SIZES, dtype=dtype)
    return setting(busy(case), federation, nets.task(dtype), rounds=3, epochs=2, batch_size=4, schedule=PARTIAL)


@each
@every
def test_small_net(case, executor):
    s = small_net(case, torch.float64)
    assert_same(outcome(s, executor), run(s), 1e-10)


@pytest.mark.parametrize("executor", [Vmap, lambda: Workers(2)], ids=["vmap", "workers"])
@every
def test_small_net_in_single_precision(case, executor):
    """Sums are taken in another order: the difference is rounding, grown over a few rounds of training."""
    s = small_net(case, torch.float32)
    assert_same(outcome(s, executor), run(s), 5e-6)


@each
def test_a_step_that_adds_to_the_optimisers(executor):
    """SCAFFOLD's correction beside momentum, which no parameter file asks for."""
    algorithm, _ = build("scaffold", lr=0.05, momentum=0.9, weighting="weighted")
    s = setting(algorithm, noisy_quadratics(), rounds=4, epochs=3, batch_size=3, schedule=PARTIAL)
    assert_same(outcome(s, executor), run(s), 1e-10)


@pytest.mark.parametrize(
    "model",
    [
        ModelFile(title="LeNet", architecture="lenet"),
        ModelFile(title="McMahan", architecture="mcmahan_cnn"),
        ModelFile(title="ResNet-8", architecture="resnet", options={"blocks": [1, 1, 1], "width": 8}),
    ],
    ids=lambda model: model.title,
)
def test_convolutions_pooling_and_group_norm(model):
    dtype, side = torch.float64, 16
    task, federation = nets.task(dtype, model, side), nets.federation((9, 1, 7), dtype=dtype, side=side)
    s = setting(build("fedavg", lr=0.05, momentum=0.5)[0], federation, task, rounds=2, epochs=1, batch_size=4)
    assert_same(outcome(s, Vmap), run(s), 1e-10)


def alternating(length: int):
    """Phases of `length` rounds: FedAvg with momentum, then statistics (which ccvr asks for in its last round)."""
    base, other = build("fedavg", lr=0.05, momentum=0.5)[0], build("ccvr", lr=0.05)[0]

    def at(phase):
        if phase.round == 5:
            return None
        return other.at(phase._replace(turn=0, turns=1)) if phase.round // length % 2 else base

    return replace(base, at=at)


@pytest.mark.parametrize("length", [1, 2])
@each
def test_phases(executor, length):
    """There and back: other states, messages and epochs; the sixth round passes without anybody doing anything."""
    federation, task = nets.federation(SIZES, dtype=torch.float64), nets.task(torch.float64)
    s = setting(alternating(length), federation, task, rounds=7, epochs=2, batch_size=4, schedule=PARTIAL)
    expected = run(s)
    assert_same(outcome(s, executor), expected, 1e-9)
    assert expected.round == 7
    assert len({name for phase in range(5) for name in s.local.at(phase).reduce}) == 4


@each
def test_clients_see_the_entries_of_this_rounds_downlink_and_no_others(executor):
    """A server that sends something in every second round only."""
    base = build("fedavg", lr=0.05)[0]

    def init_server(theta):
        return {"theta": theta, "round": theta.new_zeros(()), "seen": theta.new_zeros(())}

    def downlink(server):
        return {"theta": server["theta"]} | ({} if server["round"] % 2 else {"extra": server["round"]})

    def finish(work, down, client, done):
        up, client = base.finish(work, down, client, done)
        return up | {"seen": work["theta"].new_tensor(float(down["extra"]) if "extra" in down else -1.0)}, client

    def serve(server, up, info):
        # of 0, none, 2, none: a number for each round that tells what all clients have seen
        seen = server["seen"] * 10 + up["seen"]
        return base.serve(server, up, info) | {"round": server["round"] + 1, "seen": seen}

    reduce = base.reduce | {"seen": "uniform"}
    changing = replace(base, init_server=init_server, downlink=downlink, finish=finish, serve=serve, reduce=reduce)
    federation, task = nets.federation(SIZES, dtype=torch.float64), nets.task(torch.float64)
    s = setting(changing, federation, task, rounds=4, epochs=1, batch_size=4)
    assert float(outcome(s, executor).server["seen"]) == pytest.approx(-1 * 100 + 2 * 10 - 1)


# the stacked executor: chunks, padding, memory ----------------------------------------------------------------------


def cohort_of(algorithm, clients=(6, 4, 0, 2, 1), dtype=torch.float64):
    """What an executor is given in a round: everything shared, the downlink, and the work of `clients`."""
    task, federation = nets.task(dtype), nets.federation(SIZES, dtype=dtype)
    s = setting(algorithm, federation, task, epochs=2, batch_size=4)
    algorithm, theta = s.local.at(0), task.init(0)
    down, client = algorithm.downlink(algorithm.init_server(theta)), algorithm.init_client(theta)
    return s.local, down, [Work(i, 0, 1 + i % 3, 0.05, client) for i in clients]


def assert_like_loop(executor, given):
    results = executor.run(*given)
    for one, other in zip(results, Loop().run(*given), strict=True):
        assert_same(one, other, 1e-10)
    return results


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_chunks_change_nothing(size, monkeypatch):
    given = cohort_of(build("scaffold")[0])
    sizes = []
    train = vmap._train
    monkeypatch.setattr(vmap, "_train", lambda *a: sizes.append(len(a[2])) or train(*a))
    whole = Vmap().run(*given)
    assert sizes == [5]

    probe = Vmap(memory=1)
    probe.run(*given)
    executor = Vmap(memory=int(size * (probe._state + 4 * probe._example)))
    chunked = executor.run(*given)
    assert sizes[1:] == {1: [], 2: [2, 2], 3: [3, 2], 5: [5]}[size]  # a chunk of one client is not stacked
    for one, other in zip(chunked, whole, strict=True):
        assert_same(one, other, 1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if "pooled" not in c.build()[0].tags], ids=str)
def test_results_stand_in_the_order_of_the_cohort_and_own_their_memory(case):
    given = cohort_of(case.build(lr=0.05)[0])
    before = {name: tensor.clone() for name, tensor in given[1].items()}
    for result in assert_like_loop(Vmap(), given):
        for tensor in (*result.uplink.values(), *result.state.values()):
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
    assert all(torch.equal(given[1][name], before[name]) for name in before)


@pytest.mark.parametrize("weight", ["of the whole batch", "past the end"])
def test_an_example_that_only_fills_up_must_have_weight_zero(weight, monkeypatch):
    """The comparison with the loop sees a wrong weight."""
    filled = stack.filled

    def wrong(*given):
        index, right = filled(*given)
        if weight == "of the whole batch":
            return index, np.full(index.shape, 1 / index.shape[1])
        return index, right + 1e-6 * (right == 0)

    monkeypatch.setattr(stack, "filled", wrong)
    given = cohort_of(build("fedavg")[0])
    with pytest.raises(AssertionError, match=r"not close|examples"):
        assert_like_loop(Vmap(), given)


def test_batches_are_filled_up_with_the_clients_last_example():
    index, weight = stack.filled([np.array([4, 7, 9]), np.array([5]), np.array([1, 2])])
    assert index.tolist() == [[4, 7, 9], [5, 5, 5], [1, 2, 2]]
    np.testing.assert_allclose(weight, [[1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [1 / 2, 1 / 2, 0]])


def test_norms_in_a_hook_are_those_of_one_client():
    base = build("fedavg")[0]

    def clipped(work, batch, task):
        g, aux = base.grad(work, batch, task)
        return g * (0.1 / g.norm()).clamp(max=1), aux

    def counted(work, g, step):  # neither in place nor a vector: a new entry replaces the old one
        work = base.step(work, g, step)
        return {**work, "path": work["path"] + g.norm()}

    algorithm = replace(
        base,
        start=lambda down, client: base.start(down, client) | {"path": down["theta"].new_zeros(())},
        grad=clipped,
        step=counted,
        finish=lambda work, *rest: (base.finish(work, *rest)[0] | {"path": work["path"]}, {}),
        reduce={"delta": "weighted", "path": "uniform"},
    )
    given = cohort_of(algorithm)
    assert_like_loop(Vmap(), given)


@pytest.mark.parametrize("kind", ["net", "quadratic"])
def test_functional_gradient_is_the_gradient_and_obeys_weights(kind):
    if kind == "net":
        task, pool = nets.task(torch.float64), nets.federation(dtype=torch.float64).pool
    else:
        task, pool = QuadraticTask(), noisy_quadratics().pool
    theta, x, y = task.init(0), pool.x[:5], pool.y[:5]
    view = task.functional()
    torch.testing.assert_close(view.grad(theta, Batch(x, y)), task.grad(theta, Batch(x, y)))
    weight = torch.tensor([0.5, 0.5, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(view.grad(theta, Batch(x, y, weight)), task.grad(theta, Batch(x[:2], y[:2])))
    assert view.device == task.device


def test_step_sizes_must_agree():
    local, down, work = cohort_of(build("fedavg")[0])
    with pytest.raises(AssertionError, match="step size"):
        Vmap().run(local, down, [work[0]._replace(lr=0.1), *work[1:]])
