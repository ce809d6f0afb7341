"""Groups of metrics: each equals what its definition gives when it is computed by another road."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from heterobench import measures, models
from heterobench.config.schema import ModelFile
from heterobench.errors import ConfigurationError, DataError
from heterobench.federation import Examples, Federation
from heterobench.measures import accuracy, calibration, clients, coherence, connectivity, corrected_labels, fairness
from heterobench.measures import context as contexts
from heterobench.measures import landscape as around
from heterobench.measures.context import Attribute, EvaluatedModel, EvaluationData
from heterobench.measures.costs import costs
from heterobench.measures.groups import ANY, LAST, measured
from heterobench.metrics import calibration as cal
from heterobench.metrics import gradients, group_fairness
from heterobench.metrics.aglfop import accuracy_limit
from heterobench.metrics.corrected_labels import MNIST
from heterobench.metrics.landscape import connectivity as between
from heterobench.metrics.landscape import landscape
from heterobench.metrics.temperature import fit_temperature, scaled_probabilities
from heterobench.report.metrics import CENSORED_AT, METRICS
from heterobench.stats.reaching import cost_to_target
from heterobench.task import Classification

RNG = np.random.default_rng
CLIENTS, EACH, FEATURES = 5, 30, 4
HELD = np.array([False, True, False, False, False])


def federation(classes=3, held=None, validation=4):
    """Client k has 20 - k examples to train on, then those for validation, then some for its own test."""
    random = RNG(1)
    x = random.normal(size=(CLIENTS * EACH + 90, FEATURES)).astype(np.float32)
    y = (x[:, :classes].argmax(1) + (random.random(len(x)) < 0.2)) % classes
    pool, test = (Examples.normalised(a, b, (), ()) for a, b in ((x[:-90], y[:-90]), (x[-90:], y[-90:])))
    rows = [np.arange(EACH * k, EACH * k + EACH - k) for k in range(CLIENTS)]
    parts = [
        [r[: 20 - k] for k, r in enumerate(rows)],
        [r[20 : 20 + validation] for r in rows],
        [r[20 + validation :] for r in rows],
    ]
    if held is not None:
        parts[:2] = ([r[: 0 if out else None] for r, out in zip(part, held, strict=True)] for part in parts[:2])
    return Federation(pool, *parts, test, held_out=held, slices={"test_accuracy_site_a": np.arange(0, 90, 3)})


def task(classes=3, hidden=6):
    file = ModelFile(title="MLP", architecture="mlp", options={"hidden": [hidden]})
    return Classification(lambda: models.build(file, (FEATURES,), classes, "test"))


def data(classes=3, held=None, validation=4, **more):
    net = task(classes)
    return EvaluationData(net, federation(classes, held, validation), 0, classes=classes, **more)


def thetas(of, count=CLIENTS):
    return torch.stack([of.task.init(seed) * 2 for seed in range(count)])


def by_hand(of, theta, x):
    """Logits of the two layers written out, in float64."""
    w, b, v, c = (part.double().numpy() for part in of.task.layout.split(theta).values())
    return np.maximum(np.asarray(x, dtype=np.float64) @ w.T + b, 0) @ v.T + c


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# which groups


def test_groups_are_checked_by_name():
    assert measures.check(["landscape", "accuracy", "calibration"], "here") == ("calibration", "landscape")
    with pytest.raises(
        ConfigurationError, match=r"^here: no group of metrics 'calibratoin'; did you mean 'calibration'"
    ):
        measures.check(["calibratoin"], "here")
    with pytest.raises(ConfigurationError, match="here: fairness is listed twice"):
        measures.check(["fairness", "fairness"], "here")


def test_every_group_has_a_function_and_every_metric_a_name_for_tables():
    assert {*ANY, *LAST, "costs"} == {*measures.ALWAYS, *measures.CHOSEN}
    of = data(classes=2, protected={"sex": Attribute(np.arange(CLIENTS * EACH) % 2, 2)})
    first, second = thetas(of, 2)
    model = EvaluatedModel(of, first, second)
    found = measured(model, measures.CHOSEN, ANY) | measured(model, measures.CHOSEN, LAST)
    assert {"test_loss", "client_loss_max", "ece", "zeta_squared", "sharpness", "barrier_aligned"} < found.keys()
    assert [name for name in found if name not in METRICS] == ["test_accuracy_site_a"]
    assert METRICS["local_demographic_parity_max_age_group"].title == "Demographic parity gap, worst client, age group"
    assert METRICS["barrier_layer_1"].title == "Barrier of layer, 1"
    assert "stage_accuracy_0" not in METRICS
    assert "demographic_parity" not in METRICS
    assert set(measured(model, (), ANY)) == set(accuracy.measure(model)) | set(clients.measure(model))
    assert measured(model, (), LAST) == {}


# accuracy and clients


@pytest.mark.parametrize("held", [None, HELD])
def test_accuracy_is_that_of_the_task(held):
    of = data(held=held)
    theta = thetas(of)[0]
    found = accuracy.measure(EvaluatedModel(of, theta))
    test = of.task.scores(theta, of.federation.global_test.chunks())
    assert found["test_loss"] == float(test["loss"].double().mean())  # the bits that a record has
    assert found["test_accuracy"] == float(test["accuracy"].double().mean())
    x, y = of.federation.global_test.x.numpy(), of.federation.global_test.y.numpy()
    right = by_hand(of, theta, x).argmax(1) == y
    assert found["test_accuracy"] == pytest.approx(right.mean())
    assert found["test_accuracy_site_a"] == pytest.approx(right[::3].mean())
    assert ("held_out_accuracy" in found) == (held is not None)


@pytest.mark.parametrize("kept", [2**26, 1])
def test_personal_models_count_equally_and_held_out_clients_have_none(kept, monkeypatch):
    monkeypatch.setattr(contexts, "KEPT", kept)
    of = data(held=HELD)
    drawn = thetas(of)
    found = accuracy.measure(EvaluatedModel(of, drawn))
    each = [accuracy.measure(EvaluatedModel(of, drawn[k])) for k in np.flatnonzero(~HELD)]
    for name in ("test_loss", "test_accuracy", "test_accuracy_site_a"):
        assert found[name] == pytest.approx(np.mean([own[name] for own in each]), rel=1e-12)
    assert math.isnan(found["held_out_accuracy"])


def test_spread_over_clients_on_the_worked_vector():
    """A = (.9, .8, .5, .4) with n = (100, 100, 100, 700) examples."""
    sizes = np.array([100, 100, 0, 100, 700])
    rates = np.array([0.9, 0.8, 0, 0.5, 0.4])
    right = np.concatenate([np.arange(n) < round(a * n) for a, n in zip(rates, sizes, strict=True)]).astype(float)
    found = clients.shared(right, 1 - right, sizes)
    expected = {"mean": 0.65, "weighted": 0.5, "std": 0.2062, "jain": 0.9086, "gini": 0.1731, "min": 0.4}
    expected |= {"worst_5": 0.4, "worst_decile": 0.4, "best_decile": 0.9, "variation": math.sqrt(0.0425) / 0.65}
    for name, value in expected.items():
        assert found[f"client_accuracy_{name}"] == pytest.approx(value, abs=5e-5), name
    chance = math.sqrt((0.09 / 100 + 0.16 / 100 + 0.25 / 100 + 0.24 / 700) / 4)
    assert found["client_accuracy_chance"] == pytest.approx(chance)
    assert found["client_accuracy_excess"] == pytest.approx(math.sqrt(0.0425 - chance**2))
    losses, shares = 1 - rates[sizes > 0], sizes[sizes > 0] / 1000
    assert found["client_loss_mean"] == pytest.approx(0.35)
    assert found["client_loss_max"] == pytest.approx(0.6)
    assert found["client_loss_worst_decile"] == pytest.approx(0.6)  # the largest client alone is more than a tenth
    assert found["client_loss_tilted"] == pytest.approx(math.log((shares * np.exp(losses)).sum()))


def test_spread_that_is_not_defined():
    found = clients.shared(np.array([1.0, 0.0]), np.array([0.1, math.inf]), np.array([1, 1]))
    assert all(math.isnan(value) == name.startswith("client_loss") for name, value in found.items())
    nobody = clients.shared(np.zeros(0), np.zeros(0), np.zeros(3, np.int64))
    assert nobody.keys() == found.keys()
    assert all(math.isnan(value) for value in nobody.values())


def test_each_client_is_judged_by_its_own_model():
    of = data(held=HELD)
    drawn = thetas(of)
    found = clients.measure(EvaluatedModel(of, drawn))
    pool = of.federation.pool
    right = [
        (by_hand(of, drawn[k], pool.x[rows]).argmax(1) == pool.y[rows].numpy()).mean()
        for k, rows in enumerate(of.federation.test)
        if not HELD[k]
    ]
    assert found["client_accuracy_mean"] == pytest.approx(np.mean(right))
    assert found["client_accuracy_min"] == pytest.approx(min(right))


# calibration


def test_calibration_equals_the_functions_on_logits_by_hand():
    of = data()
    theta = thetas(of)[0]
    found = calibration.measure(EvaluatedModel(of, theta))
    test, pool, rows = of.federation.global_test, of.federation.pool, of.federation.all_validation
    logits, labels = by_hand(of, theta, test.x), test.y.numpy()
    p = softmax(logits)
    assert found["nll"] == pytest.approx(-np.log(p[np.arange(90), labels]).mean(), rel=1e-5)
    assert found["brier"] == pytest.approx(((p - np.eye(3)[labels]) ** 2).sum(1).mean(), rel=1e-5)
    assert found["overconfidence"] == pytest.approx(p.max(1).mean() - (p.argmax(1) == labels).mean(), abs=1e-6)
    for name, score in {
        "ece": cal.expected_calibration_error,
        "ece_mass": lambda p, y: cal.expected_calibration_error(p, y, bins=15, scheme="mass"),
        "ece_classwise": cal.classwise_calibration_error,
        "ece_debiased": cal.debiased_calibration_error,
        "confidence_auroc": cal.confidence_auroc,
        "risk_coverage": cal.area_under_risk_coverage,
    }.items():
        assert found[name] == pytest.approx(score(p, labels), abs=1e-6), name
    fit = fit_temperature(by_hand(of, theta, pool.x[rows]), pool.y[rows].numpy())
    assert found["temperature"] == pytest.approx(fit.value, rel=1e-4)
    scaled = scaled_probabilities(logits, fit.value)
    assert found["nll_scaled"] == pytest.approx(cal.negative_log_likelihood(scaled, labels), rel=1e-4)
    assert found["ece_scaled"] == pytest.approx(cal.expected_calibration_error(scaled, labels), abs=1e-4)
    assert found["nll"] == pytest.approx(accuracy.measure(EvaluatedModel(of, theta))["test_loss"], rel=1e-6)


def test_calibration_of_personal_models_is_the_mean_over_them():
    of = data(held=HELD)
    drawn = thetas(of)
    found = calibration.measure(EvaluatedModel(of, drawn))
    each = [calibration.measure(EvaluatedModel(of, drawn[k])) for k in np.flatnonzero(~HELD)]
    assert found == {name: pytest.approx(np.mean([own[name] for own in each])) for name in each[0]}


def test_calibration_without_validation_examples_or_with_a_diverged_model():
    of = data(validation=0)
    found = calibration.measure(EvaluatedModel(of, thetas(of)[0]))
    assert {name for name, value in found.items() if math.isnan(value)} == set(calibration.SCALED)
    of = data()
    diverged = calibration.measure(EvaluatedModel(of, math.nan * thetas(of)[0]))
    assert diverged.keys() == found.keys()
    assert all(math.isnan(value) for value in diverged.values())


# fairness


def counted(*cells):
    """Counts [clients, groups, 2, 2] from (client, group, label, prediction, number)."""
    counts = np.zeros((1 + max(cell[0] for cell in cells), 2, 2, 2), np.int64)
    for client, group, label, prediction, number in cells:
        counts[client, group, label, prediction] += number
    return counts


def test_fair_in_every_client_and_unfair_over_all():
    """Simpson: client 0 says 1 to all and holds mostly group 1, client 1 says 0 to all and holds mostly group 0."""
    found = fairness.fairness(counted((0, 0, 1, 1, 10), (0, 1, 1, 1, 90), (1, 0, 0, 0, 90), (1, 1, 0, 0, 10)))
    assert found["demographic_parity"] == pytest.approx(0.8)
    assert found["local_demographic_parity"] == found["local_demographic_parity_max"] == 0
    assert found["disparity_local"] == pytest.approx(0, abs=1e-12)
    assert found["disparity_redundant"] == pytest.approx(found["disparity_global"], abs=1e-7)
    assert found["local_equal_opportunity_undefined"] == 1  # client 1 has no positive
    assert found["accuracy_limit"] == pytest.approx(1)


def test_a_model_is_within_its_own_limit():
    for seed in range(5):
        counts = RNG(seed).integers(0, 12, (4, 2, 2, 2))
        found = fairness.fairness(counts)
        own = (counts[..., 0, 0].sum() + counts[..., 1, 1].sum()) / counts.sum()
        assert found["accuracy_limit"] >= own - 1e-6
        parts = [found[f"disparity_{part}"] for part in ("unique", "redundant", "masked")]
        assert found["disparity_global"] == pytest.approx(parts[0] + parts[1], abs=1e-7)
        assert found["disparity_local"] == pytest.approx(parts[0] + parts[2], abs=1e-7)


def test_the_limit_of_a_model_that_tells_nothing_is_that_of_zero_disparity():
    counts = counted(
        (0, 0, 1, 1, 3), (0, 0, 0, 1, 7), (0, 1, 1, 1, 6), (0, 1, 0, 1, 4), (1, 1, 1, 1, 2), (1, 0, 0, 1, 9)
    )
    labels = counts.sum(axis=3)
    assert fairness.fairness(counts)["accuracy_limit"] == pytest.approx(1 - accuracy_limit(labels, 0.0, 0.0).error)


def test_many_clients_are_not_decomposed():
    found = fairness.fairness(np.ones((fairness.MOST_CLIENTS + 1, 2, 2, 2), np.int64))
    assert math.isnan(found["disparity_unique"])
    assert found["demographic_parity"] == 0


@pytest.mark.parametrize("personal", [False, True])
def test_fairness_counts_clients_own_tests(personal):
    group = RNG(3).integers(-1, 2, CLIENTS * EACH)
    of = data(classes=2, held=HELD, protected={"sex": Attribute(group, 2)})
    drawn = thetas(of)
    theta = drawn if personal else drawn[0]
    model, pool = EvaluatedModel(of, theta), of.federation.pool
    counts = np.zeros((CLIENTS, 2, 2, 2), np.int64)
    for client, rows in enumerate(of.federation.test):
        said = by_hand(of, drawn[client] if personal else theta, pool.x[rows]).argmax(1)
        for row, answer in zip(rows, said, strict=True):
            if group[row] >= 0 and not HELD[client]:
                counts[client, group[row], pool.y[row], answer] += 1
    assert np.array_equal(fairness.counted(model, of.protected["sex"]), counts)
    found = fairness.measure(model)
    assert found["equalised_odds_sex"] == float(group_fairness.equalised_odds(counts.sum(0)).value)
    assert set(found) == {f"{name}_sex" for name in fairness.fairness(counts)}


def test_no_fairness_without_a_declared_group_or_with_three_classes():
    of = data(classes=2)
    assert fairness.measure(EvaluatedModel(of, thetas(of)[0])) == {}
    unknown = data(classes=2, protected={"sex": Attribute(np.full(CLIENTS * EACH, -1), 2)})
    assert fairness.measure(EvaluatedModel(unknown, thetas(of)[0])) == {}
    three = data(classes=3, protected={"sex": Attribute(np.arange(CLIENTS * EACH) % 2, 2)})
    assert fairness.measure(EvaluatedModel(three, thetas(three)[0])) == {}


# corrected labels


def mnist(labels):
    net, whole = task(10), federation(3)
    x = RNG(4).normal(size=(10_000, FEATURES)).astype(np.float32)
    return EvaluationData(net, replace(whole, global_test=Examples.normalised(x, labels, (), ())), 0, "mnist", 10)


def test_accuracy_by_corrected_labels():
    labels = RNG(5).integers(0, 10, 10_000)
    for place, (old, _) in MNIST.changed.items():
        labels[place] = old
    of = mnist(labels)
    theta = thetas(of)[0]
    found = corrected_labels.measure(EvaluatedModel(of, theta))
    said = by_hand(of, theta, of.federation.global_test.x).argmax(1)
    new, kept = labels.copy(), np.ones(10_000, bool)
    kept[list(MNIST.dropped)] = False
    changed = np.array(list(MNIST.changed))
    new[changed] = [after for _, after in MNIST.changed.values()]
    assert found["corrected_accuracy"] == pytest.approx((said == new)[kept].mean())
    assert found["error_accuracy_published"] == pytest.approx((said == labels)[changed].mean())
    assert found["error_accuracy_corrected"] == pytest.approx((said == new)[changed].mean())


def test_labels_in_another_order_are_an_error_and_other_sets_have_no_corrections():
    of = mnist(np.zeros(10_000, np.int64))
    with pytest.raises(DataError, match=r"^data set mnist: .*label 0 at position 947, must be 8"):
        corrected_labels.measure(EvaluatedModel(of, thetas(of)[0]))
    assert corrected_labels.measure(EvaluatedModel(replace(of, dataset="digits"), thetas(of)[0])) == {}


# gradients


def test_the_probe_is_training_examples_and_the_same_for_all(monkeypatch):
    monkeypatch.setattr(contexts, "PROBE", 17)
    one, other = data(), data()
    assert torch.equal(one.probe.x, other.probe.x)
    assert len(one.probe.y) == len(one.test_probe.y) == 17
    train = one.federation.pool.x[np.concatenate(one.federation.train)]
    assert all((train == x).all(1).any() for x in one.probe.x)
    assert not torch.equal(replace(one, seed=1).probe.x, one.probe.x)


def test_coherence_equals_gradients_one_by_one(monkeypatch):
    of = data()
    theta = thetas(of)[0]
    found = coherence.measure(EvaluatedModel(of, theta))
    assert tuple(found) == coherence.NAMES
    for name, probe in (("train", of.probe), ("test", of.test_probe)):
        single = [
            of.task.grad(theta, type(probe)(probe.x[i : i + 1], probe.y[i : i + 1]))[0] for i in range(len(probe.y))
        ]
        each = torch.stack(single)
        assert found[f"{name}_m_coherence"] == pytest.approx(gradients.m_coherence(each), rel=1e-5)
        assert found[f"{name}_gradient_diversity"] == pytest.approx(1 / gradients.m_coherence(each), rel=1e-5)
        assert found[f"{name}_gradient_square"] == pytest.approx(float((each.double() ** 2).sum(1).mean()), rel=1e-5)
    # clients have no more examples than count, so their gradients are the full ones
    full = torch.stack([of.task.grad(theta, of.federation.pool.batch(rows))[0] for rows in of.federation.train])
    weights = [len(rows) for rows in of.federation.train]
    assert found["client_dissimilarity"] == pytest.approx(gradients.dissimilarity(full, weights), rel=1e-5)
    assert found["zeta_squared"] == pytest.approx(gradients.zeta_squared(full, weights), rel=1e-5)
    mean = torch.stack([w * g for w, g in zip(weights, full.double(), strict=True)]).sum(0) / sum(weights)
    assert found["client_dissimilarity"] == pytest.approx(1 + found["zeta_squared"] / float((mean**2).sum()), rel=1e-5)
    monkeypatch.setattr(coherence, "TOGETHER", 7 * theta.numel())
    assert coherence.measure(EvaluatedModel(of, theta)) == pytest.approx(found, rel=1e-9)


def test_clients_with_the_same_examples_agree():
    of = data()
    whole = of.federation
    same = replace(of, federation=replace(whole, train=[whole.train[0]] * CLIENTS))
    found = coherence.measure(EvaluatedModel(same, thetas(of)[0]))
    assert found["client_dissimilarity"] == pytest.approx(1)
    assert found["zeta_squared"] == pytest.approx(0, abs=1e-12)


def test_clients_are_compared_by_two_halves_of_few_examples(monkeypatch):
    monkeypatch.setattr(contexts, "CLIENTS", 3)
    monkeypatch.setattr(contexts, "CLIENT_EXAMPLES", 15)
    of = data()
    assert len(of.client_probes) == 3
    for probe in of.client_probes:
        rows = np.concatenate([probe.first, probe.second])
        assert (len(probe.first), len(probe.second), len(set(rows))) == (3, 2, 5)
        assert [len(own) for own in of.federation.train if set(rows) <= set(own)] == [probe.examples]
    theta = thetas(of)[0]
    halves = [
        torch.stack([of.task.grad(theta, of.federation.pool.batch(getattr(p, h)))[0] for p in of.client_probes])
        for h in ("first", "second")
    ]
    found = coherence.measure(EvaluatedModel(of, theta))["zeta_squared_unbiased"]
    assert found == pytest.approx(
        gradients.unbiased_zeta_squared(*halves, [p.examples for p in of.client_probes]), rel=1e-5
    )


def test_a_client_with_one_example_has_no_second_half():
    of = data()
    whole = of.federation
    small = replace(of, federation=replace(whole, train=[rows[:1] for rows in whole.train]))
    found = coherence.measure(EvaluatedModel(small, thetas(of)[0]))
    assert math.isnan(found["zeta_squared_unbiased"])
    assert math.isfinite(found["zeta_squared"])


# the loss around and between models


def test_landscape_is_that_of_the_probe():
    of = data()
    theta = thetas(of)[0]
    assert around.measure(EvaluatedModel(of, theta)) == landscape(of.task, theta, of.probe, of.seed)


def test_barriers_to_the_baseline():
    of = data()
    first, second = 5 * thetas(of, 2)
    itself = connectivity.measure(EvaluatedModel(of, first, first))
    assert {value for name, value in itself.items() if "barrier" in name} == {0.0}
    other = connectivity.measure(EvaluatedModel(of, second, first))
    assert other.keys() == itself.keys()
    assert other == between(of.task, first, second, of.probe)
    assert other != between(of.task, second, first, of.probe)  # layers of the baseline go over to those of the run
    assert connectivity.measure(EvaluatedModel(of, first)) == {}


@pytest.mark.parametrize("measure", [group for name, group in LAST.items()])
def test_nothing_is_said_of_the_surroundings_of_personal_or_diverged_models(measure):
    of = data()
    drawn = thetas(of)
    assert measure(EvaluatedModel(of, drawn, drawn[0])) == {}
    assert measure(EvaluatedModel(of, math.inf * drawn[0], drawn[0])) == {}


# models that have diverged


def diverged(of, client=0):
    """What gradient descent with a step size of 1e20 on a client's examples comes to."""
    theta, batch = of.task.init(0), of.federation.pool.batch(of.federation.train[client])
    for _ in range(5):
        theta = theta - 1e20 * of.task.grad(theta, batch)[0]
    assert not of.task.forward(theta, batch.x).isfinite().any()
    return theta


