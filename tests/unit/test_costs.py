"""What a run costs, counted: gradients of examples, operations, simulated time; the same whoever computes."""

from __future__ import annotations

import math
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from contract import nets
from contract.arms import CASES, PROJECT
from contract.quadratic import build, run, setting
from contract.test_executors import EXECUTORS
from heterobench import flops, keyed, models, schedule
from heterobench.channel import COUNT_BYTES, size
from heterobench.config.reading import load, names
from heterobench.config.schema import Clock, LogNormal, ModelFile, ScheduleFile
from heterobench.config.strict import build as validated
from heterobench.energy import units
from heterobench.engine import checkpoint
from heterobench.engine.synchronous import advance, begin, costs
from heterobench.errors import ConfigurationError
from heterobench.executor.loop import Loop
from heterobench.executor.workers import Workers
from heterobench.records import record
from heterobench.records.record import Record
from heterobench.records.recorder import Recorder
from heterobench.task import Batch, Classification
from heterobench.training import train
from miniature import environment

TESTS = Path(__file__).parents[1]
SIZES = (9, 1, 12, 0, 7, 1, 16)  # nothing, one example, and last batches of every size
ALL = EXECUTORS | {"loop": Loop}
each = pytest.mark.parametrize("executor", ALL.values(), ids=ALL)


def state_of(s, executor=Loop):
    with closing(executor()) as e:
        return run(replace(s, executor=e))


# gradients of examples ----------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("scaffold", "centralised")], ids=str)
def test_gradients_are_the_examples_of_everybody_times_epochs_and_rounds(case, executor):
    """(That executors agree for every method: tests/contract/test_executors.py.)"""
    federation = nets.federation(SIZES)
    s = setting(case.build(lr=0.05)[0], federation, nets.task(), rounds=3, epochs=2, batch_size=4)
    assert state_of(s, executor).gradient_examples == 3 * 2 * sum(map(len, federation.train))


@each
def test_partial_work_counts_as_what_it_was(executor):
    """Half of the cohort's clients stop early; a sample of clients."""
    federation, rule = nets.federation(SIZES), ScheduleFile(title="", participation=0.6, stragglers=0.5)
    s = setting(build("fedavg")[0], federation, nets.task(), rounds=4, epochs=3, batch_size=4, schedule=rule)
    expected = sum(
        len(federation.train[client]) * schedule.epochs(rule, 0, round, client, 3)
        for round in range(4)
        for client in schedule.cohort(rule, 0, round, federation.active)
    )
    assert state_of(s, executor).gradient_examples == expected


def twice():
    """FedAvg that takes its gradient at a second point, as sharpness-aware methods do."""
    base = build("fedavg")[0]

    def grad(work, batch, task):
        g, _ = base.grad(work, batch, task)
        return task.grad(work["theta"] + 0.01 * g, batch)

    return replace(base, grad=grad)


@each
def test_a_method_that_takes_two_gradients_a_step_counts_twice(executor):
    given = {"rounds": 2, "epochs": 2, "batch_size": 4}
    one = setting(build("fedavg")[0], nets.federation(SIZES), nets.task(), **given)
    assert state_of(replace(one, algorithm=twice()), executor).gradient_examples == 2 * run(one).gradient_examples


@each
@pytest.mark.parametrize(("name", "gradients"), [("fedspeed", 2), ("moon", 1), ("fedld", 1)])
def test_terms_of_the_loss_and_forward_passes_count_nothing(name, gradients, executor):
    """FedSpeed takes two gradients a step; FedLD has a term in its loss, MOON also two forward passes."""
    given = {"rounds": 2, "epochs": 2, "batch_size": 4}
    one, many = (setting(build(n)[0], nets.federation(SIZES), nets.task(), **given) for n in ("fedavg", name))
    spent, expected = (costs(s, state_of(s, executor)) for s in (many, one))
    assert spent["gradient_examples"] == gradients * expected["gradient_examples"]
    assert spent["flops"] == gradients * expected["flops"]


@each
def test_a_method_that_looks_at_a_part_of_the_batch_counts_that_part(executor):
    base = build("fedavg")[0]

    def grad(work, batch, task):
        weight = None if batch.weight is None else (batch.weight > 0)[:2] / (batch.weight > 0)[:2].sum()
        return base.grad(work, Batch(batch.x[:2], batch.y[:2], weight), task)

    federation = nets.federation(SIZES)
    s = setting(replace(base, grad=grad), federation, nets.task(), epochs=1, batch_size=4)
    batches = [min(4, len(rows) - first) for rows in federation.train for first in range(0, len(rows), 4)]
    assert state_of(s, executor).gradient_examples == sum(min(2, length) for length in batches)


