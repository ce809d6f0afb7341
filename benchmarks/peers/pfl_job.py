"""pfl: FederatedAveraging on SimulatedBackend, in two processes joined by PFL_WORKER_ADDRESSES, as its guide advises.

Each user's data set is views of tensors in memory (PyTorchTensorDataset, its fastest kind), which pfl does not shuffle.
"""

from __future__ import annotations

import os
import subprocess
import sys

import jobs
import torch
from torch.nn import functional


class WithLoss(torch.nn.Module):
    """The interface that pfl asks of a module."""

    def __init__(self, net: torch.nn.Module):
        super().__init__()
        self.net, self.steps = net, 0

    def loss(self, x, y):
        self.steps += 1
        return functional.cross_entropy(self.net(x), y)

    def metrics(self, x, y):
        from pfl.metrics import Weighted

        with torch.no_grad():
            return {"loss": Weighted(functional.cross_entropy(self.net(x), y, reduction="sum").item(), len(y))}


def work(options) -> None:
    import numpy as np
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByUser
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    clock, job = jobs.Clock(options.launched), jobs.JOBS[options.job]
    np.random.seed(0)
    x, y = jobs.data(job)
    module = WithLoss(jobs.net(job))

    class Rounds(TrainingProcessCallback):
        def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
            clock.tick()
            return False, Metrics()

    def user(client: int) -> PyTorchTensorDataset:
        return PyTorchTensorDataset((x[jobs.rows(job, client)], y[jobs.rows(job, client)]), user_id=str(client))

    users = FederatedDataset(user, get_user_sampler("minimize_reuse", list(range(job.clients))))
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    before = jobs.loss(module.net, x, y)
    FederatedAveraging().run(
        # pfl evaluates in its first round whatever the frequency; that round is not timed
        NNAlgorithmParams(
            central_num_iterations=options.rounds + 1,
            evaluation_frequency=10**9,
            train_cohort_size=job.cohort,
            val_cohort_size=0,
        ),
        SimulatedBackend(training_data=users, val_data=users, postprocessors=[WeightByUser()]),
        model,
        NNTrainHyperParams(local_batch_size=job.batch, local_num_epochs=1, local_learning_rate=jobs.LR),
        NNEvalHyperParams(local_batch_size=None),
        [Rounds()],
    )
    steps = torch.tensor(module.steps)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(steps)
    if os.environ.get("PFL_WORKER_RANK", "0") == "0":
        jobs.report(job, clock, options.rounds, ["pfl"], before, jobs.loss(module.net, x, y), steps=int(steps))


def main() -> None:
    options = jobs.options()
    if "PFL_WORKER_RANK" in os.environ:
        return work(options)
    addresses = ",".join(f"localhost:{jobs.free_port()}" for _ in range(jobs.PROCESSES))
    arguments = [sys.executable, __file__, options.job, str(options.rounds), f"--launched={options.launched}"]
    children = [
        subprocess.Popen(
            arguments,
            env={
                **os.environ,
                "PFL_WORKER_ADDRESSES": addresses,
                "PFL_WORKER_RANK": str(rank),
                "PFL_PYTORCH_DEVICE": "cpu",
            },
        )
        for rank in range(jobs.PROCESSES)
    ]
    sys.exit(max(abs(child.wait()) for child in children))


if __name__ == "__main__":
    main()
