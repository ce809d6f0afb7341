"""Barriers between two models, whole and layer by layer, before and after their units were matched."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from contract import nets
from heterobench.config.schema import ModelFile
from heterobench.keyed import generator
from heterobench.metrics import connectivity as c
from heterobench.metrics import weight_matching as m
from heterobench.metrics.landscape import loss_and_error
from heterobench.task import Batch, Classification, Layout

BATCH = nets.federation().pool.batch(np.arange(33))
SOFTMAX = ModelFile(title="a test", architecture="softmax", options={})


def normal(size, key):
    return torch.from_numpy(generator(0, f"connectivity {key}").normal(size=size))


def deep(*widths, between=nn.Identity, bias=True):
    """A net of linear layers with something between them."""
    layers = [[nn.Linear(a, b, bias), between()] for a, b in pairwise(widths)]
    return nn.Sequential(nn.Flatten(), *[module for pair in layers for module in pair][:-1])


def random_models(task, count=4, scale=1.0):
    size = sum(task.layout.sizes)
    return [task.init(seed).double() + scale * normal(size, f"model {seed}") for seed in range(count)]


def trained(task, seed, steps=200):
    theta = task.init(seed)
    for _ in range(steps):
        theta = theta - 0.5 * task.grad(theta, BATCH)[0]
    return theta.double()


# --- definitions


def test_barriers_by_hand():
    """One weight, from second = 0 to first = 1; losses 2 and 4 at the ends, 7 in the middle."""
    score = lambda w: torch.stack([10 * w[0] * (1 - w[0]) * 1.6 + 2 * w[0] + 2, (w[0] == 0.5).double()])  # noqa: E731
    line = c.curve(score, torch.ones(1), torch.zeros(1), alphas=(0, 0.5, 1))
    assert line.values[:, 0] == pytest.approx([2, 7, 4])
    assert [end.tolist() for end in line.ends] == [[4, 0], [2, 0]]
    assert c.barrier(line) == pytest.approx([4, 1])
    assert c.barrier_over_mean(line) == pytest.approx([4, 1])
    # with other ends than its own: over 3 alpha + 1 (1 - alpha), and over their mean
    ends = np.array([3.0, 0.0]), np.array([1.0, 0.0])
    assert c.barrier(line, ends) == pytest.approx([5, 1])
    assert c.barrier_over_mean(line, ends) == pytest.approx([5, 1])


def test_the_two_definitions_differ_where_the_ends_do():
    slope = c.curve(lambda w: 6 * w[0], torch.ones(1), torch.zeros(1))
    assert c.barrier(slope) == pytest.approx(0, abs=1e-14)
    assert c.barrier_over_mean(slope) == pytest.approx(3)
    assert c.barrier(c.curve(lambda w: w[0] ** 2, torch.ones(1), torch.zeros(1))) == 0


def test_alpha_is_the_share_of_the_first_model():
    first, second = normal(5, "first"), normal(5, "second").float()
    line = c.curve(lambda w: w[2], first, second)
    assert line.alphas == pytest.approx(np.arange(11) / 10)
    assert line.values == pytest.approx(line.alphas * float(first[2]) + (1 - line.alphas) * float(second[2]))
    assert (line.values[-1], line.values[0]) == (float(first[2]), float(second[2]))


# --- the card's invariants


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_convex_losses_have_no_barriers(scale):
    """Invariant 3, second half: softmax regression, every pair of models."""
    task = nets.task(model=SOFTMAX)
    score, models = loss_and_error(task, BATCH), random_models(task, scale=scale)
    heights = []
    for first in models:
        for second in models:
            loss, _ = c.barrier(c.curve(score, first, second))
            heights.append(loss)
            assert 0 <= loss <= 1e-6
    assert len(heights) == 16
    assert max(heights) == 0  # at the ends, exactly


def test_barrier_to_itself_is_zero_and_order_does_not_matter():
    """Invariant 4, first half: barrier(w, w) = 0, for the layers too; symmetric in the two models."""
    task = nets.task()
    score = loss_and_error(task, BATCH)
    first, second = trained(task, 0), trained(task, 1)
    same = c.curve(score, first, first)
    assert c.barrier(same).tolist() == c.barrier_over_mean(same).tolist() == [0, 0]
    for line in c.layer_curves(score, first, first, c.layers(task.layout)).values():
        assert c.barrier(line, same.ends).tolist() == [0, 0]
    there, back = c.curve(score, first, second), c.curve(score, second, first)
    assert there.values[::-1] == pytest.approx(back.values, rel=1e-12)
    for measure in (c.barrier, c.barrier_over_mean):
        assert measure(there) == pytest.approx(measure(back), rel=1e-12)
        assert measure(there)[0] > 1e-2


@pytest.mark.parametrize("hidden", [[16], [12, 9]])
def test_realigned_copy_has_no_barrier(hidden):
    """Invariant 4, second half: a permuted copy of a model lies behind a barrier; matched again it is the model."""
    task = nets.task(model=ModelFile(title="a test", architecture="mlp", options={"hidden": hidden}))
    score, theta = loss_and_error(task, BATCH), trained(task, 0)
    orders = [generator(0, "units").permutation(width) for width in hidden]
    copy = m.permuted(task.layout, theta, orders)
    assert not torch.equal(copy, theta)
    assert score(copy).numpy() == pytest.approx(score(theta).numpy(), rel=1e-12)
    assert c.barrier(c.curve(score, theta, copy))[0] > 1e-2
    again = m.permuted(task.layout, copy, m.weight_matching(task.layout, theta, copy))
    assert torch.equal(again, theta)
    assert c.barrier(c.curve(score, theta, again)).tolist() == [0, 0]


def test_all_layers_at_once_are_the_whole_line():
    """Invariant 7, first half: the layer-wise barrier over all layers is the barrier of the models."""
    task = nets.task(model=ModelFile(title="a test", architecture="mlp", options={"hidden": [6, 5]}))
    score, (first, second) = loss_and_error(task, BATCH), random_models(task, 2)
    whole, parts = c.curve(score, first, second), c.layers(task.layout)
    for order in ("shallow", "deep", "random"):
        curves = c.layer_curves(score, first, second, parts, c.layer_groups(list(parts), order))
        *_, (group, line) = curves.items()
        assert set(group) == set(parts)
        assert (line.values == whole.values).all()
        for measure in (c.barrier, c.barrier_over_mean):
            assert (measure(line, whole.ends) == measure(whole)).all()


def test_layers_of_deep_linear_nets_are_convex():
    """Invariant 7, second half: in one layer alone the loss is convex in alpha, on the whole line it is not."""
    task = Classification(lambda: deep(16, 7, 6, 3))
    score = loss_and_error(task, BATCH)
    bent = []
    for first, second in pairwise(random_models(task)):
        for line in c.layer_curves(score, first, second, c.layers(task.layout)).values():
            loss = line.values[:, 0]
            assert (np.diff(loss, 2) >= -1e-12).all()
            # so nothing between is above its own ends
            assert c.barrier(line)[0] == pytest.approx(0, abs=1e-12)
        bent.append(np.diff(c.curve(score, first, second).values[:, 0], 2).min())
    assert min(bent) < -1e-3


# --- layers


def test_layers_hold_weight_and_bias_together():
    net = nn.Sequential(
        nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2, bias=False)), nn.GRU(2, 1, num_layers=2)
    )
    net.register_parameter("scale", nn.Parameter(torch.ones(2)))
    layout = Layout.of(net)
    parts = c.layers(layout)
    sizes = {"scale": 2, "0": 9, "1.1": 6, "2.l0": 3 * 2 + 3 + 6, "2.l1": 3 + 3 + 6}
    assert {name: int(part.sum()) for name, part in parts.items()} == sizes
    assert torch.equal(sum(part.long() for part in parts.values()), torch.ones(sum(layout.sizes), dtype=torch.int64))
    assert list(c.layers(Layout.of(nn.Linear(2, 2)))) == ["weight", "bias"]


def test_growing_groups_of_layers():
    names = ["a", "b", "c"]
    assert c.layer_groups(names) == [("a",), ("a", "b"), ("a", "b", "c")]
    assert c.layer_groups(names, "deep") == [("c",), ("c", "b"), ("c", "b", "a")]
    seen = {c.layer_groups(names, "random", seed)[1] for seed in range(100)}
    assert {frozenset(pair) for pair in seen} == {frozenset("ab"), frozenset("ac"), frozenset("bc")}
    assert c.layer_groups(names, "random", 3) == c.layer_groups(names, "random", 3)
    with pytest.raises(ValueError, match=r"^order: 'wide', must be shallow, deep or random"):
        c.layer_groups(names, "wide")


def test_only_the_chosen_layers_go_over():
    layout = Layout.of(deep(2, 2, 2))
    first, second = torch.zeros(12), torch.ones(12)
    seen = []
    parts = c.layers(layout)
    c.layer_curves(lambda w: seen.append(w) or w.sum(), first, second, parts, alphas=(0, 1))
    # alpha = 0: first with that layer of second; alpha = 1: first
    assert [w.tolist() for w in seen] == [[1] * 6 + [0] * 6, [0] * 12, [0] * 6 + [1] * 6, [0] * 12]


def test_layer_barrier_over_the_models_and_over_its_own_ends():
    """Of a . w: swapping the first half costs its own difference; over its own ends a line has no barrier."""
    a = torch.tensor([1.0, 1, 5, 5], dtype=torch.float64)
    score, first, second = (lambda w: a @ w), torch.zeros(4), torch.tensor([1.0, 1, -1, -1])
    whole = c.curve(score, first, second)
    part = c.curve(score, first, second, torch.tensor([True, True, False, False]))
    assert [float(end) for end in whole.ends] == [0, -8]
    assert c.barrier(part) == pytest.approx(0, abs=1e-14)
    assert c.barrier(part, whole.ends) == pytest.approx(2 - -8)
    assert c.barrier_over_mean(part, whole.ends) == pytest.approx(2 - -4)


def test_bad_lines_are_named():
    for alphas in ([0], [0, 0.5], [0, 0.5, 0.5, 1], [1, 0]):
        with pytest.raises(ValueError, match=r"^alphas:"):
            c.curve(torch.sum, torch.zeros(3), torch.ones(3), alphas=alphas)
    with pytest.raises(ValueError, match=r"^second:"):
        c.curve(torch.sum, torch.zeros(3), torch.ones(4))


# --- matching units


def test_permuted_convolutions_compute_the_same():
    def net():
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 2),
            nn.Flatten(),
            nn.Linear(24, 3),
        )

    task = Classification(net)
    x = normal((5, 1, 8, 8), "images")
    theta = task.init(0).double()
    orders = [generator(0, "channels").permutation(units) for units in (4, 6)]
    moved = m.permuted(task.layout, theta, orders)
    assert not torch.equal(moved, theta)
    assert torch.allclose(task.logits(moved, x), task.logits(theta, x), rtol=1e-12)
    assert torch.equal(moved[: theta[:36].numel()].view(4, 9), theta[:36].view(4, 9)[torch.from_numpy(orders[0])])
    found = m.weight_matching(task.layout, theta, moved)
    assert torch.equal(m.permuted(task.layout, moved, found), theta)


def test_matching_one_hidden_layer_is_the_best_of_all_orders():
    """One layer is one assignment: no order of its units has a larger product with the first model."""
    from itertools import permutations

    layout = Layout.of(deep(3, 4, 2))
    size = sum(layout.sizes)
    first, second = normal(size, "one"), normal(size, "other")
    gain = lambda order: float(first @ m.permuted(layout, second, [np.array(order)]))  # noqa: E731
    best = max(permutations(range(4)), key=gain)
    (found,) = m.weight_matching(layout, first, second)
    assert found.tolist() == list(best)
    assert gain(found) > gain(range(4))


def test_matching_ends_in_a_local_optimum_and_brings_models_nearer():
    layout = Layout.of(deep(5, 6, 7, 4, 3))
    size = sum(layout.sizes)
    for seed in range(5):
        first, second = normal(size, f"a{seed}"), normal(size, f"b{seed}")
        orders = m.weight_matching(layout, first, second, seed)
        near = m.permuted(layout, second, orders)
        assert (first - near).norm() < (first - second).norm()
        again = m.weight_matching(layout, first, near, seed + 1)
        assert [order.tolist() for order in again] == [list(range(len(order))) for order in orders]


def test_what_is_no_chain_is_refused():
    assert m.chain(Layout.of(deep(3, 4, 2))) is not None
    for net in (
        nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
        nn.GRU(3, 4),
        nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4)),
        nn.Sequential(nn.Embedding(3, 4), nn.Linear(5, 2)),
    ):
        layout = Layout.of(net)
        assert m.chain(layout) is None
        with pytest.raises(ValueError, match=r"^layout: .*must be a chain"):
            m.permuted(layout, torch.zeros(sum(layout.sizes)), [])
    layout = Layout.of(deep(3, 4, 2))
    with pytest.raises(ValueError, match=r"^orders: 0, must be 1"):
        m.permuted(layout, torch.zeros(26), [])
    with pytest.raises(ValueError, match=r"^orders: 1.weight has 4 units"):
        m.permuted(layout, torch.zeros(26), [np.array([0, 1, 1, 2])])


# --- scores of a task


def test_scores_of_a_task_are_its_mean_loss_and_error():
    task = nets.task()
    theta = task.init(1).double()
    loss, error = loss_and_error(task, BATCH)(theta)
    logits = task.logits(theta, BATCH.x)
    assert float(loss) == pytest.approx(float(functional.cross_entropy(logits, BATCH.y)), rel=1e-12)
    assert float(error) == pytest.approx(float((logits.argmax(1) != BATCH.y).double().mean()), rel=1e-12)
    single = task.scores(theta.float(), [BATCH])
    assert (float(loss), float(error)) == pytest.approx(
        (float(single["loss"].mean()), 1 - float(single["accuracy"].mean())), rel=1e-5
    )
    weight = torch.zeros(33)
    weight[7] = 1
    assert float(loss_and_error(task, Batch(BATCH.x, BATCH.y, weight))(theta)[0]) == pytest.approx(
        float(functional.cross_entropy(logits[7:8], BATCH.y[7:8])), rel=1e-12
    )
