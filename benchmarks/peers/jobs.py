"""The jobs that all contenders run, in plain PyTorch: data, nets, batches, the clock and the report.

Inputs are random numbers in the shape of Fashion-MNIST, labels those of a random linear teacher, so that the loss can
fall. This file imports nothing but PyTorch: it runs in every contender's environment.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

torch.set_num_threads(1)

LR = 0.05
PROCESSES = 2


class Job(NamedTuple):
    """A federation of equal clients: how many there are, what each holds, who takes part, and the batch size."""

    name: str
    clients: int
    examples: int
    cohort: int
    batch: int

    @property
    def steps(self) -> int:
        """Gradient steps in a round."""
        return self.cohort * math.ceil(self.examples / self.batch)


JOBS = {job.name: job for job in (Job("lenet", 100, 600, 10, 32), Job("mlp", 1000, 60, 50, 10))}


def build(job: Job) -> nn.Sequential:
    """The job's net."""
    if job.name == "mlp":
        layers = [nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)]
        return nn.Sequential(nn.Flatten(), *layers)
    convolutions = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    head = [nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*convolutions, nn.Flatten(), *head)


def net(job: Job) -> nn.Sequential:
    """The job's net with the numbers that a run begins with."""
    torch.manual_seed(0)
    return build(job)


def data(job: Job) -> tuple[Tensor, Tensor]:
    """All clients' examples, one client after the other."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(job.clients * job.examples, 1, 28, 28, generator=generator)
    teacher = torch.randn(784, 10, generator=generator)
    return x, (x.flatten(1) @ teacher).argmax(1)


def rows(job: Job, client: int) -> slice:
    return slice(client * job.examples, (client + 1) * job.examples)


def loader(job: Job, x: Tensor, y: Tensor, client: int, generator: torch.Generator | None = None) -> DataLoader:
    """Shuffled batches of one client, each fetched as a whole: faster than the usual example by example."""
    dataset = TensorDataset(x[rows(job, client)], y[rows(job, client)])
    batches = BatchSampler(RandomSampler(dataset, generator=generator), job.batch, drop_last=False)
    return DataLoader(dataset, sampler=batches, batch_size=None)


class Clock:
    """Marks the ends of rounds: the first belongs to the start-up, which counts from the launch of the script."""

    def __init__(self, launched: float):
        self.launched, self.ends = launched, []

    def tick(self) -> None:
        self.ends.append(time.time())

    @property
    def start_up(self) -> float:
        return self.ends[0] - self.launched

    @property
    def seconds(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.ends, self.ends[1:], strict=False)]


def options() -> argparse.Namespace:
    """Arguments of every adapter; `rounds` counts the timed ones, an untimed one comes before them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--mode", default="")
    parser.add_argument("--launched", type=float, default=time.time())
    return parser.parse_args()


@torch.no_grad()
def loss(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """Mean over the first 4,000 examples."""
    return float(functional.cross_entropy(model(x[:4000]), y[:4000]))


def report(job: Job, clock: Clock, rounds: int, packages: list[str], before: float, after: float, **counted) -> None:
    """Print the result as the last line; refuse where the work was not done.

    `before` and `after` are losses of the global model; `steps` in `counted`, where the contender can tell, is the
    number of gradient steps of the whole run, the untimed round included.
    """
    if len(clock.seconds) != rounds:
        raise SystemExit(f"{len(clock.seconds)} rounds timed, not {rounds}")
    if not after < before:
        raise SystemExit(f"the loss did not fall: {before} -> {after}")
    if counted.get("steps", (rounds + 1) * job.steps) != (rounds + 1) * job.steps:
        raise SystemExit(f"{counted['steps']} gradient steps in {rounds + 1} rounds, not {(rounds + 1) * job.steps}")
    result = {
        "start_up": clock.start_up,
        "seconds_per_round": clock.seconds,
        "versions": {name: version(name) for name in ["torch", *packages]},
        "loss": [before, after],
        **counted,
    }
    print(json.dumps(result), flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def quiet() -> None:
    """No usage statistics are sent from a measurement."""
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0", DO_NOT_TRACK="1")
