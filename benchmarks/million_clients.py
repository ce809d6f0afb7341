"""Rounds with very many clients that all have a state: seconds a round, memory, size on disk.

SCAFFOLD on random inputs of 256 numbers in 10 classes; the model is softmax regression (2,570 parameters), so a
state is 10 kB and a million of them 10 GB. Every client holds 3 examples. All clients get a state before the first
round, as if each had taken part; then come rounds of 100 clients, the populations in turn so that a busy machine
troubles all alike (median and 90 % quantile of the seconds), and a checkpoint. Each population has a process of
its own, because the peak of memory never falls.

    python benchmarks/million_clients.py [--populations 10000 100000 1000000] [--rounds 100] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from heterobench import models, registry
from heterobench.config.schema import Budget, ModelFile, ScheduleFile
from heterobench.engine import checkpoint, client_states
from heterobench.engine.synchronous import Setting, advance, begin
from heterobench.federation import Examples, Federation
from heterobench.partition.rows import Rows
from heterobench.task import Classification

COHORT, EACH, BLOCK, TURN = 100, 3, 2000, 5
POOL = 30_000  # different examples; clients share them, as only their number counts here


def setting(population: int, rounds: int) -> Setting:
    rng = np.random.default_rng(0)
    pool = Examples(torch.randn(POOL, 1, 16, 16), torch.from_numpy(rng.integers(0, 10, POOL)))
    rows = Rows(np.arange(population + 1) * EACH, rng.integers(0, POOL, population * EACH))
    nothing = Rows(np.zeros(population + 1, np.int64), np.zeros(0, np.int64))
    module, model = registry.algorithm("scaffold"), ModelFile(title="softmax", architecture="softmax")
    return Setting(
        Federation(pool, rows, nothing, nothing, pool),
        Classification(lambda: models.build(model, (1, 16, 16), 10, "benchmark")),
        module.make(module.HyperParameters(lr=0.1)),
        ScheduleFile(title="", participation=COHORT / population),
        Budget(rounds=rounds, local_epochs=1, batch_size=10),
        seed=0,
    )


def client(pipe: Connection, population: int, folder: Path) -> None:
    """Fill the store; then a few rounds whenever asked for; then a checkpoint, and going on from it."""
    torch.set_num_threads(1)
    client_states.MEMORY = 0  # the small population's states go to disk as well: all do the same
    s = setting(population, 1)
    state, began = begin(s, folder), time.perf_counter()
    states = state.clients
    for first in range(0, population, BLOCK):
        drawn = torch.randn(min(BLOCK, population - first), len(state.server["theta"])) / 100
        states = states.put({first + n: {"c": c} for n, c in enumerate(drawn)})
    states.stored()  # on disk before anything is timed, so that rounds do not pay for filling
    state = replace(state, clients=states)
    del states
    pipe.send(time.perf_counter() - began)
    while rounds := pipe.recv():
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            state = advance(s, state)
            seconds.append(time.perf_counter() - began)
        pipe.send(seconds)
    began = time.perf_counter()
    path = checkpoint.save(folder, state, {}, {})
    saved = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    began = time.perf_counter()
    assert len(checkpoint.load(folder)[0].clients) == population
    loaded = time.perf_counter() - began
    size = sum(file.stat().st_size for file in folder.iterdir())
    pipe.send((saved, loaded, peak, size / 1e9, path.stat().st_size / 1e6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--populations", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where the states are written (default: the system's)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        pipes, filled = [], []
        for population in options.populations:
            ours, theirs = multiprocessing.Pipe()
            where = Path(folder) / str(population)
            multiprocessing.get_context("spawn").Process(target=client, args=(theirs, population, where)).start()
            theirs.close()
            pipes.append(ours)
            filled.append(ours.recv())
        seconds: list[list[float]] = [[] for _ in pipes]
        for _ in range(options.rounds // TURN):
            for pipe, own in zip(pipes, seconds, strict=True):
                pipe.send(TURN)
                own += pipe.recv()
        columns = ("round", "90 %", "fill", "save", "load", "peak GB", "disk GB", "ckpt MB")
        print(f"{'clients':>10}{''.join(f'{c:>10}' for c in columns)}   (seconds where nothing is said)", flush=True)
        for population, pipe, fill, own in zip(options.populations, pipes, filled, seconds, strict=True):
            pipe.send(0)
            rest = "".join(f"{value:>10.2f}" for value in (fill, *pipe.recv()))
            print(f"{population:>10,}{np.median(own):>10.4f}{np.quantile(own, 0.9):>10.4f}{rest}", flush=True)


if __name__ == "__main__":
    main()