@pytest.mark.parametrize("executor", ["loop", "vmap"])
def test_a_method_without_gradients_counts_none(executor):
    base = build("fedavg")[0]

    def grad(work, batch, task):
        return torch.zeros_like(work["theta"]), {"loss": work["theta"].sum() * 0}

    s = setting(replace(base, grad=grad), nets.federation(SIZES), nets.task(), epochs=1, batch_size=4)
    assert state_of(s, ALL[executor]).gradient_examples == 0


class Fixed:
    """A meter that has seen `step` J more at every look."""

    method, measured = "RAPL", True

    def __init__(self, step):
        self.step, self.total = step, 0.0

    def joules(self):
        self.total += self.step
        return self.total

    def about(self):
        return {"method": self.method, "measured": True, "scope": "a test"}


KEYS = ("run_id", "benchmark", "preset", "scenario", "arm", "seed")


def ranked(folder, executor, step):
    """A run of three rounds; cohorts of three clients, so two ranks have unequal shares."""
    federation, rule = nets.federation((9, 1, 12, 7, 3)), ScheduleFile(title="", participation=0.6, clock=CLOCK)
    s = setting(twice(), federation, nets.task(), rounds=3, epochs=2, batch_size=4, schedule=rule)
    recorder = Recorder(folder, dict.fromkeys(KEYS, "test"))
    train(replace(s, executor=executor), federation, recorder, {}, checkpoint_seconds=0, meter=Fixed(step))
    recorder.end("finished")
    return Record(folder)


def test_ranks_count_like_one_process_and_their_joules_add_up(tmp_path):
    launch = [sys.executable, "-m", "heterobench.executor.launch", "2"]
    result = subprocess.run(
        [*launch, __file__, str(tmp_path)],
        cwd=TESTS.parent,
        env=environment() | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    plain, parts = ranked(tmp_path / "alone", Loop(), 1.0), [Record(tmp_path / str(rank)) for rank in range(2)]
    for part in parts:
        assert (part.folder / record.ROUNDS).read_bytes() == (plain.folder / record.ROUNDS).read_bytes()
        assert [row["joules"] for row in part.timing] == [3.0, 6.0, 9.0]  # 1 J and 2 J a round
    assert plain.rounds[-1]["metrics"].keys() > {"gradient_examples", "flops", "simulated_seconds"}


# operations ---------------------------------------------------------------------------------------------------------


def task_of(options, shape=(16,), classes=3):
    file = ModelFile(title="", architecture="mlp", options=options)
    return Classification(lambda: models.build(file, shape, classes, "a test"))


@pytest.mark.parametrize("hidden", [[], [8], [32, 5, 7]])
def test_operations_of_linear_layers(hidden):
    """Forward 2 in out; as much for the weights and as much for the inputs, which the first layer does not need."""
    widths = [16, *hidden, 3]
    layers = [2 * a * b for a, b in pairwise(widths)]
    task = task_of({"hidden": hidden}) if hidden else softmax()
    assert task.flops(torch.zeros(5, 16)) == 2 * layers[0] + 3 * sum(layers[1:])


def softmax():
    return Classification(lambda: models.build(ModelFile(title="", architecture="softmax"), (16,), 3, "a test"))


def test_operations_of_convolutions():
    """LeNet on 28x28: 2 x places x outputs x inputs x kernel for each convolution, and its three linear layers."""
    file = ModelFile(title="", architecture="lenet")
    task = Classification(lambda: models.build(file, (1, 28, 28), 10, "a test"))
    shapes = dict(zip(task.layout.names, task.layout.shapes, strict=True))
    sides = iter([24, 8])  # of what the two convolutions give
    layers = [
        2 * shape.numel() * (next(sides) ** 2 if len(shape) == 4 else 1) for shape in shapes.values() if len(shape) > 1
    ]
    assert len(layers) == 5
    assert task.flops(torch.zeros(1, 1, 28, 28)) == 2 * layers[0] + 3 * sum(layers[1:])


SHAPES = {"image": (1, 28, 28), "signal": (9, 1, 128), "tokens": (12,), "table": (14,)}


@pytest.mark.parametrize("name", names(PROJECT, "models"))
def test_operations_of_every_net_by_two_roads(name):
    """As the task computes its gradient, counted by us; and by torch.func, where nothing is fused, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    file = load(PROJECT, "models", name, ModelFile)
    kind = models.architecture(file.architecture, name).KINDS[0]
    try:
        task = Classification(lambda: models.build(file, SHAPES[kind], 10, name))
    except ConfigurationError as error:
        pytest.skip(str(error))
    x = torch.zeros(3, *SHAPES[kind], dtype=torch.uint8 if kind == "tokens" else torch.float32)
    with FlopCounterMode(display=False) as torchs:
        task.functional().grad(task.init(0), Batch(x[:1], torch.zeros(1, dtype=torch.int64)))
    assert task.flops(x) == torchs.get_total_flops() > 0


@pytest.mark.parametrize("architecture", ["mlp", "lenet"])
def test_our_own_gradients_cost_what_autograd_costs(architecture):
    file = ModelFile(title="", architecture=architecture)
    ours, plain = (Classification(lambda: models.build(file, (1, 28, 28), 10, "a test")) for _ in range(2))
    x = torch.zeros(1, 1, 28, 28)
    plain._chains[(1, 28, 28)] = None
    assert ours._chain(x) is not None
    assert ours.flops(x) == plain.flops(x)


def test_operations_are_linear_in_the_examples_of_a_batch():
    task, x = nets.task(), torch.randn(6, 1, 4, 4)
    task.grad(task.init(0), Batch(x, torch.zeros(6, dtype=torch.int64)))

    def of(batch):
        return flops.counted(lambda: task.grad(task.init(0), Batch(x[:batch], torch.zeros(batch, dtype=torch.int64))))

    assert [of(batch) for batch in (1, 2, 6)] == [task.flops(x) * batch for batch in (1, 2, 6)]


def test_counting_leaves_libraries_and_parameters_as_they_were():
    before = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled
    task = nets.task()
    theta, batch = task.init(0), nets.federation().pool.batch(np.arange(3))
    g, _ = task.grad(theta, batch)
    task.flops(batch.x)
    with pytest.raises(RuntimeError):
        flops.counted(lambda: torch.zeros(2) @ torch.zeros(3))
    assert (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled) == before
    assert torch.equal(task.grad(theta, batch)[0], g)


IMPORTS = """
import sys
sys.path.insert(0, "tests")
from contract import nets
nets.task().flops(nets.federation().pool.x[:1])
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""


def test_counting_does_not_import_torchs_compiler():
    """Which takes some seconds, as much as a small run."""
    found = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, cwd=TESTS.parent, check=True
    )
    assert found.stdout.strip() == "[]"


