"""Schedules, reducers, bytes, batches, checkpoints, records, saved models, devices, fingerprints, keyed draws."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import math
import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from contract import nets
from contract.quadratic import Quadratics, build, run, setting
from heterobench import channel, combine, device, federation, keyed, schedule
from heterobench.algorithm import Algorithm
from heterobench.config.schema import ScheduleFile
from heterobench.engine import checkpoint
from heterobench.engine.client_states import ClientStates
from heterobench.engine.synchronous import RunState, Setting, advance, begin
from heterobench.errors import ConfigurationError
from heterobench.files import write_sealed
from heterobench.records import provenance, record, saved_model
from heterobench.records.record import Record
from heterobench.records.recorder import Recorder
from heterobench.training import train


def taking(participation=1.0, stragglers=0.0):
    return ScheduleFile(title="a test", participation=participation, stragglers=stragglers)


# keyed draws --------------------------------------------------------------------------------------------------------


def test_same_key_same_draw():
    first, second = (keyed.generator(3, "batches", 5, 7).random(8) for _ in range(2))
    assert (first == second).all()
    assert keyed.integer(3, "initial weights") == keyed.integer(3, "initial weights")


def test_every_part_of_a_key_matters():
    keys = [
        (3, "a", 1, 2),
        (4, "a", 1, 2),
        (3, "b", 1, 2),
        (3, "a", 2, 1),
        (3, "a", 1),
        (3, "a", 1, 3),
        (3, "a"),
    ]
    draws = {keyed.generator(*key).random(4).tobytes() for key in keys}
    integers = {keyed.integer(*key) for key in keys}
    assert len(draws) == len(integers) == len(keys)


def test_integers_fit_in_63_bits():
    drawn = [keyed.integer(seed, "x") for seed in range(200)]
    assert min(drawn) >= 0
    assert 2**61 < max(drawn) < 2**63


def test_draws_are_the_same_in_another_process():
    """Nothing of a draw depends on Python's hash seed."""
    code = "from heterobench import keyed; print(keyed.integer(1, 'batches', 2, 3))"
    environment = os.environ | {"PYTHONHASHSEED": "99"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(result.stdout) == keyed.integer(1, "batches", 2, 3)


# schedule -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "clients", "size"),
    [
        (1.0, 7, 7),
        (0.1, 100, 10),
        (0.1, 4, 1),
        (0.01, 10, 1),
        (0.5, 5, 3),
        (0.25, 10, 3),
        (0.34, 10, 3),
        (0.99, 10, 10),
    ],
)
def test_size_of_a_cohort(share, clients, size):
    """max(round(C N), 1), halves rounded up."""
    assert len(schedule.cohort(taking(share), 0, 0, np.arange(clients))) == size


def test_cohort_is_ascending_and_without_replacement():
    active = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23])
    for round in range(50):
        chosen = schedule.cohort(taking(0.5), 1, round, active)
        assert (np.diff(chosen) > 0).all()
        assert set(chosen) <= set(active)


def test_cohort_is_keyed_by_seed_and_round():
    active = np.arange(40)
    draws = {tuple(schedule.cohort(taking(0.2), seed, round, active)) for seed in range(4) for round in range(4)}
    assert len(draws) == 16
    again = schedule.cohort(taking(0.2), 2, 3, active)
    assert (again == schedule.cohort(taking(0.2), 2, 3, active)).all()


def test_every_client_is_sampled_equally_often():
    counts = np.zeros(10)
    for round in range(2000):
        counts[schedule.cohort(taking(0.3), 0, round, np.arange(10))] += 1
    assert np.abs(counts / 2000 - 0.3).max() < 0.05  # five standard deviations


def test_stragglers_finish_1_to_full_minus_1_epochs():
    done = [schedule.epochs(taking(stragglers=1.0), 0, t, i, 5) for t in range(40) for i in range(10)]
    assert set(done) == {1, 2, 3, 4}
    assert np.bincount(done)[1:].min() > 60


def test_share_of_stragglers():
    done = [schedule.epochs(taking(stragglers=0.4), 0, t, i, 5) for t in range(100) for i in range(10)]
    assert abs(np.mean([d < 5 for d in done]) - 0.4) < 0.08
    assert max(done) == 5


def test_nobody_straggles_by_default_or_below_one_epoch():
    assert {schedule.epochs(taking(), 0, t, 0, 5) for t in range(50)} == {5}
    assert {schedule.epochs(taking(stragglers=1.0), 0, t, 0, 1) for t in range(50)} == {1}


