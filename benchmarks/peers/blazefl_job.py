"""BlazeFL: its own FedAvg. Mode `processes`: two processes and shared memory; `threads`: two threads; `serial`: one.

Its threads need a free-threaded Python to run at the same time; elsewhere its processes are its fastest way.
Data are made before the processes fork, so that none are sent. BlazeFL makes a new pool in each round, and PyTorch
imports seconds' worth of itself at a process's first optimiser, so this one makes its first before they fork.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import jobs
import torch
from blazefl.contrib import fedavg
from blazefl.core import IPCMode

WORLD: dict = {}


class Nets:
    def select_model(self, model_name: str) -> torch.nn.Module:
        return jobs.build(jobs.JOBS[model_name])


class Parts:
    """A partitioned data set, as BlazeFL asks for."""

    def get_dataset(self, type_, cid):
        return None

    def set_dataset(self, type_, cid, dataset) -> None:
        pass

    def get_dataloader(self, type_, cid, batch_size, generator=None):
        return jobs.loader(WORLD["job"], WORLD["x"], WORLD["y"], cid, generator)


def warm_up() -> None:
    """One step here, so that forked processes find PyTorch's lazy imports done."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.zero_grad()
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    torch.save(torch.ones(1), io.BytesIO())


def main() -> None:
    options = jobs.options()
    clock, job = jobs.Clock(options.launched), jobs.JOBS[options.job]
    x, y = jobs.data(job)
    WORLD.update(job=job, x=x, y=y)
    server = fedavg.FedAvgBaseServerHandler(
        model_selector=Nets(),
        model_name=job.name,
        dataset=Parts(),
        global_round=options.rounds + 1,
        num_clients=job.clients,
        sample_ratio=job.cohort / job.clients,
        device="cpu",
        batch_size=job.batch,
        seed=0,
    )
    server.model.load_state_dict(jobs.net(job).state_dict())
    given = {
        "model_selector": Nets(),
        "model_name": job.name,
        "dataset": Parts(),
        "device": "cpu",
        "num_clients": job.clients,
        "epochs": 1,
        "batch_size": job.batch,
        "lr": jobs.LR,
        "seed": 0,
    }
    warm_up()
    before, seen = jobs.loss(server.model, x, y), 0
    with tempfile.TemporaryDirectory() as folder:
        if options.mode == "threads":
            trainer = fedavg.FedAvgThreadPoolClientTrainer(**given, num_parallels=jobs.PROCESSES)
        elif options.mode == "serial":
            trainer = fedavg.FedAvgBaseClientTrainer(**given)
        else:
            trainer = fedavg.FedAvgProcessPoolClientTrainer(
                **given,
                share_dir=Path(folder, "share"),
                state_dir=Path(folder, "state"),
                num_parallels=jobs.PROCESSES,
                ipc_mode=IPCMode.SHARED_MEMORY,
            )
        while not server.if_stop():
            cohort = server.sample_clients()
            trainer.local_process(server.downlink_package(), cohort)
            for package in trainer.uplink_package():
                seen += package.data_size
                server.load(package)
            clock.tick()
    if seen != (options.rounds + 1) * job.cohort * job.examples:
        raise SystemExit(f"clients saw {seen} examples")
    jobs.report(job, clock, options.rounds, ["blazefl"], before, jobs.loss(server.model, x, y), examples=seen)


if __name__ == "__main__":
    main()
