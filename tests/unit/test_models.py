"""Nets: parameter counts, shapes, options; the classification task: gradient, initial weights, scores."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from contract import nets
from heterobench import models
from heterobench.config.reading import load, names
from heterobench.config.schema import ModelFile
from heterobench.errors import ConfigurationError
from heterobench.federation import Examples
from heterobench.project import Project
from heterobench.task import Batch, Classification, Layout

REPOSITORY = Project(Path(__file__).parents[2])
GREY, COLOUR, DIGIT = (1, 28, 28), (3, 32, 32), (1, 8, 8)
FILES = {name: load(REPOSITORY, "models", name, ModelFile) for name in names(REPOSITORY, "models")}


def net(architecture, shape, classes=10, **options):
    return models.build(ModelFile(title="a test", architecture=architecture, options=options), shape, classes, "here")


def count(built) -> int:
    return sum(p.numel() for p in built.parameters())


# nets ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("mcmahan-cnn", GREY, 1_663_370),
        ("2nn", GREY, 199_210),
        ("lenet", GREY, 44_426),
        ("lenet", COLOUR, 62_006),
        ("softmax", DIGIT, 650),
        ("mlp", DIGIT, 64 * 64 + 64 + 640 + 10),
    ],
)
def test_published_numbers_of_parameters(name, shape, parameters):
    assert count(models.build(FILES[name], shape, 10, "here")) == parameters


def test_resnet_8_has_the_layers_of_the_paper():
    """Convolutions 3-16, 16-16 (2), 16-32, 32-32, 32-64, 64-64, two projections, norms, and 64-10 units."""
    convolutions = 9 * (3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 16 * 32 + 32 * 64
    norms = 2 * (3 * 16 + 3 * 32 + 3 * 64)
    assert count(models.build(FILES["resnet8-gn"], COLOUR, 10, "here")) == convolutions + norms + 64 * 10 + 10


@pytest.mark.parametrize("name", ["mlp", "2nn", "softmax", "mcmahan-cnn", "resnet8-gn"])
def test_models_for_small_digits(name):
    assert models.build(FILES[name], DIGIT, 10, "here")(torch.zeros(3, *DIGIT)).shape == (3, 10)


@pytest.mark.parametrize(("architecture", "least"), [("lenet", 16), ("mcmahan_cnn", 8), ("resnet", 8)])
def test_too_small_images_are_an_error_that_says_how_small(architecture, least):
    assert net(architecture, (1, least, least))(torch.zeros(1, 1, least, least)).shape == (1, 10)
    for shape in ((1, least - 1, least), (1, least, least - 1), (64,)):
        with pytest.raises(ConfigurationError) as error:
            net(architecture, shape)
        assert f"{architecture} needs images of at least {least}x{least} pixels" in str(error.value)
        assert str(list(shape)) in str(error.value)


def test_unknown_architecture_names_the_nearest():
    with pytest.raises(ConfigurationError, match=r"^params/models/x\.yaml: architecture: no .*'lenett'.*mean 'lenet'"):
        models.build(ModelFile(title="x", architecture="lenett"), GREY, 10, "params/models/x.yaml")


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("mlp", {"hiden": [3]}, r"here: options: unknown key 'hiden'; did you mean 'hidden'\?"),
        ("mlp", {"hidden": []}, r"here: options: hidden: .*at least 1 item"),
        ("mlp", {"hidden": [0]}, r"here: options: hidden\.0: .*greater than or equal to 1 \(found 0\)"),
        ("lenet", {"width": 3}, r"here: options: unknown key 'width'"),
        ("softmax", {"bias": False}, r"here: options: unknown key 'bias'"),
        ("resnet", {"groups": 3}, r"here: options: groups \(3\) must divide width \(16\)"),
        ("resnet", {"blocks": []}, r"here: options: blocks"),
        ("resnet", {"width": -4}, r"here: options: width: .*greater than or equal to 1 \(found -4\)"),
    ],
)
def test_wrong_options_are_errors(architecture, options, message):
    with pytest.raises(ConfigurationError, match=message):
        net(architecture, GREY, **options)


def test_resnet_depth_and_groups_follow_the_options():
    built = net("resnet", COLOUR, blocks=[2, 2], width=8, groups=4)
    norms = [m for m in built.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {m.num_groups for m in norms} == {4}
    assert sum(isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3) for m in built.modules()) == 2 * 4 + 1
    assert built(torch.zeros(1, *COLOUR)).shape == (1, 10)


def test_a_net_with_buffers_is_refused(monkeypatch):
    """Batch statistics would not be averaged."""

    class Module:
        from heterobench.models.softmax import Options

        @staticmethod
        def make(shape, classes, options):
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(math.prod(shape)))

    monkeypatch.setattr(models, "architecture", lambda name, where: Module)
    with pytest.raises(ConfigurationError, match="has buffers"):
        net("batchnorm", DIGIT)


def test_softmax_starts_at_zero():
    assert not any(p.any() for p in net("softmax", DIGIT).parameters())


@pytest.mark.parametrize("name", FILES)
def test_every_model_file_validates(name):
    models.check(FILES[name], f"params/models/{name}.yaml")
    assert FILES[name].title


# the task -----------------------------------------------------------------------------------------------------------

SMALL = {
    "mlp": {"hidden": [6]},
    "softmax": {},
    "resnet": {"blocks": [1, 1], "width": 4, "groups": 2},
    "mcmahan_cnn": {},
}


def task_of(architecture="mlp", double=True, shape=(1, 8, 8), classes=4) -> Classification:
    def build():
        built = net(architecture, shape, classes, **SMALL[architecture])
        return built.double() if double else built

    return Classification(build)


def batch_of(size=5, shape=(1, 8, 8), classes=4, dtype=torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(size)
    return Batch(
        torch.randn(size, *shape, generator=generator, dtype=dtype),
        torch.randint(classes, (size,), generator=generator),
    )


def started(task, scale=0.1):
    """Weights that are zero nowhere."""
    theta = task.init(0)
    return theta + scale * torch.randn(len(theta), generator=torch.Generator().manual_seed(1), dtype=theta.dtype)


@pytest.mark.parametrize("architecture", SMALL)
def test_gradient_is_that_of_the_same_net_alone(architecture):
    """Against torch's backward on a net of its own, and against torch.func."""
    task, batch = task_of(architecture), batch_of()
    theta = started(task)
    g, aux = task.grad(theta, batch)

    alone = net(architecture, (1, 8, 8), 4, **SMALL[architecture]).double()
    torch.nn.utils.vector_to_parameters(theta, alone.parameters())
    loss = functional.cross_entropy(alone(batch.x), batch.y)
    loss.backward()
    torch.testing.assert_close(aux["loss"], loss.detach(), atol=1e-14, rtol=0)
    torch.testing.assert_close(g, torch.cat([p.grad.reshape(-1) for p in alone.parameters()]), atol=1e-13, rtol=0)

    def pure(vector):
        parameters = task.layout.split(vector)
        logits = torch.func.functional_call(alone, parameters, (batch.x,))
        return functional.cross_entropy(logits, batch.y)

    torch.testing.assert_close(g, torch.func.grad(pure)(theta), atol=1e-13, rtol=0)