def test_stragglers_do_not_move_other_draws():
    """The same cohorts and the same first epochs with and without them."""
    first, second = (schedule.cohort(taking(0.3, s), 0, 4, np.arange(20)) for s in (0.0, 0.9))
    assert (first == second).all()
    rows = np.arange(11)
    short, long = (federation.batches(0, 4, 2, rows, epochs, 4) for epochs in (1, 3))
    assert all((a == b).all() for a, b in zip(short, long, strict=False))


# reducers and bytes -------------------------------------------------------------------------------------------------


def uplinks(values):
    return [{"u": torch.tensor(v, dtype=torch.float64)} for v in values]


def test_reducers():
    values, examples = [[1.0, 2.0], [3.0, 5.0], [-2.0, 0.5]], [1, 3, 4]
    rows = np.array(values)
    expected = {
        "weighted": np.average(rows, axis=0, weights=examples),
        "uniform": rows.mean(0),
        "sum": rows.sum(0),
    }
    for reducer, value in expected.items():
        found = combine.combine(uplinks(values), examples, {"u": reducer})["u"]
        np.testing.assert_allclose(found.numpy(), value, rtol=1e-15)
    stacked = combine.combine(uplinks(values), examples, {"u": "stack"})["u"]
    assert stacked.tolist() == values


def test_reducers_leave_the_uplinks_as_they_are():
    sent = uplinks([[1.0], [2.0]])
    combine.combine(sent, [1, 1], {"u": "sum"})
    assert [u["u"].item() for u in sent] == [1.0, 2.0]


def test_only_declared_entries_are_reduced():
    sent = [{"u": torch.ones(1), "private": torch.ones(1)}]
    assert combine.combine(sent, [1], {"u": "sum"}).keys() == {"u"}
    assert combine.combine(sent, [1], {}) == {}


def test_a_cohort_of_one_keeps_the_bits():
    value = torch.randn(50)
    for reducer in ("weighted", "uniform", "sum"):
        assert torch.equal(combine.combine([{"u": value}], [7], {"u": reducer})["u"], value)


def test_unknown_reducers_and_tags_are_refused():
    real, _ = build("fedavg")
    with pytest.raises(ValueError, match="median"):
        replace(real, reduce={"delta": "median"})
    with pytest.raises(ValueError, match="gossip"):
        replace(real, tags=frozenset({"gossip"}))
    assert isinstance(real, Algorithm)


def test_payload_is_the_tensors_bytes_in_the_order_of_names():
    message = {
        "b": torch.tensor([1.5, -2.0]),
        "a": torch.tensor([[1, 2], [3, 4]]),
        "c": torch.tensor(7.0, dtype=torch.float64),
    }
    expected = (
        np.array([1, 2, 3, 4], "<i8").tobytes() + np.array([1.5, -2], "<f4").tobytes() + np.array(7, "<f8").tobytes()
    )
    assert channel.encode(message) == expected
    assert channel.size(message) == len(expected) == 48
    assert channel.encode({}) == b""
    assert channel.size({}) == 0


def test_a_view_is_sent_as_what_it_shows():
    matrix = torch.arange(6.0).reshape(2, 3)
    assert channel.encode({"x": matrix.T}) == np.arange(6, dtype="<f4").reshape(2, 3).T.tobytes()
    assert channel.size({"x": matrix[:, :1]}) == len(channel.encode({"x": matrix[:, :1]})) == 8


def test_bytes_of_rounds_count_the_cohort():
    """4 P down and 4 P + 8 up for each of two participants, three rounds."""
    task = nets.task()
    p = len(task.init(0))
    algorithm, _ = build("fedavg")
    state = run(setting(algorithm, nets.federation(), task, rounds=3, epochs=1, schedule=taking(0.5)))
    assert state.bytes_down == 3 * 2 * 4 * p
    assert state.bytes_up == 3 * 2 * (4 * p + 8)
    silent = run(setting(build("local-only")[0], nets.federation(), task, rounds=2, epochs=1))
    assert silent.bytes_up == silent.bytes_down == 0


# batches and federations --------------------------------------------------------------------------------------------


def test_every_epoch_has_every_row_once():
    rows = np.array([4, 8, 15, 16, 23, 42, 7])
    result = federation.batches(0, 1, 2, rows, epochs=3, size=3)
    assert [len(batch) for batch in result] == [3, 3, 1] * 3
    for epoch in range(3):
        assert sorted(np.concatenate(result[3 * epoch : 3 * epoch + 3])) == sorted(rows)


def test_batches_depend_on_seed_round_and_client_only():
    rows = np.arange(30)

    def order(*key):
        return tuple(np.concatenate(federation.batches(*key, rows, 1, 4)).tolist())

    assert order(0, 1, 2) == order(0, 1, 2)
    assert len({order(0, 1, 2), order(1, 1, 2), order(0, 2, 2), order(0, 1, 3), order(0, 2, 1)}) == 5
    assert order(0, 1, 2) != tuple(rows)
    sizes = [np.concatenate(federation.batches(0, 1, 2, rows, 2, size)).tolist() for size in (1, 7, 1000)]
    assert sizes[0] == sizes[1] == sizes[2]


