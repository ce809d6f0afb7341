"""Card fedld (Zeng et al. 2024): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from contract import nets
from contract.quadratic import build, run, setting
from contract.spies import Listening, attending, exact_net, rounds
from heterobench.algorithm import Info
from heterobench.algorithms.fedld import margin_term, principal_mean
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import begin
from heterobench.executor.local import Work, local_training
from heterobench.task import Outputs

F64 = torch.float64
HALF = ScheduleFile(title="half", participation=0.5)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def as_published(rows: np.ndarray, share: float, flipped=()) -> np.ndarray:
    """All r_i [m, d], step by step as the card writes them; some w_j may be turned round."""
    m = len(rows)
    _, s, vt = np.linalg.svd(rows @ rows.T / m)
    w = vt @ rows
    for j in flipped:
        w[j] = -w[j]
    found = np.zeros_like(rows)
    for i, g in enumerate(rows):
        for j in range(int(m * share)):
            projection = g @ w[j] / (w[j] @ w[j]) * w[j]
            found[i] += projection / np.linalg.norm(projection) * np.linalg.norm(g) * s[j] / s.sum()
    return found


def margin(logits, weight=None, norm="batch") -> torch.Tensor:
    """The margin term with lambda_m = 1."""
    weight = torch.full((len(logits),), 1 / len(logits), dtype=F64) if weight is None else weight
    return margin_term(build("fedld", margin=1.0, norm=norm)[1], Outputs(logits, logits, weight))


# invariants ---------------------------------------------------------------------------------------------------------


def test_invariant_1_without_margin_and_directions_it_is_weighted_fedavg():
    """fedld 1: to the bit, clients weighted by n_i."""
    found = [
        run(setting(build(name, lr=0.1, **more)[0], nets.federation(), nets.task(), rounds=3, epochs=2, batch_size=4))
        for name, more in (("fedld", {"margin": 0, "aggregation": "mean"}), ("fedavg", {}))
    ]
    assert torch.equal(found[0].server["theta"], found[1].server["theta"])


def test_invariant_2_first_round_is_uniform_fedavg():
    """fedld 2: with directions on; the second round is not."""
    task, federation = exact_net()
    ours, plain = (
        list(rounds(setting(build(name, lr=0.1, **more)[0], federation, task, epochs=2, batch_size=4), 2))
        for name, more in (("fedld", {"margin": 0}), ("fedavg", {"weighting": "uniform"}))
    )
    torch.testing.assert_close(ours[0].server["theta"], plain[0].server["theta"], atol=1e-14, rtol=0)
    assert (ours[1].server["theta"] - plain[1].server["theta"]).abs().max() > 1e-3


@pytest.mark.parametrize("clients", [1, 2, 5])
def test_invariant_3_identical_updates_are_their_own_average(clients):
    """fedld 3: a Gram matrix of rank one, where the published code divides 0 by 0."""
    g = draw(7)
    torch.testing.assert_close(principal_mean(g.repeat(clients, 1), 0.8), g, atol=1e-13, rtol=0)
    single = g.float().repeat(clients, 1)
    torch.testing.assert_close(principal_mean(single, 0.8), single[0], atol=1e-6, rtol=0)


def test_invariant_3_no_update_is_no_step():
    assert not principal_mean(torch.zeros(4, 6), 0.8).any()


@pytest.mark.parametrize("c", [1e-8, 0.3, 1e5])
def test_invariant_4_scale_equivariance(c):
    """fedld 4."""
    rows = draw(6, 9)
    torch.testing.assert_close(principal_mean(c * rows, 0.8), c * principal_mean(rows, 0.8), atol=0, rtol=1e-9)


def test_invariant_4_order_of_clients_does_not_matter():
    """fedld 4."""
    rows = draw(6, 9)
    expected = principal_mean(rows, 0.8)
    for seed in range(5):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(principal_mean(rows[order], 0.8), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize(("m", "d"), [(5, 9), (10, 40), (6, 3)])
def test_the_gram_matrix_gives_what_the_published_steps_give(m, d, share):
    """Against projections and unit vectors one by one; with d < m only directions that exist."""
    if d < m:
        share = min(share, d / m)
    rows = draw(m, d, seed=m)
    expected = as_published(rows.numpy(), share).mean(0)
    np.testing.assert_allclose(principal_mean(rows, share).numpy(), expected, atol=1e-11)
    assert np.abs(expected - rows.numpy().mean(0)).max() > 1e-2


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_invariant_5_a_clients_part_is_not_longer_than_its_update(share):
    """fedld 5: ||r_i|| <= ||g_i|| sum_{j<=k} S_j / sum S; so is the mean of them."""
    rows = draw(5, 9)
    s = np.linalg.svd(rows.numpy() @ rows.numpy().T / 5)[1]
    kept = s[: int(5 * share)].sum() / s.sum()
    lengths = rows.norm(dim=1).numpy()
    assert (np.linalg.norm(as_published(rows.numpy(), share), axis=1) <= lengths * kept + 1e-12).all()
    assert float(principal_mean(rows, share).norm()) <= lengths.mean() * kept + 1e-12


def test_invariant_6_signs_of_directions_do_not_matter(monkeypatch):
    """fedld 6: the projection is even in w_j, in the published steps and in ours."""
    rows = draw(5, 9)
    expected = principal_mean(rows, 0.8)
    np.testing.assert_allclose(as_published(rows.numpy(), 0.8, flipped=[0, 2]).mean(0), expected.numpy(), atol=1e-12)
    eigh = torch.linalg.eigh

    def turned(matrix):
        s, v = eigh(matrix)
        return s, v * torch.tensor([1.0, -1, 1, -1, -1], dtype=F64)

    monkeypatch.setattr(torch.linalg, "eigh", turned)
    torch.testing.assert_close(principal_mean(rows, 0.8), expected, atol=1e-13, rtol=0)


def test_invariant_7_values_of_the_margin_term():
    """fedld 7: uniform predictions log(1 + B/C), one-hot ones log(1 + B); each example's own: 1 + 1/C and 2."""
    b, c = 6, 4
    uniform, certain = torch.zeros(b, c, dtype=F64), 1000 * torch.eye(c, dtype=F64)[torch.arange(b) % c]
    assert float(margin(uniform)) == pytest.approx(math.log(1 + b / c), abs=1e-14)
    assert float(margin(certain)) == pytest.approx(math.log(1 + b), abs=1e-14)
    assert float(margin(uniform, norm="example")) == pytest.approx(math.log(1 + 1 / c), abs=1e-14)
    assert float(margin(certain, norm="example")) == pytest.approx(math.log(2), abs=1e-14)


