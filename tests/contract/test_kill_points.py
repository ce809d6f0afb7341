"""Fifty kills at random moments (slow suite): the run that goes on ends with the straight run's bits."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from contract import nets
from contract.arms import CASES
from contract.quadratic import setting
from contract.test_contract import Killed, Mortal, recorded
from heterobench.config.schema import ScheduleFile
from heterobench.records import record
from heterobench.records.recorder import Recorder
from heterobench.training import train
from miniature import environment

pytestmark = pytest.mark.slow
POINTS = random.Random(20261123)
KILLS = [(POINTS.choice(CASES), [POINTS.randint(1, 24) for _ in range(POINTS.randint(1, 4))]) for _ in range(40)]


@pytest.mark.parametrize(("case", "lives"), KILLS, ids=[f"{c}-{'-'.join(map(str, ls))}" for c, ls in KILLS])
def test_killed_at_random_gradients(case, lives, tmp_path):
    straight, _, theta, best = recorded(case, tmp_path / "straight", nets.task())
    for life in lives:
        try:
            recorded(case, tmp_path / "killed", Mortal(nets.task(), life))
        except Killed:
            continue
        break  # fewer gradients were left than this life has
    resumed, _, theta2, best2 = recorded(case, tmp_path / "killed", nets.task())
    assert resumed == straight
    assert torch.equal(theta, theta2)
    assert (best.round, best.accuracy) == (best2.round, best2.accuracy)


def long_run(name: str, folder: Path) -> None:
    """A run of some seconds that checkpoints after every round."""
    case = next(c for c in CASES if c.name == name)
    algorithm, _ = case.build(lr=0.05)
    federation, schedule = nets.federation((40, 33, 51, 27)), ScheduleFile(title="", participation=0.5)
    s = setting(algorithm, federation, nets.task(), rounds=150, epochs=2, batch_size=4, schedule=schedule)
    keys = ("run_id", "benchmark", "preset", "scenario", "arm", "seed")
    recorder = Recorder(folder, dict.fromkeys(keys, "test"))
    if not recorder.finished:
        train(s, federation, recorder, {}, checkpoint_seconds=0)
        recorder.end("finished")


@pytest.mark.parametrize("name", ["scaffold", "fedadam"])
def test_killed_at_random_instants_by_sigkill(name, tmp_path):
    """Five kills, each at a random time after a checkpoint was written: in a gradient, a write, a rename."""
    long_run(name, tmp_path / "straight")
    command = [sys.executable, __file__, name, str(tmp_path / "killed")]
    env = environment() | {"PYTHONPATH": str(Path(__file__).parents[1])}
    kills = 0
    while not (tmp_path / "killed" / record.END).is_file():
        process = subprocess.Popen(command, env=env)
        if kills < 5:
            before = set((tmp_path / "killed").glob("checkpoints/*.safetensors"))
            while process.poll() is None and not set((tmp_path / "killed").glob("checkpoints/*.safetensors")) - before:
                time.sleep(0.001)
            time.sleep(POINTS.uniform(0, 0.05))
            process.kill()
            kills += 1
            process.wait()
        else:
            assert process.wait() == 0
    assert kills == 5
    rounds = [(tmp_path / which / record.ROUNDS).read_bytes() for which in ("straight", "killed")]
    assert rounds[0] == rounds[1]


if __name__ == "__main__":
    long_run(sys.argv[1], Path(sys.argv[2]))