def test_normalised_examples_are_the_same_kept_or_made_per_batch(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (9, 3, 4, 4), dtype=np.uint8), rng.integers(0, 5, 9)
    mean, std = [0.1, 0.5, 0.7], [0.2, 0.3, 0.4]
    kept = federation.Examples.normalised(x, y, mean, std, 255)
    monkeypatch.setattr(federation, "RESIDENT", 0)
    made = federation.Examples.normalised(x, y, mean, std, 255)
    assert kept.x.dtype == torch.float32
    assert made.x.dtype == torch.uint8
    index = np.array([3, 0, 8, 3])
    assert torch.equal(kept.batch(index).x, made.batch(index).x)
    expected = (x[index] / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(kept.batch(index).x.numpy(), expected, atol=1e-5)
    assert made.batch(index).y.tolist() == y[index].tolist()
    assert torch.equal(made.x, torch.from_numpy(x))  # making a batch leaves the pixels alone


def test_chunks_are_all_examples_in_order(monkeypatch):
    monkeypatch.setattr(federation, "CHUNK", 4)
    pool = nets.federation().pool
    parts = list(pool.chunks())
    assert [len(part.y) for part in parts] == [4] * (len(pool) // 4) + ([len(pool) % 4] if len(pool) % 4 else [])
    assert torch.equal(torch.cat([part.y for part in parts]), pool.y)
    some = np.array([5, 1, 9, 2, 30])
    assert torch.equal(torch.cat([part.x for part in pool.chunks(some)]), pool.batch(some).x)


def test_active_clients_have_training_examples():
    clients = nets.federation(sizes=(0, 3, 0, 8))
    assert clients.active.tolist() == [1, 3]
    assert len(clients) == 4


def test_pooled_federation_is_one_client_with_everything():
    clients = nets.federation()
    pooled = clients.pooled()
    assert len(pooled) == 1
    assert pooled.train[0].tolist() == sorted(np.concatenate(clients.train).tolist())
    assert pooled.validation[0].tolist() == sorted(np.concatenate(clients.validation).tolist())
    algorithm, _ = build("centralised")
    assert len(Setting(clients, nets.task(), algorithm, taking(), None, 0).federation) == 1


# engine -------------------------------------------------------------------------------------------------------------


def test_server_is_told_cohort_population_seed_and_task():
    """`population` counts the clients that can take part."""
    told = []
    real, _ = build("fedavg")

    def serve(server, up, info):
        told.append(tuple(info))
        return real.serve(server, up, info)

    clients, task = nets.federation(sizes=(6, 0, 9, 5, 0, 7)), nets.task()
    run(setting(replace(real, serve=serve), clients, task, rounds=2, epochs=1, schedule=taking(0.5), seed=5))
    sizes = (128, 8, 24, 3)  # 16 pixels to 8 units to 3 classes
    assert told == [(0, 2, 4, sizes, 5, task, 0), (1, 2, 4, sizes, 5, task, 1)]


def test_client_is_told_what_it_did():
    done = []
    real, _ = build("fedavg", lr=0.2, lr_decay=0.5)

    def finish(work, down, client, d):
        done.append((d.steps, d.lr_sum))
        return real.finish(work, down, client, d)

    problem = Quadratics.draw(clients=2, unequal=True)  # 1 and 2 examples
    run(setting(replace(real, finish=finish), problem.federation(), rounds=2, epochs=3, batch_size=1))
    assert [steps for steps, _ in done] == [3, 6, 3, 6]
    assert [rate for _, rate in done] == pytest.approx([0.6, 1.2, 0.3, 0.6])


def test_training_loss_is_the_mean_over_the_cohorts_examples():
    problem = Quadratics.draw(clients=4, unequal=True)
    s = setting(build("fedavg")[0], problem.federation(), epochs=1)
    state = advance(s, begin(s))
    x = begin(s).server["theta"].numpy()
    losses = 0.5 * (problem.a * (x - problem.b) ** 2).sum(1)
    assert state.train_loss == pytest.approx(np.average(losses, weights=problem.n), rel=1e-12)


def test_states_are_kept_for_clients_that_took_part():
    s = setting(build("scaffold")[0], nets.federation(), nets.task(), epochs=1, schedule=taking(0.25))
    state = advance(s, begin(s))
    assert sorted(state.clients) == schedule.cohort(taking(0.25), 0, 0, np.arange(4)).tolist()
    other = next(i for i in range(4) if i not in state.clients)
    assert state.client(other) is state.fresh


# checkpoints --------------------------------------------------------------------------------------------------------


def some_state(round=3, clients=(0, 4, 7)) -> RunState:
    """Odd numbers on purpose: NaN, infinities, subnormals, negative zero, several dtypes."""
    odd = torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45, 1 / 3])
    theta = torch.randn(11, generator=torch.Generator().manual_seed(round))
    return RunState(
        round,
        {"theta": theta, "mean": theta, "odd": odd, "count": torch.tensor(round), "fine": odd.double() / 3},
        {"h": torch.zeros(11), "k": torch.zeros((), dtype=torch.int64)},
        ClientStates.of({i: {"h": theta * i, "k": torch.tensor(i)} for i in clients}),
        bytes_up=2**53 + 1,
        bytes_down=17,
        gradient_examples=2**60 + 3,
        simulated_seconds=0.1 + 0.2,
        train_loss=math.nan if round % 2 else 0.1,
    )


