"""Card afl-analytic (He et al. 2025): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from contract import nets
from contract.quadratic import build, run, setting
from contract.spies import Spy, attending, rounds
from heterobench.algorithm import Head, Info
from heterobench.algorithms.afl_analytic import solved
from heterobench.config.schema import LocalWork, ModelFile, PartitionFile, ScheduleFile
from heterobench.engine.synchronous import begin
from heterobench.executor.local import Work, local_training
from heterobench.executor.vmap import Vmap
from heterobench.federation import Federation
from heterobench.partition.partition import draw

F64 = torch.float64
N, WIDTH = 60, 12
FEATURES = ModelFile(title="", architecture="random_features", options={"width": WIDTH})
SPLITS = {
    "one client": [N],
    "two": [41, 19],
    "ten": [6] * 10,
    "one example each": [1] * N,
    "uneven": [1, 2, 30, 4, 23],
}


def federation(sizes=(N,), order=None, dtype=F64) -> Federation:
    """All examples for training, in clients of these sizes."""
    whole = nets.federation((N,), dtype=dtype)
    order = np.arange(N) if order is None else order
    rows = np.split(order, np.cumsum(sizes)[:-1])
    return replace(whole, train=rows, validation=[order[:0]] * len(rows), test=[order[:0]] * len(rows))


def shuffled(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(N)


def task(dtype=F64):
    return nets.task(dtype, FEATURES)


def design(rows=slice(None)):
    """X [n, d] with its column of ones, and one-hot Y [n, C], of some rows."""
    pool, own = federation().pool, task()
    z = own.features(own.init(0), pool.batch(np.arange(N)[rows]))
    return torch.cat([z, z.new_ones(len(z), 1)], 1), functional.one_hot(pool.y[rows], 3).double()


def least_squares(rows=slice(None)) -> torch.Tensor:
    """W [d, C] of centralised least squares, by torch's own routine (no normal equations)."""
    return torch.linalg.lstsq(*design(rows)).solution


def layer(theta) -> torch.Tensor:
    """W [d, C] of a model."""
    weight, bias = task().head.read(theta)
    return torch.cat([weight, bias[:, None]], 1).T.double()


def answer(fed, dtype=F64, schedule=None, **settings) -> torch.Tensor:
    algorithm, _ = build("afl-analytic", **settings)
    more = {"schedule": schedule} if schedule else {}
    return layer(run(setting(algorithm, fed, task(dtype), epochs=1, batch_size=7, **more)).server["theta"])


def assert_equal(found, expected, tolerance=1e-8):
    """Up to a relative error of the whole matrix."""
    assert float((found - expected).norm() / expected.norm()) < tolerance


def clients(sizes, gamma=0.7):
    """(C_i, W_i) of each client, as the card writes them."""
    x, y = design()
    for rows in np.split(np.arange(N), np.cumsum(sizes)[:-1]):
        c = x[rows].T @ x[rows] + gamma * torch.eye(x.shape[1], dtype=F64)
        yield c, torch.linalg.inv(c) @ x[rows].T @ y[rows]


# invariants ---------------------------------------------------------------------------------------------------------


def test_the_problem_has_one_solution():
    x, _ = design()
    assert torch.linalg.matrix_rank(x) == WIDTH + 1