@pytest.mark.parametrize("norm", ["batch", "example"])
def test_invariant_7_uniform_predictions_have_no_gradient(norm):
    """fedld 7: exactly there, and only there."""
    for logits, still in ((torch.full((5, 3), 0.7, dtype=F64), True), (draw(5, 3), False)):
        logits.requires_grad_()
        g = torch.autograd.grad(margin(logits, norm=norm), logits)[0]
        assert bool(g.abs().max() < 1e-15) == still


# update rule and traps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "example"])
def test_local_gradient_is_that_of_cross_entropy_and_margin(norm):
    """Through the slope of the whole loss; the plain loss is reported."""
    task, federation = exact_net()
    batch, theta, lam = federation.pool.batch(np.arange(6)), task.init(0), 0.7
    algorithm, _ = build("fedld", margin=lam, norm=norm)

    def loss(theta):
        net, parameters = task._net, task.layout.split(theta)
        logits = torch.func.functional_call(net, parameters, (batch.x,))
        square = logits.softmax(1).square().sum(1)
        term = torch.log(1 + square).mean() if norm == "example" else torch.log(1 + square.sum())
        return functional.cross_entropy(logits, batch.y) + lam * term

    g, aux = algorithm.grad({"theta": theta}, batch, task)
    torch.testing.assert_close(g, torch.func.grad(loss)(theta), atol=1e-13, rtol=0)
    assert float(aux["loss"]) == pytest.approx(float(task.grad(theta, batch)[1]["loss"]), abs=1e-14)
    assert (g - task.grad(theta, batch)[0]).abs().max() > 1e-2


@pytest.mark.parametrize("norm", ["batch", "example"])
def test_examples_that_only_fill_up_a_batch_do_not_count(norm):
    logits, weight = draw(5, 3), torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0], dtype=F64)
    torch.testing.assert_close(margin(logits, weight, norm), margin(logits[:3], norm=norm), atol=1e-15, rtol=0)


def test_trap_the_batch_norm_depends_on_the_batch_size():
    """And the norm of each example does not."""
    logits = draw(4, 3)
    twice = torch.cat([logits, logits])
    assert float(margin(twice) - margin(logits)) > 0.3
    torch.testing.assert_close(margin(twice, norm="example"), margin(logits, norm="example"), atol=1e-15, rtol=0)


