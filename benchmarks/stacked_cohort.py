"""The CIFAR-10 job of pfl-research's benchmark: stacked clients, their steps recorded, against our own loop.

1,000 users of 50 images, 50 users a round, batch 10, one local epoch, 1,500 rounds; the net is that of pfl-research's
`simple_cnn` (two 3x3 convolutions of 32 and 64 channels, 2x2 max-pooling, 128 units) without its dropout, which our
nets do not have. Inputs are random: time does not depend on their values. The executors take turns, and the job's time
is the median round times 1,500. On a GPU its utilisation is sampled with nvidia-smi while each executor runs.

    python benchmarks/stacked_cohort.py [--device cuda] [--rounds 20] [--repeats 5] [--precision bfloat16]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import threading
import time

import numpy as np
import torch
from torch import nn

from heterobench import executor, registry
from heterobench.config.schema import Budget, ScheduleFile
from heterobench.engine.synchronous import Setting, advance, begin
from heterobench.federation import Examples, Federation
from heterobench.task import Classification
from heterobench.training import configure_torch

USERS, IMAGES, COHORT, BATCH, JOB = 1000, 50, 50, 10, 1500


def net() -> nn.Sequential:
    convolutions = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Linear(64 * 14 * 14, 128), nn.ReLU(), nn.Linear(128, 10))


class Contender:
    """Rounds of one executor."""

    def __init__(self, name: str, device: str, precision: str):
        generator, n = torch.Generator().manual_seed(0), USERS * IMAGES
        x, y = torch.randn(n, 3, 32, 32, generator=generator), torch.randint(10, (n,), generator=generator)
        pool, rows = Examples(x.to(device), y.to(device)), np.arange(n).reshape(USERS, IMAGES)
        module = registry.algorithm("fedavg")
        self.setting = Setting(
            Federation(pool, rows, rows[:, :0], rows[:, :0], pool),
            Classification(net, device, precision),
            module.make(module.HyperParameters(lr=0.1)),
            ScheduleFile(title="", participation=COHORT / USERS),
            Budget(rounds=JOB, local_epochs=1, batch_size=BATCH),
            0,
            executor.make(name, 1, device),
        )
        self.state = begin(self.setting)
        self.device = device

    def rounds(self, count: int) -> float:
        """Seconds of one of `count` rounds."""
        began = time.perf_counter()
        for _ in range(count):
            self.state = advance(self.setting, self.state)
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count


class Utilisation(threading.Thread):
    """Percent of the time in which the GPU computes something, as nvidia-smi says, five times a second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen: list[float] = []
        self._ended = threading.Event()

    def run(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._ended.wait(0.2):
            self.seen.append(float(subprocess.run(query, capture_output=True, text=True).stdout.splitlines()[0]))

    def stop(self) -> float:
        self._ended.set()
        self.join()
        return statistics.mean(self.seen) if self.seen else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of one measurement")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each executor, interleaved")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    configure_torch(1, options.device)
    contenders, seconds, busy = {}, {}, {}
    for name in ("loop", "vmap"):
        began = time.perf_counter()
        contenders[name] = Contender(name, options.device, options.precision)
        contenders[name].rounds(1)
        print(f"{name:5} start-up with a first round {time.perf_counter() - began:7.2f} s", flush=True)
        seconds[name], busy[name] = [], []
    for _ in range(options.repeats):
        for name, contender in contenders.items():
            watch = Utilisation() if options.device.startswith("cuda") and shutil.which("nvidia-smi") else None
            if watch:
                watch.start()
            seconds[name].append(contender.rounds(options.rounds))
            if watch:
                busy[name].append(watch.stop())
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, seconds["loop"], strict=True))
        each = statistics.median(values)
        line = f"{name:5} {each * 1000:9.2f} ms a round   {JOB * each:8.1f} s for {JOB} rounds   {ratio:6.3f} x loop"
        print(line + (f"   utilisation {statistics.mean(busy[name]):.0f} %" if busy[name] else ""))


if __name__ == "__main__":
    main()