def test_gradient_is_the_slope_of_the_loss():
    """Central differences along random directions."""
    task, batch = task_of(), batch_of()
    theta = started(task)
    g, _ = task.grad(theta, batch)
    for seed in range(5):
        direction = torch.randn(len(theta), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        ahead, behind = (task.grad(theta + h * direction, batch)[1]["loss"] for h in (1e-5, -1e-5))
        assert float(g @ direction) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-6, abs=1e-9)


def test_theta_may_be_updated_in_place_or_replaced():
    """The net's parameters are views of theta; another theta is another model."""
    task, batch = task_of(), batch_of()
    first = started(task)
    g1, _ = task.grad(first, batch)
    first.sub_(g1, alpha=0.5)
    moved, _ = task.grad(first, batch)
    assert not torch.equal(moved, g1)
    other, _ = task.grad(first.clone(), batch)
    assert torch.equal(other, moved)
    fresh, _ = task_of().grad(first, batch)
    assert torch.equal(fresh, moved)


def test_gradients_and_scores_leave_theta_as_it_is():
    task, batch = task_of(), batch_of()
    theta = started(task)
    before = theta.clone()
    g, _ = task.grad(theta, batch)
    kept = g.clone()
    task.scores(theta, [batch])
    task.grad(theta + 1, batch)
    assert torch.equal(theta, before)
    assert torch.equal(g, kept)
    assert not theta.requires_grad


def test_initial_weights_are_keyed_by_the_seed():
    task = nets.task()
    assert torch.equal(task.init(3), nets.task().init(3))
    assert not torch.equal(task.init(3), task.init(4))
    torch.manual_seed(5)
    assert torch.equal(task.init(3), nets.task().init(3))


