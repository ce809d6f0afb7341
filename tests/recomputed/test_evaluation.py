"""What is evaluated of models and records, against formulas written out here: every metric of the table by itself."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score, roc_auc_score

from recomputed import raw
from recomputed.project import CREDITS, DIGITS, EPOCHS, TARGET
from recomputed.raw import GLOBAL, PERSONAL, RUNS

pytestmark = pytest.mark.xdist_group("recomputed")


@pytest.fixture(scope="module")
def left(evaluated):
    return evaluated


def agree(found: dict[str, float], expected: dict[str, float], where, **tolerance) -> None:
    tolerance = {"rel": 1e-5, "abs": 1e-9} | tolerance
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, nan_ok=True, **tolerance), (name, *where)


# over all test examples


def test_loss_and_accuracy_on_the_test_set(left):
    """Of personal models the mean over the clients' own."""
    for key, selection, model, found in left.evaluated_models():
        data = left.data(key.scenario)
        clients = range(len(model[0])) if key.arm == PERSONAL else range(1)
        outputs = [raw.logits(raw.own(model, k), data.test_x) for k in clients]
        expected = {
            "test_accuracy": np.mean([raw.hits(each, data.test_y).mean() for each in outputs]),
            "test_loss": np.mean([raw.losses(each, data.test_y).mean() for each in outputs]),
        }
        agree(found, expected, (key, selection))


def test_selections_are_of_their_rounds(left):
    differ = 0
    for key in RUNS:
        rows = left.rounds(key)
        by_round = {row["round"]: row for row in rows}
        for selection, round in (("last", max(by_round)), ("validation", left.end(key)["selected_round"])):
            found = left.evaluated(key, selection)
            assert found["round"] == round
            assert found["validation_accuracy"] == by_round[round]["validation_accuracy"]
            differ += selection == "validation" and round != max(by_round)
        if key in GLOBAL:
            best = max(row["test_accuracy"] for row in rows)
            first = next(row["round"] for row in rows if row["test_accuracy"] == best)
            assert left.evaluated(key, "oracle") == {"test_accuracy": best, "round": first}
    assert differ > 5


def test_outcomes_are_the_answers_of_the_selected_model(left):
    differ = 0
    for scenario in (DIGITS, CREDITS):
        data, table = left.data(scenario), left.table("outcomes", scenario)
        own = [key for key in GLOBAL if key.scenario == scenario]
        assert list(zip(table["arm"], table["seed"], strict=True)) == [(key.arm, key.seed) for key in own]
        for key, correct in zip(own, table["correct"], strict=True):
            answers = {name: raw.logits(left.model(key, f"{name}.safetensors"), data.test_x).argmax(1)
                       for name in ("selected", "final")}  # fmt: skip
            assert np.array_equal(correct, answers["selected"] == data.test_y), key
            differ += not np.array_equal(answers["selected"], answers["final"])
    assert differ > 3


# clients


def gini(values):
    """Half the mean difference of all pairs over the mean."""
    return np.abs(values[:, None] - values[None, :]).mean() / (2 * values.mean())


def worst_share_of_weight(losses, shares, tail):
    """CVaR by Rockafellar and Uryasev: min over t of t + E max(L - t, 0) / tail; a loss attains it."""
    return min(t + (shares * np.maximum(losses - t, 0)).sum() / tail for t in losses)


def test_spread_over_clients(left):
    for key, selection, model, found in left.evaluated_models():
        data, rows = left.data(key.scenario), left.parts(key.scenario, key.seed)["test"]
        assert all(map(len, rows))
        a, loss = (
            np.array([of.mean() for of in raw.of_clients(model, data.x, data.y, rows, score)])
            for score in (raw.hits, raw.losses)
        )
        n, k = np.array([len(own) for own in rows]), len(rows)
        ordered, shares = sorted(a), n / n.sum()
        chance = np.mean(a * (1 - a) / n)
        tenth, twentieth = max(1, math.ceil(k / 10)), max(1, math.ceil(k / 20))
        accuracy = {
            "mean": sum(a) / k,
            "weighted": sum(n * a) / sum(n),
            "std": math.sqrt(sum((a - a.mean()) ** 2) / k),
            "chance": math.sqrt(chance),
            "excess": math.sqrt(max(0, a.var() - chance)),
            "variation": a.std() / a.mean(),
            "gini": gini(a),
            "jain": sum(a) ** 2 / (k * sum(a**2)),
            "divergence": entropy(a, np.ones(k)),
            "min": ordered[0],
            "worst_5": sum(ordered[:twentieth]) / twentieth,
            "worst_decile": sum(ordered[:tenth]) / tenth,
            "best_decile": sum(ordered[-tenth:]) / tenth,
        }
        losses = {
            "mean": sum(loss) / k,
            "max": max(loss),
            "worst_decile": worst_share_of_weight(loss, shares, 0.1),
            "tilted": logsumexp(loss, b=shares),
        }
        agree(found, {f"client_accuracy_{name}": value for name, value in accuracy.items()}, (key, selection))
        agree(found, {f"client_loss_{name}": value for name, value in losses.items()}, (key, selection))
        if key.scenario == DIGITS:
            assert (twentieth, tenth) == (2, 3)  # numbers that tell 5 % from 10 %, and rounding up from down