@pytest.mark.parametrize("personal", [False, True])
def test_no_group_says_anything_of_a_model_that_has_diverged(personal):
    """Of personal models it is enough that one client's has; held out clients' own are none of a method's."""
    group = RNG(3).integers(-1, 2, CLIENTS * EACH)
    of = data(classes=2, held=HELD, protected={"sex": Attribute(group, 2)})
    theta = thetas(of)
    theta[2] = diverged(of)
    whole = measured(EvaluatedModel(of, thetas(of) if personal else thetas(of)[0]), measures.CHOSEN, ANY)
    found = measured(EvaluatedModel(of, theta if personal else theta[2]), measures.CHOSEN, ANY)
    assert {name for name in whole if name.startswith(("test_", "client_", "held_out", "ece"))} <= set(found)
    assert [name for name, value in found.items() if math.isfinite(value)] == []
    assert "equalised_odds_sex" in whole
    assert "equalised_odds_sex" not in found


def test_only_the_examples_of_the_client_concerned_are_judged_by_no_model():
    of = data()
    theta = thetas(of)
    theta[2] = diverged(of)
    found, owner = EvaluatedModel(of, theta).test_scores, np.repeat(np.arange(CLIENTS), of.test_sizes)
    assert np.array_equal(np.isnan(found["accuracy"]), owner == 2)
    for client in (0, 1, 3, 4):
        rows = of.federation.test[client]
        right = by_hand(of, theta[client], of.federation.pool.x[rows]).argmax(1) == of.federation.pool.y[rows].numpy()
        assert np.array_equal(found["accuracy"][owner == client], right)