def test_initial_weights_leave_torchs_generator_untouched():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    task = nets.task()
    task.init(3)
    task.grad(task.init(0), nets.federation().pool.batch(np.arange(3)))
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_are_those_of_the_net():
    """Bounded as torch's own, 1/sqrt(fan in), and not constant."""
    task = task_of("mlp", double=False)
    parts = task.layout.split(task.init(0))
    for name, fan_in in (("1.weight", 64), ("3.weight", 6)):
        bound = 1 / math.sqrt(fan_in)
        assert 0.5 * bound < parts[name].abs().max() <= bound


def test_scores_per_example_equal_direct_computation():
    task, batch = task_of(), batch_of(13)
    theta = started(task, scale=1.0)
    parts = [Batch(batch.x[i:j], batch.y[i:j]) for i, j in ((0, 5), (5, 6), (6, 13))]
    scores = task.scores(theta, parts)
    assert scores.keys() == {"loss", "accuracy"}

    weights = task.layout.split(theta)
    hidden = (batch.x.reshape(13, -1) @ weights["1.weight"].T + weights["1.bias"]).clamp(min=0)
    logits = (hidden @ weights["3.weight"].T + weights["3.bias"]).numpy()
    picked = logits[np.arange(13), batch.y.numpy()]
    np.testing.assert_allclose(scores["loss"].numpy(), np.log(np.exp(logits).sum(1)) - picked, atol=1e-12)
    hits = (logits.argmax(1) == batch.y.numpy()).astype(float)
    np.testing.assert_array_equal(scores["accuracy"].numpy(), hits)
    assert 0 < hits.mean() < 1
    assert float(scores["loss"].mean()) == pytest.approx(float(task.grad(theta, batch)[1]["loss"]), rel=1e-12)


def test_scores_of_no_examples_are_empty():
    task = task_of()
    scores = task.scores(task.init(0), [])
    assert {name: tuple(values.shape) for name, values in scores.items()} == {"loss": (0,), "accuracy": (0,)}


def test_scores_of_chunks_are_in_order():
    task, pool = nets.task(), nets.federation().pool
    whole = task.scores(task.init(0), pool.chunks())
    some = task.scores(task.init(0), pool.chunks(np.array([7, 2, 11])))
    torch.testing.assert_close(some["loss"], whole["loss"][[7, 2, 11]], atol=1e-6, rtol=0)
    assert isinstance(pool, Examples)


def test_layout_cuts_theta_in_the_nets_order():
    built = net("mlp", (1, 2, 2), 3, hidden=[5])
    layout = Layout.of(built)
    theta = torch.cat([p.detach().reshape(-1) for p in built.parameters()])
    assert sum(layout.sizes) == len(theta) == count(built)
    parts = layout.split(theta)
    for name, parameter in built.named_parameters():
        assert torch.equal(parts[name], parameter)
        assert parts[name].untyped_storage().data_ptr() == theta.untyped_storage().data_ptr()


def test_training_is_evaluation():
    """No dropout, no batch statistics: the net is in evaluation mode and one example does not see the others."""
    task, batch = task_of("resnet"), batch_of(6)
    theta = started(task)
    together = task.scores(theta, [batch])["loss"]
    alone = torch.cat([task.scores(theta, [Batch(batch.x[i : i + 1], batch.y[i : i + 1])])["loss"] for i in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)


# reduced precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "functional", "stacked"])
def test_bfloat16_is_for_the_forward_pass_of_training_only(kind):
    """Roundings of 2^-9: the gradient of a linear model moves by a few of them; scores stay the same, bit for bit."""

    def build():
        return models.build(ModelFile(title="", architecture="softmax"), (1, 16, 16), 3, "here")

    exact, reduced = Classification(build), Classification(build, precision="bfloat16")
    theta, generator = exact.init(0), torch.Generator().manual_seed(1)
    batch = Batch(torch.randn(32, 1, 16, 16, generator=generator), torch.arange(32) % 3)

    def gradient(task):
        if kind == "stacked":
            given = Batch(batch.x[None], batch.y[None], torch.full((1, 32), 1 / 32))
            return torch.func.vmap(lambda t, b: task.functional().grad(t, b)[0])(theta[None], given)[0]
        return (task.functional() if kind == "functional" else task).grad(theta, batch)[0]

    right, found = gradient(exact), gradient(reduced)
    assert found.dtype == torch.float32
    assert 2**-12 < (found - right).norm() / right.norm() < 2**-6
    one, other = exact.scores(theta, [batch]), reduced.scores(theta, [batch])
    assert all(torch.equal(one[name], other[name]) for name in one)