def same(one: RunState, two: RunState) -> bool:
    def bits(state):
        groups = [state.server, state.fresh, *(state.clients[i] for i in sorted(state.clients))]
        return [(k, g[k].dtype, tuple(g[k].shape), g[k].numpy().tobytes()) for g in groups for k in sorted(g)]

    def rest(s):
        return repr(
            (
                s.round,
                sorted(s.clients),
                s.bytes_up,
                s.bytes_down,
                s.gradient_examples,
                s.simulated_seconds,
                s.train_loss,
            )
        )

    return bits(one) == bits(two) and rest(one) == rest(two)


def test_checkpoint_keeps_every_bit(tmp_path):
    extra = {"selected": torch.tensor([0.1, math.nan])}
    notes = {"best": float("-inf"), "offsets": {"rounds.jsonl": 12}, "seconds": 0.1}
    for clients in ((0, 4, 7), ()):
        state = some_state(clients=clients)
        checkpoint.save(tmp_path, state, extra, notes)
        found, more, told = checkpoint.load(tmp_path)
        assert same(found, state)
        assert more["selected"].numpy().tobytes() == extra["selected"].numpy().tobytes()
        assert told == notes
        shutil.rmtree(tmp_path)


@pytest.mark.parametrize("name", ["scaffold", "moon"])
def test_a_run_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path, name):
    """MOON's nets have what was restored as their parameters."""
    s = setting(build(name, lr=0.1)[0], nets.federation(), nets.task(), rounds=5, epochs=1, schedule=taking(0.5))
    straight = run(s)
    half = advance(s, advance(s, begin(s)))
    checkpoint.save(tmp_path, half, {}, {})
    assert same(run(s, checkpoint.load(tmp_path)[0]), straight)


def test_what_is_restored_lies_in_memory_as_it_did(tmp_path):
    """Aligned like every tensor of torch: the last bit of a matrix product may depend on it."""
    checkpoint.save(tmp_path, some_state(), {}, {})
    found, _, _ = checkpoint.load(tmp_path)
    tensors = [
        *found.server.values(),
        *found.fresh.values(),
        *(t for i in (0, 4, 7) for t in found.clients[i].values()),
    ]
    assert {tensor.data_ptr() % 64 for tensor in tensors} == {0}


def test_only_the_last_two_checkpoints_are_kept(tmp_path):
    paths = [checkpoint.save(tmp_path, some_state(round), {}, {}) for round in (1, 2, 9, 10, 100)]
    assert sorted(tmp_path.iterdir()) == paths[-2:]
    assert checkpoint.load(tmp_path)[0].round == 100


def flip(path: Path, at: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty])
def test_a_damaged_checkpoint_costs_the_rounds_after_the_one_before(tmp_path, caplog, damage):
    older = some_state(4)
    checkpoint.save(tmp_path, older, {}, {"which": "older"})
    newest = checkpoint.save(tmp_path, some_state(5), {}, {"which": "newest"})
    damage(newest)
    with caplog.at_level(logging.WARNING):
        state, _, notes = checkpoint.load(tmp_path)
    assert same(state, older)
    assert notes == {"which": "older"}
    assert newest.name in caplog.text
    assert "damaged" in caplog.text


def test_only_damaged_checkpoints_are_none(tmp_path, caplog):
    for round in (4, 5):
        flip(checkpoint.save(tmp_path, some_state(round), {}, {}))
    assert checkpoint.load(tmp_path) is None
    assert caplog.text.count("damaged checkpoint") == 2


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "never made") is None


