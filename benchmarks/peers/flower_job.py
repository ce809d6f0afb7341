"""Flower: its FedAvg strategy in its simulation engine (Ray), one CPU a client, so two actor processes.

An actor process makes the data and the net once and keeps them for all clients it plays, which is faster than loading
them anew for each message as most examples do. Federated evaluation is off.
"""

from __future__ import annotations

import functools
import logging

import jobs

jobs.quiet()

import torch  # noqa: E402
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.serverapp import Grid, ServerApp  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402
from flwr.simulation import run_simulation  # noqa: E402


@functools.cache
def world(name: str):
    """What an actor process keeps."""
    job = jobs.JOBS[name]
    return job, jobs.build(job), *jobs.data(job)


def client_app(name: str) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        job, model, x, y = kept(name)
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=jobs.LR)
        steps = 0
        for inputs, labels in jobs.loader(job, x, y, int(context.node_config["partition-id"])):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            steps += 1
        metrics = MetricRecord({"num-examples": job.examples, "steps": steps})
        content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
        return Message(content=content, reply_to=message)

    return app


def kept(name: str):
    """The actor's own copy, found through the module and not shipped with the function."""
    import flower_job

    return flower_job.world(name)


def main() -> None:
    options = jobs.options()
    clock, job = jobs.Clock(options.launched), jobs.JOBS[options.job]
    results = {}
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        model = jobs.net(job)
        strategy = FedAvg(
            fraction_train=job.cohort / job.clients,
            fraction_evaluate=0.0,
            min_train_nodes=job.cohort,
            min_available_nodes=job.clients,
        )

        def after(number: int, arrays: ArrayRecord) -> None:
            if number:
                clock.tick()

        rounds = options.rounds + 1
        results["result"] = strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds=rounds, evaluate_fn=after)

    logging.disable(logging.INFO)
    run_simulation(
        server_app=server,
        client_app=client_app(job.name),
        num_supernodes=job.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": jobs.PROCESSES, "num_gpus": 0},
        },
    )
    x, y = jobs.data(job)
    model, trained, result = jobs.net(job), jobs.net(job), results["result"]
    trained.load_state_dict(result.arrays.to_torch_state_dict())
    # metrics are means over the cohort
    steps = round(sum(m["steps"] * job.cohort for m in result.train_metrics_clientapp.values()))
    losses = jobs.loss(model, x, y), jobs.loss(trained, x, y)
    jobs.report(job, clock, options.rounds, ["flwr", "ray"], *losses, steps=steps)


if __name__ == "__main__":
    main()
