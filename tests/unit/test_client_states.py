"""Client states in memory and on disk, and the checkpoints of runs that have them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import nets
from contract.quadratic import build, run, setting
from heterobench import personal
from heterobench.config.schema import ScheduleFile
from heterobench.engine import checkpoint, client_states
from heterobench.engine.client_states import ClientStates, Damaged, InMemory, Layout, OnDisk
from heterobench.engine.synchronous import RunState, advance, begin
from heterobench.errors import RunError
from heterobench.federation import Examples, Federation
from heterobench.partition.rows import Rows

HALF = ScheduleFile(title="half", participation=0.5)


@pytest.fixture(params=["memory", "disk", "compacted"])
def bounds(request, monkeypatch):
    """Small bounds, so that few states are already on disk, and a few dead rows too many."""
    if request.param != "memory":
        monkeypatch.setattr(client_states, "MEMORY", 0)
        monkeypatch.setattr(client_states, "BLOCK", 100)
    if request.param == "compacted":
        monkeypatch.setattr(client_states, "DEAD", 0)
    return request.param


@pytest.fixture
def on_disk(monkeypatch):
    monkeypatch.setattr(client_states, "MEMORY", 0)
    monkeypatch.setattr(client_states, "DEAD", 0)


def state(value: float) -> dict[str, torch.Tensor]:
    """Several dtypes, a scalar, something of odd length, NaN."""
    return {
        "c": torch.tensor([value, float("nan"), 1 / 3]),
        "fine": torch.full((2, 2), value, dtype=torch.float64),
        "flags": torch.tensor([True, False, True]),
        "half": torch.full((1,), value, dtype=torch.bfloat16),
        "k": torch.tensor(int(value)),
    }


def bits(states) -> dict[int, list]:
    return {
        i: [(k, t.dtype, tuple(t.shape), t.reshape(-1).view(torch.uint8).tolist()) for k, t in sorted(s.items())]
        for i, s in states.items()
    }


def same(one: RunState, two: RunState) -> bool:
    servers = [{0: s.server} for s in (one, two)]
    return bits(servers[0]) == bits(servers[1]) and bits(one.clients) == bits(two.clients) and one.round == two.round


# values -------------------------------------------------------------------------------------------------------------


def test_round_trip(bounds, tmp_path):
    expected = {i: state(i + 0.5) for i in (7, 0, 1000, 3)}
    found = ClientStates(tmp_path).put(expected)
    assert list(found) == [0, 3, 7, 1000]
    assert len(found) == 4
    assert bits(found) == bits(expected)
    assert 5 not in found
    assert -1 not in found
    with pytest.raises(KeyError):
        found[10**9]
    assert (found.log is None) == (bounds == "memory")


def test_without_a_folder_everything_stays_in_memory(on_disk):
    assert ClientStates().put({1: state(1)}).log is None


def test_nothing_put_is_nothing_new(bounds, tmp_path):
    states = ClientStates(tmp_path)
    assert states.put({}) is states
    assert not states
    assert not list(tmp_path.iterdir())


def test_states_move_to_disk_when_they_are_too_large(monkeypatch, tmp_path):
    size = Layout.of(state(0)).size
    monkeypatch.setattr(client_states, "MEMORY", 3 * size)
    states = ClientStates(tmp_path).put({i: state(i) for i in range(3)})
    assert states.log is None
    more = states.put({2: state(20), 3: state(3)})
    assert more.log == "states-0001.rows"
    assert (tmp_path / more.log).stat().st_size == 4 * size
    assert bits(more) == bits({0: state(0), 1: state(1), 2: state(20), 3: state(3)})
    assert bits(states) == bits({i: state(i) for i in range(3)})


def test_a_state_read_from_disk_may_be_written(on_disk, tmp_path):
    states = ClientStates(tmp_path).put({1: state(1)})
    states[1]["c"].add_(1)
    assert bits(states) == bits({1: state(1)})


def test_states_that_differ_in_form_are_refused(on_disk, tmp_path):
    states = ClientStates(tmp_path).put({1: state(1)})
    for other in ({"c": torch.zeros(3)}, state(1) | {"c": torch.zeros(4)}, state(1) | {"k": torch.tensor(1.0)}):
        with pytest.raises(ValueError, match="not like the others"):
            states.put({2: other})
    assert bits(states) == bits({1: state(1)})


def test_dead_rows_do_not_outnumber_the_live_ones_for_long(on_disk, tmp_path):
    states, size = ClientStates(tmp_path).put({i: state(i) for i in range(10)}), Layout.of(state(0)).size
    logs = set()
    for n in range(50):
        states = states.put({n % 10: state(100 + n)})
        logs.add(states.log)
        assert (tmp_path / states.log).stat().st_size <= 20 * size
    assert len(logs) > 3
    assert bits(states) == bits({i: state(140 + i) for i in range(10)})


puts = st.dictionaries(st.integers(0, 12), st.integers(-99, 99), max_size=5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(puts, st.integers(0, 30)), max_size=15), limit=st.sampled_from([0, 150, 10**9]))
def test_every_value_is_a_dictionary_of_its_own(steps, limit, monkeypatch):
    """Puts into the newest value and into older ones, across memory, disk and compaction, against plain dicts."""
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patch:
        for name, value in {"MEMORY": limit, "DEAD": 0, "BLOCK": 90}.items():
            patch.setattr(client_states, name, value)
        values, models = [ClientStates(Path(folder))], [{}]
        for change, back in steps:
            at = max(len(values) - 1 - back, 0) if back < 5 else -1  # mostly the newest
            new = {i: {"c": torch.tensor([float(v)]), "k": torch.tensor(v)} for i, v in change.items()}
            values.append(values[at].put(new))
            models.append(models[at] | new)
        for value, model in zip(values, models, strict=True):
            assert bits(value) == bits(model)
            assert list(value) == sorted(model)
            assert len(value) == len(model)
            assert all((i in value) == (i in model) for i in range(14))


# checkpoints --------------------------------------------------------------------------------------------------------


def scaffold(rounds=12, **more):
    algorithm, _ = build("scaffold", lr=0.1)
    federation = nets.federation(sizes=(6, 7, 5, 8, 9, 6))
    return setting(algorithm, federation, nets.task(), rounds=rounds, epochs=1, schedule=HALF, **more)


@pytest.mark.parametrize("between", [0, 1, 5])
def test_going_on_from_either_kept_checkpoint_gives_the_same_bits(bounds, between, tmp_path):
    """The log grew after the checkpoints, and (compacted) was replaced; both still find their states."""
    s = scaffold()
    straight = run(s)
    folder, state, saved = tmp_path / "killed", begin(s, tmp_path / "killed"), []
    for _ in range(4):
        state = advance(s, state)
    for _ in range(2):
        state = advance(s, advance(s, state))
        saved.append((checkpoint.save(folder, state, {}, {}), bits(state.clients), state.clients.log))
    for _ in range(between):
        state = advance(s, state)
    if bounds == "compacted" and between == 5:
        assert state.clients.log != saved[-1][2]  # a new log since the checkpoint: the old one must still be there
    for chosen in (1, 0):
        copy = tmp_path / f"copy-{chosen}"
        shutil.copytree(folder, copy)
        if chosen == 0:
            flip(copy / saved[1][0].name)
        found = checkpoint.load(copy)[0]
        assert bits(found.clients) == saved[chosen][1]
        assert same(run(s, found), straight)


def test_logs_that_nobody_needs_are_removed(on_disk, tmp_path):
    s = scaffold(rounds=30)
    state = begin(s, tmp_path)
    (tmp_path / ".round-00000001-abc.safetensors.xyz").write_text("left by a killed save")
    while state.round < 30:
        state = advance(s, state)
        checkpoint.save(tmp_path, state, {}, {})
        needed = {checkpoint._log_of(p) for p in tmp_path.glob("round-*")} | {state.clients.log}
        assert {p.name for p in tmp_path.glob("states-*")} == needed
    assert not list(tmp_path.glob(".*"))
    assert len(list(tmp_path.iterdir())) <= 4
    assert int(state.clients.log[7:11]) > 5


def test_what_was_written_after_a_checkpoint_is_cut_off(on_disk, tmp_path):
    s = scaffold()
    state = advance(s, begin(s, tmp_path))
    checkpoint.save(tmp_path, state, {}, {})
    size = (tmp_path / state.clients.log).stat().st_size
    with open(tmp_path / state.clients.log, "ab") as log:
        log.write(b"half a row")
    checkpoint.load(tmp_path)
    assert (tmp_path / state.clients.log).stat().st_size == size


def flip(path: Path, at: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [flip, truncate])
def test_a_damaged_row_costs_the_rounds_after_the_checkpoint_before(damage, on_disk, tmp_path, caplog):
    """The last row belongs to the newest checkpoint alone."""
    states = ClientStates(tmp_path).put({i: state(i) for i in range(9)})
    for round in (4, 5):
        states = states.put({round: state(round + 100)})
        checkpoint.save(tmp_path, RunState(round, {}, {}, states), {}, {})
    damage(tmp_path / states.log)
    with caplog.at_level(logging.WARNING):
        found = checkpoint.load(tmp_path)[0]
    assert found.round == 4
    assert bits(found.clients) == bits({i: state(i) for i in range(9)} | {4: state(104)})
    assert "round-00000005" in caplog.text
    assert "damaged checkpoint" in caplog.text
    assert len(list(tmp_path.glob("round-*"))) == 1


def test_damage_to_a_dead_row_is_no_damage(on_disk, tmp_path):
    states = ClientStates(tmp_path).put({i: state(i) for i in range(9)}).put({0: state(50)})
    checkpoint.save(tmp_path, RunState(1, {}, {}, states), {}, {})
    flip(tmp_path / states.log, 0)
    assert bits(checkpoint.load(tmp_path)[0].clients) == bits(states)


@pytest.mark.parametrize("damage", [lambda path: flip(path, 3), remove])
def test_damage_that_all_checkpoints_share_leaves_none(damage, on_disk, tmp_path, caplog):
    states = ClientStates(tmp_path).put({i: state(i) for i in range(9)})
    for round in (4, 5):
        checkpoint.save(tmp_path, RunState(round, {}, {}, states), {}, {})
    damage(tmp_path / states.log)
    assert checkpoint.load(tmp_path) is None
    assert caplog.text.count("damaged checkpoint") == 2


def test_another_row_in_its_place_is_damage(on_disk, tmp_path):
    """Whole rows, but not the right ones: a checksum beside the row could not tell."""
    states = ClientStates(tmp_path).put({0: state(1), 1: state(2)})
    tensors, about = states.stored()
    path = tmp_path / states.log
    half = path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[half:] + path.read_bytes()[:half])
    with pytest.raises(Damaged, match="checksum"):
        ClientStates.restored(tmp_path, tensors, about, "cpu")


def test_damage_while_the_run_goes_on_is_an_error(on_disk, tmp_path):
    states = ClientStates(tmp_path).put({0: state(1), 1: state(2)})
    with open(tmp_path / states.log, "r+b") as log:
        log.write(b"x")
    with pytest.raises(RunError, match="row 0 is damaged"):
        states[0]
    assert bits({1: states[1]}) == bits({1: state(2)})


def test_checksums_survive_a_move_to_a_new_log(on_disk, tmp_path):
    """Compaction copies bytes that it has not looked at: what was damaged before is still recognised."""
    states = ClientStates(tmp_path).put({i: state(i) for i in range(4)})
    with open(tmp_path / states.log, "r+b") as log:
        log.write(b"x")
    old = states.log
    while states.log == old:
        states = states.put({3: state(30)})
    with pytest.raises(RunError, match="row 0 is damaged"):
        states[0]


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from unit.test_client_states import scaffold
from heterobench.engine import checkpoint, client_states
from heterobench.engine.synchronous import advance, begin
from pathlib import Path
client_states.MEMORY = client_states.DEAD = 0
folder, s = Path({folder!r}), scaffold(rounds=40)
stored = checkpoint.load(folder)
state = stored[0] if stored else begin(s, folder)
print("from", state.round, flush=True)
while state.round < 40:
    state = advance(s, state)
    if state.round % 3 == 0:
        checkpoint.save(folder, state, {{}}, {{}})
    print(state.round, flush=True)
checkpoint.save(folder, state, {{}}, {{}})
"""