def test_doubling_the_epochs_doubles_operations_and_modelled_energy_exactly():
    def spent(epochs):
        s = setting(build("fedavg")[0], nets.federation(), nets.task(), rounds=2, epochs=epochs, batch_size=4)
        return costs(s, run(s))

    one, two = spent(3), spent(6)
    assert two["flops"] == 2 * one["flops"] > 0
    assert two["gradient_examples"] == 2 * one["gradient_examples"]
    assert two["bytes_up"] == one["bytes_up"]
    assert units.proxy(two["flops"], 0, 1e-11, 1e-7) == 2 * units.proxy(one["flops"], 0, 1e-11, 1e-7)


# the simulated clock ------------------------------------------------------------------------------------------------


def clock(speed=1000.0, down=2000.0, up=500.0, sigma=0.0, server=0.25):
    return Clock(
        examples_per_second=LogNormal(median=speed, sigma=sigma),
        downlink_bytes_per_second=LogNormal(median=down, sigma=sigma),
        uplink_bytes_per_second=LogNormal(median=up, sigma=sigma),
        server_seconds=server,
    )


CLOCK = clock(sigma=0.7)


def timed(algorithm, rule, federation=None, rounds=3, epochs=2, seed=0):
    federation = federation or nets.federation(SIZES)
    given = {"rounds": rounds, "epochs": epochs, "batch_size": 4, "seed": seed, "schedule": rule}
    return setting(algorithm, federation, nets.task(), **given)


def test_a_round_takes_as_long_as_its_slowest_client_and_the_server():
    """Equal devices: the client with the most examples is the slowest."""
    s = timed(build("fedavg")[0], ScheduleFile(title="", clock=clock()))
    down = size(s.algorithm.downlink(begin(s).server))
    most = 2 * max(map(len, s.federation.train))
    one_round = down / 2000 + most / 1000 + (down + COUNT_BYTES) / 500 + 0.25
    assert run(s).simulated_seconds == pytest.approx(3 * one_round, rel=1e-12)