def test_leftovers_of_a_killed_save_are_ignored(tmp_path):
    path = checkpoint.save(tmp_path, some_state(4), {}, {})
    for name in (".round-00000009.tmp.abc123", "round-00000009.tmp", ".round-00000009-0123.safetensors.x"):
        shutil.copy(path, tmp_path / name)
        truncate(tmp_path / name)
    assert checkpoint.load(tmp_path)[0].round == 4
    for round in (5, 6):
        checkpoint.save(tmp_path, some_state(round), {}, {})
    assert [p.name[:14] for p in sorted(tmp_path.glob("round-*.safetensors"))] == [
        "round-00000005",
        "round-00000006",
    ]


def test_a_save_that_fails_leaves_the_older_checkpoints(tmp_path):
    checkpoint.save(tmp_path, some_state(4), {}, {})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path, some_state(5), {}, {"not json": object()})
    assert sorted(tmp_path.iterdir()) == before


def test_checkpoints_after_two_damaged_ones_are_kept(tmp_path):
    """Both are damaged, the run starts again: what it saves now must not make place for the damaged ones."""
    for round in (8, 9):
        flip(checkpoint.save(tmp_path, some_state(round), {}, {}))
    assert checkpoint.load(tmp_path) is None
    path = checkpoint.save(tmp_path, some_state(1), {}, {})
    assert path.is_file()
    assert checkpoint.load(tmp_path)[0].round == 1


# recorder and record ------------------------------------------------------------------------------------------------

KEYS = ("benchmark", "preset", "scenario", "arm", "seed")
CONFIG = {"run_id": "one"} | dict.fromkeys(KEYS, "x")


def test_a_record_from_beginning_to_end(tmp_path):
    recorder = Recorder(tmp_path / "run", CONFIG)
    assert not recorder.finished
    recorder.begin({"revision": "abc"}, {})
    read = Record(tmp_path / "run")
    assert read.config == CONFIG
    assert read.provenance == {"revision": "abc"}
    recorder.append(record.ROUNDS, {"round": 1, "metrics": {"loss": math.nan}})
    recorder.append(record.TIMING, {"round": 1, "seconds": 0.5})
    assert math.isnan(read.rounds[0]["metrics"]["loss"])  # readable while the run goes on
    assert read.end is None
    assert not read.finished
    recorder.end("finished", rounds=1)
    assert recorder.finished
    files = (record.CONFIG, record.PROVENANCE, record.ROUNDS, record.TIMING)
    digests = {name: hashlib.sha256((tmp_path / "run" / name).read_bytes()).hexdigest() for name in files}
    assert read.end == {"status": "finished", "sha256": digests, "rounds": 1}


def test_another_run_begins_in_an_empty_folder(tmp_path):
    folder = tmp_path / "run"
    recorder = Recorder(folder, CONFIG)
    recorder.begin({}, {})
    recorder.append(record.ROUNDS, {"round": 1})
    recorder.end("finished")
    (folder / record.CHECKPOINTS).mkdir()
    (folder / record.CHECKPOINTS / "old").write_text("old")

    Recorder(folder, CONFIG)
    assert Record(folder).rounds == [{"round": 1}]  # the same run: nothing is lost
    assert (folder / record.CHECKPOINTS / "old").is_file()

    other = Recorder(folder, CONFIG | {"run_id": "two"})
    assert [p.name for p in folder.iterdir()] == [record.CONFIG]
    assert not other.finished
    assert Record(folder).config["run_id"] == "two"


def test_streams_are_cut_back_to_the_offsets_of_a_checkpoint(tmp_path):
    recorder = Recorder(tmp_path, CONFIG)
    recorder.begin({}, {})
    for round in (1, 2):
        recorder.append(record.ROUNDS, {"round": round})
        recorder.append(record.TIMING, {"round": round, "seconds": 0.1})
    offsets = recorder.files()
    contents = {name: (tmp_path / name).read_bytes() for name in (record.ROUNDS, record.TIMING)}
    assert offsets == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    until = (tmp_path / record.ROUNDS).read_bytes()
    recorder.append(record.ROUNDS, {"round": 3})
    record.seal(tmp_path, "failed")

    again = Recorder(tmp_path, CONFIG)
    assert again.fault(offsets) is None
    again.begin({}, offsets)
    assert (tmp_path / record.ROUNDS).read_bytes() == until
    assert not (tmp_path / record.END).exists()
    again.append(record.ROUNDS, {"round": 3})
    again.end("finished")
    assert [row["round"] for row in Record(tmp_path).rounds] == [1, 2, 3]

    fresh = Recorder(tmp_path, CONFIG)
    fresh.begin({}, {})
    assert Record(tmp_path).rounds == Record(tmp_path).timing == []