@pytest.mark.slow  # one kill is tested for every method by the contract
def test_a_run_killed_again_and_again_ends_with_the_same_bits(tmp_path):
    """SIGKILL at arbitrary instants, with the store on disk and compactions between checkpoints."""
    tests = str(Path(__file__).parents[1])
    code = KILLED.format(tests=tests, folder=str(tmp_path))
    starts = []
    for kill_at in (5, 14, 22, 31, None):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        starts.append(int(process.stdout.readline().split()[1]))
        for line in process.stdout:
            if kill_at and int(line) >= kill_at:
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.close()
        assert process.wait() == (-signal.SIGKILL if kill_at else 0)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert same(checkpoint.load(tmp_path)[0], run(scaffold(rounds=40)))


# a full disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB; without the right to mount one, a limit to the size of files does not say the same."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def big(round: int, clients: ClientStates | None = None) -> RunState:
    return RunState(round, {"theta": torch.full((150_000,), float(round))}, {}, clients or ClientStates())


def test_a_full_disk_leaves_the_last_good_checkpoints(small_disk):
    folder = small_disk / "checkpoints"
    for round in (1, 2):
        checkpoint.save(folder, big(round), {}, {})
    (small_disk / "other").write_bytes(bytes(600_000))
    before = sorted(folder.iterdir())
    with pytest.raises(RunError, match=r"No space left.*600,\d{3} bytes are needed.*are free.*make room") as error:
        checkpoint.save(folder, big(3), {}, {})
    assert str(folder) in str(error.value)
    assert sorted(folder.iterdir()) == before
    assert checkpoint.load(folder)[0].round == 2
    (small_disk / "other").unlink()
    checkpoint.save(folder, big(3), {}, {})
    assert checkpoint.load(folder)[0].round == 3