def test_a_parameter_that_is_not_finite_is_enough():
    """Behind a ReLU a bias of minus infinity is a unit that is off: the logits are numbers all the same."""
    of = data()
    theta = thetas(of)[0]
    of.task.layout.split(theta)["1.bias"][0] = -math.inf
    assert math.isnan(accuracy.measure(EvaluatedModel(of, theta))["test_accuracy"])
    scores = of.task.scores(theta, of.federation.global_test.chunks())
    assert scores["accuracy"].isnan().all()


def test_an_infinite_output_is_enough():
    """Without any NaN: one class has more than single precision holds, the others have none of it."""
    of = data()
    theta = torch.zeros_like(thetas(of)[0])
    parts = of.task.layout.split(theta)
    parts["1.bias"][0], parts["3.weight"][1, 0] = 10.0, 3e38
    logits = of.task.forward(theta, of.federation.global_test.x)
    assert logits[:, 1].isposinf().all()
    assert not logits.isnan().any()
    assert math.isnan(accuracy.measure(EvaluatedModel(of, theta))["test_accuracy"])
    assert of.task.scores(theta, of.federation.global_test.chunks())["accuracy"].isnan().all()


def test_no_batch_is_judged_by_a_model_that_has_no_answer_in_another():
    of = data()
    theta = torch.zeros_like(thetas(of)[0])
    parts = of.task.layout.split(theta)
    parts["1.weight"][0, 0], parts["3.weight"][1, 0] = 1e3, 3e38  # beyond single precision where the first input is > 0
    test = of.federation.global_test
    negative = test.x[:, 0] <= 0
    batches = [test.batch(np.flatnonzero(chosen.numpy())) for chosen in (negative, ~negative)]
    assert of.task.scores(theta, batches[:1])["accuracy"].isfinite().all()
    assert of.task.scores(theta, batches)["accuracy"].isnan().all()
    assert not of.task.scores(theta, batches)["loss"].isnan().all(), "a loss is what it is"