def test_a_round_is_the_maximum_over_the_cohort_of_sums():
    parts = [schedule.Part(100, 50, 80), schedule.Part(0, 7, 0), schedule.Part(4000, 1, 1)]
    clients, found = [3, 8, 20], []
    for client, part in zip(clients, parts, strict=True):
        own = schedule.device(CLOCK, 5, client)
        found.append(part.down / own.down + part.examples / own.examples + part.up / own.up)
    assert schedule.seconds(CLOCK, 5, clients, parts) == pytest.approx(max(found) + 0.25, rel=1e-15)
    assert schedule.seconds(CLOCK, 5, [8], [parts[1]]) == pytest.approx(found[1], rel=1e-15)  # nothing sent: no server


def test_devices_are_a_function_of_seed_and_client_alone():
    def devices(seed):
        return [schedule.device(CLOCK, seed, client) for client in range(6)]

    first = devices(1)
    schedule._device.cache_clear()
    assert [schedule.device(CLOCK, 1, client) for client in reversed(range(6))] == first[::-1]
    assert len({*first, *devices(2)}) == 12
    assert first[4] == schedule.device(CLOCK, 1, 4)
    z = keyed.generator(1, "clock", 4).standard_normal(3)
    assert first[4] == pytest.approx(
        (1000 * math.exp(0.7 * z[0]), 2000 * math.exp(0.7 * z[1]), 500 * math.exp(0.7 * z[2]))
    )


def test_spread_over_clients_is_log_normal_and_independent():
    """Median and standard deviation of logarithms, of 4,000 clients, to five standard errors."""
    logs = np.log([schedule.device(CLOCK, 0, client) for client in range(4000)])
    error = 0.7 / math.sqrt(4000)
    np.testing.assert_allclose(logs.mean(0), np.log([1000, 2000, 500]), atol=5 * error)
    np.testing.assert_allclose(logs.std(0), 0.7, atol=5 * error)
    np.testing.assert_allclose(np.corrcoef(logs.T)[np.triu_indices(3, 1)], 0, atol=5 / math.sqrt(4000))


def test_without_spread_all_devices_are_the_median():
    assert {schedule.device(clock(), seed, client) for seed in range(3) for client in range(3)} == {(1000, 2000, 500)}


def test_two_gradients_a_step_compute_for_twice_as_long():
    """With links that cost nothing."""
    fast = ScheduleFile(title="", clock=clock(down=1e20, up=1e20, server=0, sigma=0.0))
    one, two = (run(timed(algorithm, fast)).simulated_seconds for algorithm in (build("fedavg")[0], twice()))
    assert two == pytest.approx(2 * one, rel=1e-12)


def test_what_is_sent_twice_as_large_takes_longer():
    """SCAFFOLD sends two vectors each way: with computation that costs nothing, twice FedAvg's time but for 8 bytes."""
    links = ScheduleFile(title="", clock=clock(speed=1e20, server=0))
    fedavg, scaffold = (run(timed(build(name)[0], links)).simulated_seconds for name in ("fedavg", "scaffold"))
    assert scaffold == pytest.approx(2 * fedavg - 3 * COUNT_BYTES / 500, rel=1e-12)


@pytest.mark.parametrize("name", ["local-only", "centralised"])
def test_references_send_nothing(name):
    """Local training takes no time of links or server; data that were brought together have no devices."""
    s = timed(build(name)[0], ScheduleFile(title="", clock=clock()))
    found = costs(s, run(s))
    if name == "centralised":
        assert "simulated_seconds" not in found
    else:
        assert found["simulated_seconds"] == pytest.approx(3 * 2 * max(map(len, s.federation.train)) / 1000)
    assert found["gradient_examples"] == 6 * sum(map(len, nets.federation(SIZES).train))


def test_a_clock_moves_nothing_else_and_without_one_there_is_no_time():
    plain = timed(build("scaffold")[0], ScheduleFile(title="", participation=0.5))
    with_clock = timed(build("scaffold")[0], ScheduleFile(title="", participation=0.5, clock=CLOCK))
    found = [(costs(s, state), state) for s in (plain, with_clock) for state in [run(s)]]
    assert "simulated_seconds" not in found[0][0]
    assert found[1][0].pop("simulated_seconds") > 0
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[0][1].server[key], found[1][1].server[key]) for key in found[0][1].server)


