"""What is measured of models and records."""

from __future__ import annotations

from mutants.mutation import given, once

HERE = "recomputed/test_evaluation.py::"
SCORES = HERE + "test_loss_and_accuracy_on_the_test_set"
SELECTIONS = HERE + "test_selections_are_of_their_rounds"
OUTCOMES = HERE + "test_outcomes_are_the_answers_of_the_selected_model"
CLIENTS = HERE + "test_spread_over_clients"
CALIBRATION = HERE + "test_calibration"
FAIRNESS = HERE + "test_fairness_over_all_clients_and_within_them"
DISPARITIES = HERE + "test_disparities_are_mutual_information"
COSTS = HERE + "test_costs_are_those_at_the_end_of_the_record"
TARGET = HERE + "test_costs_to_the_target"

MUTATIONS = [
    once(
        "evaluation.py",
        "the last model counts as the selected one",
        "same = last is not None and torch.equal(last, selected)",
        "same = last is not None",
        SCORES,
    ),
    once(
        "longform.py",
        "the last round counts as the selected one",
        '"validation": selected}',
        '"validation": found["last"]}',
        SELECTIONS,
    ),
    once(
        "longform.py",
        "the worst round on the test set is the oracle's",
        "np.nanargmax(accuracy)",
        "np.nanargmin(accuracy)",
        SELECTIONS,
    ),
    once(
        "evaluation.py",
        "outcomes are the last model's",
        "(answers,) = model.answers",
        "(answers,) = (model if last is None else EvaluatedModel(data, last)).answers",
        OUTCOMES,
    ),
    once(
        "measures/context.py",
        "personal models count by the best one",
        "float(np.mean([each[name]",
        "float(np.max([each[name]",
        SCORES,
    ),
    once(
        "measures/clients.py",
        "worst 5 % are the worst 10 %",
        "uniformity.worst_share(a, 5)",
        "uniformity.worst_share(a, 10)",
        CLIENTS,
    ),
    once(
        "metrics/uniformity.py",
        "the worst share is rounded down",
        "max(1, math.ceil(percent * clients / 100))",
        "max(1, math.floor(percent * clients / 100))",
        CLIENTS,
    ),
    once(
        "metrics/clients.py",
        "the worst decile is rounded down",
        "math.ceil(len(values) / 10)",
        "math.floor(len(values) / 10)",
        CLIENTS,
    ),
    once(
        "metrics/clients.py",
        "sample instead of population deviation",
        "float(held.std())",
        "float(held.std(ddof=1))",
        CLIENTS,
    ),
    once("metrics/clients.py", "the weighted mean has no weights", "weights=sizes[sizes > 0]", "weights=None", CLIENTS),
    once(
        "metrics/uniformity.py",
        "chance counts all clients' examples alike",
        "(accuracies * (1 - accuracies) / sizes).mean()",
        "(accuracies * (1 - accuracies) / sizes.mean()).mean()",
        CLIENTS,
    ),
    once(
        "measures/clients.py",
        "the worst tenth of clients instead of weight",
        "uniformity.conditional_value_at_risk(loss, WORST, n)",
        "uniformity.conditional_value_at_risk(loss, WORST)",
        CLIENTS,
    ),
    once(
        "measures/clients.py",
        "clients tilt without weights",
        "uniformity.tilted_loss(loss, TILT, n)",
        "uniformity.tilted_loss(loss, TILT)",
        CLIENTS,
    ),
    once("metrics/calibration.py", "ten bins", "BINS = 15", "BINS = 10", CALIBRATION),
    once(
        "metrics/calibration.py",
        "Brier score over classes is a mean",
        "(errors**2).sum(axis=1).mean()",
        "(errors**2).mean()",
        CALIBRATION,
    ),
    once(
        "metrics/calibration.py",
        "overconfidence with the other sign",
        "confidence.mean() - right.mean()",
        "right.mean() - confidence.mean()",
        CALIBRATION,
    ),
    once(
        "measures/calibration.py",
        "the temperature is fitted on test examples",
        "fit = answers.validation.numpy()",
        "answers = answers._replace(validation_labels=answers.test_labels)\n    fit = answers.test.numpy()",
        CALIBRATION,
    ),
    once(
        "measures/calibration.py",
        "logits are multiplied by the temperature",
        "logits.astype(np.float64) / temperature",
        "logits.astype(np.float64) * temperature",
        CALIBRATION,
    ),
    once(
        "measures/fairness.py",
        "gaps within clients have no weights",
        "gf.local(gap(counts), examples)",
        "gf.local(gap(counts), np.ones(len(examples)))",
        FAIRNESS,
    ),
    once(
        "metrics/group_fairness.py",
        "equalised odds take the smaller gap",
        "np.maximum(gaps(true)",
        "np.minimum(gaps(true)",
        FAIRNESS,
    ),
    once(
        "metrics/group_fairness.py",
        "parity of labels instead of predictions",
        "_ratio(counts[..., 1].sum(axis=-1),",
        "_ratio(counts[..., 1, :].sum(axis=-1),",
        FAIRNESS,
    ),
    once(
        "metrics/group_fairness.py",
        "clients without a gap count as fair",
        "held = ~np.isnan(values)",
        "values = np.nan_to_num(values)\n    held = ~np.isnan(values)",
        FAIRNESS,
    ),
    once(
        "measures/fairness.py",
        "the local disparity is the global one",
        "local_disparity(predictions)",
        "global_disparity(predictions)",
        DISPARITIES,
    ),
    once(
        "measures/costs.py",
        "only what is sent up counts as bytes",
        'metrics["bytes_up"] + metrics["bytes_down"]',
        'metrics["bytes_up"]',
        COSTS,
    ),
    once(
        "measures/costs.py",
        "costs are those of the first evaluated round",
        "float(values[-1]) for name",
        "float(values[0]) for name",
        COSTS,
    ),
    once(
        "measures/costs.py",
        "the target is one of test accuracy",
        'metrics.get("validation_accuracy"',
        'metrics.get("test_accuracy"',
        TARGET,
    ),
    once(
        "measures/costs.py",
        "other costs are those of the evaluation after the crossing",
        'np.interp(reached, spent["rounds"], spent[name])',
        'spent[name][np.searchsorted(spent["rounds"], reached)]',
        TARGET,
    ),
    once("stats/reaching.py", "no interpolation", "if i == 0 or best[i - 1] == -np.inf:", "if True:", TARGET),
    once(
        "stats/reaching.py",
        "the last evaluation instead of the best so far",
        "best[i - 1]) / (best[i] - best[i - 1])",
        "values[i - 1]) / (best[i] - values[i - 1])",
        TARGET,
    ),
    once(
        "measures/costs.py",
        "who never gets there costs the whole run",
        "else math.inf\n",
        "else float(spent[name][-1])\n",
        TARGET,
    ),
]
MUTATIONS = given("trained", MUTATIONS)
