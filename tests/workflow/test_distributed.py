"""Ranks started by torchrun: the bits of one process, for every algorithm, whatever the number of ranks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    result = subprocess.run(
        [*launch, __file__, str(tmp_path / "found.pt")],
        cwd=TESTS.parent,
        env=environment() | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found, expected = torch.load(tmp_path / "found.pt", weights_only=True), outcomes(Loop)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


if __name__ == "__main__":
    from heterobench.executor.distributed import Distributed, join, leave, rank

    join("cpu")
    made = outcomes(Distributed)
    if rank() == 0:
        torch.save(made, sys.argv[1])
    leave()