@pytest.mark.parametrize("gamma", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
def test_invariant_1_any_split_gives_centralised_least_squares(sizes, gamma):
    """afl-analytic 1: whoever holds what, in whatever order, with whatever penalty."""
    assert_equal(answer(federation(sizes, shuffled(len(sizes))), gamma=gamma), least_squares())


def test_invariant_1_order_of_clients():
    sizes, order = np.array(SPLITS["uneven"]), shuffled(3)
    parts = np.split(order, np.cumsum(sizes)[:-1])
    turn = [3, 0, 4, 2, 1]
    other = federation(sizes[turn], np.concatenate([parts[i] for i in turn]))
    assert_equal(answer(other), answer(federation(sizes, order)), 1e-12)


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
def test_invariant_2_without_clean_up_it_is_ridge_with_penalty_k_gamma(sizes):
    """afl-analytic 2."""
    x, y = design()
    penalty = len(sizes) * 0.3 * torch.eye(x.shape[1], dtype=F64)
    expected = torch.linalg.solve(x.T @ x + penalty, x.T @ y)
    assert_equal(answer(federation(sizes, shuffled(1)), gamma=0.3, cleanup=False), expected, 1e-11)
    assert float((expected - least_squares()).norm()) > 1e-3


@pytest.mark.parametrize("sizes", [SPLITS["two"], SPLITS["uneven"]], ids=str)
def test_invariant_3_the_long_formula_is_the_short_one_and_ours(sizes):
    """afl-analytic 3: absolute aggregation, pair after pair, as the authors' code writes it."""
    eye, inverse = torch.eye(WIDTH + 1, dtype=F64), torch.linalg.inv
    (c, long), *others = clients(sizes)
    short = long
    for c2, w2 in others:
        r, r2, both = inverse(c), inverse(c2), inverse(c + c2)
        first = eye - r @ c2 + r @ c2 @ both @ c2
        second = eye - r2 @ c + r2 @ c @ both @ c
        long, short, c = first @ long + second @ w2, both @ (c @ short + c2 @ w2), c + c2
    assert_equal(long, short, 1e-9)
    assert_equal(answer(federation(sizes), gamma=0.7, cleanup=False), short, 1e-9)
    k = len(sizes)
    cleaned = long + k * 0.7 * inverse(c - k * 0.7 * eye) @ long  # the RI process
    assert_equal(answer(federation(sizes), gamma=0.7), cleaned, 1e-8)


def test_invariant_4_a_federation_twice():
    """afl-analytic 4: every client has a double."""
    sizes, order = SPLITS["uneven"], shuffled(5)
    twice = federation([*sizes, *sizes], np.concatenate([order, order]))
    assert_equal(answer(twice), answer(federation(sizes, order)))


def test_invariant_5_a_client_without_data_changes_nothing():
    """afl-analytic 5: it has C = gamma I and W = 0; the server counts it among the k."""
    algorithm, hp = build("afl-analytic", gamma=0.7)
    s = setting(algorithm, federation(SPLITS["two"]), task(), epochs=1, batch_size=7)
    phase, server = s.local.at(0), begin(s).server
    ups = [local_training(s.local, server, Work(i, 0, 1, 0.0, {})).uplink for i in range(2)]
    empty, _ = phase.finish(phase.start(server, {}), server, {}, None)
    assert torch.equal(empty["gram"], hp.gamma * torch.eye(WIDTH + 1, dtype=F64))
    assert not empty["cross"].any()

    def served(ups):
        up = {name: sum(u[name] for u in ups) for name in phase.reduce}
        return layer(phase.serve(server, up, Info(0, len(ups), 3))["theta"])

    assert_equal(served([*ups, empty]), served(ups))


def test_invariant_6_one_client_is_its_own_solution():
    """afl-analytic 6."""
    ((_, w),) = clients([N], gamma=2.0)
    assert_equal(answer(federation(), gamma=2.0, cleanup=False), w, 1e-11)


# traps --------------------------------------------------------------------------------------------------------------


def test_trap_gamma_zero_is_refused():
    with pytest.raises(ValidationError, match="gamma"):
        build("afl-analytic", gamma=0)


def test_trap_sums_of_float32_features_are_float64():
    """Against least squares in float64 on the same float32 features: only they are rounded, no sum is."""
    own, fed = task(torch.float32), federation(SPLITS["ten"], dtype=torch.float32)
    z = torch.cat([own.features(own.init(0), fed.pool.batch(rows)) for rows in fed.train]).double()
    x, y = torch.cat([z, z.new_ones(len(z), 1)], 1), functional.one_hot(fed.pool.y, 3).double()
    expected = torch.linalg.lstsq(x, y).solution
    assert_equal(answer(fed, torch.float32), expected, 1e-6)  # theta is float32
    up = local_training(setting(build("afl-analytic")[0], fed, own).local, {"theta": own.init(0)}, Work(0, 0, 1, 0, {}))
    assert {tensor.dtype for tensor in up.uplink.values()} == {F64}


@pytest.mark.parametrize("seed", [0, 1])
def test_trap_k_counts_the_clients_that_took_part(seed):
    """Half of ten clients: least squares on their examples, exactly."""
    fed, half = federation([6] * 10, shuffled(2)), ScheduleFile(title="", participation=0.5)
    algorithm, _ = build("afl-analytic", gamma=3.0)
    s = replace(setting(algorithm, fed, task(), epochs=1, batch_size=7, schedule=half), seed=seed)
    seen = []
    run(replace(s, task=Listening(s.task, seen)))
    assert len(seen) == 30
    rows = [int(np.flatnonzero((fed.pool.x == x).flatten(1).all(1))[0]) for x in seen]
    assert_equal(layer(run(s).server["theta"]), least_squares(rows))


class Listening:
    """A task that remembers the inputs whose features it is asked for."""

    def __init__(self, task, seen):
        self._task, self._seen = task, seen

    def __getattr__(self, name):
        return getattr(self._task, name)

    def features(self, theta, batch):
        self._seen += list(batch.x)
        return self._task.features(theta, batch)


@pytest.mark.parametrize("epochs", [1, 5])
def test_every_example_counts_once_whatever_the_local_epochs(epochs):
    """The penalty would be gamma / E otherwise; stragglers have nothing to leave out either."""
    schedule = ScheduleFile(title="", stragglers=1.0)
    algorithm, _ = build("afl-analytic", gamma=0.3, cleanup=False)
    s = setting(algorithm, federation([6] * 10), task(), epochs=epochs, batch_size=4, schedule=schedule)
    x, y = design()
    expected = torch.linalg.solve(x.T @ x + 3.0 * torch.eye(x.shape[1], dtype=F64), x.T @ y)
    assert_equal(layer(run(s).server["theta"]), expected, 1e-11)


def test_batches_that_are_filled_up_count_what_is_in_them():
    """Stacked clients of 1 to 30 examples in batches of 4."""
    s = setting(build("afl-analytic")[0], federation(SPLITS["uneven"]), task(), epochs=1, batch_size=4)
    with closing(Vmap()) as executor:
        assert_equal(layer(run(replace(s, executor=executor)).server["theta"]), least_squares())


def test_directions_without_data_get_no_weight():
    """The shortest of all solutions, which lstsq gives too: never rounding errors divided by each other."""
    x, y = design()
    x = torch.cat([x, x[:, :2], torch.zeros(N, 1, dtype=F64)], 1)  # two columns twice, one of zeros
    gram = x.T @ x + 5.0 * torch.eye(x.shape[1], dtype=F64)
    expected = torch.linalg.lstsq(x, y, driver="gelsd").solution
    assert_equal(solved(gram, x.T @ y, 5.0), expected)
    assert float(expected.norm()) < 100


def test_all_is_done_in_the_first_round():
    """Later rounds of the budget change nothing and cost nothing; no gradient is taken at all."""
    spy = Spy(task())
    s = setting(build("afl-analytic")[0], federation(SPLITS["two"]), spy, rounds=3, epochs=2, batch_size=7)
    first, *others = rounds(s, 3)
    for number, state in enumerate(others, 2):
        assert replace(state, round=1) == first
        assert state.round == number
    assert not spy.thetas
    assert first.gradient_examples == 0


@pytest.mark.parametrize("empty", [1, 3])
def test_the_first_round_in_which_anybody_comes_solves(empty):
    """Least squares on those who come then; who comes later is too late."""
    there = np.array([[False] * 3] * empty + [[True, False, True], [False, True, False]])
    s = setting(build("afl-analytic")[0], federation([20, 25, 15]), task(), rounds=empty + 2, epochs=1, batch_size=7)
    *before, solved_, last = rounds(attending(s, there), empty + 2)
    assert all(torch.equal(state.server["theta"], s.task.init(0)) for state in before)
    assert_equal(layer(solved_.server["theta"]), least_squares(np.r_[0:20, 45:60]))
    assert torch.equal(last.server["theta"], solved_.server["theta"])


def test_sums_are_over_all_examples_whatever_share_of_their_work_clients_do():
    schedule = ScheduleFile(title="", local_work=LocalWork(min=0.01, max=0.1))
    assert_equal(answer(federation(SPLITS["two"]), schedule=schedule), least_squares())


def test_bytes_are_those_of_both_matrices():
    """Up 8 (d^2 + d C) and the number of examples, down theta, once a client."""
    state = run(setting(build("afl-analytic")[0], federation(SPLITS["ten"]), task(), rounds=4, epochs=1))
    d = WIDTH + 1
    assert state.bytes_up == 10 * (8 * (d * d + d * 3) + 8)
    assert state.bytes_down == 10 * 8 * d * 3


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_without_bias_has_no_column_of_ones(bias):
    """A layer in the middle of theta: read and written where it stands, the rest to the bit."""
    head = Head(2, classes=2, features=3, bias=bias)
    theta = torch.arange(12.0)
    weight, own = head.read(theta)
    assert weight.tolist() == [[2, 3, 4], [5, 6, 7]]
    assert (own is None) == (not bias)
    assert head.width == 3 + bias
    other = head.written(theta, -weight, None if own is None else -own)
    last = 2 + 2 * head.width
    assert torch.equal(other[2:last], -theta[2:last])
    assert torch.equal(other[:2], theta[:2])
    assert torch.equal(other[last:], theta[last:])
    assert torch.equal(theta, torch.arange(12.0))


def test_one_run_over_two_partitions_has_one_head():
    """Partitions as they are drawn for the benchmark `one-shot`, float32, through the whole engine."""
    whole, found = nets.federation((300,), dtype=torch.float32), []
    options = [("iid", {}), ("dirichlet-by-class", {"alpha": 0.1}), ("k-classes", {"classes_per_client": 2})]
    for scheme, chosen in options:
        file = PartitionFile(title="", scheme=scheme, clients=6, options=chosen, validation=0, test=0)
        parts = draw(file, whole.pool.y.numpy(), seed=1).parts
        fed = replace(whole, **dict(zip(("train", "validation", "test"), parts, strict=True)))
        assert sum(len(rows) for rows in fed.train) == 300
        s = setting(build("afl-analytic")[0], fed, task(torch.float32), rounds=2, epochs=2, batch_size=32)
        found.append(layer(run(s).server["theta"]))
    for other in found[1:]:
        assert_equal(other, found[0], 1e-5)  # features of float32 depend on their batch, in the last bits
    assert float(found[0].norm()) > 0.1
