"""Card ccvr (Luo et al. 2021): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from contract import nets
from contract.quadratic import build, run, setting
from contract.spies import attending, exact_net, rounds
from heterobench import keyed
from heterobench.algorithms._gaussians import Gaussians
from heterobench.algorithms.ccvr import calibrated, virtual
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import advance, begin
from heterobench.executor.local import Work, local_training
from heterobench.executor.vmap import Vmap
from heterobench.federation import Federation

F64 = torch.float64
N, FEATURES = 60, 8
SPLITS = {
    "one client": [N],
    "ten": [6] * 10,
    "one example each": [1] * N,
    "uneven": [1, 2, 30, 4, 23],
}


def federation(sizes=(N,), order=None) -> Federation:
    """All examples for training, in clients of these sizes."""
    whole = nets.federation((N,), dtype=F64)
    order = np.arange(N) if order is None else order
    rows = np.split(order, np.cumsum(sizes)[:-1])
    return replace(whole, train=rows, validation=rows, test=rows)


def by_class() -> np.ndarray:
    """The examples, sorted by their class: clients of a split lack classes then."""
    return np.argsort(nets.federation((N,)).pool.y.numpy(), kind="stable")


def statistics(fed: Federation, batch_size=4, epochs=1) -> Gaussians:
    """Of each client [K, C, ...], as they come up in a calibration at the initial model."""
    task = nets.task(F64)
    s = setting(build("ccvr")[0], fed, task, epochs=epochs, batch_size=batch_size)
    down = begin(s).server
    ups = [local_training(s.local, down, Work(i, 0, 1, 0.1, {})).uplink for i in range(len(fed))]
    return Gaussians(**{name: torch.stack([up[name] for up in ups]) for name in Gaussians._fields})


def pooled_features():
    """Features [N, F] of all examples under the initial model, and their classes."""
    task, pool = nets.task(F64), federation().pool
    return task.features(task.init(0), pool.batch(np.arange(N))), pool.y


def assert_pooled(found: Gaussians, z, y):
    for c in range(3):
        own = z[y == c]
        assert float(found.count[c]) == len(own)
        torch.testing.assert_close(found.mean[c], own.mean(0), atol=1e-10, rtol=0)
        torch.testing.assert_close(found.covariance[c], torch.cov(own.T), atol=1e-10, rtol=0)


# invariants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("order", [np.arange(N), by_class()], ids=["mixed", "by class"])
def test_invariant_1_statistics_are_those_of_the_pooled_features(sizes, order):
    """ccvr 1: mean and unbiased covariance (torch.cov), with clients of one example and of none of a class."""
    assert_pooled(statistics(federation(sizes, order)).pooled(), *pooled_features())


def test_invariant_1_a_client_has_unbiased_covariances():
    """0 where it holds one example or none of a class."""
    found = statistics(federation(SPLITS["uneven"], by_class()))
    z, y = (part[torch.from_numpy(by_class())] for part in pooled_features())
    own = z[3:33][y[3:33] == 0]
    torch.testing.assert_close(found.covariance[2, 0], torch.cov(own.T), atol=1e-12, rtol=0)
    assert found.count[0].tolist() == [1, 0, 0]
    assert not found.covariance[0].any()
    assert not found.mean[0, 1:].any()


def test_invariant_1_the_published_formula():
    """Sum of n mu mu^T minus N mu mu^T, as the card writes it."""
    found = statistics(federation(SPLITS["uneven"], by_class()))
    ours = found.pooled()
    n, total = found.count[..., None, None], found.count.sum(0)[:, None, None]
    outer = found.mean[..., :, None] * found.mean[..., None, :]
    mean = (found.count[..., None] * found.mean).sum(0) / total[:, 0]
    within = ((n - 1).clamp(min=0) * found.covariance).sum(0) / (total - 1)
    expected = within + (n * outer).sum(0) / (total - 1) - total / (total - 1) * mean[:, :, None] * mean[:, None, :]
    torch.testing.assert_close(ours.covariance, expected, atol=1e-12, rtol=0)


def test_invariant_2_only_the_classifier_changes():
    """ccvr 2: the extractor to the bit; and it is a real change."""
    task, fed = exact_net()
    *_, before, after = rounds(setting(build("ccvr", lr=0.1)[0], fed, task, rounds=3, epochs=1, batch_size=4), 3)
    parts = [task.layout.split(state.server["theta"]) for state in (before, after)]
    names = list(parts[0])
    for name in names[:-2]:
        assert torch.equal(parts[0][name], parts[1][name])
    for name in names[-2:]:
        assert (parts[0][name] - parts[1][name]).abs().max() > 1e-3


def test_invariant_3_order_and_merging_of_clients():
    """ccvr 3."""
    found = statistics(federation([6] * 10, by_class()))
    expected = found.pooled()
    turned = Gaussians(*(part.flip(0) for part in found)).pooled()
    halves = [Gaussians(*(part[rows] for part in found)).pooled() for rows in (slice(5), slice(5, 10))]
    merged = Gaussians(*(torch.stack(parts) for parts in zip(*halves, strict=True))).pooled()
    for other in (turned, merged):
        for one, two in zip(other, expected, strict=True):
            torch.testing.assert_close(one, two, atol=1e-12, rtol=0)


def test_invariant_4_calibration_approaches_linear_discriminant_analysis():
    """ccvr 4: two Gaussians of one covariance; the angle to Sigma^-1 (mu_1 - mu_0) shrinks like 1/sqrt(M_c)."""
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(3, 3, generator=generator, dtype=F64)
    sigma, mean = root @ root.T + torch.eye(3, dtype=F64), torch.randn(2, 3, generator=generator, dtype=F64)
    given = Gaussians(torch.full((2,), 50.0, dtype=F64), mean, sigma.expand(2, 3, 3))
    lda = torch.linalg.solve(sigma, mean[1] - mean[0])
    _, hp = build("ccvr", calibration_epochs=200, calibration_batch=10**6, calibration_lr=0.3)

    def angle(samples: int, seed: int) -> float:
        z, y = virtual(given, samples, seed, 0)
        x = torch.cat([z, z.new_ones(len(z), 1)], 1)
        layer = calibrated(hp, torch.zeros(2, 4, dtype=F64), x, y, keyed.generator(0, "order"))
        return float(torch.acos(functional.cosine_similarity(layer[1, :3] - layer[0, :3], lda, dim=0)))

    few, many = (np.mean([angle(samples, seed) for seed in range(6)]) for samples in (50, 5000))
    assert many < few / 3  # 1/10 in expectation
    assert many < 5 / np.sqrt(5000)


def test_invariant_5_as_many_virtual_features_as_asked_for():
    """ccvr 5: M_c of each class, none of one that nobody holds; of a class of one example that example."""
    z, y = pooled_features()
    fed = federation([30, 30])
    keep = [*np.flatnonzero(y.numpy() == 0), np.flatnonzero(y.numpy() == 2)[0]]
    lacking = replace(fed, train=[np.array(keep[:4]), np.array(keep[4:])])
    found = statistics(lacking).pooled()
    drawn, classes = virtual(found, 50, 0, 0)
    assert torch.bincount(classes, minlength=3).tolist() == [50, 0, 50]
    torch.testing.assert_close(drawn[50:], z[keep[-1]].expand(50, -1), atol=1e-12, rtol=0)


def test_invariant_5_virtual_features_have_the_mean_and_covariance():
    """Within five standard errors of 200,000 draws, where a covariance has at most sqrt(2 / 200,000) of its spreads.

    A class's draws do not depend on the other classes.
    """
    given = statistics(federation()).pooled()
    z, y = virtual(given, 200_000, 1, 0)
    for c in range(3):
        error = (given.covariance[c].diagonal() / 200_000).sqrt()
        assert ((z[y == c].mean(0) - given.mean[c]).abs() <= 5 * error + 1e-12).all()
        spread = given.covariance[c].diagonal().sqrt()
        assert (
            (torch.cov(z[y == c].T) - given.covariance[c]).abs()
            <= 5 * (2 / 200_000) ** 0.5 * spread[:, None] * spread + 1e-12
        ).all()
    fewer = given._replace(count=given.count * torch.tensor([1, 0, 1]))
    assert torch.equal(virtual(fewer, 200_000, 1, 0)[0][200_000:], z[y == 2])


def test_invariant_6_without_steps_the_model_stays():
    """ccvr 6: to the bit."""
    task, fed = exact_net()
    algorithm, _ = build("ccvr", lr=0.1, calibration_epochs=0)
    *_, before, after = rounds(setting(algorithm, fed, task, rounds=3, epochs=1, batch_size=4), 3)
    assert torch.equal(before.server["theta"], after.server["theta"])


# phases -------------------------------------------------------------------------------------------------------------


def test_until_the_last_round_it_is_fedavg():
    """To the bit, traffic included; the last round is the calibration and sends statistics."""
    task, fed = nets.task(), nets.federation()
    common = {"rounds": 3, "epochs": 2, "batch_size": 4}
    ours, plain = (list(rounds(setting(build(m, lr=0.1)[0], fed, task, **common), 3)) for m in ("ccvr", "fedavg"))
    for one, other in zip(ours[:2], plain[:2], strict=True):
        assert torch.equal(one.server["theta"], other.server["theta"])
        assert (one.bytes_up, one.bytes_down) == (other.bytes_up, other.bytes_down)
    d, statistics = FEATURES, 3 * 8 * (FEATURES**2 + FEATURES + 1)
    assert d == task.head.features
    assert ours[2].bytes_up - ours[1].bytes_up == len(fed) * (statistics + 8)
    assert ours[2].bytes_down == plain[2].bytes_down
    assert ours[2].gradient_examples == ours[1].gradient_examples


@pytest.mark.parametrize("empty", [1, 2])
def test_the_last_round_in_which_anybody_comes_is_the_calibration(empty):
    """Nobody in the first and the last rounds: the extractor learns in one round, the classifier alone in the next."""
    task, fed = exact_net()
    there = np.array([[False] * 4] + [[True] * 4] * 2 + [[False] * 4] * empty)
    s = setting(build("ccvr", lr=0.1)[0], fed, task, rounds=3 + empty, epochs=1, batch_size=4)
    nothing, trained, calibrated_, *rest = (state.server["theta"] for state in rounds(attending(s, there), 3 + empty))
    first = task.head.first
    assert torch.equal(nothing, task.init(0))
    assert not torch.equal(trained[:first], nothing[:first])
    assert torch.equal(calibrated_[:first], trained[:first])
    assert not torch.equal(calibrated_[first:], trained[first:])
    assert all(torch.equal(theta, calibrated_) for theta in rest)


def test_one_round_is_the_calibration():
    """At the initial weights: only the classifier is trained at all."""
    task, fed = exact_net()
    s = setting(build("ccvr", lr=0.1)[0], fed, task, rounds=1, epochs=1, batch_size=4)
    before, after = begin(s).server["theta"], run(s).server["theta"]
    assert torch.equal(before[: task.head.first], after[: task.head.first])
    assert not torch.equal(before, after)


def test_neither_split_nor_local_epochs_change_the_calibration():
    """Exact statistics of one pass, keyed draws: the same classifier; another seed has other draws."""

    def theta(sizes, epochs, seed=0):
        s = setting(build("ccvr")[0], federation(sizes, by_class()), nets.task(F64), epochs=epochs, batch_size=4)
        given = begin(s)  # the same weights for every seed
        return advance(replace(s, seed=seed), given).server["theta"]

    expected = theta(SPLITS["one client"], 1)
    for sizes in SPLITS.values():
        for epochs in (1, 3):
            torch.testing.assert_close(theta(sizes, epochs), expected, atol=1e-8, rtol=0)
    assert (theta(SPLITS["ten"], 1, seed=1) - expected).abs().max() > 1e-4


def test_who_does_not_take_part_in_the_last_round_is_not_in_the_statistics():
    algorithm, _ = build("ccvr")
    half = ScheduleFile(title="", participation=0.5)
    sizes = [6] * 10
    found = run(setting(algorithm, federation(sizes), nets.task(F64), epochs=1, batch_size=4, schedule=half))
    everybody = run(setting(algorithm, federation(sizes), nets.task(F64), epochs=1, batch_size=4))
    assert (found.server["theta"] - everybody.server["theta"]).abs().max() > 1e-3


# the calibration itself, and traps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_calibration_is_torchs_sgd(weight_decay):
    """From the federated layer on, on mini-batches in the drawn order, with momentum and the penalty of training."""
    z, y = virtual(statistics(federation()).pooled(), 30, 0, 0)
    x = torch.cat([z, z.new_ones(len(z), 1)], 1)
    _, hp = build("ccvr", weight_decay=weight_decay, calibration_epochs=3, calibration_batch=16, calibration_lr=0.05)
    task = nets.task(F64)
    weight, bias = (part.clone().requires_grad_() for part in task.head.read(task.init(0)))
    begun = torch.cat([weight, bias[:, None]], 1).detach()
    found = calibrated(hp, begun, x, y, keyed.generator(5, "order"))

    sgd = torch.optim.SGD([weight, bias], lr=0.05, momentum=0.9, weight_decay=weight_decay)
    orders = keyed.generator(5, "order")
    for _ in range(3):
        for rows in torch.from_numpy(orders.permutation(len(y))).split(16):
            sgd.zero_grad()
            functional.cross_entropy(functional.linear(z[rows], weight, bias), y[rows]).backward()
            sgd.step()
    torch.testing.assert_close(found, torch.cat([weight, bias[:, None]], 1).detach(), atol=1e-13, rtol=0)
    assert (found - begun).abs().max() > 1e-2


def test_another_seed_draws_other_features_and_another_order():
    given = statistics(federation()).pooled()
    draws = [virtual(given, 5, *key)[0] for key in [(0, 0), (0, 0), (1, 0), (0, 1)]]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])


def test_trap_biased_covariances_pooled_by_the_unbiased_weights_are_too_small():
    """What public ports do; invariant 1 sees it."""
    found = statistics(federation([6] * 10))
    n = found.count[..., None, None]
    biased = found._replace(covariance=found.covariance * ((n - 1) / n.clamp(min=1)).clamp(min=0))
    with pytest.raises(AssertionError, match="not close"):
        assert_pooled(biased.pooled(), *pooled_features())


def test_trap_fewer_examples_than_features():
    """A singular covariance, where a Cholesky factor does not exist: draws lie in the span of the examples."""
    own = torch.randn(3, FEATURES, generator=torch.Generator().manual_seed(0), dtype=F64)
    given = Gaussians(torch.tensor([3.0], dtype=F64), own.mean(0)[None], torch.cov(own.T)[None])
    drawn = virtual(given, 100, 0, 0)[0] - own.mean(0)
    assert torch.linalg.matrix_rank(drawn, atol=1e-10, rtol=0.0) == 2
    centred = own - own.mean(0)
    inside = drawn @ torch.linalg.pinv(centred) @ centred
    torch.testing.assert_close(inside, drawn, atol=1e-12, rtol=0)


def test_trap_rounding_does_not_turn_the_draws_round():
    """The last bits of a covariance may flip eigenvectors; the symmetric root does not see it."""
    given = statistics(federation()).pooled()
    noise = 1e-16 * torch.randn(given.covariance.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    moved = given._replace(covariance=given.covariance + noise + noise.transpose(1, 2))
    torch.testing.assert_close(virtual(moved, 50, 0, 0)[0], virtual(given, 50, 0, 0)[0], atol=1e-10, rtol=0)


def test_trap_large_means_do_not_swallow_the_covariance():
    """Features around 1,000 with spread 1: float32 products would have no digit left."""
    z = 1000 + torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    x = torch.cat([z, z.new_ones(40, 1)], 1)
    found = Gaussians.of_sums((x.T @ x)[None])
    torch.testing.assert_close(found.covariance[0], torch.cov(z.T), atol=1e-8, rtol=0)


def test_filled_up_batches_count_what_is_in_them():
    """Stacked clients of 1 to 30 examples in batches of 4, against the loop."""
    s = setting(build("ccvr")[0], federation(SPLITS["uneven"], by_class()), nets.task(F64), epochs=1, batch_size=4)
    with closing(Vmap()) as executor:
        stacked = run(replace(s, executor=executor)).server["theta"]
    torch.testing.assert_close(stacked, run(s).server["theta"], atol=1e-9, rtol=0)


@pytest.mark.parametrize("settings", [{"samples": 0}, {"calibration_lr": 0}, {"calibration_epochs": -1}], ids=str)
def test_what_is_not_offered_is_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build("ccvr", **settings)