def test_methods_of_a_table_have_the_same_devices():
    """FedProx does what FedAvg does, so it takes as long."""
    rule = ScheduleFile(title="", participation=0.5, clock=CLOCK)
    times = [
        run(timed(build(name, **more)[0], rule)).simulated_seconds
        for name, more in [("fedavg", {}), ("fedprox", {"mu": 1.0})]
    ]
    assert times[0] == times[1]


@each
def test_every_executor_has_the_same_time(executor):
    s = timed(build("scaffold")[0], ScheduleFile(title="", participation=0.6, stragglers=0.5, clock=CLOCK))
    assert state_of(s, executor).simulated_seconds == run(s).simulated_seconds


@pytest.mark.parametrize("name", ["full", "sample-10"])
def test_our_schedules_have_a_clock(name):
    found = load(PROJECT, "schedules", name, ScheduleFile).clock
    assert found.uplink_bytes_per_second.median <= found.downlink_bytes_per_second.median


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"examples_per_second": {"median": 0}}, r"clock\.examples_per_second\.median.*greater than 0.*found 0"),
        ({"examples_per_second": {"median": 1, "sigma": -1}}, r"sigma.*greater than or equal to 0.*found -1"),
        ({"uplink_bytes": {"median": 1}}, "unknown key 'uplink_bytes'; did you mean 'uplink_bytes_per_second'"),
        ({"examples_per_second": 5}, r"clock\.examples_per_second"),
    ],
)
def test_mistakes_in_a_clock_are_told(change, told):
    values = {"title": "", "clock": CLOCK.model_dump() | change}
    with pytest.raises(ConfigurationError, match=told):
        validated(ScheduleFile, values, "params/schedules/x.yaml")


# records and checkpoints --------------------------------------------------------------------------------------------


def test_counters_go_through_a_checkpoint(tmp_path):
    s = timed(twice(), ScheduleFile(title="", participation=0.5, clock=CLOCK), rounds=5)
    half = advance(s, advance(s, begin(s)))
    checkpoint.save(tmp_path, half, {}, {})
    again = checkpoint.load(tmp_path)[0]
    assert (again.gradient_examples, again.simulated_seconds) == (half.gradient_examples, half.simulated_seconds)
    assert costs(s, run(s, again)) == costs(s, run(s))


class Killed(BaseException):
    pass


def recorded(folder, stop=None):
    algorithm = build("scaffold")[0]

    def serve(server, up, info):
        if info.round == stop:
            raise Killed
        return algorithm.serve(server, up, info)

    s = timed(replace(algorithm, serve=serve), ScheduleFile(title="", participation=0.6, clock=CLOCK), rounds=6)
    recorder = Recorder(folder, dict.fromkeys(KEYS, "test"))
    train(s, nets.federation(SIZES), recorder, {}, checkpoint_seconds=0)
    recorder.end("finished")
    return Record(folder)


def test_a_killed_run_goes_on_counting(tmp_path):
    straight = recorded(tmp_path / "straight")
    with pytest.raises(Killed):
        recorded(tmp_path / "killed", stop=3)
    resumed = recorded(tmp_path / "killed")
    assert (resumed.folder / record.ROUNDS).read_bytes() == (straight.folder / record.ROUNDS).read_bytes()
    for name in ("gradient_examples", "flops", "simulated_seconds"):
        values = [row["metrics"][name] for row in straight.rounds]
        assert (np.diff([0, *values]) > 0).all()
    last = straight.rounds[-1]["metrics"]
    assert last["flops"] == last["gradient_examples"] * nets.task().flops(nets.federation().pool.x[:1])


def test_workers_that_start_anew_lose_no_count():
    """A larger cohort than before: the processes are started again in the middle of a run."""
    s = setting(build("fedavg")[0], nets.federation(SIZES), nets.task(), rounds=4, epochs=1, batch_size=4)
    state, total = begin(s), 0
    with closing(Workers(2)) as workers:
        for share in (0.4, 1.0, 0.4, 1.0):
            rule = ScheduleFile(title="", participation=share)
            cohort = schedule.cohort(rule, 0, state.round, s.federation.active)
            total += sum(len(s.federation.train[client]) for client in cohort)
            state = advance(replace(s, executor=workers, schedule=rule), state)
    assert state.gradient_examples == total


if __name__ == "__main__":
    from heterobench.executor.distributed import Distributed, join, leave, rank

    join("cpu")
    ranked(Path(sys.argv[1]) / str(rank()), Distributed(), 1.0 + rank())
    leave()