def test_end_is_written_last(tmp_path, monkeypatch):
    """When end.json appears the streams are closed; until then there is a checkpoint to go on from."""
    recorder = Recorder(tmp_path, CONFIG)
    recorder.begin({}, {})
    recorder.append(record.ROUNDS, {"round": 1})
    (tmp_path / record.CHECKPOINTS).mkdir()
    seen, streams = [], dict(recorder._streams)

    def watched(path, value):
        seen.append((path.name, (tmp_path / record.CHECKPOINTS).exists(), all(s.closed for s in streams.values())))
        write_sealed(path, value)

    monkeypatch.setattr("heterobench.records.record.write_sealed", watched)
    recorder.end("finished")
    assert seen == [(record.END, True, True)]


def test_a_failed_run_keeps_its_checkpoints_and_is_not_finished(tmp_path):
    recorder = Recorder(tmp_path, CONFIG)
    recorder.begin({}, {})
    (tmp_path / record.CHECKPOINTS).mkdir()
    recorder.end("failed", error="Traceback")
    assert not recorder.finished
    assert (tmp_path / record.CHECKPOINTS).is_dir()
    assert Record(tmp_path).end["error"] == "Traceback"


def test_a_failed_run_is_not_finished_for_its_readers_either(tmp_path):
    recorder = Recorder(tmp_path, CONFIG)
    recorder.begin({}, {})
    recorder.end("failed", error="Traceback")
    assert not Record(tmp_path).finished


def test_progress_is_told_twice_a_second_and_at_the_end(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path, CONFIG)
    recorder.begin({}, {})
    clock = [100.0]
    monkeypatch.setattr("heterobench.records.recorder.time.time", lambda: clock[0])

    def told(round, status="running"):
        recorder.progress(round, 10, 2.0 * round, ("accuracy", math.nan), status)
        return json.loads((tmp_path / record.PROGRESS).read_text())

    first = told(1)
    assert first["round"] == 1
    assert first["metric"] == {"name": "accuracy", "value": "NaN"}
    assert first["seconds_left"] == 18.0
    assert first["pid"] == os.getpid()
    clock[0] += 0.4
    assert told(2)["round"] == 1
    clock[0] += 0.2
    assert told(3)["round"] == 3
    assert told(10, "finished")["round"] == 10


def test_numbers_that_are_not_finite_are_strings_in_json():
    row = {"a": math.nan, "b": math.inf, "c": {"d": -math.inf, "e": 0.1}, "f": "text", "g": 3}
    text = record.line(row)
    assert text == '{"a":"NaN","b":"Infinity","c":{"d":"-Infinity","e":0.1},"f":"text","g":3}\n'
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = record.decode(json.loads(text))
    assert math.isnan(back.pop("a"))
    assert back == {key: row[key] for key in "bcfg"}


def test_floats_come_back_with_all_their_bits(tmp_path):
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2.0**53 + 2]
    (tmp_path / "x").write_text("".join(record.line({"v": v}) for v in values))
    assert [repr(row["v"]) for row in record.read_lines(tmp_path / "x")] == [repr(v) for v in values]


def test_a_half_written_last_line_is_left_out(tmp_path):
    whole = record.line({"round": 1}) + record.line({"round": 2})
    path = tmp_path / record.ROUNDS
    for cut in range(1, len(record.line({"round": 3}))):
        path.write_text(whole + record.line({"round": 3})[:cut])
        assert [row["round"] for row in record.read_lines(path)] == [1, 2]
    path.write_text('{"rou')
    assert record.read_lines(path) == []
    assert record.read_lines(tmp_path / "absent") == []


# training, as far as record and checkpoints go ----------------------------------------------------------------------


class Killed(BaseException):
    pass


def trained(folder, stop=None):
    """A run of 6 rounds with a checkpoint after each; killed in round `stop`."""
    clients = nets.federation()
    s = setting(build("scaffold", lr=0.1)[0], clients, nets.task(), rounds=6, epochs=1, batch_size=4)
    recorder = Recorder(folder, CONFIG)
    if stop:
        real = s.algorithm

        def serve(server, up, info):
            if info.round == stop:
                raise Killed
            return real.serve(server, up, info)

        s = replace(s, algorithm=replace(real, serve=serve))
    train(s, clients, recorder, {}, checkpoint_seconds=0)
    recorder.end("finished")
    return (folder / record.ROUNDS).read_bytes()


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_killed_run_with_damaged_checkpoints_ends_as_the_straight_one(tmp_path, damaged, caplog):
    """With none, one and all of its checkpoints damaged."""
    straight = trained(tmp_path / "straight")
    with pytest.raises(Killed):
        trained(tmp_path / "killed", stop=4)
    kept = sorted((tmp_path / "killed" / record.CHECKPOINTS).glob("*.safetensors"))
    assert [path.name[:14] for path in kept] == ["round-00000003", "round-00000004"]
    for path in kept[2 - damaged :]:
        flip(path)
    assert trained(tmp_path / "killed") == straight
    assert len(straight.splitlines()) == 6
    assert caplog.text.count("damaged checkpoint") == damaged


