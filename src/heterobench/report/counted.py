"""What the rule for missing values had to do: in a sentence, and line by line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from heterobench.report import labels, missing
from heterobench.report.metrics import METRICS
from heterobench.report.missing import Cube, Filled, cube
from heterobench.report.pooling import answers
from heterobench.report.table import Cell, Column, Group, Row, Section, Source, Table

if TYPE_CHECKING:
    from heterobench.report.data import ReportData

TARGET = "rounds_to_target"
Pair = tuple[str, int]


def counted(values: Cube) -> tuple[str, ...]:
    """One sentence on how much the rule had to do; nothing where everything is there."""
    filled, left = len(values.filled), len(values.left_out)
    found = [f"{filled} value{'s' * (filled > 1)} counted as the worst of the same scenario and seed"] * bool(filled)
    found += [f"{left} pair{'s' * (left > 1)} of scenario and seed left out for all"] * bool(left)
    return (f"Tests, ranks and P(better): {', '.join(found)}. See what was counted by the rule.",) if found else ()


def counted_by_rule(data: ReportData, values: Cube) -> Table:
    """Every value that was counted by the rule, and what was left out for all; one row for several seeds."""
    benchmark = data.benchmark
    arms = {arm.name: arm.title for arm in benchmark.arms}
    scenarios = {scenario.name: labels.title(benchmark, scenario) for scenario in benchmark.scenarios}
    cases: dict[tuple, list[tuple[int, str]]] = {}
    for what, source, filled, left_out in _tested(data, values):
        for one in filled:
            key = (one.arm, one.scenario, what, missing.WHY[one.why], source)
            cases.setdefault(key, []).append((one.seed, _worst(one.value, source)))
        for scenario, seed in left_out:
            cases.setdefault(("", scenario, what, "no method has a value", source), []).append((seed, "left out"))

    def row(arm: str, scenario: str, what: str, why: str, source: Source, found: list[tuple[int, str]]) -> Row:
        seeds = ", ".join(str(seed) for seed, _ in found)
        counts = ", ".join(dict.fromkeys(words for _, words in found))
        of = (source._replace(scenario=scenario, arm=arm),) if arm else ()
        cells = [Cell(text=text) for text in (scenarios[scenario], seeds, what)]
        cells += [Cell(text=counts, of=of), Cell(text=why)]
        return Row(f"{arm}/{scenario}/{what}/{why}", arms.get(arm, "All methods"), tuple(cells))

    rows = tuple(row(*key, found) for key, found in cases.items())
    return Table(
        "counted-by-rule",
        "Counted by the rule for what is missing",
        "",
        tuple(Column(title.lower(), title, words=True) for title in ("Scenario", "Seeds", "Value", "Counts as", "Why")),
        (Section("", "", (Group("", rows),)),) if rows else (),
        notes=(missing.RULE,) if rows else (),
        empty="Nothing: every ranked method has every value.",
    )


def _tested(data: ReportData, values: Cube) -> Iterator[tuple[str, Source, Iterable[Filled], Iterable[Pair]]]:
    """What is counted, where it stands (without scenario and method), the filled values and what was left out."""
    targets = {scenario.name for scenario in data.benchmark.scenarios if scenario.target is not None}
    title = f"{METRICS[values.metric].title} ({values.selection})"
    yield title, Source("", "", values.selection, values.metric), values.filled, values.left_out
    if targets:
        of = cube(data, "run", TARGET)
        left_out = [pair for pair in of.left_out if pair[0] in targets]
        yield METRICS[TARGET].title, Source("", "", "run", TARGET), of.filled, left_out
    pooled = answers(data)
    yield "Answers to test examples", Source("", ""), pooled.filled, pooled.left_out


def _worst(value: float, source: Source) -> str:
    if not source.metric:
        return "all wrong"
    return "not reached" if math.isinf(value) else " ".join(filter(None, (f"{value:.1f}", METRICS[source.metric].unit)))
