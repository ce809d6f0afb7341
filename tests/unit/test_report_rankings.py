"""Rankings of a benchmark's methods as tables and as a figure, from results to the printed rank."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

from compared import (
    REFERENCE,
    by_name,
    check_layout,
    column,
    make_benchmark,
    make_data,
    methods,
    plausible,
    restricted,
    with_status,
    with_value,
    words,
)
from heterobench.keyed import generator
from heterobench.rankings.kemeny import LARGEST
from heterobench.rankings.plackett_luce import plackett_luce
from heterobench.rankings.scores import competition_ranks
from heterobench.report import labels
from heterobench.report.missing import cube
from heterobench.report.pooling import answers
from heterobench.report.ranked import ALL, DRAWN, RULES, by_examples, rank
from heterobench.report.sections import rankings
from heterobench.report.stability_tables import KINDS
from heterobench.report.table import Source

NAN = math.nan
FOUR = np.array([[90, 70, 60, 50, 80], [80, 80, 70, 60, 70], [70, 90, 80, 40, 60], [60, 60, 90, 70, 90]]) / 100
A, B, C, D = "fedavg", "m1", "m2", "m3"


def one_seed(scores, **options):
    """Results [methods, scenarios] of one seed."""
    scores = np.asarray(scores, float)
    return make_data(make_benchmark(methods(len(scores)), scores.shape[1], 1), scores[:, :, None], **options)


def tables(data):
    return by_name(rankings.tables(data))


def ranks(table, key):
    return {name: cell.text for name, cell in column(table, key).items()}


# worked vectors of the cards


def test_worked_vector_of_vote_n_rank_comes_out_of_the_tables():
    made = tables(one_seed(FOUR))
    table = made["rankings"]
    expected = {
        "mean": {A: "3", B: "2", C: "4", D: "1"},
        "borda": {A: "3", B: "2", C: "4", D: "1"},
        "two-level-borda": {A: "3", B: "2", C: "4", D: "1"},  # one instance a task: as one level
        "dowdall": {A: "2", B: "4", C: "3", D: "1"},
        "plurality": {A: "2=", B: "4", C: "2=", D: "1"},
        "kemeny": {A: "3", B: "2", C: "4", D: "1"},
        "copeland": {A: "3", B: "2", C: "4", D: "1"},
        "minimax": {A: "2=", B: "2=", C: "2=", D: "1"},
        "threshold": {A: "", B: "elected", C: "", D: ""},
        "baldwin": {A: "", B: "", C: "", D: "elected"},
        "condorcet": {A: "", B: "", C: "", D: "elected"},
    }
    for key, of in expected.items():
        assert ranks(table, key) == of, key
        bold = {name for name, cell in column(table, key).items() if cell.bold}
        assert bold == ({B} if key == "threshold" else {D}), key
    scores = {
        "mean": [70, 72, 68, 74],
        "borda": [7, 8, 6, 9],
        "dowdall": [2.4167, 2.1667, 2.3333, 3.5],
        "plurality": [1, 0, 1, 3],
        "copeland": [-1, 1, -3, 3],
        "minimax": [-3, -3, -3, 0],
        "kemeny": [3, 2, 4, 1],
    }
    for key, values in scores.items():
        assert [cell.value for cell in column(made["ranking-scores"], key).values()] == pytest.approx(values, abs=5e-5)
    winners = {row.key: row.cells[0].text for _, _, row in made["disagreement"].bodies}
    assert winners["threshold"] == "FedProx"
    assert {winners[key] for key in expected if key != "threshold"} == {"FedNova"}


def test_worked_vector_of_two_levels():
    # a task with three instances and one with a single one, for which nobody has the other two
    accuracy = np.full((3, 2, 3), NAN)
    accuracy[:, 0] = np.array([0.3, 0.2, 0.1])[:, None]
    accuracy[:, 1, 0] = [0.1, 0.2, 0.3]
    data = make_data(make_benchmark(methods(3), 2, 3), accuracy)
    made = tables(data)
    assert [cell.value for cell in column(made["ranking-scores"], "two-level-borda").values()] == [2, 2, 2]
    assert set(ranks(made["rankings"], "two-level-borda").values()) == {"1="}
    assert "4 pairs" in " ".join(made["rankings"].notes) or "2 pairs" in " ".join(made["rankings"].notes)


def test_two_levels_hear_seeds_that_one_level_averages_away():
    # one seed of the first scenario makes its mean; the first method wins two of three seeds
    accuracy = np.array([[[0.80, 0.80, 0.10]], [[0.79, 0.79, 0.79]]])
    table = tables(make_data(make_benchmark(methods(2), 1, 3), accuracy))["rankings"]
    assert ranks(table, "borda") == {A: "2", B: "1"}
    assert ranks(table, "two-level-borda") == {A: "1", B: "2"}


def test_worked_vector_of_nash_averaging():
    scores = np.array([[0.9, 0.2, 0.5], [0.3, 0.8, 0.5], [0.1, 0.1, 0.1]])
    made = tables(one_seed(scores))
    assert ranks(made["rankings"], "nash") == {A: "1=", B: "1=", C: "3"}
    # after scaling to the range of the pool: (1, 1/7), (1/4, 1)
    values = cube(one_seed(scores), "validation", "test_accuracy")
    payoff = np.array([[1, 1 / 7], [1 / 4, 1]])
    weights = np.linalg.solve(np.array([payoff[0] - payoff[1], [1, 1]]), [0, 1])
    found = rank(values).nash
    assert found.task_mixture[:2] == pytest.approx(weights, abs=1e-6)
    note = " ".join(made["ranking-scores"].notes)
    assert f"IID {weights[0]:.2f}, Dirichlet(0.1) {weights[1]:.2f}; the others not at all" in note


def test_strengths_of_two_methods_are_the_odds_of_their_disagreements():
    first = np.r_[np.ones(60), np.zeros(10), np.ones(30)].astype(bool)
    second = np.r_[np.zeros(60), np.ones(10), np.ones(30)].astype(bool)
    data = one_seed([[0.9], [0.4]], correct=lambda m, s, k: (first, second)[m])
    made = tables(data)
    strength = [cell.value for cell in column(made["strengths"], "strength").values()]
    assert strength[0] - strength[1] == pytest.approx(math.log(60 / 10))
    assert sum(strength) == pytest.approx(0)
    assert [cell.value for cell in column(made["strengths"], "right").values()] == pytest.approx([90, 40])
    assert ranks(made["rankings"], "plackett-luce") == {A: "1", B: "2"}


# test examples


def test_pooled_patterns_give_the_strengths_of_all_answers():
    data = plausible(5, scenarios=2, seeds=3, examples=90)
    pooled = answers(data)
    columns = np.concatenate([pooled.patterns[:, part.patterns] for part in pooled.parts], axis=1)
    assert columns.shape == (5, 540)
    assert pooled.patterns.shape[1] <= 32
    found = by_examples(pooled)
    np.testing.assert_allclose(found.fit.scores, plackett_luce(columns).scores, atol=1e-7)
    assert (found.intervals.low < found.fit.scores).all()
    assert (found.fit.scores < found.intervals.high).all()


def test_a_second_seed_with_the_same_answers_does_not_narrow_the_interval():
    bits = generator(5, "answers").random((3, 200)) < np.array([0.7, 0.6, 0.5])[:, None]
    benchmarks = [make_benchmark(methods(3), 1, seeds) for seeds in (1, 4)]
    once, often = (
        by_examples(answers(make_data(b, np.full((3, 1, len(b.seeds)), 0.9), lambda m, s, k: bits[m])))
        for b in benchmarks
    )
    np.testing.assert_allclose(often.intervals.low, once.intervals.low, atol=1e-3)
    np.testing.assert_allclose(often.intervals.high, once.intervals.high, atol=1e-3)


def test_a_failed_run_has_all_its_examples_wrong():
    bits = generator(2, "answers").random((4, 2, 2, 80)) < 0.7
    benchmark, accuracy = make_benchmark(methods(4), 2, 2), bits.mean(axis=-1)
    gone = {("m2", 0, 1): "failed"}
    absent = make_data(benchmark, accuracy, lambda m, s, k: None if (m, s, k) == (2, 0, 1) else bits[m, s, k])
    wrong = bits.copy()
    wrong[2, 0, 1] = False
    written = make_data(benchmark, accuracy, lambda m, s, k: wrong[m, s, k])
    one, other = (tables(with_status(data, gone))["strengths"] for data in (absent, written))
    for key in ("rank", "strength", "right"):
        assert [c.value for c in column(one, key).values()] == [c.value for c in column(other, key).values()], key
    assert "1 run of the ranked methods: all examples count as wrong" in " ".join(one.notes)
    kept = tables(make_data(benchmark, accuracy, lambda m, s, k: bits[m, s, k]))["strengths"]
    assert column(one, "strength")["m2"].value < column(kept, "strength")["m2"].value


def test_methods_without_answers_are_not_ranked_by_them(monkeypatch):
    monkeypatch.setattr(labels, "is_personal", lambda benchmark, arm: arm.name == "m1")
    bits = generator(2, "answers").random((3, 100)) < 0.7
    data = one_seed([[0.9], [0.8], [0.7]], correct=lambda m, s, k: None if m == 1 else bits[m])
    made = tables(data)
    assert set(ranks(made["rankings"], "plackett-luce")) == {A, B, C}
    assert column(made["rankings"], "plackett-luce")[B].text == ""
    assert sorted(cell.text for cell in column(made["rankings"], "plackett-luce").values()) == ["", "1", "2"]
    assert "Without a global model, so not ranked: FedProx" in " ".join(made["strengths"].notes)
    check_layout(rankings.figures(data)["rank-flow"])
    nobody = tables(one_seed([[0.9], [0.8], [0.7]]))
    assert not nobody["strengths"].bodies
    assert "no two methods have answers" in " ".join(nobody["rankings"].notes)
    assert all(math.isnan(cell.value) for cell in column(nobody["rankings"], "plackett-luce").values())


def test_unbounded_strengths_are_drawn_together_and_said_to_be():
    bits = np.array([np.ones(50), np.r_[np.ones(20), np.zeros(30)], np.zeros(50)], bool)
    made = tables(one_seed([[1.0], [0.4], [0.0]], correct=lambda m, s, k: bits[m]))
    assert ranks(made["rankings"], "plackett-luce") == {A: "1", B: "2", C: "3"}
    assert "would be unbounded" in " ".join(made["strengths"].notes)
    assert all(math.isfinite(cell.value) for cell in column(made["strengths"], "strength").values())
    assert by_examples(answers(one_seed([[1.0], [0.4]], correct=lambda m, s, k: bits[m]))).alpha == DRAWN


# what is missing


def test_killed_runs_rank_as_the_rule_says():
    """Two roads: runs that are killed, and the same runs with the worst value of their scenario and seed."""
    data = plausible(6, scenarios=3, seeds=4)
    killed = {("m1", 0, 0): "missing", ("m4", 0, 0): "failed", ("m2", 1, 3): "failed", ("m2", 2, 3): "missing"}
    replaced = data
    for arm, scenario, seed in killed:
        name = data.benchmark.scenarios[scenario].name
        alive = [
            data.values[Source(name, other.name, "validation", "test_accuracy")][seed]
            for other in labels.methods(data.benchmark)
            if (other.name, scenario, seed) not in killed
        ]
        replaced = with_value(replaced, arm, scenario, seed, min(alive))
    broken, whole = tables(with_status(data, killed)), tables(replaced)
    for name in ("rankings", "ranking-scores", "condorcet-weights", "stability"):
        for (_, _, one), (_, _, other) in zip(broken[name].bodies, whole[name].bodies, strict=True):
            assert [c.text for c in one.cells] == [c.text for c in other.cells], (name, one.key)
            np.testing.assert_allclose([c.value for c in one.cells], [c.value for c in other.cells], atol=1e-9)
    assert "4 values counted as the worst" in " ".join(broken["rankings"].notes)
    assert "counted" not in " ".join(whole["rankings"].notes)


def test_ranks_change_exactly_by_a_removed_metric():
    # the leader loses its value in one of three scenarios, and becomes the worst there
    scores = np.array([[0.9, 0.9, 0.9], [0.8, 0.8, 0.7], [0.7, 0.7, 0.8]])
    data = one_seed(scores)
    assert ranks(tables(data)["rankings"], "borda") == {A: "1", B: "2", C: "3"}
    table = tables(with_value(data, A, 0, 0, None))["rankings"]
    # points 0.5 (tied with the worst), 2, 2 / 2, 1, 0 / 0.5, 0, 1
    made = tables(with_value(data, A, 0, 0, None))["ranking-scores"]
    assert [cell.value for cell in column(made, "borda").values()] == [4.5, 3.0, 1.5]
    assert ranks(table, "plurality") == {A: "1", B: "2", C: "3"}
    table = tables(with_value(with_value(data, A, 0, 0, None), A, 1, 0, NAN))["rankings"]
    # 0.5 + 0.5 + 2, 2 + 2 + 0, 0.5 + 0.5 + 1
    assert ranks(table, "borda") == {A: "2", B: "1", C: "3"}
    assert ranks(table, "plurality") == {A: "2", B: "1", C: "3"}


def test_a_reference_is_in_no_ranking():
    accuracy = np.concatenate([FOUR, np.ones((1, 5))])[:, :, None]
    made = tables(make_data(make_benchmark((*methods(4), REFERENCE), 5, 1), accuracy))
    for table in made.values():
        assert "centralised" not in {row.key for _, _, row in table.bodies}
    assert ranks(made["rankings"], "mean")[D] == "1"


# rounding and ties


def test_what_rounding_hides_decides_nothing():
    scores = np.array([[0.80004, 0.9], [0.80001, 0.9], [0.7, 0.7]])
    table = tables(one_seed(scores))["rankings"]
    for rule in RULES:
        if rule.order:
            assert ranks(table, rule.key)[A] == ranks(table, rule.key)[B] == "1=", rule.key
    apart = tables(one_seed(scores + np.array([[0.001], [0], [0]])))["rankings"]
    assert ranks(apart, "mean") == {A: "1", B: "2", C: "3"}


def test_equal_methods_share_the_first_place():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = make_data(make_benchmark(methods(4), 3, 2), np.full((4, 3, 2), 0.8), lambda m, s, k: np.arange(10) < 8)
        made = tables(data)
        figure = rankings.figures(data)["rank-flow"]
    for rule in ALL:
        found = set(ranks(made["rankings"], rule.key).values())
        expected = (
            {"elected"}
            if rule.key in ("threshold", "baldwin")
            else {""}
            if rule.key in ("condorcet", "nash")
            else {"1="}
        )
        assert found == expected, rule.key
    assert "Nash averaging: all methods are equal in every scenario." in made["rankings"].notes
    winners = {row.key: row.cells[0].text for _, _, row in made["disagreement"].bodies}
    assert winners["mean"] == "all alike"
    assert winners["condorcet"] == "nobody"
    assert all(math.isnan(cell.value) for cell in column(made["disagreement"], "mean").values())
    assert {cell.text for cell in column(made["condorcet-weights"], "verdict").values()} == {"never loses"}
    assert not made["winner-changes"].bodies
    check_layout(figure)


def test_places_and_bars_of_the_flow_show_ties():
    data = one_seed(FOUR)
    figure = rankings.figures(data)["rank-flow"]
    orders = rank(cube(data, "validation", "test_accuracy")).orders
    found = [orders[rule.key].ranks.tolist() for rule in RULES if rule.order]
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert [numbers.count(str(n)) for n in (1, 2, 3, 4)] == [sum(r.count(n) for r in found) for n in (1, 2, 3, 4)]
    shared = [rank for ranks in found for rank in set(ranks) if ranks.count(rank) > 1]
    bars = [line for line in figure.axes[0].lines if line.get_linewidth() > 10]
    assert len(bars) == len(shared) >= 2  # plurality's pair, minimax's three


# disagreement, weights


def test_tau_is_between_the_ranks_of_the_table():
    from scipy.stats import kendalltau

    made = tables(plausible(7))
    order = ("mean", "borda", "minimax", "plackett-luce")
    found = {key: [int(text.rstrip("=")) for text in ranks(made["rankings"], key).values()] for key in order}
    for one in order:
        for other in order:
            cell = column(made["disagreement"], other)[one]
            assert cell.value == pytest.approx(kendalltau(found[one], found[other]).statistic)


def test_condorcet_weights_make_their_method_unbeaten():
    data = plausible(6, scenarios=5)
    table = tables(data)["condorcet-weights"]
    scores = cube(data, "validation", "test_accuracy").scores
    verdicts = set()
    for place, (_, _, row) in enumerate(table.bodies):
        verdict, lead, *cells = row.cells
        verdicts.add(verdict.text)
        weights = np.array([cell.value for cell in cells])
        if verdict.text == "never":
            assert np.isnan(weights).all()
            assert lead.value < 0
            continue
        assert weights.sum() == pytest.approx(1)
        others = np.delete(scores, place, axis=0)
        leads = ((scores[place] > others).astype(float) - (others > scores[place])) @ weights
        assert leads.min() == pytest.approx(lead.value / 100)
        assert (leads.min() > 1e-9) == verdict.text.startswith("wins")
    assert len(verdicts) > 1
    dominated = tables(one_seed([[0.9, 0.9], [0.8, 0.8]]))["condorcet-weights"]
    assert [row.cells[0].text for _, _, row in dominated.bodies] == ["wins, also with equal weights", "never"]


# without a part


def test_leaving_a_scenario_out_is_the_ranking_of_a_benchmark_without_it():
    """Two roads, for scenarios, seeds and methods, and every rule that ranks."""
    data = plausible(4, scenarios=3, seeds=3, references=False)
    benchmark = data.benchmark
    table = tables(data)["stability"]
    smaller = {
        "scenario": [
            replace(benchmark, scenarios=tuple(s for s in benchmark.scenarios if s != out))
            for out in benchmark.scenarios
        ],
        "seed": [replace(benchmark, seeds=tuple(s for s in benchmark.seeds if s != out)) for out in benchmark.seeds],
        "method": [replace(benchmark, arms=tuple(a for a in benchmark.arms if a != out)) for out in benchmark.arms],
    }
    for kind, benchmarks in smaller.items():
        found = [rank_of_all(restricted(data, each)) for each in (benchmark, *benchmarks)]
        for rule in ALL:
            if not rule.order:
                continue
            for arm in benchmark.arms:
                own = [of[rule.key][arm.name] for of in found if arm.name in of[rule.key]]
                text = f"{min(own):g}" if min(own) == max(own) else f"{min(own):g}–{max(own):g}"
                assert column(table, rule.key, kind)[arm.name].text == text, (kind, rule.key, arm.name)


def rank_of_all(data):
    values = cube(data, "validation", "test_accuracy")
    names = [arm.name for arm in values.arms]
    found = {key: dict(zip(names, order.ranks, strict=True)) for key, order in rank(values).orders.items()}
    order = by_examples(answers(data), intervals=False).order(values.arms)
    return found | {"plackett-luce": dict(zip(names, order.ranks, strict=True))}


def test_a_scenario_that_decides_is_named():
    # the first method wins by its lead on the last scenario alone
    made = tables(one_seed(np.array([[1, 1, 99], [2, 2, 3], [0, 0, 4]]) / 100))["winner-changes"]
    rows = [(s.key, row.title, row.cells[0].text, row.cells[1].text) for s, _, row in made.bodies]
    assert ("scenario", "2 classes per client", "FedProx") in {row[:3] for row in rows}
    (changed,) = [row[3] for row in rows if row[:2] == ("scenario", "2 classes per client")]
    assert "Mean" in changed.split(", ")
    assert not any(row[0] == "seed" for row in rows)


def test_stable_winners_change_nothing():
    accuracy = np.array([0.9, 0.8, 0.7])[:, None, None] + np.zeros((3, 3, 2))
    made = tables(make_data(make_benchmark(methods(3), 3, 2), accuracy))
    # without the winner the next in line wins, which minimax and plurality leave open
    assert {section.key for section in made["winner-changes"].sections} <= {"method"}
    for kind in ("scenario", "seed", "method"):
        assert column(made["stability"], "mean", kind)[A].bold
        assert not column(made["stability"], "mean", kind)[B].bold


# shape


@pytest.mark.parametrize(("count", "scenarios", "seeds"), [(2, 1, 1), (2, 4, 5), (3, 1, 5), (3, 4, 1), (9, 1, 1)])
def test_few_of_everything(count, scenarios, seeds):
    data = plausible(count, scenarios, seeds)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = rankings.tables(data)
        check_layout(rankings.figures(data)["rank-flow"])
    assert tuple(table.name for table in made) == rankings.table_names(data.benchmark)
    kinds = {section.key for section in by_name(made)["stability"].sections}
    assert kinds == {k for k, possible in zip(KINDS, (scenarios > 1, seeds > 1, count > 2), strict=True) if possible}


def test_nothing_at_all_is_said():
    only_reference = np.concatenate([np.full((3, 2, 2), NAN), np.full((1, 2, 2), 0.9)])
    data = make_data(make_benchmark((*methods(3), REFERENCE), 2, 2), only_reference)
    made = rankings.tables(data)
    assert tuple(table.name for table in made) == rankings.table_names(data.benchmark)
    assert not any(table.bodies for table in made)
    assert tuple(rankings.figures(data)) == rankings.figure_names(data.benchmark)
    alone = make_benchmark(methods(1))
    assert rankings.table_names(alone) == rankings.figure_names(alone) == ()


def test_more_methods_than_an_exact_consensus_is_found_for():
    data = plausible(LARGEST + 1, scenarios=3, seeds=2, examples=50)
    made = tables(data)
    assert set(ranks(made["rankings"], "kemeny").values()) == {""}
    assert f"Kemeny: {LARGEST + 1} methods; found exactly for {LARGEST} at most." in made["rankings"].notes
    assert "kemeny" not in {row.key for _, _, row in made["disagreement"].bodies}
    figure = rankings.figures(data)["rank-flow"]
    check_layout(figure)
    assert any(f"best median rank, of {LARGEST + 1}" in text for text in words(figure))
    order = sorted(competition_ranks(cube(data, "validation", "test_accuracy").scores.mean(axis=1)).tolist())
    assert sorted(int(text.rstrip("=")) for text in ranks(made["rankings"], "mean").values()) == order


def test_a_consensus_that_takes_too_long_is_left_out_of_the_stability():
    table = tables(plausible(15, scenarios=2, seeds=2, examples=30))["stability"]
    assert {cell.text for cell in column(table, "kemeny", "scenario").values()} == {""}
    assert "Kemeny: not tried" in " ".join(table.notes)


@pytest.mark.parametrize("count", [3, 11, 14])
def test_words_of_the_flow_neither_overlap_nor_are_cut_off(count):
    figure = rankings.figures(plausible(count))["rank-flow"]
    check_layout(figure)
    titles = {arm.title for arm in methods(count)}
    assert titles <= words(figure)
