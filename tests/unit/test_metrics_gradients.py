"""Coherence of examples and dissimilarity of clients."""

import math
from functools import reduce

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from heterobench.keyed import generator
from heterobench.metrics import gradients as g

RANDOM = generator(0, "gradients").normal(0.3, 1, (12, 30))
WEIGHTS = generator(0, "weights").random(12)
RATIOS = [g.coherence, g.m_coherence, g.distinct_coherence, g.gradient_diversity, g.batch_size_bound, g.mean_cosine]
CLIENT_RATIOS = [g.dissimilarity, g.cosine_to_mean]


def rotation(size):
    return np.linalg.qr(generator(0, "rotation").normal(size=(size, size)))[0]


def test_orthogonal_equal_and_opposite_gradients():
    one = RANDOM[:1]
    cases = {"orthogonal": np.eye(5), "equal": np.repeat(one, 5, axis=0), "opposite": np.concatenate([one, -one])}
    made = {name: [f(stack) for f in RATIOS[:4]] for name, stack in cases.items()}
    assert made["orthogonal"] == pytest.approx([1 / 5, 1, 0, 1])
    assert made["equal"] == pytest.approx([1, 5, 1, 1 / 5])
    assert made["opposite"] == [0, 0, -1, math.inf]
    assert [g.mean_cosine(stack) for stack in cases.values()] == pytest.approx([0, 1, -1])
    assert g.batch_size_bound(np.eye(5)) == 5