# saved models -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [None, 1, 3])
def test_saved_models_come_back_bit_by_bit(tmp_path, clients):
    task = nets.task()
    p = len(task.init(0))
    theta = torch.randn(p if clients is None else (clients, p))
    theta.view(-1)[:2] = torch.tensor([math.nan, -0.0])
    path = tmp_path / "final.safetensors"
    saved_model.save(path, task.layout, theta, {"run_id": "abc", "round": 3})
    back = saved_model.load(path, task.layout)
    assert back.shape == theta.shape
    assert back.numpy().tobytes() == theta.numpy().tobytes()


def test_saved_model_holds_each_parameter_under_its_name(tmp_path):
    task = nets.task()
    theta = task.init(0)
    path = tmp_path / "final.safetensors"
    saved_model.save(path, task.layout, torch.stack([theta, 2 * theta]), {})
    with safe_open(path, framework="pt") as stored:
        assert set(stored.keys()) == set(task.layout.names)
        for name, expected in task.layout.split(theta).items():
            assert torch.equal(stored.get_tensor(name), torch.stack([expected, 2 * expected]))


def test_equal_models_have_equal_bytes(tmp_path):
    task = nets.task()
    for name in ("a", "b"):
        saved_model.save(tmp_path / name, task.layout, task.init(0), {"run_id": "x", "round": 3, "more": "y"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# devices ------------------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from heterobench.device import slot
with slot(["cuda:0", "cuda:1"], 1, Path(sys.argv[1])) as device:
    print(device, flush=True)
    sys.stdin.read()
"""


def told(process, seconds):
    """The device that `process` got, or None when it still waits after `seconds`."""
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline().strip() if ready else None


def test_processes_share_devices_and_a_killed_one_gives_its_place_back(tmp_path):
    processes = []

    def start():
        command = [sys.executable, "-c", HOLDER, str(tmp_path)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    try:
        first, second = start(), start()
        assert {told(first, 30), told(second, 30)} == {"cuda:0", "cuda:1"}
        third = start()
        assert told(third, 1.5) is None
        second.send_signal(signal.SIGKILL)
        second.wait()
        free = told(third, 30)
        assert free in ("cuda:0", "cuda:1")
        fourth = start()
        first.stdin.close()  # an orderly end gives the place back as well
        assert told(fourth, 30) == {"cuda:0": "cuda:1", "cuda:1": "cuda:0"}[free]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def test_places_are_filled_device_by_device(tmp_path):
    """The least used device first; an error in the block gives its place back."""
    devices = ["cuda:0", "cuda:1"]
    with device.slot(devices, 2, tmp_path) as a, device.slot(devices, 2, tmp_path) as b:
        assert [a, b] == devices
        with device.slot(devices, 2, tmp_path) as c, device.slot(devices, 2, tmp_path) as d:
            assert [c, d] == devices
    with pytest.raises(RuntimeError), device.slot(devices, 1, tmp_path):
        raise RuntimeError
    with device.slot(devices, 1, tmp_path) as again:
        assert again == "cuda:0"


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0", 1), ("0,3", 2), ("GPU-a, GPU-b", 2)])
def test_visible_gpus_follow_the_environment(monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.visible_gpus() == count


def test_device_wish(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for wish in ("cpu", "auto"):
        with device.chosen(wish, 4) as found:
            assert found == "cpu"
    with (
        pytest.raises(ConfigurationError, match=r"params/config\.yaml: device: cuda"),
        device.chosen("cuda", 4),
    ):
        pass


# provenance ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package whose files a test may change; fingerprints are taken from it."""
    folder = tmp_path / "heterobench"
    shutil.copytree(provenance.SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "SOURCE", folder)
    provenance._parsed.cache_clear()
    yield folder
    provenance._parsed.cache_clear()


def fingerprints():
    provenance._parsed.cache_clear()
    return {
        (name, model): provenance.training_code(name, model)
        for name in ("fedavg", "fedprox", "scaffold", "local-only")
        for model in ("mlp", "lenet")
    }


def changed(before, after):
    return {key for key in before if before[key] != after[key]}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_fingerprint_is_hexadecimal_and_stable(copy):
    before = fingerprints()
    assert before == fingerprints()
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in before.values())
    assert len(set(before.values())) == len(before)  # every algorithm and model has its own


def test_kept_digests_are_used_and_never_believed_of_another_source(copy):
    before = fingerprints()
    kept = {path: path.read_text() for path in copy.rglob("*.code.json")}
    assert {path.parent.parent / "fedavg.py" for path in kept} >= {copy / "algorithms" / "fedavg.py"}
    fedavg = next(path for path in kept if path.name.startswith("fedavg."))
    for broken in ("", "[1, 2", "[1, 2]", json.dumps(["0" * 64, "0" * 64, []])):
        fedavg.write_text(broken)
        assert fingerprints() == before
        assert fedavg.read_text() == kept[fedavg]
    key, _, inside = json.loads(kept[fedavg])
    fedavg.write_text(json.dumps([key, "0" * 64, inside]))
    assert changed(before, fingerprints()) == set(before)  # so it is read where its key holds


def test_comments_docstrings_and_layout_do_not_count(copy):
    before = fingerprints()
    fedavg = copy / "algorithms" / "fedavg.py"
    edit(fedavg, '"""FedAvg: every', '"""Another docstring: every')
    edit(fedavg, "    def start(down", "    # a comment\n\n\n    def start(down")
    edit(
        fedavg,
        'return {"delta": work["theta"] - down["theta"]}, client',
        'return ({\n"delta": work["theta"] - down["theta"]\n}, client)',
    )
    edit(copy / "keyed.py", '    """A 63-bit integer', '    """An integer')
    assert fingerprints() == before


def test_docstrings_of_attributes_do_not_count(copy):
    before = fingerprints()
    edit(copy / "algorithm.py", '"""round -> local step size.', '"""Step size of a round.')
    assert fingerprints() == before


def test_code_counts_for_everything_that_imports_it(copy):
    before = fingerprints()
    edit(copy / "algorithms" / "fedprox.py", "g + hp.mu *", "g - hp.mu *")
    after = fingerprints()
    assert changed(before, after) == {key for key in before if key[0] == "fedprox"}

    edit(copy / "models" / "lenet.py", "16 * side", "17 * side")
    last = fingerprints()
    assert changed(after, last) == {key for key in before if key[1] == "lenet"}

    edit(copy / "algorithms" / "fedavg.py", "+ hp.server_lr", "- hp.server_lr")
    assert changed(last, fingerprints()) == set(before)  # the other methods here build on it


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("keyed.py", "random.Philox(", "random.PCG64("),
        ("schedule.py", "+ 0.5", "+ 0.4"),
        ("combine.py", "n / total", "n / count"),
        ("executor/local.py", "steps * work.lr", "work.lr"),
        ("engine/synchronous.py", "round=round + 1", "round=round + 2"),
        ("task.py", "argmax(-1)", "argmin(-1)"),
        ("federation.py", "// rounds", "// (rounds + 1)"),
        ("opening.py", "% stages", "% (stages + 1)"),
        ("data/transforms.py", "1 / (", "2 / ("),
    ],
)
def test_code_of_the_engine_counts_for_every_run(copy, module, old, new):
    before = fingerprints()
    edit(copy / module, old, new)
    assert changed(before, fingerprints()) == set(before)