@pytest.mark.parametrize(("clients", "taken"), [(15, 0), (5, 600_000)], ids=["appending", "moving to a new log"])
def test_a_disk_that_fills_with_states_leaves_the_last_good_checkpoint(clients, taken, small_disk, on_disk):
    (small_disk / "other").write_bytes(bytes(taken))
    folder = small_disk / "checkpoints"
    states, kept = ClientStates(folder), []

    def go_on():  # 100 kB a state
        nonlocal states
        for round in range(100):
            states = states.put(
                {(round * 2 + j) % clients: {"c": torch.full((25_000,), 1.0 * round)} for j in range(2)}
            )
            kept.append(checkpoint.save(folder, RunState(round, {}, {}, states), {}, {}))

    with pytest.raises(RunError, match=r"No space left.*bytes are needed for states-\d{4}.rows") as error:
        go_on()
    assert str(folder) in str(error.value)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*(p.name for p in kept[-2:]), states.log])
    found = checkpoint.load(folder)[0]
    assert found.round == len(kept) - 1 > 2
    assert bits(found.clients) == bits(states)


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from heterobench.engine import checkpoint, client_states
from heterobench.engine.synchronous import RunState
from heterobench.errors import RunError
folder = Path(sys.argv[1])
checkpoint.save(folder, RunState(1, {"theta": torch.zeros(10)}, {}), {}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
client_states.MEMORY = 0
for what in (
    lambda: checkpoint.save(folder, RunState(2, {"theta": torch.zeros(100_000)}, {}), {}, {}),
    lambda: client_states.ClientStates(folder).put({1: {"c": torch.zeros(100_000)}}),
):
    try:
        what()
    except RunError as error:
        print(error)
"""


def test_a_write_that_the_system_refuses_leaves_the_last_good_checkpoint(tmp_path):
    """As above for users who may not mount: a limit on the size of files."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.startswith(f"{tmp_path}: File too large: 400,") for line in result.stdout.splitlines()] == [True] * 2
    assert [path.name[:14] for path in tmp_path.iterdir()] == ["round-00000001"]
    assert checkpoint.load(tmp_path)[0].round == 1


# many clients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["rows", "lists"])
def test_active_clients_are_found_once(form):
    rows = Rows(np.array([0, 2, 2, 5, 5]), np.arange(5))
    rows = rows if form == "rows" else list(rows)
    pool = Examples(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64))
    federation = Federation(pool, rows, rows, rows, pool)
    assert federation.active.tolist() == [0, 2]
    assert federation.active is federation.active
    with pytest.raises(ValueError, match="read-only"):
        federation.active[0] = 1
    assert federation.all_validation.tolist() == list(range(5))
    assert federation.pooled().train[0].tolist() == list(range(5))


