"""Seconds a round of our executors against a bare hand-written loop in plain PyTorch, interleaved in one process.

The bare loop below is what a careful person writes for exactly one job: FedAvg, parameters updated in place, batch
indices drawn beforehand, no DataLoader, no optimiser object. It is the honest limit of eager torch, in one process
(`bare`) or in two one-thread processes over shared memory (`bare-2`). Inputs are random numbers in the shape of
Fashion-MNIST: time does not depend on their values.

    python benchmarks/round_speed.py [--jobs lenet mlp scaffold-lenet mcmahan-cnn] [--rounds 5] [--repeats 5]

Start-up is what comes before the second round: data, nets, processes and a first round (imports are in
`whole_process.py`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from heterobench import executor, models, registry
from heterobench.config.schema import Budget, ModelFile, ScheduleFile
from heterobench.engine.synchronous import Setting, advance, begin
from heterobench.federation import Examples, Federation
from heterobench.task import Classification

# model file, clients, examples a client, clients a round, batch size, algorithm
JOBS = {
    "lenet": (ModelFile(title="LeNet", architecture="lenet"), 100, 600, 10, 32, "fedavg"),
    "mlp": (ModelFile(title="2NN", architecture="mlp", options={"hidden": [200, 200]}), 1000, 60, 50, 10, "fedavg"),
    "scaffold-lenet": (ModelFile(title="LeNet", architecture="lenet"), 100, 600, 10, 32, "scaffold"),
    "mcmahan-cnn": (ModelFile(title="CNN", architecture="mcmahan_cnn"), 100, 600, 10, 32, "fedavg"),
}
LR = 0.05


def net(file: ModelFile) -> nn.Module:
    return models.build(file, (1, 28, 28), 10, "benchmark")


# the bare loop ------------------------------------------------------------------------------------------------------


def bare_client(model: nn.Module, x, y, order, batch: int, correction=None) -> None:
    """One epoch of plain SGD, in place."""
    parameters = list(model.parameters())
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        grads = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, grads, alpha=-LR)
            if correction is not None:
                torch._foreach_add_(parameters, correction, alpha=-LR)


class Bare:
    """FedAvg (or SCAFFOLD) written out for this one job, in this process."""

    def __init__(self, job):
        self.file, self.clients, self.size, self.cohort, self.batch, self.algorithm = job
        torch.manual_seed(0)
        self.x, self.y = (
            torch.randn(self.clients * self.size, 1, 28, 28),
            torch.randint(10, (self.clients * self.size,)),
        )
        self.model, self.work = net(self.file), net(self.file)
        self.rng = np.random.default_rng(0)
        self.c = [torch.zeros_like(p) for p in self.model.parameters()]
        many = self.clients if self.algorithm == "scaffold" else 0
        self.variates = [torch.zeros(many, *p.shape) for p in self.c]

    def draw(self):
        chosen = self.rng.choice(self.clients, self.cohort, replace=False)
        return [(i, torch.from_numpy(self.rng.permutation(self.size) + i * self.size)) for i in chosen]

    @torch.no_grad()
    def set(self) -> None:
        for mine, theirs in zip(self.work.parameters(), self.model.parameters(), strict=True):
            mine.copy_(theirs)

    def one(self, client: int, order, total: list[torch.Tensor], change: list[torch.Tensor]) -> None:
        """Train one client; add what it sends to `total`, and to `change` what it changes in its variate."""
        self.set()
        own, correction = [variate[client : client + 1] for variate in self.variates], None
        if self.algorithm == "scaffold":
            correction = [c - ci[0] for c, ci in zip(self.c, own, strict=True)]
        bare_client(self.work, self.x, self.y, order, self.batch, correction)
        with torch.no_grad():
            delta = torch._foreach_sub(list(self.work.parameters()), list(self.model.parameters()))
            torch._foreach_add_(total, delta)
            if self.algorithm == "scaffold":  # c_i' = c_i - c - delta / (K lr)
                steps = -(-self.size // self.batch) * LR
                new = [-a - d / steps for a, d in zip(correction, delta, strict=True)]
                for add, ci, value in zip(change, own, new, strict=True):
                    add.add_(value - ci[0])
                    ci[0] = value

    def blank(self) -> list[torch.Tensor]:
        return [torch.zeros_like(p) for p in self.c]

    @torch.no_grad()
    def apply(self, total: list[torch.Tensor], change: list[torch.Tensor]) -> None:
        torch._foreach_add_(list(self.model.parameters()), total, alpha=1 / self.cohort)
        if self.algorithm == "scaffold":
            torch._foreach_add_(self.c, change, alpha=1 / self.clients)

    def round(self) -> None:
        total, change = self.blank(), self.blank()
        for client, order in self.draw():
            self.one(client, order, total, change)
        self.apply(total, change)

    def close(self) -> None:
        pass


class BarePair(Bare):
    """The same in two one-thread processes that share the parameters."""

    def __init__(self, job):
        super().__init__(job)
        self.model.share_memory()
        for tensor in [*self.c, *self.variates]:
            tensor.share_memory_()
        self.sums = [[[t.share_memory_() for t in self.blank()] for _ in range(2)] for _ in range(2)]
        context = multiprocessing.get_context("fork")
        self.pipes, self.children = [], []
        for sums in self.sums:
            ours, theirs = context.Pipe()
            child = context.Process(target=self.serve, args=(theirs, *sums), daemon=True)
            child.start()
            self.pipes.append(ours)
            self.children.append(child)

    def serve(self, pipe, total, change) -> None:
        torch.set_num_threads(1)
        while (work := pipe.recv()) is not None:
            torch._foreach_zero_([*total, *change])
            for client, order in work:
                self.one(client, torch.from_numpy(order), total, change)
            pipe.send(True)

    def round(self) -> None:
        drawn = [(client, order.numpy()) for client, order in self.draw()]
        for index, pipe in enumerate(self.pipes):
            pipe.send(drawn[index::2])
        for pipe in self.pipes:
            pipe.recv()
        for total, change in self.sums:
            self.apply(total, change)

    def close(self) -> None:
        for pipe, child in zip(self.pipes, self.children, strict=True):
            pipe.send(None)
            child.join()


# ours ---------------------------------------------------------------------------------------------------------------


class Ours:
    """The engine's own round with one of its executors."""

    def __init__(self, job, name: str, workers: int):
        file, clients, size, cohort, batch, algorithm = job
        generator = torch.Generator().manual_seed(0)
        n = clients * size
        pool = Examples(torch.randn(n, 1, 28, 28, generator=generator), torch.randint(10, (n,), generator=generator))
        rows = np.arange(n).reshape(clients, size)
        few = Examples(pool.x[:10], pool.y[:10])
        module = registry.algorithm(algorithm)
        self.executor = executor.make(name, workers)
        self.setting = Setting(
            Federation(pool, rows, rows[:, :0], rows[:, :0], few),
            Classification(lambda: net(file)),
            module.make(module.HyperParameters(lr=LR)),
            ScheduleFile(title="", participation=cohort / clients),
            Budget(rounds=10**6, local_epochs=1, batch_size=batch),
            0,
            self.executor,
        )
        self.state = begin(self.setting)

    def round(self) -> None:
        self.state = advance(self.setting, self.state)

    def close(self) -> None:
        self.executor.close()


