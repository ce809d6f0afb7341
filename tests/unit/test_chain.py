"""The hand-derived gradients against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from heterobench import models
from heterobench.chain import Chain
from heterobench.config.schema import ModelFile
from heterobench.task import Batch, Classification

NETS = {
    "softmax": ({}, (1, 8, 8)),
    "mlp": ({"hidden": [7, 5]}, (1, 8, 8)),
    "lenet": ({}, (1, 28, 28)),
    "lenet-colour": ({}, (3, 32, 32)),
    "mcmahan_cnn": ({}, (1, 28, 28)),
}


def net(name: str, dtype=torch.float64) -> tuple[nn.Module, tuple[int, ...]]:
    options, shape = NETS[name]
    file = ModelFile(title="", architecture=name.partition("-")[0], options=options)
    torch.manual_seed(0)
    made = models.build(file, shape, 10, "test").to(dtype)
    for parameter in made.parameters():  # softmax starts at zero, where too much is equal
        nn.init.normal_(parameter, std=0.2)
    return made, shape


def both(made: nn.Module, x, y):
    """(loss, gradients) by the chain and by autograd."""
    parameters = list(made.parameters())
    chain = Chain.of(made, tuple(x.shape[1:]))
    gradients = [torch.full_like(p, float("nan")) for p in parameters]
    given = x.clone()
    loss = chain.gradient([p.detach() for p in parameters], gradients, x, y)
    assert torch.equal(x, given), "the inputs were written to"
    expected = functional.cross_entropy(made(x), y)
    return (loss, gradients), (expected.detach(), torch.autograd.grad(expected, parameters))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("examples", [1, 6])
@pytest.mark.parametrize("kind", ["random", "flat", "zero"])
def test_gradient_is_autograds(name, examples, kind):
    """`flat` images have constant regions, so windows of the pooling hold equal values."""
    made, shape = net(name)
    x = torch.randn(examples, *shape, dtype=torch.float64)
    if kind == "flat":
        x = x.round().clamp(0, 1)
        x[..., : shape[1] // 2, :] = 0
    if kind == "zero":
        x = torch.zeros_like(x)
    y = torch.randint(10, (examples,))
    (loss, gradients), (expected, autograd) = both(made, x, y)
    torch.testing.assert_close(loss, expected, atol=1e-13, rtol=1e-13)
    for one, other in zip(gradients, autograd, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_logits_are_the_nets(name):
    made, shape = net(name)
    x = torch.randn(4, *shape, dtype=torch.float64)
    chain = Chain.of(made, shape)
    torch.testing.assert_close(chain([p.detach() for p in made.parameters()], x), made(x).detach())


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Flatten(), nn.Tanh(), nn.Linear(64, 3)],
        [nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)],
        [nn.MaxPool2d(3), nn.Flatten(), nn.Linear(4, 3)],
        [nn.Conv2d(1, 2, 2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3)],
        [nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten(), nn.Linear(128, 3)],
        [nn.GroupNorm(1, 1), nn.Flatten(), nn.Linear(64, 3)],
    ],
    ids=["tanh", "relu-first", "pool-3", "odd-pool", "padding-same", "norm"],
)
def test_other_nets_keep_autograd(layers):
    assert Chain.of(nn.Sequential(*layers), (1, 8, 8)) is None


def test_convolution_with_stride_padding_and_groups_without_bias():
    made = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
    ).double()
    x, y = torch.randn(5, 2, 8, 8, dtype=torch.float64), torch.randint(10, (5,))
    (_, gradients), (_, autograd) = both(made, x, y)
    for one, other in zip(gradients, autograd, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_grey_convolution_and_pooling_are_one_layer(bias):
    """Padding and windows that differ by direction, on images that are no squares."""
    made = nn.Sequential(
        nn.Conv2d(1, 3, (3, 4), padding=(1, 2), bias=bias), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(60, 10)
    ).double()
    x, y = torch.randn(5, 1, 8, 9, dtype=torch.float64), torch.randint(10, (5,))
    assert len(Chain.of(made, (1, 8, 9)).layers) == 4
    (loss, gradients), (expected, autograd) = both(made, x, y)
    torch.testing.assert_close(loss, expected)
    for one, other in zip(gradients, autograd, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("convolution", [nn.Conv2d(1, 2, 2, stride=2), nn.Conv2d(1, 2, 3, dilation=2, padding=2)])
def test_other_convolutions_before_a_pooling_stay_two_layers(convolution):
    made = nn.Sequential(convolution, nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(10)).double()
    x, y = torch.randn(5, 1, 8, 8, dtype=torch.float64), torch.randint(10, (5,))
    made(x)
    assert len(Chain.of(made, (1, 8, 8)).layers) == 4
    (_, gradients), (_, autograd) = both(made, x, y)
    for one, other in zip(gradients, autograd, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_task_takes_the_chain_and_another_net_does_not():
    for architecture, options, chained in (("lenet", {}, True), ("resnet", {}, False)):
        file = ModelFile(title="", architecture=architecture, options=options)
        task = Classification(lambda file=file: models.build(file, (1, 28, 28), 10, "test"))
        theta, batch = task.init(0), Batch(torch.randn(3, 1, 28, 28), torch.tensor([1, 2, 3]))
        g, aux = task.grad(theta, batch)
        assert (task._chain(batch.x) is not None) is chained
        leaf = theta.clone().requires_grad_()
        logits = torch.func.functional_call(task._net, task.layout.split(leaf), (batch.x,))
        loss = functional.cross_entropy(logits, batch.y)
        torch.testing.assert_close(g, torch.autograd.grad(loss, leaf)[0], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(aux["loss"], loss.detach())
