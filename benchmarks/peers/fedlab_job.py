"""FedLab: its own FedAvg. Mode `processes`: a server and two client processes (its "scale"); `serial`: its pipeline.

In mode `processes` each client process holds half of the clients, and a round's cohort falls on them as it is drawn.
"""

from __future__ import annotations

import logging
import subprocess
import sys

import jobs
import torch

try:
    import torchvision  # FedLab's package imports it, for data sets that this job does not use
except RuntimeError:
    # torchvision of the package index is built for CUDA and cannot load its operators beside a CPU build of torch
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401

from fedlab.contrib.algorithm.fedavg import FedAvgSerialClientTrainer, FedAvgServerHandler
from fedlab.core.client.manager import PassiveClientManager
from fedlab.core.network import DistNetwork
from fedlab.core.server.manager import SynchronousServerManager
from fedlab.core.standalone import StandalonePipeline


class Parts:
    """The data set of a trainer, as FedLab asks for."""

    def __init__(self, job: jobs.Job):
        self.job, (self.x, self.y) = job, jobs.data(job)
        self.batches = 0

    def get_dataloader(self, client: int, batch_size: int):
        loader = jobs.loader(self.job, self.x, self.y, client)
        self.batches += len(loader)
        return loader


def trainer(job: jobs.Job, clients: int) -> FedAvgSerialClientTrainer:
    made = FedAvgSerialClientTrainer(jobs.net(job), clients)
    made.setup_dataset(Parts(job))
    made.setup_optim(1, job.batch, jobs.LR)
    return made


class Pipeline(StandalonePipeline):
    def __init__(self, handler, trainer, clock: jobs.Clock):
        super().__init__(handler, trainer)
        self.clock = clock

    def evaluate(self) -> None:
        self.clock.tick()


class Timed(FedAvgServerHandler):
    """Tells the clock when a round is complete."""

    clock: jobs.Clock

    def load(self, payload) -> bool:
        if complete := super().load(payload):
            self.clock.tick()
        return complete


def client(job: jobs.Job, rank: int, port: int) -> None:
    network = DistNetwork(("localhost", str(port)), jobs.PROCESSES + 1, rank)
    PassiveClientManager(trainer=trainer(job, job.clients // jobs.PROCESSES), network=network).run()


def main() -> None:
    options = jobs.options()
    clock, job = jobs.Clock(options.launched), jobs.JOBS[options.job]
    logging.disable(logging.INFO)
    if options.mode.startswith("client-"):
        _, rank, port = options.mode.split("-")
        return client(job, int(rank), int(port))
    kind = FedAvgServerHandler if options.mode == "serial" else Timed
    handler = kind(jobs.net(job), options.rounds + 1, job.cohort / job.clients)
    counted = {}
    if options.mode == "serial":
        made = trainer(job, job.clients)
        Pipeline(handler, made, clock).main()
        counted["steps"] = made.dataset.batches
    else:
        handler.clock, port = clock, jobs.free_port()
        arguments = [sys.executable, __file__, job.name, str(options.rounds)]
        children = [
            subprocess.Popen([*arguments, f"--mode=client-{rank}-{port}"]) for rank in range(1, jobs.PROCESSES + 1)
        ]
        network = DistNetwork(("localhost", str(port)), jobs.PROCESSES + 1, 0)
        SynchronousServerManager(network, handler, mode="GLOBAL").run()
        for child in children:
            child.wait()
    x, y = jobs.data(job)
    losses = jobs.loss(jobs.net(job), x, y), jobs.loss(handler.model, x, y)
    jobs.report(job, clock, options.rounds, ["fedlab"], *losses, **counted)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
