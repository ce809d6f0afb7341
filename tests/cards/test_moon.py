"""Card moon (Li et al. 2021): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.nn.utils import vector_to_parameters

from contract import nets
from contract.quadratic import build, run, setting
from contract.spies import Listening, exact_net, rounds
from heterobench import models
from heterobench.algorithms.moon import contrast
from heterobench.config.schema import ModelFile, ScheduleFile
from heterobench.engine.synchronous import begin
from heterobench.executor.local import Work, local_training
from heterobench.federation import batches
from heterobench.schedule import cohort
from heterobench.task import Batch

HALF = ScheduleFile(title="half", participation=0.5)
F64 = torch.float64


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Terms:
    """A task that remembers the values of the terms it was given, and what the terms were given."""

    def __init__(self, task):
        self._task, self.values, self.outputs = task, [], []

    def __getattr__(self, name):
        return getattr(self._task, name)

    def grad(self, theta, batch, term=None):
        def remembered(outputs):
            value = term(outputs)
            self.values.append(float(value.detach()))
            self.outputs.append(outputs)
            return value

        return self._task.grad(theta, batch, term and remembered)


def by_hand(theta, towards, away, batch, mu, temperature):
    """Gradient [P] of cross-entropy + mu l_con of the small net, as the paper writes it (CE with class 0)."""

    def forward(vector):
        net = models.build(nets.MLP, (1, 4, 4), 3, "test").double()
        vector_to_parameters(vector, net.parameters())
        z = net[:-1](batch.x)
        return list(net.parameters()), z, net[-1](z)

    parameters, z, logits = forward(theta)
    others = [forward(vector)[1].detach() for vector in (towards, away)]
    cosines = torch.stack([functional.cosine_similarity(z, other) for other in others], 1) / temperature
    con = functional.cross_entropy(cosines, torch.zeros(len(z), dtype=torch.int64))
    loss = functional.cross_entropy(logits, batch.y) + mu * con
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])


# invariants ---------------------------------------------------------------------------------------------------------


def test_invariant_1_without_contrast_it_is_fedavg_to_the_bit():
    """moon 1: mu = 0, local momentum and weight decay included."""
    local = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    found = [
        run(setting(build(name, **local, **more)[0], nets.federation(), nets.task(), rounds=4, epochs=2, batch_size=4))
        for name, more in (("moon", {"mu": 0}), ("fedavg", {}))
    ]
    assert torch.equal(found[0].server["theta"], found[1].server["theta"])
    assert found[0].bytes_up == found[1].bytes_up


def test_invariant_1_a_vanishing_contrast_is_fedavg_too():
    """moon 1: the road with the term, at mu = 1e-30."""
    task, federation = exact_net()
    ours, plain = (
        run(setting(build(name, lr=0.1, **more)[0], federation, task, rounds=4, epochs=2, batch_size=4)).server["theta"]
        for name, more in (("moon", {"mu": 1e-30}), ("fedavg", {}))
    )
    torch.testing.assert_close(ours, plain, atol=1e-13, rtol=0)


@pytest.mark.parametrize("temperature", [0.01, 0.5, 10.0])
def test_invariant_2_equal_models_cost_log_2(temperature):
    """moon 2: previous == server at the first step, whatever the temperature; through the engine's hooks."""
    task, federation = exact_net()
    spy, theta = Terms(task), task.init(0)
    algorithm, _ = build("moon", mu=1.0, temperature=temperature)
    known = {"previous": theta, "known": torch.ones((), dtype=F64)}
    algorithm.grad(algorithm.start({"theta": theta}, known), federation.pool.batch(np.arange(6)), spy)
    assert spy.values[0] == pytest.approx(math.log(2), abs=1e-14)


def test_invariant_3_at_the_first_step_only_the_negative_has_a_gradient():
    """moon 3: at z = z_glob the gradient of cos(z, z_glob) is 0; what is left is weighted by softmax."""
    z, away, temperature = draw(5, 7).requires_grad_(), draw(5, 7, seed=1), 0.5
    towards = z.detach()
    one = torch.autograd.grad(functional.cosine_similarity(z, towards).sum(), z)[0]
    torch.testing.assert_close(one, torch.zeros_like(one), atol=1e-15, rtol=0)
    g = torch.autograd.grad(contrast(z, towards, away, temperature).sum(), z)[0]
    negative = functional.cosine_similarity(z, away)
    share = torch.sigmoid((negative - 1) / temperature).detach()[:, None]
    expected = share / temperature * torch.autograd.grad(negative.sum(), z)[0]
    torch.testing.assert_close(g, expected, atol=1e-14, rtol=0)
    assert g.abs().max() > 1e-2


