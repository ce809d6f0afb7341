"""The parts of a round, timed with pytest-benchmark: gradients beside plain eager torch, reduction, checkpoint.

python -m pytest -p benchmark benchmarks/test_parts.py --benchmark-columns=min,median,rounds
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from heterobench import models, registry
from heterobench.combine import combine
from heterobench.config.schema import Budget, ModelFile, ScheduleFile
from heterobench.engine import checkpoint
from heterobench.engine.synchronous import Setting, advance, begin
from heterobench.federation import Examples, Federation, batches
from heterobench.task import Batch, Classification

MODELS = {
    "softmax": ModelFile(title="", architecture="softmax"),
    "mlp": ModelFile(title="", architecture="mlp", options={"hidden": [200, 200]}),
    "lenet": ModelFile(title="", architecture="lenet"),
    "mcmahan-cnn": ModelFile(title="", architecture="mcmahan_cnn"),
}
BATCH = 32


def timed(benchmark, function) -> None:
    """Warmed up first: kernels are chosen and memory is found on the first calls."""
    benchmark.pedantic(function, warmup_rounds=20, rounds=200)


def build(name: str) -> torch.nn.Module:
    return models.build(MODELS[name], (1, 28, 28), 10, "benchmark")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(BATCH, 1, 28, 28, generator=generator), torch.randint(10, (BATCH,), generator=generator))


@pytest.mark.parametrize("who", ["ours", "eager"])  # the two of a model directly after one another
@pytest.mark.parametrize("name", MODELS)
def test_gradient(benchmark, batch, name, who):
    benchmark.group = f"gradient of {name}"
    if who == "ours":
        task = Classification(lambda: build(name))
        theta = task.init(0)
        timed(benchmark, lambda: task.grad(theta, batch))
        return
    net = build(name)
    parameters = list(net.parameters())
    timed(benchmark, lambda: torch.autograd.grad(functional.cross_entropy(net(batch.x), batch.y), parameters))


def test_reduction_of_ten_lenets(benchmark):
    uplinks = [{"delta": torch.randn(44_426)} for _ in range(10)]
    timed(benchmark, lambda: combine(uplinks, [600] * 10, {"delta": "weighted"}))


def test_batches_of_a_client(benchmark):
    timed(benchmark, lambda: batches(0, 1, 2, np.arange(600), 1, 32))


def test_checkpoint_of_scaffold_on_lenet(benchmark, tmp_path):
    generator, n = torch.Generator().manual_seed(0), 1000
    pool = Examples(torch.randn(n, 1, 28, 28, generator=generator), torch.randint(10, (n,), generator=generator))
    rows, module = np.arange(n).reshape(100, 10), registry.algorithm("scaffold")
    setting = Setting(
        Federation(pool, rows, rows[:, :0], rows[:, :0], pool),
        Classification(lambda: build("lenet")),
        module.make(module.HyperParameters()),
        ScheduleFile(title="", participation=1),
        Budget(rounds=9, local_epochs=1, batch_size=10),
        0,
    )
    state = advance(setting, begin(setting, tmp_path))
    theta = state.server["theta"]
    timed(benchmark, lambda: checkpoint.save(tmp_path, state, {"selected": theta}, {}))