@pytest.mark.parametrize("metric", RATIOS + CLIENT_RATIOS)
def test_scale_and_rotation_change_no_ratio(metric):
    expected = metric(RANDOM)
    assert metric(-7.5 * RANDOM) == pytest.approx(expected, rel=1e-10)
    assert metric(RANDOM @ rotation(30)) == pytest.approx(expected, rel=1e-10)
    assert metric(RANDOM[generator(0, "order").permutation(12)]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_coherence_in_its_range_and_inverse_to_diversity(size):
    some = RANDOM[:size]
    assert 0 <= g.m_coherence(some) <= size * (1 + 1e-12)
    assert g.gradient_diversity(some) * g.m_coherence(some) == pytest.approx(1)
    assert g.m_coherence(some) == pytest.approx(size * g.coherence(some))
    assert g.coherence(some) == pytest.approx((some.mean(axis=0) ** 2).sum() / (some**2).sum(axis=1).mean())


def test_duplicated_sample_doubles_m_coherence_and_leaves_alpha():
    twice = np.concatenate([RANDOM, RANDOM])
    assert g.m_coherence(twice) == pytest.approx(2 * g.m_coherence(RANDOM))
    assert g.coherence(twice) == pytest.approx(g.coherence(RANDOM))


def test_pairs_by_their_definition():
    products = RANDOM @ RANDOM.T
    pairs = ~np.eye(12, dtype=bool)
    assert g.distinct_coherence(RANDOM) == pytest.approx(products[pairs].mean() / np.diag(products).mean())
    norms = np.sqrt(np.diag(products))
    assert g.mean_cosine(RANDOM) == pytest.approx((products / np.outer(norms, norms))[pairs].mean())
    assert g.mean_cosine(np.concatenate([RANDOM, np.zeros((3, 30))])) == pytest.approx(g.mean_cosine(RANDOM))


def test_distinct_pairs_have_no_floor():
    """Independent gradients of mean zero: alpha is 1 / m on average, pairs of different ones give 0."""
    draws = generator(0, "independent").normal(size=(400, 8, 50))
    alpha = [g.coherence(draw) for draw in draws]
    distinct = [g.distinct_coherence(draw) for draw in draws]
    assert np.mean(alpha) == pytest.approx(1 / 8, abs=5 * np.std(alpha) / 20)
    assert np.mean(distinct) == pytest.approx(0, abs=5 * np.std(distinct) / 20)


def test_signal_to_noise_by_hand():
    # columns: mean 2, variance 1; mean 1, variance 4; constant (left out)
    assert g.gradient_signal_to_noise(np.array([[1.0, 3.0, 5.0], [3.0, -1.0, 5.0]])) == pytest.approx((4 + 1 / 4) / 2)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_zeta_is_mean_square_less_squared_mean(weights):
    shares = np.full(12, 1 / 12) if weights is None else weights / weights.sum()
    mean_square, mean = shares @ (RANDOM**2).sum(axis=1), shares @ RANDOM
    zeta = g.zeta_squared(RANDOM, weights)
    assert zeta == pytest.approx(mean_square - mean @ mean, rel=1e-6)
    assert g.dissimilarity(RANDOM, weights) == pytest.approx(1 + zeta / (mean @ mean), rel=1e-6)
    assert g.dissimilarity(RANDOM, weights) == pytest.approx(mean_square / (mean @ mean))


def test_equal_weights_tie_dissimilarity_to_coherence():
    assert g.m_coherence(RANDOM) == pytest.approx(12 / g.dissimilarity(RANDOM))


def test_dissimilarity_is_one_for_equal_clients_only():
    equal = np.repeat(RANDOM[:1], 4, axis=0)
    assert g.dissimilarity(equal) == pytest.approx(1, abs=1e-12)
    assert g.zeta_squared(equal) == pytest.approx(0, abs=1e-12)
    assert g.cosine_to_mean(equal) == pytest.approx(1)
    equal[0, 0] += 1e-3
    assert g.dissimilarity(equal) > 1 + 1e-9
    assert g.zeta_squared(2 * RANDOM) == pytest.approx(4 * g.zeta_squared(RANDOM))


def test_stationary_points():
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert math.isnan(g.dissimilarity(opposite))
    assert g.zeta_squared(opposite) == 1
    assert math.isnan(g.cosine_to_mean(opposite))
    # the mean is 1e-8 long at the border
    assert math.isnan(g.dissimilarity(opposite + np.array([0, 0.99e-8])))
    assert g.dissimilarity(opposite + np.array([0, 1.01e-8])) == pytest.approx(1 / 1.01e-8**2)
    zeros = np.zeros((3, 2))
    assert g.dissimilarity(zeros) == 1
    for metric in (g.coherence, g.m_coherence, g.distinct_coherence, g.gradient_diversity, g.mean_cosine):
        assert math.isnan(metric(zeros))
    assert math.isnan(g.gradient_signal_to_noise(zeros))


def test_iid_clients_of_one_data_set_become_alike():
    """Full gradients of least squares at a fixed point, from more and more examples a client."""
    random = generator(0, "iid")

    def excess(examples):
        features = random.normal(size=(10, examples, 20))
        errors = features @ np.ones(20) - 3 + random.normal(size=(10, examples))
        return g.dissimilarity((features * errors[:, :, None]).mean(axis=1)) - 1

    few, many = excess(20), excess(2000)
    assert 0 < many < few / 20  # the law is 1 / examples: a hundredth


def test_two_batches_give_zeta_without_sampling_noise():
    random = generator(0, "two batches")
    true = random.normal(size=(6, 10))
    noisy = [[true + random.normal(0, 2, true.shape) for _ in (0, 1)] for _ in range(2000)]
    plain = [g.zeta_squared(first, WEIGHTS[:6]) for first, _ in noisy]
    unbiased = [g.unbiased_zeta_squared(first, second, WEIGHTS[:6]) for first, second in noisy]
    expected = g.zeta_squared(true, WEIGHTS[:6])
    error = np.std(unbiased) / math.sqrt(2000)
    assert np.mean(unbiased) == pytest.approx(expected, abs=5 * error)
    shares = WEIGHTS[:6] / WEIGHTS[:6].sum()
    inflation = 10 * 4 * (1 - (shares**2).sum())  # P sigma^2 sum p_k (1 - p_k)
    assert np.mean(plain) == pytest.approx(expected + inflation, abs=5 * np.std(plain) / math.sqrt(2000))
    assert g.unbiased_zeta_squared(true, true, WEIGHTS[:6]) == pytest.approx(expected)


def test_line_through_checkpoints():
    squares = np.array([0.1, 1.0, 4.0, 9.0])
    assert g.fitted_dissimilarity(3 + 2 * squares, squares) == pytest.approx((3, 2))
    # never negative: an intercept below zero is cut off
    assert g.fitted_dissimilarity(4 * squares - 0.5, squares)[0] == 0
    with pytest.raises(ValueError, match=r"^mean_squares, squared_means:"):
        g.fitted_dissimilarity(squares[:1], squares[:1])


def test_cosine_to_mean_by_hand():
    updates = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert g.cosine_to_mean(updates) == pytest.approx(math.sqrt(0.5))
    assert g.cosine_to_mean(updates, [3, 1, 5]) == pytest.approx((3 * 3 + 1) / (4 * math.sqrt(10)))


@pytest.mark.parametrize(
    "metric",
    [*RATIOS, *CLIENT_RATIOS, g.zeta_squared, g.gradient_signal_to_noise, lambda x: g.unbiased_zeta_squared(x, x)],
)
def test_tensors_give_what_arrays_give(metric):
    single = RANDOM.astype(np.float32)
    made = metric(torch.from_numpy(single))
    assert isinstance(made, float)
    assert made == pytest.approx(metric(single), rel=1e-12)
    assert made == pytest.approx(metric(RANDOM), rel=1e-4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"^gradients:"):
        g.m_coherence(np.zeros(5))
    with pytest.raises(ValueError, match=r"^gradients:"):
        g.dissimilarity(np.zeros((0, 5)))
    with pytest.raises(ValueError, match=r"^weights:"):
        g.zeta_squared(RANDOM, WEIGHTS[1:])
    with pytest.raises(ValueError, match=r"^weights:"):
        g.zeta_squared(RANDOM, -WEIGHTS)
    with pytest.raises(ValueError, match=r"^second:"):
        g.unbiased_zeta_squared(RANDOM, RANDOM[1:])


# --- gradients of a real model


def example_gradients(model, features, labels):
    """Gradient of each example's cross-entropy, [m, P]."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(values, x, y):
        logits = torch.func.functional_call(model, values, (x[None],))
        return torch.nn.functional.cross_entropy(logits, y[None])

    made = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, features, labels)
    return torch.cat([value.flatten(1) for value in made.values()], dim=1)


def digits(shuffled):
    features, labels = load_digits(return_X_y=True)
    if shuffled:
        labels = generator(0, "shuffled").permutation(labels)
    return torch.tensor(features / 16, dtype=torch.float32), torch.tensor(labels)


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))


def test_sums_over_small_batches_are_those_of_all_gradients():
    features, labels = digits(shuffled=False)
    features, labels = features[:100], labels[:100]
    model = network()
    whole = example_gradients(model, features, labels)
    parts = (g.gradient_sums(whole[i : i + 32]) for i in range(0, 100, 32))
    sums = reduce(g.added, parts)
    assert sums.count == 100
    for metric in RATIOS[:5]:
        assert metric(sums) == pytest.approx(metric(whole), rel=1e-5)
    # the squared norm of a linear layer's gradient without any stack: |delta|^2 (|input|^2 + 1)
    hidden = model[1](model[0](features)).detach()
    delta = torch.softmax(model[2](hidden), 1).detach() - torch.eye(10)[labels]
    last = example_gradients(torch.nn.Sequential(model[2]), hidden, labels)
    assert (last**2).sum(1).numpy() == pytest.approx(((delta**2).sum(1) * ((hidden**2).sum(1) + 1)).numpy(), rel=1e-4)


def test_shuffled_labels_lower_coherence():
    made = {}
    for shuffled in (False, True):
        features, labels = digits(shuffled)
        model = network()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        made[shuffled] = [g.m_coherence(example_gradients(model, features[:256], labels[:256]))]
        for batch in torch.from_numpy(generator(0, "epoch").permutation(len(labels))).split(32):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(features[batch]), labels[batch]).backward()
            optimiser.step()
        made[shuffled].append(g.m_coherence(example_gradients(model, features[:256], labels[:256])))
    assert made[False][0] > made[True][0]
    assert made[False][1] > made[True][1]