@pytest.mark.parametrize("temperature", [0.02, 0.5, 3.0])
def test_invariant_4_bounds(temperature):
    """moon 4: log(1 + exp(-2/T)) <= l_con <= log(1 + exp(2/T)), reached by aligned and opposed representations."""
    low, high = (math.log1p(math.exp(sign * 2 / temperature)) for sign in (-1, 1))
    found = contrast(draw(500, 2), draw(500, 2, seed=1), draw(500, 2, seed=2), temperature)
    assert low - 1e-12 <= found.min()
    assert found.max() <= high + 1e-12
    z = draw(4, 7)
    torch.testing.assert_close(
        contrast(z, z, -z, temperature), torch.full((4,), low, dtype=F64), atol=1e-12, rtol=1e-12
    )
    torch.testing.assert_close(contrast(z, -z, z, temperature), torch.full((4,), high, dtype=F64), atol=1e-12, rtol=0)


def test_invariant_4_high_temperature_is_log_2():
    found = contrast(draw(50, 4), draw(50, 4, seed=1), draw(50, 4, seed=2), 1e9)
    torch.testing.assert_close(found, torch.full((50,), math.log(2), dtype=F64), atol=1e-8, rtol=0)


def test_invariant_5_lengths_do_not_matter():
    """moon 5: of each representation, example by example."""
    z, towards, away = draw(6, 5), draw(6, 5, seed=1), draw(6, 5, seed=2)
    c = torch.logspace(-3, 3, 6, dtype=F64)[:, None]
    expected = contrast(z, towards, away, 0.5)
    for scaled in ((c * z, towards, away), (z, c * towards, away), (z, towards, c * away)):
        torch.testing.assert_close(contrast(*scaled, 0.5), expected, atol=1e-13, rtol=0)


def test_invariant_6_server_and_previous_model_stay_as_they_are():
    """moon 6: to the bit, through local training."""
    task, federation = exact_net()
    algorithm, _ = build("moon", lr=0.1, momentum=0.5)
    s = setting(algorithm, federation, task, epochs=2, batch_size=4)
    down = {"theta": task.init(0)}
    client = {"previous": task.init(1), "known": torch.ones((), dtype=F64)}
    before = [down["theta"].clone(), client["previous"].clone()]
    result = local_training(s.local, down, Work(0, 0, 2, 0.1, client))
    assert torch.equal(down["theta"], before[0])
    assert torch.equal(client["previous"], before[1])
    assert result.uplink["delta"].abs().max() > 1e-3


# update rule and traps ----------------------------------------------------------------------------------------------


def test_a_run_by_hand():
    """Partial participation, five rounds: the paper's loss written out, previous models kept in a dictionary.

    Traps: the previous model is that at the end of the client's last participation, before averaging; absent clients
    keep theirs; the first time there is none.
    """
    mu, temperature, lr = 3.0, 0.5, 0.1
    task, federation = exact_net()
    algorithm, _ = build("moon", lr=lr, mu=mu, temperature=temperature)
    s = setting(algorithm, federation, task, epochs=2, batch_size=4, schedule=HALF)
    x, previous, again = begin(s).server["theta"], {}, 0
    for round, state in enumerate(rounds(s, 5)):
        ends, sizes = [], []
        for i in cohort(HALF, 0, round, np.arange(4)).tolist():
            y = x.clone()
            own, strength = (previous[i], mu) if i in previous else (x, 0.0)
            again += i in previous
            for rows in batches(0, round, i, federation.train[i], 2, 4):
                y = y - lr * by_hand(y, x, own, federation.pool.batch(rows), strength, temperature)
            ends.append(y)
            sizes.append(len(federation.train[i]))
            previous[i] = y
        x = sum(n * y for n, y in zip(sizes, ends, strict=True)) / sum(sizes)
        torch.testing.assert_close(state.server["theta"], x, atol=1e-12, rtol=0)
        for i, model in previous.items():
            torch.testing.assert_close(state.client(i)["previous"], model, atol=1e-12, rtol=0)
    assert again >= 3


def test_first_round_is_fedavgs():
    """An empty pool: no contrast, however large mu."""
    task, federation = exact_net()
    ours, plain = (
        run(setting(build(name, lr=0.1, **more)[0], federation, task, epochs=2, batch_size=4)).server["theta"]
        for name, more in (("moon", {"mu": 1e3}), ("fedavg", {}))
    )
    torch.testing.assert_close(ours, plain, atol=1e-13, rtol=0)