def test_tables_find_dead_rows_and_sizes():
    table = InMemory({3: {"c": torch.zeros(4)}, 1: {"c": torch.zeros(4)}})
    assert table.size == 32
    assert table.ids() == [1, 3]
    assert isinstance(table.settled(None), InMemory)
    assert not issubclass(OnDisk, InMemory)


@pytest.mark.parametrize("together", [1, 3, 64])
@pytest.mark.parametrize("form", ["rows", "lists"])
def test_personal_scores_are_those_of_one_call_per_client(together, form, monkeypatch):
    monkeypatch.setattr(personal, "TOGETHER", together)
    monkeypatch.setattr(personal, "EXAMPLES", 40)
    sizes = [3, 0, 12, 1, 7, 0, 45, 3, 2]
    task, pool = nets.task(), nets.federation(sizes=(sum(sizes),)).pool
    assert task.scores_many
    rows = Rows(np.concatenate([[0], np.cumsum(sizes)]), np.random.default_rng(0).permutation(sum(sizes)))
    thetas = task.init(0) + 0.3 * torch.randn(
        (len(sizes), len(task.init(0))), generator=torch.Generator().manual_seed(0)
    )
    found = personal.scores(task, pool, thetas, rows if form == "rows" else list(rows))
    parts = [task.scores(theta, pool.chunks(np.array(own))) for theta, own in zip(thetas, rows, strict=True)]
    torch.testing.assert_close(found["loss"], torch.cat([p["loss"] for p in parts]), rtol=1e-5, atol=1e-6)
    assert torch.equal(found["accuracy"], torch.cat([p["accuracy"] for p in parts]))
    assert 0 < found["accuracy"].mean() < 1


def test_personal_scores_of_nobody_are_empty():
    task, empty = nets.task(), Rows(np.zeros(4, np.int64), np.zeros(0, np.int64))
    found = personal.scores(task, nets.federation().pool, torch.stack([task.init(0)] * 3), empty)
    assert {name: len(values) for name, values in found.items()} == {"loss": 0, "accuracy": 0}


def test_clients_are_judged_together():
    """Not one call per client."""
    calls = []

    class Counting:
        def __init__(self, task):
            self._task = task

        def scores_many(self, thetas, batch):
            calls.append(len(thetas))
            return self._task.scores_many(thetas, batch)

    task, pool = nets.task(), nets.federation(sizes=(100,)).pool
    personal.scores(
        Counting(task), pool, torch.stack([task.init(0)] * 50), [np.arange(i, 2 * i + 1) for i in range(50)]
    )
    assert calls == [50]