def test_a_diverged_model_has_no_corrected_accuracy():
    labels = RNG(5).integers(0, 10, 10_000)
    for place, (old, _) in MNIST.changed.items():
        labels[place] = old
    of = mnist(labels)
    found = corrected_labels.measure(EvaluatedModel(of, diverged(of)))
    assert len(found) == 3
    assert all(math.isnan(value) for value in found.values())


# costs


ROUNDS = np.array([1, 11, 21, 31])
SPENT = {"bytes_up": 3.0 * ROUNDS, "bytes_down": ROUNDS**2 / 1.0, "flops": 5.0 * ROUNDS}
CURVE = np.array([0.5, 0.7, 0.65, 0.9])


def test_costs_to_the_target_by_the_worked_vector():
    """Validation accuracy .5, .7, .65, .9, ten rounds apart, target .8: half of the way from .7 to .9."""
    timing = {"seconds": np.array([1.0, 2.0, 4.0, 8.0]), "time": np.arange(4.0)}
    found = costs(ROUNDS, SPENT | {"validation_accuracy": CURVE, "test_accuracy": np.ones(4)}, timing, 0.8)
    assert found["rounds_to_target"] == pytest.approx(26)
    assert found["seconds_to_target"] == pytest.approx(6)
    total = SPENT["bytes_up"] + SPENT["bytes_down"]
    assert found["bytes_to_target"] == pytest.approx(cost_to_target(total, CURVE, 0.8))
    assert (found["bytes"], found["flops"], found["rounds"], found["seconds"]) == (total[-1], 155.0, 31.0, 8.0)
    assert not {"time", "joules", "joules_to_target", "simulated_seconds", "flops_to_target"} & found.keys()
    assert {name for name in found if name.endswith("_to_target")} < CENSORED_AT.keys()


