"""A run that is asked for again with more rounds keeps those that are there, and has the bits of a straight run."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract import nets
from contract.arms import CASES, Case
from contract.quadratic import setting
from contract.test_contract import Killed, Mortal
from heterobench import training
from heterobench.config.schema import Budget, ScheduleFile
from heterobench.records import record
from heterobench.records.recorder import Recorder

CHOSEN = Case("curriculum-of-clients", "curriculum-fl", {"client_order": "curriculum"})
every = pytest.mark.parametrize("case", [*CASES, CHOSEN], ids=str)
PLENTY = 2**30


def trained(case, folder, rounds, monkeypatch, every=1, snapshots=0, task=None) -> int:
    """One run, to its end; returns the number of rounds that were computed for it."""
    algorithm, _ = case.build(lr=0.1)
    federation, schedule = nets.federation(), ScheduleFile(title="", participation=0.5)
    s = setting(algorithm, federation, task or nets.task(), schedule=schedule)
    budget = Budget(rounds=rounds, local_epochs=1, batch_size=4, evaluate_every=every)
    object.__setattr__(s, "budget", budget)
    keys = ("benchmark", "preset", "scenario", "arm", "seed")
    config = dict.fromkeys(keys, "test") | {"run_id": f"of-{rounds}-rounds"}
    config |= {"configuration": {"budget": budget.model_dump()}}
    computed, advance = [], training.advance
    with monkeypatch.context() as patch:
        patch.setattr(training, "advance", lambda *given: computed.append(1) or advance(*given))
        recorder = Recorder(folder, config, training.bound_to_length(algorithm, 1))
        if not recorder.finished:
            assert training.compute(s, federation, recorder, {}, 10**6, None, snapshots, PLENTY)
    return len(computed)


def left(folder: Path) -> dict[str, bytes]:
    """Everything that equal runs have in common."""
    names = [name for name in record.left(folder) if name not in (record.PROVENANCE, record.TIMING)]
    return {name: (folder / name).read_bytes() for name in names}


@every
def test_a_longer_run_goes_on_with_the_bits_of_a_straight_one(case, tmp_path, monkeypatch, caplog):
    """2 rounds, then 4: two more are computed. A method that depends on the number of rounds begins anew."""
    algorithm, _ = case.build(lr=0.1)
    trained(case, tmp_path / "straight", 4, monkeypatch, snapshots=2)
    assert trained(case, tmp_path / "longer", 2, monkeypatch, snapshots=2) == 2
    first, shorter = (tmp_path / "longer" / record.TIMING).read_bytes(), left(tmp_path / "longer")
    with caplog.at_level("INFO"):
        computed = trained(case, tmp_path / "longer", 4, monkeypatch, snapshots=2)
    assert left(tmp_path / "longer") == left(tmp_path / "straight")
    bound = "length" in algorithm.tags
    assert computed == (4 if bound else 2)
    assert ("cannot go on" in caplog.text) == bound
    assert "2 -> 4 rounds: run of-2-rounds" in caplog.text
    kept = (tmp_path / "longer" / record.TIMING).read_bytes()[: len(first)] == first
    assert kept == (not bound)
    assert left(tmp_path / "superseded" / "longer" / "of-2-rounds") == shorter


FEDADAM, SCAFFOLD = (next(case for case in CASES if case.name == name) for name in ("fedadam", "scaffold"))


@pytest.mark.parametrize(("short", "long", "every"), [(5, 9, 2), (1, 5, 3), (3, 6, 3), (4, 5, 10)])
def test_an_evaluation_that_only_a_last_round_has_is_none_of_the_longer_run(short, long, every, tmp_path, monkeypatch):
    trained(SCAFFOLD, tmp_path / "straight", long, monkeypatch, every)
    trained(SCAFFOLD, tmp_path / "longer", short, monkeypatch, every)
    assert trained(SCAFFOLD, tmp_path / "longer", long, monkeypatch, every) == long - short
    assert left(tmp_path / "longer") == left(tmp_path / "straight")


def test_models_along_the_way_that_were_not_kept_are_made(tmp_path, monkeypatch, caplog):
    """Of 3 rounds two models are kept, those of 1 and 3; six of 7 are all but that of 4."""
    trained(FEDADAM, tmp_path / "straight", 7, monkeypatch, snapshots=6)
    trained(FEDADAM, tmp_path / "longer", 3, monkeypatch, snapshots=2)
    assert trained(FEDADAM, tmp_path / "longer", 7, monkeypatch, snapshots=6) == 7
    assert left(tmp_path / "longer") == left(tmp_path / "straight")
    assert "no model of round 2" in caplog.text


@pytest.mark.parametrize("life", [1, 5, 9])
def test_killed_while_it_grows(life, tmp_path, monkeypatch):
    trained(SCAFFOLD, tmp_path / "straight", 5, monkeypatch, snapshots=2)
    trained(SCAFFOLD, tmp_path / "longer", 2, monkeypatch, snapshots=2)
    with pytest.raises(Killed):
        trained(SCAFFOLD, tmp_path / "longer", 5, monkeypatch, snapshots=2, task=Mortal(nets.task(), life))
    assert not record.Record(tmp_path / "longer").finished
    assert trained(SCAFFOLD, tmp_path / "longer", 5, monkeypatch, snapshots=2) == 3
    assert left(tmp_path / "longer") == left(tmp_path / "straight")


def test_there_and_back(tmp_path, monkeypatch, caplog):
    """2, 4, 2, 4 rounds: both records are kept, so that nothing is computed twice."""
    found = [trained(FEDADAM, tmp_path / "run", rounds, monkeypatch) for rounds in (2, 4)]
    longer = left(tmp_path / "run")
    with caplog.at_level("INFO"):
        found += [trained(FEDADAM, tmp_path / "run", rounds, monkeypatch) for rounds in (2, 4)]
    assert found == [2, 2, 0, 0]
    assert left(tmp_path / "run") == longer
    assert caplog.text.count("comes back") == 2