CONTENDERS = {
    "bare": Bare,
    "bare-2": BarePair,
    "loop": lambda job: Ours(job, "loop", 1),
    "workers": lambda job: Ours(job, "workers", 2),
}


def begin_all(job) -> dict:
    """Each contender after its first, untimed round; what that took is its start-up."""
    made = {}
    for name, make in CONTENDERS.items():
        began = time.perf_counter()
        made[name] = make(job)
        made[name].round()
        made[name].start_up = time.perf_counter() - began
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--rounds", type=int, default=5, help="rounds of one measurement")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each contender, interleaved")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.jobs:
        made = begin_all(JOBS[name])
        seconds: dict[str, list[float]] = {key: [] for key in made}
        for _ in range(options.repeats):
            for key, contender in made.items():
                began = time.perf_counter()
                for _ in range(options.rounds):
                    contender.round()
                seconds[key].append((time.perf_counter() - began) / options.rounds)
        for contender in made.values():
            contender.close()
        best = min(("bare", "bare-2"), key=lambda key: statistics.median(seconds[key]))
        for key, values in seconds.items():
            ratio = statistics.median(a / b for a, b in zip(values, seconds[best], strict=True))
            print(
                f"{name:15} {key:8} {statistics.median(values):8.4f} s a round   {ratio:5.2f} x {best:7}"
                f"   start-up {made[key].start_up:5.2f} s"
            )


if __name__ == "__main__":
    main()
