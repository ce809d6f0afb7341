"""Worker processes: the loop's bits, and clean ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch

from contract import nets
from contract.arms import CASES
from contract.quadratic import build, setting
from heterobench.config.schema import Config, ScheduleFile
from heterobench.engine.synchronous import advance, begin
from heterobench.errors import RunError
from heterobench.executor.workers import Workers
from heterobench.training import thetas


def outcome(case, executor, rounds=4):
    algorithm, _ = case.build(lr=0.1)
    schedule = ScheduleFile(title="", participation=0.6)
    s = setting(algorithm, nets.federation((9, 1, 12, 7, 3)), nets.task(), epochs=1, batch_size=4, schedule=schedule)
    if executor:
        object.__setattr__(s, "executor", executor)
    state = begin(s)
    for _ in range(rounds):
        state = advance(s, state)
    s.executor.close()
    return thetas(s, state, 5), state


@pytest.mark.parametrize("case", CASES, ids=str)
def test_workers_give_the_bits_of_the_loop(case):
    ours, state = outcome(case, Workers(2))
    plain, expected = outcome(case, None)
    assert torch.equal(ours, plain)
    assert state.train_loss == expected.train_loss
    assert (state.bytes_up, state.bytes_down) == (expected.bytes_up, expected.bytes_down)
    assert state.gradient_examples == expected.gradient_examples


class Fails:
    """A task whose gradient fails, or kills its process, once it runs in a worker."""

    def __init__(self, how: str):
        self._task, self._how, self._home = nets.task(), how, os.getpid()

    def __getattr__(self, name):
        return getattr(self._task, name)

    def grad(self, theta, batch, term=None):
        if os.getpid() != self._home:
            if self._how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("this batch is cursed")
        return self._task.grad(theta, batch, term)


@pytest.mark.parametrize(("how", "told"), [("error", "this batch is cursed"), ("killed", "ended unexpectedly")])
def test_a_failing_worker_ends_the_run_with_its_reason(how, told):
    algorithm, _ = build("fedavg", lr=0.1)
    s = setting(algorithm, nets.federation((9, 5, 12, 7)), Fails(how), epochs=1, batch_size=4)
    workers = Workers(2)
    object.__setattr__(s, "executor", workers)
    with pytest.raises(RunError, match=told):
        advance(s, begin(s))
    assert not workers._pipes


def test_a_worker_that_is_killed_between_rounds_is_told():
    algorithm, _ = build("fedavg", lr=0.1)
    s = setting(algorithm, nets.federation((9, 5, 12, 7)), nets.task(), epochs=1, batch_size=4)
    workers = Workers(2)
    object.__setattr__(s, "executor", workers)
    state = advance(s, begin(s))
    victim, other = workers._processes
    os.kill(victim.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(victim.pid)], timeout=10)
    with pytest.raises(RunError, match=r"a worker process ended unexpectedly.*start the same command again"):
        advance(s, state)
    assert not other.is_alive()


def test_a_worker_that_dies_with_the_turn_in_its_hands_stops_nobody_for_ever():
    """Whoever takes the next client holds a lock; killed there, it would leave the others waiting."""
    algorithm, _ = build("fedavg", lr=0.1)
    s = setting(algorithm, nets.federation((9, 5, 12, 7)), nets.task(), epochs=1, batch_size=4)
    workers = Workers(2)
    object.__setattr__(s, "executor", workers)
    state = advance(s, begin(s))
    with workers._next.get_lock():  # as a process that was killed leaves it: never given back
        threading.Timer(0.5, lambda: os.kill(workers._processes[1].pid, signal.SIGKILL)).start()
        with pytest.raises(RunError, match="a worker process ended unexpectedly"):
            workers._wait([])
    assert state.round == 1


ORPHANS = """
import os, sys, time
sys.path.insert(0, "tests")
from contract import nets
from contract.quadratic import build, setting
from heterobench.engine.synchronous import advance, begin
from heterobench.executor.workers import Workers
s = setting(build("fedavg", lr=0.1)[0], nets.federation(), nets.task(), epochs=1, batch_size=4)
object.__setattr__(s, "executor", Workers(2))
advance(s, begin(s))
print("ready", flush=True)
time.sleep(60)
"""


def test_workers_end_with_a_killed_parent():
    process = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "ready"
    children = psutil.Process(process.pid).children()
    assert len(children) == 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_workers_and_threads_do_not_go_together():
    with pytest.raises(ValueError, match="workers > 1 goes with threads: 1"):
        Config(benchmarks=["label-skew"], workers=2, threads=2)


def test_closing_leaves_no_process():
    before = len(psutil.Process().children())
    outcome(CASES[1], Workers(2), rounds=1)
    time.sleep(0.05)
    assert len(psutil.Process().children()) == before
