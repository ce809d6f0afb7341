"""All rankings of a benchmark in one object, and what the tables of rankings share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from heterobench.report import labels
from heterobench.report.differences import SELECTION
from heterobench.report.missing import Cube
from heterobench.report.pooling import answers
from heterobench.report.ranked import ALL, EXAMPLES, RULES, ByExamples, Order, Ranked, Rule, by_examples, rank
from heterobench.report.table import Cell, Column, Group, Row, Section, Source, Table
from heterobench.report.tables import SELECTED, about
from heterobench.resolve import Arm

if TYPE_CHECKING:
    from heterobench.report.data import ReportData


class View:
    """All rankings of a benchmark, by test examples too."""

    def __init__(self, data: ReportData, values: Cube, intervals: bool):
        self.benchmark, self.values = data.benchmark, values
        self.ranked: Ranked = rank(values)
        self.pooled = answers(data)
        self.examples: ByExamples | None = by_examples(self.pooled, intervals)
        self.orders: dict[str, Order] = dict(self.ranked.orders)
        if self.examples is not None:
            self.orders[EXAMPLES.key] = self.examples.order(values.arms)
        self.ordered: list[Rule] = [rule for rule in ALL if rule.order and rule.key in self.orders]
        self.titles = {arm.name: arm.title for arm in self.benchmark.arms}

    def refusals(self) -> list[str]:
        """Why rules say nothing."""
        found = [f"{rule.title}: {self.ranked.refused[rule.key]}." for rule in RULES if rule.key in self.ranked.refused]
        if self.examples is None:
            found.append(f"{EXAMPLES.title}: no two methods have answers to test examples.")
        return found

    def of(self, rule: Rule, *arms: Arm) -> tuple[Source, ...]:
        """What a rule's word on methods is made from."""
        if rule is EXAMPLES:
            return tuple(Source(s.name, arm.name) for arm in arms for s in self.benchmark.scenarios)
        return self.values.sources(*arms)

    def named(self, methods: Iterable[int]) -> str:
        names = [self.values.arms[method].title for method in methods]
        return ", ".join(names) if len(names) < len(self.values.arms) else "all alike"

    def rows(self, cells: Any) -> tuple[Row, ...]:
        """A row for each method; `cells(place, arm)`, with dashes where there are no values of it."""
        place = {arm.name: m for m, arm in enumerate(self.values.arms)}
        width = len(cells(0, self.values.arms[0]))
        return tuple(
            Row(arm.name, arm.title, tuple(cells(place[arm.name], arm)) if arm.name in place else (Cell(),) * width)
            for arm in labels.methods(self.benchmark)
        )

    def table(
        self, name: str, title: str, columns: Sequence[Column], sections: Sequence[Section], **more: Any
    ) -> Table:
        more = {"about": about(self.benchmark), "protocol": SELECTED[SELECTION]} | more
        return Table(name=name, title=title, columns=tuple(columns), sections=tuple(sections), **more)


def one_section(rows: Sequence[Row]) -> tuple[Section, ...]:
    return (Section("", "", (Group("", tuple(rows)),)),) if rows else ()
