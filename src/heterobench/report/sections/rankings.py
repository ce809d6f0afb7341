"""Rankings of the methods by many rules, where the rules disagree, and how much hangs on a single part of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heterobench.rankings.scores import TOLERANCE
from heterobench.rankings.stability import kendall_tau
from heterobench.rankings.votes import condorcet_weights
from heterobench.report import labels
from heterobench.report.cells import interval, span
from heterobench.report.counted import counted
from heterobench.report.differences import METRIC, SELECTION
from heterobench.report.missing import cube
from heterobench.report.ranked import ALL, EXAMPLES, ByExamples, Rule, digits
from heterobench.report.ranking_view import View, one_section
from heterobench.report.stability_tables import stability_tables
from heterobench.report.table import Cell, Column, Row, Table
from heterobench.resolve import Arm, Benchmark

if TYPE_CHECKING:
    from heterobench.report.data import ReportData

KEY, TITLE = "rankings", "Rankings"
SHOWN = 14  # methods in the figure
READING = (
    "There is no neutral way to make one order out of several scenarios: a rule is a choice of values. Where all rules "
    "agree the order can be trusted; where they do not, the tables say who gains by which.",
    "Every scenario is one voter, with the mean over seeds as printed in the tables: a difference that rounding hides "
    "decides nothing. A number followed by = is a shared place; bold is who wins. Tests of differences stand in "
    "the comparison over scenarios: an order is no test.",
    "Mean: of the accuracies; one bad scenario may cost more than several good ones bring. Borda: points for every "
    "method that one beats, tied methods share; two-level Borda ranks seed by seed within each scenario first. "
    "Dowdall: 1 for a first place, 1/2 for a second, and so on. Plurality: first places alone.",
    "Kemeny: the order that contradicts the scenarios on the fewest pairs of methods. Copeland: pairs won minus pairs "
    "lost, by majority of scenarios. Minimax: the fewest scenarios lost to the worst opponent that wins.",
    "Threshold elects who is last least often (then last but one, ...). Baldwin drops the method with the fewest Borda "
    "points, again and again. Condorcet elects who beats each other method by majority; often there is no such method.",
    "Nash averaging scores methods by the mixture of scenarios that is hardest for them, after scaling each scenario "
    "to the range of the methods in the table. It is adversarial: one scenario on which all are bad, or a broken one, "
    "may get all the weight, and one very bad method rescales a scenario. Look at the weights in the notes.",
    "Plackett-Luce ranks by single test examples: on each, methods that are right win against those that are wrong. "
    "Examples that all have right, or none, say nothing. A strength is no accuracy: look at both. Its interval draws "
    "test examples again and is about these trained models; the seeds have no part in it.",
)
CAPTIONS = {
    "rank-flow": "Rank of each method under each rule, 1 at the top. Methods that share a place stand on a grey bar, "
    "each with the shared rank. Lines that stay level: the rules agree."
}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    names = (
        "rankings",
        "ranking-scores",
        "strengths",
        "disagreement",
        "condorcet-weights",
        "stability",
        "winner-changes",
    )
    return names if len(labels.methods(benchmark)) > 1 else ()


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("rank-flow",) if len(labels.methods(benchmark)) > 1 else ()


def tables(data: ReportData) -> list[Table]:
    if not table_names(data.benchmark):
        return []
    values = cube(data, SELECTION, METRIC)
    if not values.scenarios or len(values.arms) < 2:
        return [
            Table(name, name.replace("-", " ").capitalize(), "", (), (), empty="No two methods have a test accuracy.")
            for name in table_names(data.benchmark)
        ]
    view = View(data, values, intervals=True)
    return [
        _ranks(view),
        _scores(view),
        _strengths(view),
        _disagreement(view),
        _weights(view),
        *stability_tables(view),
    ]


def figures(data: ReportData) -> dict[str, Any]:
    from heterobench.report.diagrams import rank_flow

    if not figure_names(data.benchmark):
        return {}
    values = cube(data, SELECTION, METRIC)
    if not values.scenarios or len(values.arms) < 2:
        return {"rank-flow": rank_flow(data.benchmark, (), {})}
    view = View(data, values, intervals=False)
    orders = {rule.title: view.orders[rule.key].ranks for rule in view.ordered}
    # the best by their median rank, over the rules that rank them
    medians = np.nanmedian(np.stack(list(orders.values())), axis=0)
    shown = np.sort(np.argsort(medians, kind="stable")[:SHOWN])
    notes = view.refusals()
    if len(shown) < len(values.arms):
        notes.insert(0, f"The {SHOWN} methods with the best median rank, of {len(values.arms)}; ranks are among all.")
    arms = [values.arms[place] for place in shown]
    flow = {title: ranks[shown] for title, ranks in orders.items()}
    return {"rank-flow": rank_flow(data.benchmark, arms, flow, " ".join(notes))}


def _ranks(view: View) -> Table:
    """The rank of each method under each rule, and who is elected."""

    def cell(rule: Rule, place: int, arm: Arm) -> Cell:
        found = view.orders.get(rule.key)
        if found is None or math.isnan(found.ranks[place]):
            return Cell()
        of, wins, its = view.of(rule, arm), place in found.elected, found.ranks[place]
        if not rule.order:
            return Cell(1.0, text="elected", bold=True, of=of) if wins else Cell()
        shared = (found.ranks == its).sum() > 1
        return Cell(float(its), text=f"{its:g}=" if shared else f"{its:g}", bold=wins, of=of)

    n = len(view.values.scenarios)
    notes = (
        f"{n} scenario{'s' * (n > 1)}, each with one vote. Bold: who wins under the rule; 2= is a shared place. "
        "Threshold, Baldwin and Condorcet elect and do not rank.",
        "Ties: Borda gives tied methods the mean of their points, plurality and threshold the worst of their places, "
        "Dowdall the best, and the rules of pairs give neither a vote.",
        *view.refusals(),
        *counted(view.values),
    )
    columns = [Column(rule.key, rule.title, rule.group, direction="min", digits=0) for rule in ALL]
    rows = view.rows(lambda place, arm: [cell(rule, place, arm) for rule in ALL])
    return view.table("rankings", "Ranks under each rule", columns, one_section(rows), notes=notes)


SCORES = (
    Column("mean", "Mean", "Scores and points", "%", "max", 2),
    Column("borda", "Borda", "Scores and points", "points", "max", 1),
    Column("two-level-borda", "Two-level Borda", "Scores and points", "points", "max", 1),
    Column("dowdall", "Dowdall", "Scores and points", "votes", "max", 2),
    Column("plurality", "Plurality", "Scores and points", "votes", "max", 0),
    Column("kemeny", "Mean place, Kemeny", "Pairs of methods", "", "min", 2),
    Column("copeland", "Copeland", "Pairs of methods", "", "max", 0),
    Column("minimax", "Minimax", "Pairs of methods", "votes", "max", 0),
    Column("nash", "Skill", "Game", "", "max", 3),
)


def _scores(view: View) -> Table:
    """What the rules count: the numbers behind the ranks."""
    rules = {rule.key: rule for rule in ALL}

    def cell(key: str, place: int, arm: Arm) -> Cell:
        found = view.orders.get(key)
        if found is None:
            return Cell()
        value = -found.scores[place] if key == "kemeny" else found.scores[place]
        return Cell(float(value), bold=place in found.elected, of=view.of(rules[key], arm))

    notes = [
        "Kemeny: mean place over all optimal orders. Copeland: pairs won minus lost. Minimax: minus the scenarios lost "
        "to the worst opponent that wins. Skill: from 0 to 1, each scenario scaled to the range of these methods."
    ]
    if (nash := view.ranked.nash) is not None:
        weights = sorted(zip(nash.tasks, nash.task_mixture, strict=True), key=lambda pair: -pair[1])
        shown = [f"{labels.title(view.benchmark, view.values.scenarios[t])} {w:.2f}" for t, w in weights if w >= 0.005]
        others = "; the others not at all" if len(shown) < len(view.values.scenarios) else ""
        notes.append(f"Nash averaging weighs the scenarios: {', '.join(shown)}{others}.")
    rows = view.rows(lambda place, arm: [cell(column.key, place, arm) for column in SCORES])
    return view.table("ranking-scores", "What the rules count", SCORES, one_section(rows), notes=tuple(notes))


def _strengths(view: View) -> Table:
    """Strengths by test examples, with intervals, and the accuracy over all answers."""
    found = view.examples

    def cells(_: int, arm: Arm) -> list[Cell]:
        if found is None or arm not in found.answers.arms:
            return [Cell()] * 5
        m, of = found.answers.arms.index(arm), view.of(EXAMPLES, arm)
        rank, first = float(found.fit.ranks[m]), m in found.fit.elected
        made = [Cell(rank, bold=first, of=of), Cell(float(found.fit.scores[m]), bold=first, of=of)]
        if (drawn := found.intervals) is None:
            made += [Cell(of=of)] * 2
        else:
            made.append(interval(drawn.low[m], drawn.high[m], 2, of))
            made.append(span(math.floor(drawn.rank_low[m]), math.ceil(drawn.rank_high[m]), of))
        return [*made, Cell(100 * float(found.accuracy[m]), of=of)]

    columns = (
        Column("rank", "Rank", direction="min", digits=0),
        Column("strength", "Strength", direction="max", digits=2, signed=True),
        Column("interval", "Interval of the strength"),
        Column("ranks", "Ranks in it", direction="min"),
        Column("right", "Answers that are right", unit="%", direction="max"),
    )
    return view.table(
        "strengths",
        "Strengths by test examples (Plackett-Luce)",
        columns,
        one_section(view.rows(cells)) if found is not None else (),
        notes=tuple(_strength_notes(found)) if found is not None else (),
        empty="No two methods have answers to test examples.",
    )


def _strength_notes(found: ByExamples) -> Iterator[str]:
    pooled, n = found.answers, len(found.answers.parts)
    yield (
        f"{int(pooled.counts().sum())} answers of each method, to {pooled.examples} examples in {n} "
        f"pair{'s' * (n > 1)} of scenario and seed; {int(found.fit.comparisons)} times a method was right where others "
        "were wrong. Strength: natural logarithm, mean 0."
    )
    if found.alpha:
        yield f"Strengths would be unbounded; {found.alpha:g} wins were added for each ordered pair of methods."
    if (drawn := found.intervals) is not None:
        unusable = f" ({drawn.unusable} of them unusable)" if drawn.unusable else ""
        yield f"Interval: 95 %, test examples drawn again {drawn.resamples} times{unusable}, each with all its answers."
    if pooled.filled:
        runs = f"{len(pooled.filled)} run{'s' * (len(pooled.filled) > 1)} of the ranked methods"
        yield f"{runs}: all examples count as wrong. See what was counted by the rule."
    if pooled.without:
        yield f"Without a global model, so not ranked: {', '.join(arm.title for arm in pooled.without)}."


def _disagreement(view: View) -> Table:
    """Who wins under which rule, and how alike the rules' orders are."""

    def tau(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        both = np.isfinite(a) & np.isfinite(b)
        return kendall_tau(a[both], b[both]) if both.sum() > 1 else math.nan

    def row(rule: Rule) -> Row:
        found = view.orders[rule.key]
        of = view.of(rule, *(view.values.arms[m] for m in found.elected))
        cells = [Cell(text=view.named(found.elected) or "nobody", of=of)]
        for other in view.ordered:
            cells.append(Cell(tau(found.ranks, view.orders[other.key].ranks)) if rule.order else Cell())
        return Row(rule.key, rule.title, tuple(cells))

    rows = [row(rule) for rule in ALL if rule.key in view.orders]
    columns = [
        Column("winner", "Winner", "Outcome", words=True),
        *(Column(rule.key, rule.title, "Kendall's tau with", digits=2) for rule in view.ordered),
    ]
    notes = (
        "Kendall's tau-b between the orders of two rules: 1 the same order, 0 nothing in common, -1 the reverse. "
        "Elections have no order.",
        *view.refusals(),
    )
    return view.table("disagreement", "Where the rules disagree", columns, one_section(rows), notes=notes, stub="Rule")


def _weights(view: View) -> Table:
    """Weights of scenarios under which a method beats each other one, if there are any."""
    values = view.values
    scenarios = [
        Column(s.name, labels.title(view.benchmark, s), "Weights of the scenarios", digits=2) for s in values.scenarios
    ]
    condorcet = view.orders["condorcet"].elected

    def cells(place: int, arm: Arm) -> list[Cell]:
        of = values.sources(arm)
        found = condorcet_weights(values.means, place, digits=digits(values))
        verdict = "never" if not found.feasible else "wins" if found.margin > TOLERANCE else "never loses"
        verdict = "wins, also with equal weights" if place in condorcet else verdict
        weights = [math.nan] * len(scenarios) if found.weights is None else found.weights
        lead = 0.0 if abs(found.margin) < TOLERANCE else found.margin
        return [
            Cell(text=verdict, of=of),
            Cell(100 * lead, of=of),
            *(Cell(float(weight), of=(source,)) for weight, source in zip(weights, of, strict=True)),
        ]

    columns = [
        Column("verdict", "Verdict", "Outcome", words=True),
        Column("lead", "Least lead", "Outcome", "% of votes", digits=0, signed=True),
        *scenarios,
    ]
    notes = (
        "Is there any way to weigh the scenarios so that this method beats each other one by majority of the weights? "
        "Never loses: some weights leave it unbeaten, with a tie at best. Weights: those with the largest least lead; "
        "there may be others. Lead: of the method over the opponent that comes closest, under these weights.",
    )
    title = "Weights that make a method win"
    return view.table("condorcet-weights", title, columns, one_section(view.rows(cells)), notes=notes)
