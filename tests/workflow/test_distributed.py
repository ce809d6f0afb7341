"""Ranks started by torchrun: the bits of one process, for every algorithm, whatever the number of ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from contract import nets
from contract.arms import CASES
from contract.quadratic import setting
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import advance, begin
from heterobench.executor.loop import Loop
from heterobench.training import thetas
from miniature import environment

TESTS = Path(__file__).parents[1]


def outcomes(make_executor) -> dict[str, torch.Tensor]:
    """Models after three rounds of every algorithm; cohorts of three clients, so two ranks have unequal shares."""
    found = {}
    for case in CASES:
        algorithm, _ = case.build(lr=0.1)
        federation, schedule = nets.federation((9, 1, 12, 7, 3)), ScheduleFile(title="", participation=0.6)
        s = setting(algorithm, federation, nets.task(), rounds=3, epochs=1, batch_size=4, schedule=schedule)
        object.__setattr__(s, "executor", make_executor())
        state = begin(s)
        for _ in range(3):
            state = advance(s, state)
        found[case.name] = thetas(s, state, 5)
    return found


@pytest.mark.parametrize("ranks", [2, *(pytest.param(ranks, marks=pytest.mark.slow) for ranks in (1, 4))])
def test_ranks_give_the_bits_of_one_process(ranks, tmp_path):
    """Four ranks are more than the clients of a cohort: one of them has none."""
    result = launched(ranks, "outcomes", str(tmp_path / "found.pt"))
    assert result.returncode == 0, result.stderr[-3000:]
    found, expected = torch.load(tmp_path / "found.pt", weights_only=True), outcomes(Loop)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def launched(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """This file in `ranks` processes of one machine."""
    return subprocess.run(
        [sys.executable, "-m", "heterobench.executor.launch", str(ranks), __file__, *arguments],
        cwd=TESTS.parent,
        env=environment() | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_ranks_of_one_machine_listen_on_loopback_alone(tmp_path):
    """The kernel's own list of listening sockets, of torchrun and of all ranks, while the group is there."""
    result = launched(2, "listening", str(tmp_path / "found"))
    assert result.returncode == 0, result.stderr[-3000:]
    addresses = (tmp_path / "found").read_text().split()
    assert addresses  # the ranks do talk over sockets
    assert [a for a in addresses if not (a.startswith("127.") or a == "::1")] == []


def test_a_killed_rank_ends_the_others_with_a_clear_message(tmp_path):
    result = launched(2, "killed", str(tmp_path / "found"))
    assert result.returncode != 0
    assert "another rank of this run has ended" in result.stderr
    assert "rank 1 was ended by SIGKILL (killed, or out of memory)" in result.stderr
    assert "start the same command again" in result.stderr


def listening() -> list[str]:
    """Addresses on which the processes of this run listen."""
    above = psutil.Process().parent()
    sockets = [s for process in (above, *above.children(recursive=True)) for s in process.net_connections("inet")]
    return [s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN]


if __name__ == "__main__":
    from heterobench.executor.distributed import Distributed, agreed, join, leave, rank

    join("cpu")
    what, file = sys.argv[1:]
    agreed("all are there")
    if what == "listening":
        if rank() == 0:
            Path(file).write_text("\n".join(listening()))
    else:
        made = outcomes(Distributed)
        if what == "killed" and rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if rank() == 0:
            torch.save(made, file)
    leave()