def test_targets_that_are_not_reached_or_cannot_be():
    reached = {
        name: costs(ROUNDS, SPENT | {"validation_accuracy": CURVE}, {}, t) for name, t in (("no", 0.95), ("yes", 0.5))
    }
    assert reached["no"]["rounds_to_target"] == reached["no"]["bytes_to_target"] == math.inf
    assert reached["yes"]["rounds_to_target"] == 1
    nothing = costs(ROUNDS, SPENT | {"validation_accuracy": np.full(4, math.nan)}, {}, 0.5)
    assert nothing == costs(ROUNDS, SPENT, {}, None)
    assert not [name for name in nothing if name.endswith("_to_target")]
    silent = {"bytes_up": np.zeros(4), "bytes_down": np.zeros(4), "validation_accuracy": CURVE}
    assert costs(ROUNDS, silent, {}, 0.8)["bytes_to_target"] == 0
    assert costs(np.zeros(0, np.int64), {}, {}, 0.5) == {}


def test_the_test_set_has_no_say_in_what_it_takes_to_a_target():
    curve = SPENT | {"validation_accuracy": CURVE}
    assert costs(ROUNDS, curve | {"test_accuracy": CURVE[::-1]}, {}, 0.8) == costs(ROUNDS, curve, {}, 0.8)
