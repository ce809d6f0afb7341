"""The named numbers of a model and of a pair of models, from a task and examples."""

import numpy as np
import pytest
import torch
from torch import nn

from contract import nets
from heterobench.config.schema import ModelFile
from heterobench.federation import Examples
from heterobench.keyed import generator
from heterobench.metrics import hessian
from heterobench.metrics import landscape as l
from heterobench.metrics.sharpness import adaptive_sharpness, sharpness
from heterobench.metrics.weight_matching import permuted
from heterobench.task import Batch, Classification

POOL = nets.federation(sizes=(200, 120)).pool  # more than are in memory at once


def normal(size, key):
    return torch.from_numpy(generator(0, f"landscape {key}").normal(size=size))


def model(task, seed=0):
    return task.init(seed).double() + 0.1 * normal(sum(task.layout.sizes), f"model {seed}")


def trained(task, seed=0, steps=100):
    theta = task.init(seed)
    for _ in range(steps):
        theta = theta - 0.5 * task.grad(theta, Batch(POOL.x, POOL.y))[0]
    return theta.double()


def test_landscape_against_the_whole_hessian():
    task = nets.task()
    theta = model(task)
    batch = Batch(POOL.x, POOL.y)
    loss = lambda w: task.mean_loss(w, batch)  # noqa: E731
    whole = torch.autograd.functional.hessian(loss, theta)
    exact = torch.linalg.eigvalsh(whole)
    found = l.landscape(task, theta, POOL, seed=0)
    assert list(found) == [
        "hessian_trace",
        "hessian_top_eigenvalue",
        "hessian_bottom_eigenvalue",
        "sharpness",
        "adaptive_sharpness",
        "gradient_norm",
    ]
    probes = [hessian.rademacher(theta, 0, probe) for probe in range(l.TRACE_PROBES)]
    assert found["hessian_trace"] == pytest.approx(np.mean([float(v @ whole @ v) for v in probes]), rel=1e-10)
    assert found["hessian_top_eigenvalue"] == pytest.approx(float(exact[-1]), rel=1e-6)
    assert float(exact[0]) - 1e-12 <= found["hessian_bottom_eigenvalue"] < 0
    assert found["hessian_bottom_eigenvalue"] == pytest.approx(float(exact[0]), abs=0.01 * float(exact[-1]))
    gradient = torch.autograd.functional.jacobian(loss, theta)
    assert found["gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-10)
    rise = loss(theta + 0.05 * gradient / gradient.norm()) - loss(theta)
    assert found["sharpness"] == pytest.approx(float(rise), rel=1e-9)
    step = 0.05 * theta**2 * gradient / (theta * gradient).norm()
    assert found["adaptive_sharpness"] == pytest.approx(float(loss(theta + step) - loss(theta)), rel=1e-9)


def test_parts_add_up_to_the_mean_loss():
    task = nets.task()
    theta = model(task)
    losses = l.mean_losses(task, POOL)
    assert len(losses) == 2
    batch = Batch(POOL.x, POOL.y)
    assert hessian.value(losses, theta) == pytest.approx(float(task.mean_loss(theta, batch)), rel=1e-12)
    as_batch = l.landscape(task, theta, batch, seed=0)
    assert as_batch == pytest.approx(l.landscape(task, theta, POOL, seed=0), rel=1e-9)
    # a batch's own weights: two of weight 1/2 are those two
    weight = torch.zeros(320)
    weight[[3, 300]] = 0.5
    weighted = l.landscape(task, theta, batch._replace(weight=weight), seed=0)
    assert weighted == pytest.approx(l.landscape(task, theta, POOL.batch([3, 300]), seed=0), rel=1e-9)


def test_landscape_depends_on_seed_and_single_precision_models_are_welcome():
    task = nets.task()
    theta = model(task).float()
    found = l.landscape(task, theta, POOL, seed=1)
    assert found == l.landscape(task, theta.double(), POOL, seed=1)
    other = l.landscape(task, theta, POOL, seed=2)
    assert other["hessian_trace"] != found["hessian_trace"]
    assert other["gradient_norm"] == found["gradient_norm"]
    losses = l.mean_losses(task, POOL)
    assert (found["sharpness"], found["adaptive_sharpness"]) == (
        sharpness(losses, theta),
        adaptive_sharpness(losses, theta),
    )


def test_probe_is_fixed_by_the_seed():
    examples = Examples(torch.arange(50.0)[:, None], torch.arange(50))
    first = l.probe(examples, 0, 10)
    assert len(first.y) == len(set(first.y.tolist())) == 10
    assert first.y.tolist() == sorted(first.y.tolist())
    assert torch.equal(first.x[:, 0].long(), first.y)
    assert torch.equal(first.y, l.probe(examples, 0, 10).y)
    assert not torch.equal(first.y, l.probe(examples, 1, 10).y)
    assert l.probe(examples, 0).y.tolist() == list(range(50))


def test_no_examples_is_an_error():
    task = nets.task()
    with pytest.raises(ValueError, match=r"^examples: none"):
        l.landscape(task, model(task), POOL.batch(np.array([], np.int64)), seed=0)


def test_connectivity_of_a_model_with_itself_is_zero():
    task = nets.task(model=ModelFile(title="a test", architecture="mlp", options={"hidden": [6, 5]}))
    theta = model(task)
    found = l.connectivity(task, theta, theta, POOL)
    layers = [f"barrier_layer_{name}" for name in ("1", "3", "5")]
    assert list(found) == ["barrier", "error_barrier", *layers, "barrier_layer_largest", "barrier_aligned"]
    assert set(found.values()) == {0.0}


def test_connectivity_by_its_definitions():
    task = nets.task()
    first, second = trained(task, 0), trained(task, 1)
    found = l.connectivity(task, first.float(), second.float(), POOL)
    assert found["barrier"] > 0
    score = l.loss_and_error(task, POOL)
    ends = [score(theta) for theta in (first, second)]
    alphas = [i / 10 for i in range(11)]

    def excess(path):
        return [path(a) - (a * ends[0] + (1 - a) * ends[1]) for a in alphas]

    whole = torch.stack(excess(lambda a: score(a * first + (1 - a) * second))).max(0).values
    assert (found["barrier"], found["error_barrier"]) == pytest.approx(tuple(whole.tolist()), rel=1e-9, abs=1e-12)
    hidden = 16 * 8 + 8
    for name, part in (("1", slice(0, hidden)), ("3", slice(hidden, None))):

        def path(a, part=part):
            mixed = first.clone()
            mixed[part] = a * first[part] + (1 - a) * second[part]
            return score(mixed)

        expected = torch.stack(excess(path)).max(0).values[0]
        assert found[f"barrier_layer_{name}"] == pytest.approx(float(expected), rel=1e-9)
    assert found["barrier_layer_largest"] == max(found["barrier_layer_1"], found["barrier_layer_3"]) > 0
    assert found["barrier_aligned"] >= 0


def test_permuted_copy_has_a_barrier_until_it_is_aligned():
    task = nets.task()
    theta = trained(task)
    copy = permuted(task.layout, theta, [generator(0, "units").permutation(8)])
    found = l.connectivity(task, theta, copy, POOL)
    assert found["barrier"] > 1e-2
    assert found["barrier_aligned"] == 0


def test_no_alignment_where_units_are_tied():
    class Ramp(nn.Module):
        """Weighs units by their position: by names and shapes alone the net still looks like a chain."""

        def forward(self, x):
            return x * torch.arange(x.shape[1], dtype=x.dtype)

    def tied():
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), Ramp(), nn.Linear(8, 3))

    for build in (tied, lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3))):
        task = Classification(build)
        found = l.connectivity(task, model(task, 0), model(task, 1), POOL)
        assert "barrier_aligned" not in found
        assert "barrier_layer_largest" in found