def test_a_round_averages_each_tensor_of_the_net_on_its_own():
    """Round 1: every tensor along its own directions; unweighted, although clients differ in size."""
    task, federation = exact_net()
    spy = Listening(build("fedld", lr=0.1, margin=0, share=0.8)[0])
    s = setting(spy.algorithm, federation, task, epochs=2, batch_size=4)
    first, second = rounds(s, 2)
    deltas = torch.stack(spy.deltas[4:])
    moved = task.layout.split(second.server["theta"] - first.server["theta"])
    for name, rows in zip(task.layout.names, deltas.split(task.layout.sizes, 1), strict=True):
        expected = as_published(rows.numpy(), 0.8).mean(0)
        np.testing.assert_allclose(moved[name].reshape(-1).numpy(), expected, atol=1e-11)
    whole = principal_mean(deltas, 0.8)
    assert (whole - (second.server["theta"] - first.server["theta"])).abs().max() > 1e-3


def test_the_first_round_in_which_anybody_comes_is_a_mean():
    """Invariant 2, where nobody comes in the first two of three rounds."""
    task, federation = exact_net()
    spy = Listening(build("fedld", lr=0.1, margin=0, share=0.5)[0])
    s = setting(spy.algorithm, federation, task, rounds=3, epochs=2, batch_size=4)
    *_, last = rounds(attending(s, [[False] * 4, [False] * 4, [True] * 4]), 3)
    expected = task.init(0) + torch.stack(spy.deltas).mean(0)
    torch.testing.assert_close(last.server["theta"], expected, atol=1e-14, rtol=0)


def test_a_tensor_of_one_entry_is_averaged():
    algorithm, _ = build("fedld")
    updates = torch.tensor([[1.0, 5.0, -1.0], [3.0, 2.0, 4.0]])
    found = algorithm.serve({"theta": torch.zeros(3)}, {"delta": updates}, Info(1, 2, 2, (1, 2), turn=1))["theta"]
    assert float(found[0]) == 2
    torch.testing.assert_close(found[1:], principal_mean(updates[:, 1:], 0.8))


@pytest.mark.parametrize("cohort", [1, 2])
def test_small_cohorts_move(cohort):
    """Declared: at least one direction is kept (0.8 of one client would be none)."""
    rows = draw(cohort, 6)
    assert float(principal_mean(rows, 0.8).norm()) > 0.1


def test_a_client_without_update_adds_nothing():
    """g_i = 0 has no direction: no NaN, and the others' parts are averaged over all m."""
    rows = torch.cat([draw(3, 6), torch.zeros(1, 6, dtype=F64)])
    expected = as_published(draw(3, 6).numpy(), 1.0).sum(0) / 4
    np.testing.assert_allclose(principal_mean(rows, 1.0).numpy(), expected, atol=1e-12)


def test_local_training_keeps_no_state_and_traffic_is_that_of_fedavg():
    """8 P bytes per client; the server's history is not needed."""
    task, federation = nets.task(), nets.federation()
    ours, plain = (run(setting(build(name)[0], federation, task, epochs=1)) for name in ("fedld", "fedavg"))
    assert (ours.bytes_up, ours.bytes_down) == (plain.bytes_up, plain.bytes_down)
    s = setting(build("fedld")[0], federation, task)
    assert local_training(s.local, begin(s).server, Work(0, 0, 1, 0.1, {})).state == {}


def test_partial_participation_takes_directions_of_the_cohort():
    task, federation = exact_net()
    spy = Listening(build("fedld", lr=0.1, margin=0)[0])
    s = setting(spy.algorithm, federation, task, epochs=1, batch_size=4, schedule=HALF)
    first, second = rounds(s, 2)
    bias = slice(task.sizes[0], task.sizes[0] + task.sizes[1])
    found = (second.server["theta"] - first.server["theta"])[bias]
    torch.testing.assert_close(found, principal_mean(torch.stack(spy.deltas[2:])[:, bias], 0.8), atol=1e-13, rtol=0)


@pytest.mark.parametrize(
    "settings", [{"share": 0}, {"share": 1.2}, {"norm": "class"}, {"aggregation": "svd"}, {"server_lr": 0.5}], ids=str
)
def test_what_is_not_offered_is_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build("fedld", **settings)
