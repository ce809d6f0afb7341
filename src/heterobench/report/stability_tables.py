"""How rankings move when a scenario, a seed or a method is left out."""

from __future__ import annotations

import math

from heterobench.report import labels
from heterobench.report.cells import span
from heterobench.report.ranked import ALL, EXAMPLES, STABLE_LARGEST, LeftOut, Rule, cases, without, without_answers
from heterobench.report.ranking_view import View
from heterobench.report.table import Cell, Column, Group, Row, Section, Table
from heterobench.resolve import Arm

KINDS = {"scenario": "Without one scenario", "seed": "Without one seed", "method": "Without one method"}


def stability_tables(view: View) -> tuple[Table, Table]:
    """Best and worst ranks when something is left out, and the winners that change."""
    rules = [rule for rule in ALL if rule.key in view.orders]
    found = {kind: {rule.key: _without(view, rule, kind) for rule in rules} for kind in KINDS}
    found = {kind: of for kind, of in found.items() if cases(view.values, kind)}
    return _spans(view, found), _changes(view, found)


def _without(view: View, rule: Rule, kind: str) -> LeftOut | None:
    if rule is EXAMPLES:
        return None if view.examples is None else without_answers(view.examples, view.values, kind)
    return without(view.values, rule, kind)


def _spans(view: View, found: dict[str, dict[str, LeftOut | None]]) -> Table:
    def section(kind: str) -> Section:
        spans = {key: left.span(view.orders[key].ranks) for key, left in found[kind].items() if left is not None}

        def cells(place: int, arm: Arm) -> list[Cell]:
            made = []
            for rule in view.ordered:
                best, worst = spans[rule.key][place] if rule.key in spans else (math.nan, math.nan)
                made.append(span(best, worst, view.of(rule, arm), bold=worst == 1))
            return made

        return Section(kind, KINDS[kind], (Group("", view.rows(cells)),))

    columns = [Column(rule.key, rule.title, rule.group, direction="min", digits=0) for rule in view.ordered]
    notes = (
        "Best and worst rank of each method over all that can be left out one by one, and with everything. Bold: first "
        "in every case. Without a method the others move up.",
        *_slow(view),
    )
    return view.table(
        "stability",
        "Ranks when something is left out",
        columns,
        [section(kind) for kind in found],
        notes=notes if found else (),
        empty="One scenario, one seed and two methods: nothing can be left out.",
    )


def _slow(view: View) -> list[str]:
    slow = [rule.title for rule in view.ordered if rule.largest is not None and len(view.values.arms) > STABLE_LARGEST]
    return [f"{', '.join(slow)}: not tried, with more than {STABLE_LARGEST} methods it takes too long."] * bool(slow)


def _changes(view: View, found: dict[str, dict[str, LeftOut | None]]) -> Table:
    """A row for each scenario, seed and method without which other methods win under some rule."""
    scenarios = {scenario.name: labels.title(view.benchmark, scenario) for scenario in view.values.scenarios}
    sections = []
    for kind, by_rule in found.items():
        rows = []
        for case, name in enumerate(cases(view.values, kind)):
            winners: dict[str, list[str]] = {}
            for rule in ALL:
                left = by_rule.get(rule.key)
                if left is not None and left.changed[case] and (names := left.winners[case]) is not None:
                    words = ", ".join(view.titles[arm] for arm in names) or "nobody"
                    winners.setdefault(words, []).append(rule.title)
            title = {"scenario": scenarios, "method": view.titles}.get(kind, {name: f"Seed {name}"})[name]
            for words, rules in winners.items():
                cells = (Cell(text=words), Cell(text=", ".join(rules)))
                rows.append(Row(f"{kind} {name} {words}", title, cells))
        if rows:
            sections.append(Section(kind, KINDS[kind], (Group("", tuple(rows)),)))
    columns = (Column("winners", "Who wins instead", words=True), Column("rules", "Under which rules", words=True))
    notes = (
        "Only what changes the winner is listed. Where the winner itself is left out, that is who would not have been "
        "next in line.",
        *_slow(view),
    )
    return view.table(
        "winner-changes",
        "Winners that change when something is left out",
        columns,
        sections,
        notes=notes if sections else (),
        stub="Left out",
        empty="Nothing: under every rule the same methods win, whatever single scenario, seed or method is left out.",
    )
