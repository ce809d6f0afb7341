"""heterobench: the engine's own round with two worker processes."""

from __future__ import annotations

import jobs
import numpy as np
import torch

from heterobench import executor, models, registry
from heterobench.config.schema import Budget, ModelFile, ScheduleFile
from heterobench.engine.synchronous import Setting, advance, begin
from heterobench.federation import Examples, Federation
from heterobench.task import Classification

MODELS = {
    "lenet": ModelFile(title="LeNet", architecture="lenet"),
    "mlp": ModelFile(title="2NN", architecture="mlp", options={"hidden": [200, 200]}),
}


def main() -> None:
    options = jobs.options()
    clock, job = jobs.Clock(options.launched), jobs.JOBS[options.job]
    x, y = jobs.data(job)

    def build() -> torch.nn.Module:
        return models.build(MODELS[job.name], (1, 28, 28), 10, "benchmark")

    model = build()
    sizes = [sorted(tuple(p.shape) for p in m.parameters()) for m in (model, jobs.net(job))]
    if sizes[0] != sizes[1]:
        raise SystemExit(f"not the net of this job: {sizes[0]}, {sizes[1]}")
    pool = Examples(x, y)
    shares = np.arange(len(x)).reshape(job.clients, job.examples)
    algorithm = registry.algorithm("fedavg")
    workers = executor.make(options.mode or "workers", jobs.PROCESSES)
    setting = Setting(
        Federation(pool, shares, shares[:, :0], shares[:, :0], Examples(x[:10], y[:10])),
        Classification(build),
        algorithm.make(algorithm.HyperParameters(lr=jobs.LR)),
        ScheduleFile(title="", participation=job.cohort / job.clients),
        Budget(rounds=10**6, local_epochs=1, batch_size=job.batch),
        0,
        workers,
    )

    def loss(state) -> float:
        torch.nn.utils.vector_to_parameters(state.server["theta"], model.parameters())
        return jobs.loss(model, x, y)

    state = begin(setting)
    before = loss(state)
    for _ in range(options.rounds + 1):
        state = advance(setting, state)
        clock.tick()
    workers.close()
    jobs.report(job, clock, options.rounds, ["heterobench"], before, loss(state))


if __name__ == "__main__":
    main()