@pytest.mark.parametrize("module", ["cli.py", "errors.py", "report/render.py", "record.py", "watch.py"])
def test_code_that_cannot_change_a_result_does_not_count(copy, module):
    before = fingerprints()
    with open(copy / module, "a") as file:
        file.write("\nANOTHER = 1\n")
    assert fingerprints() == before


def test_a_function_of_nothing_but_a_docstring_stays_a_function():
    tree = provenance._without_docstrings(
        ast.parse('"""m"""\ndef f():\n    """d"""\nclass C:\n    "d"\n    x = "kept"\n')
    )
    expected = ast.parse('def f():\n    pass\nclass C:\n    x = "kept"\n')
    assert ast.dump(tree) == ast.dump(expected)


def test_provenance_of_a_run(tmp_path):
    found = provenance.provenance(tmp_path, "cpu")
    json.dumps(found)
    assert found["revision"] is None  # no git repository there
    assert found["dirty"] is None  # which is not clean
    assert found["packages"].keys() >= {"heterobench", "torch", "numpy"}
    assert found["hardware"]["gpu"] is None
    assert found["device"] == "cpu"


def test_hooks_that_contradict_each_other_are_refused():
    real, _ = build("fedavg")
    with pytest.raises(ValueError, match="batches and virtual"):
        replace(real, batches=lambda *a: [], virtual=lambda *a: ())
    with pytest.raises(ValueError, match="selective"):
        replace(real, select=lambda server, given: (server, given.ids))
    with pytest.raises(ValueError, match="selective"):
        replace(real, tags=frozenset({"selective"}))


def test_rows_of_a_stored_partition_may_be_read_only(recwarn):
    pool, rows = nets.federation().pool, np.arange(5)
    rows.flags.writeable = False
    assert torch.equal(pool.batch(rows).x, pool.x[:5])
    assert not rows.flags.writeable
    assert not recwarn