def test_reported_loss_is_the_cross_entropy():
    task, federation = exact_net()
    batch, theta = federation.pool.batch(np.arange(5)), task.init(0)
    algorithm, _ = build("moon", mu=7.0)
    work = algorithm.start({"theta": theta}, {"previous": task.init(1), "known": torch.ones((), dtype=F64)})
    for view in (task, task.functional()):
        torch.testing.assert_close(algorithm.grad(work, batch, view)[1]["loss"], task.grad(theta, batch)[1]["loss"])


def test_a_dead_representation_has_a_finite_gradient():
    """ReLU features may all be zero: their cosine counts as 0."""
    z = torch.zeros(2, 4, requires_grad=True)
    loss = contrast(z.relu(), draw(2, 4).float(), draw(2, 4, seed=1).float(), 0.5)
    torch.testing.assert_close(loss.detach(), torch.full((2,), math.log(2)))
    assert torch.isfinite(torch.autograd.grad(loss.sum(), z)[0]).all()


def test_traffic_is_that_of_fedavg():
    """8 P bytes per client: the previous model stays where it is."""
    ours, plain = (
        run(setting(build(name)[0], nets.federation(), nets.task(), epochs=1)) for name in ("moon", "fedavg")
    )
    assert (ours.bytes_up, ours.bytes_down) == (plain.bytes_up, plain.bytes_down)


# what the task tells about its net ----------------------------------------------------------------------------------

NETS = {
    "mlp": (nets.MLP, 4),
    "softmax": (ModelFile(title="", architecture="softmax"), 4),
    "lenet": (ModelFile(title="", architecture="lenet"), 16),
    "resnet": (ModelFile(title="", architecture="resnet", options={"blocks": [1, 1], "width": 4}), 8),
    "transformer": (ModelFile(title="", architecture="transformer", options={"width": 8, "heads": 2, "depth": 1}), 4),
}


@pytest.mark.parametrize("name", NETS)
def test_features_are_what_the_last_linear_layer_reads(name):
    """logits = W features + b, in the plain, the functional and the stacked view; a term's gradient agrees in all."""
    model, side = NETS[name]
    task, federation = nets.task(F64, model, side), nets.federation(dtype=F64, side=side)
    theta = task.init(0) + 0.1 * draw(len(task.init(0)))
    batch = federation.pool.batch(np.arange(5))
    spy = Terms(task)
    pull = draw(5, 1)

    def term(outputs):
        return (outputs.features.tanh() * pull[: len(outputs.features)]).sum(1) @ outputs.weight + outputs.logits.sum()

    g, _ = spy.grad(theta, batch, term)
    (outputs,) = spy.outputs
    *_, w, b = task.layout.split(theta).values()
    torch.testing.assert_close(outputs.features @ w.t() + b, outputs.logits, atol=1e-13, rtol=0)
    torch.testing.assert_close(outputs.weight, torch.full((5,), 0.2, dtype=F64))
    view = task.functional()
    for other in (task, view):
        torch.testing.assert_close(other.features(theta, batch), outputs.features.detach(), atol=1e-13, rtol=0)
    torch.testing.assert_close(view.grad(theta, batch, term)[0], g, atol=1e-12, rtol=0)
    stacked = torch.func.vmap(lambda t, given: view.grad(t, given, term)[0])(
        torch.stack([theta, -theta]),
        Batch(*(torch.stack([v, v]) for v in (batch.x, batch.y, torch.full((5,), 0.2, dtype=F64)))),
    )
    torch.testing.assert_close(stacked[0], g, atol=1e-12, rtol=0)
    torch.testing.assert_close(stacked[1], task.grad(-theta, batch, term)[0], atol=1e-12, rtol=0)


def test_a_constant_term_changes_no_gradient():
    task, federation = exact_net()
    theta, batch = task.init(0), federation.pool.batch(np.arange(5))
    torch.testing.assert_close(
        task.grad(theta, batch, lambda outputs: outputs.weight.sum())[0], task.grad(theta, batch)[0], atol=1e-14, rtol=0
    )


def test_a_client_in_the_first_round_keeps_its_last_model():
    """Trap: not the average, and not the model that it began with."""
    task, federation = exact_net()
    spy = Listening(build("moon", lr=0.1)[0])
    s = setting(spy.algorithm, federation, task, epochs=1, batch_size=4)
    state = run(s)
    for i in range(4):
        torch.testing.assert_close(state.client(i)["previous"], task.init(0) + spy.deltas[i], atol=1e-14, rtol=0)
        assert (state.client(i)["previous"] - state.server["theta"]).abs().max() > 1e-4
