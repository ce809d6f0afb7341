"""The rule for what is missing, and comparisons of methods over scenarios as tables and figures."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from c45 import SCORES
from compared import (
    REFERENCE,
    by_name,
    check_layout,
    column,
    make_benchmark,
    make_data,
    methods,
    plausible,
    with_status,
    with_value,
    words,
)
from heterobench.errors import RunError
from heterobench.keyed import generator
from heterobench.report import labels, missing, trade_offs
from heterobench.report.differences import attainable, difference
from heterobench.report.missing import cube, over_seeds
from heterobench.report.pooling import answers
from heterobench.report.sections import comparison
from heterobench.report.table import Source
from heterobench.stats.intervals import mean_interval
from heterobench.stats.power import seeds_needed
from heterobench.stats.signed_rank import smallest_p

NAN = math.nan


THREE = methods(3)
GIVEN = np.array(
    [
        [[0.80, 0.81, 0.82], [0.70, 0.71, 0.72]],
        [[0.85, 0.78, 0.84], [0.60, 0.61, 0.62]],
        [[0.90, 0.91, 0.92], [0.50, 0.51, 0.52]],
    ]
)


# what is missing


def test_what_is_not_there_counts_as_the_worst_of_the_same_scenario_and_seed():
    data = make_data(make_benchmark(THREE, 2, 3), GIVEN)
    data = with_status(data, {("m2", 0, 0): "failed", ("m2", 0, 1): "missing"})
    data = with_value(with_value(data, "fedavg", 1, 2, None), "m1", 0, 2, math.inf)
    found = cube(data, "validation", "test_accuracy")
    a, b = (scenario.name for scenario in data.benchmark.scenarios)
    assert [one._replace(value=round(one.value, 9)) for one in found.filled] == [
        ("fedavg", b, 2, 52, "absent"),
        ("m1", a, 2, 82, "infinite"),
        ("m2", a, 0, 80, "failed"),  # of 80 and 85
        ("m2", a, 1, 78, "missing"),  # of 81 and 78
    ]
    expected = 100 * GIVEN
    expected[2, 0, 0], expected[2, 0, 1], expected[1, 0, 2], expected[0, 1, 2] = 80, 78, 82, 52
    np.testing.assert_allclose(found.values, expected)
    assert np.isnan(found.observed).sum() == 4
    assert found.left_out == ()
    np.testing.assert_allclose(found.means, expected.mean(axis=2))
    assert found.scores.tolist() == np.round(expected.mean(axis=2), 1).tolist()


def test_for_a_metric_of_which_less_is_better_the_worst_is_the_largest():
    values = np.array([[1.0, NAN, NAN], [3.0, 2.0, NAN]])
    np.testing.assert_array_equal(missing.worst(values, "min"), [3, 2, NAN])
    np.testing.assert_array_equal(missing.worst(values, "max"), [1, 2, NAN])


def test_where_nobody_has_a_value_scenario_and_seed_are_left_out_for_all():
    accuracy = GIVEN.copy()
    accuracy[:, 0, 1] = NAN
    accuracy[:, 1, :] = NAN
    data = make_data(make_benchmark(THREE, 2, 3), accuracy)
    found = cube(data, "validation", "test_accuracy")
    a, b = (scenario.name for scenario in data.benchmark.scenarios)
    assert found.left_out == ((a, 1), (b, 0), (b, 1), (b, 2))
    assert [scenario.name for scenario in found.scenarios] == [a]
    assert found.filled == ()
    np.testing.assert_allclose(found.means[:, 0], [81, 84.5, 91])
    assert found.kept.tolist() == [[True, False, True]]


def test_references_neither_count_nor_are_filled():
    accuracy = np.concatenate([GIVEN, np.full((1, 2, 3), 0.01)])
    accuracy[0, 0, 0] = NAN
    found = cube(make_data(make_benchmark((*THREE, REFERENCE), 2, 3), accuracy), "validation", "test_accuracy")
    assert [arm.name for arm in found.arms] == ["fedavg", "m1", "m2"]
    assert found.values[0, 0, 0] == pytest.approx(85)  # not 1, the reference's


def test_a_target_that_a_missing_run_would_have_had_is_not_reached():
    rounds = np.array([[[3.0, math.inf, 5.0]], [[4.0, 6.0, NAN]], [[NAN, 7.0, 8.0]]])
    data = make_data(make_benchmark(THREE, 1, 3), np.full((3, 1, 3), 0.9), run={"rounds_to_target": rounds})
    data = with_status(data, {("m2", 0, 0): "missing"})
    found = cube(data, "run", "rounds_to_target")
    assert found.values[:, 0].tolist() == [[3, math.inf, 5], [4, 6, math.inf], [math.inf, 7, 8]]
    assert {(one.arm, one.seed, one.why) for one in found.filled} == {("m1", 2, "absent"), ("m2", 0, "missing")}


def test_a_metric_that_needs_a_global_model_is_not_missing_without_one(monkeypatch):
    monkeypatch.setattr(labels, "is_personal", lambda benchmark, arm: arm.name == "m2")
    rounds = np.array([[[3.0]], [[4.0]], [[NAN]]])
    data = make_data(make_benchmark(THREE, 1, 1), [[[0.9]]] * 3, lambda m, s, k: None if m == 2 else np.ones(3, bool))
    data = make_data(
        data.benchmark,
        [[[0.9]]] * 3,
        lambda m, s, k: None if m == 2 else np.ones(3, bool),
        {"rounds_to_target": rounds},
    )
    found = cube(data, "run", "rounds_to_target")
    assert [arm.name for arm in found.undefined] == ["m2"]
    assert [arm.name for arm in found.arms] == ["fedavg", "m1"]
    assert found.filled == ()
    pooled = answers(data)
    assert [arm.name for arm in pooled.without] == ["m2"]
    assert pooled.filled == ()


def test_metrics_without_a_better_and_half_applied_rules_are_refused():
    data = make_data(make_benchmark(THREE, 2, 3), GIVEN)
    with pytest.raises(ValueError, match="bytes_up"):
        cube(data, "run", "bytes_up")
    with pytest.raises(ValueError, match="some methods only"):
        over_seeds(np.array([[[1.0, 2.0]], [[NAN, 2.0]]]))
    with pytest.raises(ValueError, match="no scenario"):
        over_seeds(np.full((2, 1, 2), NAN))


def test_answers_of_a_run_that_is_not_there_are_all_wrong():
    bits = generator(0, "answers").random((3, 2, 3, 40)) < 0.7
    benchmark = make_benchmark(THREE, 2, 3)
    data = make_data(benchmark, bits.mean(axis=-1), lambda m, s, k: None if (m, s, k) == (1, 0, 2) else bits[m, s, k])
    data = with_status(data, {("m1", 0, 2): "failed"})
    found = answers(data)
    assert found.filled == (("m1", benchmark.scenarios[0].name, 2, 0.0, "failed"),)
    bits[1, 0, 2] = False
    columns = np.concatenate([bits[:, s, k] for s in range(2) for k in range(3)], axis=1)
    rebuilt = np.concatenate([found.patterns[:, part.patterns] for part in found.parts], axis=1)
    np.testing.assert_array_equal(rebuilt, columns)
    np.testing.assert_allclose(found.accuracy(), columns.mean(axis=1))
    assert found.counts().sum() == 240
    by_example = found.by_example().toarray()
    assert by_example.shape == (40, found.patterns.shape[1])
    assert by_example.sum(axis=1).tolist() == [6] * 40  # the same example in all scenarios of a data set
    np.testing.assert_array_equal(by_example.sum(axis=0), found.counts())


def test_answers_to_other_numbers_of_examples_are_an_error():
    data = make_data(make_benchmark(THREE, 1, 1), [[[0.9]]] * 3, lambda m, s, k: np.ones(3 + m, bool))
    with pytest.raises(RunError, match=r"digits\.p0.*seed 0.*\[3, 4, 5\]"):
        answers(data)


# comparison


def ranked_like(scores, **options):
    """A benchmark with one seed in which the methods of each scenario have the order of a row of `scores`."""
    places = stats.rankdata(scores, axis=1)
    benchmark = make_benchmark(methods(scores.shape[1]), len(scores), 1, **options)
    return make_data(benchmark, (0.5 + 0.01 * places).T[:, :, None])


def test_worked_vector_of_demsar_comes_out_of_the_tables():
    made = by_name(comparison.tables(ranked_like(SCORES)))
    ranks = [cell.value for cell in column(made["comparison"], "rank").values()]
    assert ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    notes = " ".join(made["comparison"].notes)
    assert "χ² = 9.28" in notes
    assert "F(3, 39) = 3.69" in notes
    assert "1.25 (of at most 3)" in " ".join(made["pairwise"].notes)


def test_comparison_holds_the_numbers_of_the_statistics():
    data = plausible(4, scenarios=7, seeds=4)
    made = by_name(comparison.tables(data))
    values = cube(data, "validation", "test_accuracy")
    apart = values.values[2] - values.values[0]
    table = made["comparison"]
    cell = column(table, "difference")["m2"]
    student = stats.t.interval(0.95, 3, apart.mean(), stats.sem(apart.mean(axis=0)))  # the four seeds' means
    assert cell.value == pytest.approx(apart.mean())
    assert (cell.marks == ("*",)) == (student[0] > 0 or student[1] < 0)
    seeds = column(table, "over-seeds")["m2"]
    assert (seeds.value - seeds.half, seeds.value + seeds.half) == pytest.approx(student)
    t = mean_interval(apart.mean(axis=1))
    scenarios = column(table, "scenarios")["m2"]
    assert (scenarios.value - scenarios.half, scenarios.value + scenarios.half) == pytest.approx((t.low, t.high))
    scores = values.scores
    a, b = values.values[2], values.values[0]
    wins = [(x > y) + (x == y) / 2 for s in range(7) for x, y in itertools.product(a[s], b[s])]
    assert column(table, "improvement")["m2"].value == pytest.approx(np.mean(wins))
    won, lost = (scores[2] > scores[0]).sum(), (scores[2] < scores[0]).sum()
    assert column(table, "record")["m2"].text == f"{won}–{7 - won - lost}–{lost}"
    assert column(table, "mean")["m2"].value == pytest.approx(a.mean())
    assert all(not cell.text and math.isnan(cell.value) for cell in table.bodies[0][2].cells[1:7])  # the baseline's
    reference = column(table, "rank")["centralised"]
    assert math.isnan(reference.value)
    assert column(table, "difference")["centralised"].value == pytest.approx(
        100 * (raw_values(data, "centralised") - raw_values(data, "fedavg")).mean()
    )


def raw_values(data, arm):
    return np.array(
        [
            data.values[Source(scenario.name, arm, "validation", "test_accuracy")][seed]
            for scenario in data.benchmark.scenarios
            for seed in data.benchmark.seeds
        ]
    )


def test_p_values_are_wilcoxons_with_holms_correction():
    random = generator(3, "differences")
    # in tenths of a point; magnitudes differ, so that scipy's exact test applies
    apart = np.array([random.permutation(np.arange(1, 9)) * random.choice([-1, 1], 8, p=q) for q in ([0.1, 0.9],) * 4])
    accuracy = np.vstack([np.full(8, 700), 700 + apart])[:, :, None] / 1000
    table = by_name(comparison.tables(make_data(make_benchmark(methods(5), 8, 1), accuracy)))["comparison"]
    raw = np.array([stats.wilcoxon(row, method="exact").pvalue for row in apart])
    order = np.argsort(raw)
    holm = np.empty(4)
    holm[order] = np.minimum(1, np.maximum.accumulate(raw[order] * [4, 3, 2, 1]))
    assert [column(table, "p")[f"m{m}"].value for m in (1, 2, 3, 4)] == pytest.approx(holm.tolist())
    assert len(set(raw)) > 1


def test_paired_differences_are_over_common_seeds_and_say_how_many():
    accuracy = GIVEN.copy()
    accuracy[1, 0, 0] = accuracy[0, 0, 2] = NAN
    made = by_name(comparison.tables(make_data(make_benchmark(THREE, 2, 3), accuracy)))
    cell = column(made["comparison"], "difference")["m1"]
    assert cell.runs == "4/6"
    assert cell.value == pytest.approx((-3 - 10) / 2)  # one pair in the first scenario, three in the second
    assert column(made["comparison"], "mean")["m1"].runs == "5/6"
    accuracy[1, 0] = NAN
    table = by_name(comparison.tables(make_data(make_benchmark(THREE, 2, 3), accuracy)))["comparison"]
    for key in ("mean", "difference", "over-seeds", "scenarios"):
        assert math.isnan(column(table, key)["m1"].value), key  # a mean over the other scenario alone would be another
    # ranked all the same: as the worst of each seed it ties with FedAvg, which has one such seed itself
    assert column(table, "rank")["m1"].value == pytest.approx((2.5 + 2) / 2)


@pytest.mark.parametrize(("scenarios", "count"), [(4, 8), (5, 1), (6, 1), (9, 8), (8, 8), (1, 3), (11, 36)])
def test_what_the_test_over_scenarios_cannot_find_is_said(scenarios, count):
    text = attainable(scenarios, count)
    enough = next(n for n in itertools.count(1) if smallest_p(n) * count <= 0.05)
    possible = scenarios >= enough
    assert ("cannot find anything" in text) != possible
    if not possible:
        assert f"That takes {enough} scenarios." in text
    # the sharpest data that there are: one method ahead everywhere, by another amount each time
    scores = np.full((count + 1, scenarios), 0.5) + 0.001 * np.arange(scenarios)
    scores[1:] += 0.02 * (1 + np.arange(scenarios))
    data = make_data(make_benchmark(methods(count + 1), scenarios, 1), scores[:, :, None])
    table = by_name(comparison.tables(data))["comparison"]
    cells = [cell for name, cell in column(table, "p").items() if name != "fedavg"]
    if scenarios == 1:
        assert all(math.isnan(cell.value) for cell in cells)
        return
    found = min(cell.value for cell in cells)
    assert found == pytest.approx(min(1, smallest_p(scenarios) * count))
    assert any(cell.bold for cell in cells) == possible
    marks = {cell.marks for cell in cells}
    assert marks == ({()} if possible else {("d",)})
    assert possible or text in dict(table.footnotes)["d"]


def test_ties_do_not_make_p_smaller_than_the_data_can():
    # ahead by the same amount in all of four scenarios: 2 / 2^4, and not the 0.046 of a normal approximation
    accuracy = np.array([0.8, 0.81])[:, None, None] * np.ones((2, 4, 1))
    made = by_name(comparison.tables(make_data(make_benchmark(methods(2), 4, 1), accuracy)))
    assert column(made["comparison"], "p")["m1"].value == 0.125
    assert column(made["pairwise"], "wilcoxon")["fedavg m1"].value == 0.125


def test_equal_methods_are_told_apart_by_nothing():
    data = make_data(make_benchmark(methods(4), 3, 4), np.full((4, 3, 4), 0.8))
    made = by_name(comparison.tables(data))
    table = made["comparison"]
    assert {cell.value for name, cell in column(table, "difference").items() if name != "fedavg"} == {0.0}
    assert {cell.text for name, cell in column(table, "over-seeds").items() if name != "fedavg"} == {"[0.0, 0.0]"}
    assert {cell.value for name, cell in column(table, "p").items() if name != "fedavg"} == {1.0}
    assert {cell.value for name, cell in column(table, "improvement").items() if name != "fedavg"} == {0.5}
    assert {cell.value for cell in column(table, "rank").values()} == {2.5}
    assert not any(cell.bold or "*" in cell.marks for _, _, row in table.bodies for cell in row.cells)
    assert "p = 1.000" in " ".join(table.notes)
    assert {cell.marks for cell in column(made["power"], "seeds", data.benchmark.scenarios[0].name).values()} == {
        ("c",)
    }
    assert dict(made["power"].footnotes)["c"].startswith("All pairs")


def test_killed_runs_lose_exactly_what_the_rule_says():
    """Two roads: the table with killed runs, and the table in which they have the worst value of their seed."""
    data = plausible(5, scenarios=3, seeds=4)
    means = cube(data, "validation", "test_accuracy").means
    first = labels.methods(data.benchmark)[1 + int(means[1:, 0].argmax())]  # the baseline stays whole
    killed = {(first.name, 0, 0): "missing", (first.name, 0, 1): "failed", ("m3", 2, 3): "missing"}
    replaced = data
    for arm, scenario, seed in killed:
        name = data.benchmark.scenarios[scenario].name
        others = [
            data.values[Source(name, other.name, "validation", "test_accuracy")][seed]
            for other in labels.methods(data.benchmark)
            if other.name != arm
        ]
        replaced = with_value(replaced, arm, scenario, seed, min(others))
    broken, whole = (by_name(comparison.tables(d)) for d in (with_status(data, killed), replaced))
    for key in ("p", "improvement", "improvement-interval", "rank", "record"):
        one, other = (list(column(tables["comparison"], key).values()) for tables in (broken, whole))
        assert [cell.value for cell in one] == pytest.approx([cell.value for cell in other], nan_ok=True), key
        assert [cell.text for cell in one] == [cell.text for cell in other], key
    for key in ("wilcoxon", "nemenyi"):
        assert [c.value for c in column(broken["pairwise"], key).values()] == [
            c.value for c in column(whole["pairwise"], key).values()
        ]
    untouched = by_name(comparison.tables(data))["comparison"]
    assert column(untouched, "rank")[first.name].value < column(broken["comparison"], "rank")[first.name].value
    rows = {row.key: [c.text for c in row.cells] for _, _, row in broken["counted-by-rule"].bodies}
    assert any("run failed" in texts and "1" in texts for texts in rows.values())
    titles = {row.title for _, _, row in broken["counted-by-rule"].bodies}
    assert titles == {first.title, "FedNova"}
    kinds = {texts[2] for texts in rows.values()}
    assert kinds == {"Test accuracy (validation)", "Rounds to target"}  # the answers are still there
    assert missing.RULE in broken["counted-by-rule"].notes
    assert not by_name(comparison.tables(data))["counted-by-rule"].bodies
    assert "3 values counted as the worst" in " ".join(broken["comparison"].notes)


def test_a_removed_metric_is_listed_and_counted():
    data = plausible(3, scenarios=2, seeds=2)
    data = with_value(with_value(data, "m1", 0, 1, None), "m2", 1, 0, NAN)
    rows = [
        (row.title, row.cells[1].text, row.cells[4].text)
        for _, _, row in by_name(comparison.tables(data))["counted-by-rule"].bodies
    ]
    assert rows == [("FedProx", "1", "value missing"), ("SCAFFOLD", "0", "not a finite number")]


def test_what_is_left_out_for_all_is_listed():
    accuracy = GIVEN.copy()
    accuracy[:, 1] = NAN
    table = by_name(comparison.tables(make_data(make_benchmark(THREE, 2, 3), accuracy)))["counted-by-rule"]
    found = [(row.title, row.cells[0].text, row.cells[1].text, row.cells[3].text) for _, _, row in table.bodies]
    assert ("All methods", "Dirichlet(0.1)", "0, 1, 2", "left out") in found


def test_power_is_that_of_the_paired_test():
    data = plausible(3, scenarios=2, seeds=5)
    name = data.benchmark.scenarios[1].name
    a, b = (
        np.array([data.values[Source(name, arm, "validation", "test_accuracy")][seed] for seed in range(5)]) * 100
        for arm in ("m2", "fedavg")
    )
    table = by_name(comparison.tables(data))["power"]
    needed = seeds_needed((a - b).mean(), (a - b).std(ddof=1))
    seeds = column(table, "seeds", name)["m2"]
    assert (seeds.value, seeds.bound) == ((10_000, True) if needed is None else (needed, False))
    assert column(table, "std", name)["m2"].value == pytest.approx((a - b).std(ddof=1))
    least = column(table, "least", name)["m2"].value
    assert seeds_needed(least * 1.0001, (a - b).std(ddof=1)) == 5


def test_a_scenario_without_any_pair_has_no_difference():
    kept = np.ones((2, 3), bool)
    found = difference(np.array([[1.0, 2, 3], [NAN] * 3]), np.zeros((2, 3)), kept)
    assert math.isnan(found.mean)
    assert (found.n, found.expected) == (3, 6)
    one = difference(np.array([[2.0, NAN, 9]]), np.array([[1.0, 1, 1]]), np.array([[True, True, False]]))
    assert (one.mean, one.n, one.expected) == (1.0, 1, 2)
    assert not one.clear


# shape


@pytest.mark.parametrize(("scenarios", "seeds"), [(1, 5), (4, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("count", [2, 3])
def test_few_of_everything(count, scenarios, seeds):
    data = plausible(count, scenarios, seeds)
    made = comparison.tables(data)
    assert tuple(table.name for table in made) == comparison.table_names(data.benchmark)
    assert tuple(comparison.figures(data)) == comparison.figure_names(data.benchmark)
    notes = " ".join(by_name(made)["comparison"].notes)
    assert ("no test over scenarios is possible" in notes) == (scenarios == 1)
    assert ("One seed, so no interval" in notes) == (seeds == 1)


def test_nothing_at_all_is_said():
    only_reference = np.concatenate([np.full((3, 2, 2), NAN), np.full((1, 2, 2), 0.9)])
    data = make_data(make_benchmark((*THREE, REFERENCE), 2, 2), only_reference)
    assert cube(data, "validation", "test_accuracy").scenarios == ()
    made = by_name(comparison.tables(data))
    assert not made["comparison"].bodies
    assert "No ranked method" in made["comparison"].empty
    assert not made["pairwise"].bodies
    assert len(made["counted-by-rule"].bodies) == 6  # two scenarios: accuracy, target, answers
    assert tuple(comparison.figures(data)) == comparison.figure_names(data.benchmark)


def test_names_are_known_from_the_configuration():
    assert "cost-profiles" in comparison.figure_names(make_benchmark(THREE))
    assert "cost-profiles" not in comparison.figure_names(make_benchmark(THREE, target=None))
    alone = make_benchmark((*methods(1), REFERENCE))
    assert comparison.table_names(alone) == comparison.figure_names(alone) == ()
    data = make_data(alone, np.full((2, 4, 5), 0.9))
    assert comparison.tables(data) == []
    assert comparison.figures(data) == {}
    for name in comparison.figure_names(make_benchmark(THREE)):
        assert comparison.CAPTIONS[name]


def test_a_reference_as_first_arm_is_not_the_control():
    arms = (REFERENCE, replace(methods(2)[1], algorithm="scaffold"), replace(methods(3)[2], algorithm="feddyn"))
    data = make_data(make_benchmark(arms, 2, 2), generator(1, "x").uniform(0.8, 0.9, (3, 2, 2)))
    table = by_name(comparison.tables(data))["comparison"]
    assert table.title == "Methods compared with FedProx over scenarios"
    assert column(table, "record")["m2"].text


# costs


def test_one_method_at_the_baselines_cost_dominates_what_its_accuracy_says():
    # log(100) of log(1000) of the axis lie to its left
    assert trade_offs.area(np.array([84.0]), np.array([1.0])) == pytest.approx(0.84 / 3)
    assert trade_offs.area(np.array([84.0, 84.0]), np.array([1.0, 0.001])) == pytest.approx(0.84)
    assert trade_offs.area(np.array([84.0, 50.0]), np.array([1.0, NAN])) == pytest.approx(0.84 / 3)
    assert trade_offs.area(np.array([84.0]), np.array([10.0])) == 0


def test_costs_are_relative_to_the_baseline_scenario_by_scenario():
    cost = np.ones((3, 2, 3)) * np.array([10.0, 1000.0])[None, :, None]
    cost[1] *= 2
    cost[2, 0], cost[2, 1] = 5, 8000
    cost[2, 1, 0] = NAN
    data = make_data(make_benchmark(THREE, 2, 3), GIVEN, run={"bytes": 1e6 * cost})
    values = cube(data, "validation", "test_accuracy")
    found = trade_offs.relative_costs(data, values, "bytes")
    assert found.ratios == pytest.approx([1, 2, math.sqrt(0.5 * 8)])
    assert found.of_base == pytest.approx(505)
    assert trade_offs.relative_costs(data, values, "joules") is None
    cost[2, 1] = NAN
    data = make_data(make_benchmark(THREE, 2, 3), GIVEN, run={"bytes_up": 3e6 * cost, "bytes_down": 1e6 * cost})
    found = trade_offs.relative_costs(data, values, "bytes")
    assert found.of_base == pytest.approx(4 * 505)
    assert found.ratios[:2] == pytest.approx([1, 2])
    assert math.isnan(found.ratios[2])
    assert "No value in these runs: simulated time, energy." in words(trade_offs.pareto(data, values))


def test_a_missing_run_never_reaches_its_target_in_the_profile():
    rounds = np.array([[[2.0, 2.0]], [[4.0, 4.0]], [[1.0, 1.0]]])
    data = make_data(make_benchmark(THREE, 1, 2), np.full((3, 1, 2), 0.9), run={"rounds_to_target": rounds})
    data = with_status(data, {("m2", 0, 0): "missing"})
    figure = comparison.figures(data)["cost-profiles"]
    ends = {line.get_color(): line.get_ydata()[-1] for line in figure.axes[0].lines}
    starts = {line.get_color(): line.get_ydata()[0] for line in figure.axes[0].lines}
    assert sorted(ends.values()) == [0.5, 1, 1]
    assert sorted(starts.values()) == [0, 0.5, 0.5]
    # ratios 1, 2 of FedAvg: (3 + 2) / 3 / 2; 2, 4 of FedProx; inf, 1 of SCAFFOLD
    assert {"FedAvg  0.83", "FedProx  0.33", "SCAFFOLD  0.50"} <= words(figure)


# figures


@pytest.mark.parametrize("count", [3, 11, 14])
def test_words_of_figures_neither_overlap_nor_are_cut_off(count):
    for name, figure in comparison.figures(plausible(count)).items():
        try:
            check_layout(figure)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize(("count", "scenarios", "seeds"), [(9, 1, 5), (2, 4, 5), (3, 1, 1), (11, 14, 3)])
def test_layout_of_figures_of_other_shapes(count, scenarios, seeds):
    for figure in comparison.figures(plausible(count, scenarios, seeds)).values():
        check_layout(figure)


def test_diagram_has_a_bar_for_each_clique_and_the_critical_difference():
    figure = comparison.figures(ranked_like(SCORES))["critical-difference"]
    assert "critical difference 1.25" in words(figure)
    assert {"FedAvg  3.14", "FedProx  2.00", "SCAFFOLD  2.89", "FedNova  1.96"} <= words(figure)
    bars = [line for line in figure.axes[0].lines if line.get_linewidth() > 3]
    # sorted: 1.964 2.000 2.893 3.143; the extremes differ by 1.18 < 1.25: one clique of all
    assert len(bars) == 1
    few = comparison.figures(plausible(9, scenarios=1))["critical-difference"]
    assert any("longer than the axis" in text for text in words(few))
    assert any(re.search(r"here no\s+difference is large enough", text) for text in words(few))


def test_equal_results_give_equal_figures(tmp_path):
    from heterobench.report.figures import save

    for place in ("a", "b"):
        for name, figure in comparison.figures(plausible(3)).items():
            save(figure, tmp_path / f"{name}-{place}.svg")
    for name in comparison.figure_names(plausible(3).benchmark):
        assert (tmp_path / f"{name}-a.svg").read_bytes() == (tmp_path / f"{name}-b.svg").read_bytes()