# calibration

BINS = 15


def binned_error(confidence, outcome):
    """Bins of equal width, closed on the right."""
    place = np.maximum(np.ceil(confidence * BINS) - 1, 0).astype(int)
    return sum(
        (place == b).mean() * abs(outcome[place == b].mean() - confidence[place == b].mean()) for b in set(place)
    )


def calibrated(test, test_y, held, held_y):
    """Metrics of logits `test` [n, C], the temperature fitted on logits `held`, from e^-3 to e^3."""
    n, classes = test.shape
    p = softmax(test, axis=1)
    confidence, right = p.max(1), raw.hits(test, test_y)
    even = pd.Series(1 - right).groupby(confidence).transform("mean").to_numpy()  # equal confidences share their errors
    wrong = even[np.argsort(-confidence)]
    truth = np.eye(classes)[test_y]

    def cost(log_t):
        return raw.losses(held / math.exp(log_t), held_y).mean()

    flat = not np.ptp(held, axis=1).any()  # of a client that never came: every temperature is as good as 1
    log_t = 0 if flat else minimize_scalar(cost, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x
    t = math.exp(log_t)
    return {
        "nll": raw.losses(test, test_y).mean(),
        "brier": ((p - truth) ** 2).sum() / n,
        "ece": binned_error(confidence, right),
        "ece_classwise": np.mean([binned_error(p[:, c], truth[:, c]) for c in range(classes)]),
        "overconfidence": confidence.mean() - right.mean(),
        "confidence_auroc": roc_auc_score(right, confidence) if 0 < right.mean() < 1 else math.nan,
        "risk_coverage": np.mean(np.cumsum(wrong) / np.arange(1, n + 1)),
        "temperature": t,
        "nll_scaled": raw.losses(test / t, test_y).mean(),
        "ece_scaled": binned_error(softmax(test / t, axis=1).max(1), right),
    }


@pytest.mark.parametrize("scenario", [DIGITS, CREDITS])
def test_calibration(left, scenario):
    for key, selection, model, found in left.evaluated_models():
        if (
            key.scenario != scenario or key.arm == "still"
        ):  # its logits are so near each other that their order is noise
            continue
        data, parts = left.data(key.scenario), left.parts(key.scenario, key.seed)
        held = np.concatenate(parts["validation"])
        clients = range(len(model[0])) if key.arm == PERSONAL else range(1)
        made = [
            calibrated(*(raw.logits(raw.own(model, k), x) for x in (data.test_x,)), data.test_y,
                       raw.logits(raw.own(model, k), data.x[held]), data.y[held])
            for k in clients
        ]  # fmt: skip
        expected = {name: np.mean([each[name] for each in made]) for name in made[0]}
        agree(found, expected, (key, selection), rel=1e-4, abs=1e-5)


# fairness


def spread_of(rates):
    """Largest less smallest of the rates that there are; NaN for fewer than two."""
    rates = [rate for rate in rates if not math.isnan(rate)]
    return max(rates) - min(rates) if len(rates) > 1 else math.nan


def gaps(frame: pd.DataFrame) -> dict[str, float]:
    """Of examples with group, label, prediction; both groups are looked for."""
    groups = [frame[frame.group == g] for g in (0, 1)]

    def rates(of):
        return [of(each) for each in groups]

    def positive(label):
        return lambda each: each[each.label == label].prediction.mean()

    true, false = spread_of(rates(positive(1))), spread_of(rates(positive(0)))
    return {
        "demographic_parity": spread_of(rates(lambda each: each.prediction.mean())),
        "equal_opportunity": true,
        "equalised_odds": math.nan if math.isnan(true + false) else max(true, false),
        "accuracy_parity": spread_of(rates(lambda each: (each.prediction == each.label).mean())),
    }


def judged(left, key, model, attribute) -> pd.DataFrame:
    """A row for each client's own test example: client, group, label, prediction."""
    data, rows = left.data(key.scenario), left.parts(key.scenario, key.seed)["test"]
    parts = []
    for k, own in enumerate(rows):
        prediction = raw.logits(raw.own(model, k), data.x[own]).argmax(1)
        columns = {"client": k, "group": data.attributes[attribute][own], "label": data.y[own]}
        parts.append(pd.DataFrame(columns | {"prediction": prediction}))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("attribute", ["sex", "age_group"])
def test_fairness_over_all_clients_and_within_them(left, attribute):
    unequal = 0
    for key, selection, model, found in left.evaluated_models():
        if key.scenario != CREDITS:
            continue
        frame = judged(left, key, model, attribute)
        own = pd.DataFrame([gaps(of) | {"n": len(of)} for _, of in frame.groupby("client")])
        expected = gaps(frame)
        by_group = frame.assign(right=frame.prediction == frame.label).groupby("group").right.mean()
        expected["worst_group_accuracy"] = by_group.min()
        for name in ("demographic_parity", "equal_opportunity", "equalised_odds", "accuracy_parity"):
            there = own[own[name].notna()]
            expected[f"local_{name}"] = (there.n * there[name]).sum() / there.n.sum() if len(there) else math.nan
            expected[f"local_{name}_max"] = there[name].max()
            expected[f"local_{name}_undefined"] = len(own) - len(there)
            unequal += len(there) > 1 and abs(expected[f"local_{name}"] - there[name].mean()) > 0.01
        agree(found, {f"{name}_{attribute}": value for name, value in expected.items()}, (key, selection))
    assert unequal > 10  # weighted and plain means differ


@pytest.mark.parametrize("attribute", ["sex", "age_group"])
def test_disparities_are_mutual_information(left, attribute):
    for key, selection, model, found in left.evaluated_models():
        if key.scenario != CREDITS:
            continue
        frame = judged(left, key, model, attribute)
        within = sum(len(of) * mutual_info_score(of.group, of.prediction) for _, of in frame.groupby("client"))
        expected = {
            f"disparity_global_{attribute}": mutual_info_score(frame.group, frame.prediction) / math.log(2),
            f"disparity_local_{attribute}": within / len(frame) / math.log(2),
        }
        agree(found, expected, (key, selection), abs=1e-7)
        unique, redundant, masked = (
            found[f"disparity_{part}_{attribute}"] for part in ("unique", "redundant", "masked")
        )
        assert min(unique, redundant, masked) >= -1e-6
        assert unique + redundant == pytest.approx(expected[f"disparity_global_{attribute}"], abs=1e-5)
        assert unique + masked == pytest.approx(expected[f"disparity_local_{attribute}"], abs=1e-5)
        accuracy = (frame.prediction == frame.label).mean()
        assert found[f"accuracy_limit_{attribute}"] >= accuracy - 1e-6


# costs

TIMED = ("seconds", "joules")


def spent(left, key) -> dict[str, list[float]]:
    """Cost -> its value after each evaluated round."""
    rows, timing = left.rounds(key), left.timing(key)
    found = {name: [row[name] for row in rows] for name in ("bytes_up", "bytes_down", "flops", "gradient_examples")}
    found |= {"simulated_seconds": [row["simulated_seconds"] for row in rows], "rounds": [row["round"] for row in rows]}
    found |= {name: [row[name] for row in timing] for name in TIMED if name in timing[0]}
    return found | {"bytes": [up + down for up, down in zip(found["bytes_up"], found["bytes_down"], strict=True)]}


def crossing(rounds, accuracies, target):
    """(place of the evaluation that reached it, share of the way to it), of the best so far; None where none has."""
    best = -math.inf
    for place, value in enumerate(accuracies):
        if value >= target:
            return place, 1.0 if place == 0 else (target - best) / (value - best)
        best = max(best, value)
    return None


def test_costs_are_those_at_the_end_of_the_record(left):
    for key in RUNS:
        found = left.evaluated(key, "run")
        expected = {name: values[-1] for name, values in spent(left, key).items()}
        expected["train_examples"] = sum(map(len, left.parts(key.scenario, key.seed)["train"]))
        agree(found, expected, key, rel=1e-12)


def test_costs_to_the_target(left):
    """Of validation accuracy, made monotone, linear between evaluations; infinite where it was not reached."""
    reached, interpolated, censored = 0, 0, 0
    for key in RUNS:
        found, rows = left.evaluated(key, "run"), left.rounds(key)
        at = crossing(
            [row["round"] for row in rows], [row["validation_accuracy"] for row in rows], TARGET[key.scenario]
        )
        for name, values in spent(left, key).items():
            if name in ("bytes_up", "bytes_down", "flops", "gradient_examples"):
                assert f"{name}_to_target" not in found
                continue
            if at is None:
                assert found[f"{name}_to_target"] == math.inf
                continue
            place, share = at
            before = values[max(place - 1, 0)]
            expected = before + share * (values[place] - before)
            assert found[f"{name}_to_target"] == pytest.approx(expected, rel=1e-12), (key, name)
        reached, censored = reached + (at is not None), censored + (at is None)
        interpolated += at is not None and at[0] > 0 and at[1] < 1
    assert min(reached, interpolated, censored) > 2


def test_gradients_and_operations_in_closed_form(left):
    """Everybody takes `EPOCHS` full passes; a gradient of one linear layer is 2 d C operations forward and back."""
    for key in RUNS:
        if key.scenario != CREDITS:
            continue
        examples = sum(map(len, left.parts(key.scenario, key.seed)["train"]))
        d = left.data(key.scenario).x.shape[1]
        for row in left.rounds(key):
            assert row["gradient_examples"] == row["round"] * EPOCHS * examples
            assert row["flops"] == row["gradient_examples"] * 4 * d * 2
