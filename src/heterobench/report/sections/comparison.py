"""Which methods differ from each other: paired differences with intervals, tests over scenarios, power, and costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heterobench.report import labels
from heterobench.report.cells import interval, p_value
from heterobench.report.counted import TARGET, counted, counted_by_rule
from heterobench.report.differences import (
    ALPHA,
    METRIC,
    SELECTION,
    Difference,
    Tests,
    attainable,
    control,
    difference,
    enough,
    omnibus,
)
from heterobench.report.metrics import METRICS
from heterobench.report.missing import Cube, cube, observed
from heterobench.report.table import Cell, Column, Group, Row, Section, Source, Table
from heterobench.report.tables import CLEAR, SELECTED, about, marked
from heterobench.resolve import Arm, Benchmark
from heterobench.stats.intervals import Summary, mean_interval
from heterobench.stats.mean_ranks import critical_difference
from heterobench.stats.power import detectable_difference, seeds_needed

if TYPE_CHECKING:
    from heterobench.report.data import ReportData

KEY, TITLE = "comparison", "Comparison over scenarios"
POWER, MOST = 0.8, 10_000
READING = (
    "The first table asks three different questions about each method's difference to the baseline. Would other seeds "
    "of these scenarios say the same? The interval over seeds. Would other scenarios? The interval over "
    "scenarios and the test over scenarios, which know only as many values as there are scenarios: seeds of one "
    "scenario are no further scenarios. And how often does one run of the method beat one run of the baseline?",
    "p: Wilcoxon's signed-rank test over scenarios, exact, with Holm's correction for the number of comparisons. With "
    "few scenarios it cannot become small whatever the differences; then a footnote says so. A "
    "difference that is not significant is not shown to be zero: look at the interval.",
    "The critical-difference diagram shows mean ranks over scenarios, the best to the left. A bar joins methods that "
    "Nemenyi's test does not tell apart at 5 %. That test depends on which other methods are in the table; where it "
    "and Wilcoxon's disagree, the latter is the one to trust (Benavoli et al. 2016).",
    "Performance profiles: how large a share of the runs a method finishes within x times the rounds of the fastest "
    "method of the same scenario and seed. To the left: how often it is the fastest. To the right: how often it gets "
    "to the target at all. Score profiles: how large a share of a method's runs is above an accuracy; a line above "
    "another one everywhere is better at every level.",
    "Accuracy against cost: a method below and to the right of another is worse in both. The step line joins the "
    "methods that no other beats in both.",
)
CAPTIONS = {
    "critical-difference": "Mean ranks of the methods over scenarios (1 is best, ties share their mean rank). Bars "
    "join methods whose mean ranks differ by less than the critical difference, the length of the ruler (Nemenyi, "
    "5 %). Below: the test that all methods are alike.",
    "cost-profiles": "Share of runs that reach the target accuracy within x times the rounds of the fastest method of "
    "the same scenario and seed. Targets and what reaching means: see the table of costs. A run that never gets there, "
    "or is not there, stays in the denominator. Beside a name: the mean share over x from 1 to 4 (1: always the "
    "fastest).",
    "score-profiles": "Share of runs with a test accuracy above the value of the axis, each scenario with the same "
    "weight. A panel for each method, with the baseline in black and the others in grey; the band is at each value the "
    "wider of two 95 % intervals, Wilson's over runs and Student's over seeds.",
    "pareto": "Mean test accuracy over scenarios against cost relative to the baseline (geometric mean over "
    "scenarios). The line is the Pareto front. Hypervolume: the area that the front dominates, of accuracy from 0 to "
    "100 % and of the logarithm of the relative cost from 1/100 to 10, both scaled to [0, 1]; these bounds are fixed "
    "for all benchmarks.",
}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    several = len(labels.methods(benchmark)) > 1
    return ("comparison", "pairwise", "power", "counted-by-rule") if several else ()


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    if len(labels.methods(benchmark)) < 2:
        return ()
    target = any(scenario.target is not None for scenario in benchmark.scenarios)
    return ("critical-difference", *(("cost-profiles",) if target else ()), "score-profiles", "pareto")


def tables(data: ReportData) -> list[Table]:
    if not table_names(data.benchmark):
        return []
    values = cube(data, SELECTION, METRIC)
    return [
        _comparison(data, values),
        _pairwise(data, values),
        _power(data),
        counted_by_rule(data, values),
    ]


def figures(data: ReportData) -> dict[str, Any]:
    """The figures by name; matplotlib is loaded here and not before."""
    from heterobench.report import diagrams, trade_offs

    values = cube(data, SELECTION, METRIC)
    make = {
        "critical-difference": partial(diagrams.critical_differences, data.benchmark, values),
        "cost-profiles": lambda: trade_offs.cost_profiles(data.benchmark, cube(data, "run", TARGET)),
        "score-profiles": partial(trade_offs.score_profiles, data.benchmark, values),
        "pareto": partial(trade_offs.pareto, data, values),
    }
    return {name: make[name]() for name in figure_names(data.benchmark)}


def _cells(found: Difference, of: tuple[Source, ...], digits: int) -> tuple[Cell, Cell, Cell]:
    """Mean, interval over seeds, interval over scenarios."""
    mark = (CLEAR[0],) if found.clear else ()
    mean = Cell(found.mean, n=found.n, n_finite=found.n, n_expected=found.expected, marks=mark, of=of)
    return mean, interval(*found.seeds, digits, of), interval(*found.scenarios, digits, of)


# the tables


def _columns(base: Arm, digits: int) -> tuple[Column, ...]:
    to, against = f"Difference to {base.title} (points)", "Run against run"
    return (
        Column("mean", "Mean", "Accuracy (%)", direction="max", digits=digits),
        Column("difference", "Mean", to, direction="max", digits=digits, signed=True),
        Column("over-seeds", "Over seeds", to),
        Column("scenarios", "Over scenarios", to),
        Column("p", "p (Holm)", to, digits=3),
        Column("improvement", "P(better)", against, direction="max", digits=2),
        Column("improvement-interval", "Interval", against),
        Column("rank", "Mean rank", "Over scenarios", direction="min", digits=2),
        Column("record", "Won, tied, lost", "Over scenarios"),
    )


def _comparison(data: ReportData, values: Cube) -> Table:
    benchmark = data.benchmark
    base, digits = control(benchmark), METRICS[METRIC].digits or 1
    empty = Table(
        "comparison",
        f"Methods compared with {base.title} over scenarios",
        about(benchmark),
        _columns(base, digits),
        (),
        protocol=SELECTED[SELECTION],
        empty="No ranked method has a test accuracy.",
    )
    if not values.scenarios:
        return empty
    tests = Tests(values)
    against = tests.place(base)
    tested = against is not None and tests.possible
    p = {one.second: one.p for one in tests.wilcoxon(against)} if tested else {}
    methods, references = labels.methods(benchmark), labels.references(benchmark)
    found = _observed(data, methods + references, values)

    def row(arm: Arm) -> Row:
        own, both = values.sources(arm), values.sources(arm, base)
        mean = _mean(found[arm.name], values.kept, own)
        place = tests.place(arm)
        apart = _cells(difference(found[arm.name], found[base.name], values.kept), both, digits)
        runs = [Cell()] * 3
        if place is not None and against is not None:
            better = tests.improvement(place, against)
            test = _p(p.get(place, math.nan), both, len(values.scenarios), len(p))
            runs = [test, Cell(better.estimate, of=both)]
            runs.append(interval(better.low, better.high, 2, both))
        return Row(arm.name, arm.title, (mean, *apart, *runs, *_places(tests, place, against, own, both)))

    def base_row() -> Row:
        own = values.sources(base)
        places = _places(tests, against, None, own, own)
        return Row(base.name, base.title, (_mean(found[base.name], values.kept, own), *[Cell()] * 6, *places))

    groups = [Group("Methods", tuple(base_row() if arm == base else row(arm) for arm in methods))]
    groups += [Group("References", tuple(row(arm) for arm in references))] * bool(references)
    made = replace(
        empty,
        sections=(Section("", "", tuple(groups)),),
        footnotes=_few(len(values.scenarios), len(p)),
        notes=_notes(benchmark, values, base, tests),
    )
    return marked(made)


def _p(p: float, of: tuple[Source, ...], scenarios: int, comparisons: int) -> Cell:
    """p of a test over scenarios, marked where it could not be small whatever the differences."""
    return replace(p_value(p, of), marks=tuple(mark for mark, _ in _few(scenarios, comparisons)))


def _few(scenarios: int, comparisons: int) -> tuple[tuple[str, str], ...]:
    """The footnote on p-values that cannot be small; none where they can, or where nothing is tested."""
    if not comparisons or enough(comparisons) <= scenarios:
        return ()
    return (("d", f"Wilcoxon's test: {attainable(scenarios, comparisons)}"),)


def _places(
    tests: Tests, place: int | None, against: int | None, own: tuple[Source, ...], both: tuple[Source, ...]
) -> tuple[Cell, Cell]:
    """Mean rank, and scenarios won, tied and lost."""
    if place is None:
        return Cell(), Cell()
    rank = Cell(float(tests.mean_ranks[place]), of=own)
    if against is None:
        return rank, Cell()
    won, tied, lost = tests.record(place, against)
    return rank, Cell(won - lost, text=f"{won}–{tied}–{lost}", of=both)


def _observed(data: ReportData, arms: Sequence[Arm], values: Cube) -> dict[str, NDArray[np.float64]]:
    """What was observed of each arm [scenarios of the cube, seeds], nothing filled."""
    places = [data.benchmark.scenarios.index(scenario) for scenario in values.scenarios]
    found = observed(data, arms, SELECTION, METRIC)
    return {arm.name: row[places] for arm, row in zip(arms, found, strict=True)}


def _mean(found: NDArray[np.float64], kept: NDArray[np.bool_], of: tuple[Source, ...]) -> Cell:
    """Mean over scenarios of means over the runs that are there; none where a scenario has no run."""
    rows = [row[keep] for row, keep in zip(found, kept, strict=True)]
    finite = [row[np.isfinite(row)] for row in rows]
    n, expected = sum(row.size for row in finite), sum(row.size for row in rows)
    value = float(np.mean([row.mean() for row in finite])) if all(row.size for row in finite) else math.nan
    return Cell(value, n=n, n_finite=n, n_expected=expected, of=of)


def _notes(benchmark: Benchmark, values: Cube, base: Arm, tests: Tests) -> tuple[str, ...]:
    one_seed = len(benchmark.seeds) == 1
    return (
        "Every scenario counts the same. "
        + (
            "One seed, so no interval over seeds."
            if one_seed
            else "Over seeds: 95 % t interval of the seeds' mean differences over these scenarios, each seed one value "
            "since it is shared by all scenarios; the star and this interval speak of other seeds of these scenarios."
        )
        + " Over scenarios: 95 % t interval of the scenarios' mean differences, which speaks of other scenarios too.",
        f"p: Wilcoxon's signed-rank test against {base.title} over scenarios (exact), on the means as printed, with "
        "Holm's correction.",
        f"P(better): probability that a run of the method beats a run of {base.title} in the same scenario, ties one "
        "half, mean over scenarios. Interval: 95 %, the wider of Newcombe's score interval over runs and Student's "
        "over seeds; rather too wide than too narrow with few seeds.",
        omnibus(tests.friedman(), len(values.arms)),
        *counted(values),
    )


def _pairwise(data: ReportData, values: Cube) -> Table:
    """Every pair of methods: the difference and two tests."""
    digits = METRICS[METRIC].digits or 1
    some = len(values.scenarios) > 0 and len(values.arms) > 1
    several = some and len(values.scenarios) > 1
    table = Table(
        "pairwise",
        "Every pair of methods",
        about(data.benchmark),
        (
            Column("difference", "Mean", "Difference (points)", digits=digits, signed=True),
            Column("over-seeds", "Over seeds", "Difference (points)"),
            Column("scenarios", "Over scenarios", "Difference (points)"),
            Column("wilcoxon", "Wilcoxon, Holm", "p over scenarios", digits=3),
            Column("nemenyi", "Nemenyi", "p over scenarios", digits=3),
        ),
        (Section("", "", (Group("", _pairs(data, values, digits)),)),) if some else (),
        footnotes=_few(len(values.scenarios), len(values.arms) * (len(values.arms) - 1) // 2) if several else (),
        notes=_pairwise_notes(len(values.arms), len(values.scenarios)) if some else (),
        protocol=SELECTED[SELECTION],
        stub="Pair",
        empty="No two ranked methods have a test accuracy.",
    )
    return marked(table)


def _pairs(data: ReportData, values: Cube, digits: int) -> tuple[Row, ...]:
    arms, tests, found = values.arms, Tests(values), _observed(data, values.arms, values)
    nemenyi = tests.nemenyi()
    nothing = (Cell(), Cell())
    rows = []
    for one in (tested := tests.wilcoxon()):
        a, b = arms[one.first], arms[one.second]
        of = values.sources(a, b)
        cells = _cells(difference(found[a.name], found[b.name], values.kept), of, digits)
        wilcoxon = _p(one.p, of, len(values.scenarios), len(tested))
        both = (wilcoxon, p_value(float(nemenyi[one.first, one.second]), of))
        cells += both if tests.possible else nothing
        rows.append(Row(f"{a.name} {b.name}", f"{a.title} − {b.title}", cells))
    return tuple(rows)


def _pairwise_notes(methods: int, scenarios: int) -> tuple[str, ...]:
    pairs = methods * (methods - 1) // 2
    return (
        "Intervals and the star as in the comparison with the baseline, not corrected for the number of pairs.",
        f"Wilcoxon's signed-rank test over scenarios (exact), with Holm's correction for all {pairs} pairs.",
        "Nemenyi's test compares mean ranks, corrected for all pairs; at 5 % they must differ by "
        f"{critical_difference(methods, scenarios):.2f} (of at most {methods - 1}). It depends on which other methods "
        "are in the table.",
    )


CONSTANT = ("c", "All pairs of runs differ by the same amount: more seeds tell nothing new.")


def _power(data: ReportData) -> Table:
    """Seeds that it would take to tell each method from the baseline, scenario by scenario."""
    benchmark = data.benchmark
    base, n = control(benchmark), len(benchmark.seeds)
    methods = [arm for arm in labels.methods(benchmark) if arm != base]
    runs = observed(data, [base, *methods], SELECTION, METRIC)

    def row(scenario: int, place: int, arm: Arm) -> Row:
        name = benchmark.scenarios[scenario].name
        of = tuple(Source(name, each.name, SELECTION, METRIC) for each in (arm, base))
        apart = mean_interval(runs[1 + place, scenario] - runs[0, scenario])
        half = (apart.high - apart.low) / 2
        mean = Cell(apart.mean, half, apart.std, apart.n_finite, apart.n_finite, n, of=of)
        return Row(arm.name, arm.title, (mean, Cell(apart.std, of=of), *_plan(apart, n, of)))

    sections = tuple(
        Section(
            scenario.name,
            labels.title(benchmark, scenario),
            (Group("", tuple(row(place, m, arm) for m, arm in enumerate(methods))),),
        )
        for place, scenario in enumerate(benchmark.scenarios)
    )
    constant = any(CONSTANT[0] in cell.marks for s in sections for r in s.groups[0].rows for cell in r.cells)
    can = f"Least difference that {n} seed{'s' * (n > 1)} find{'s' * (n == 1)}"
    table = Table(
        "power",
        f"Seeds needed to tell a method from {base.title}",
        about(benchmark),
        (
            Column("difference", "Difference", unit="points", digits=METRICS[METRIC].digits or 1, signed=True),
            Column("std", "Std. dev. of pairs", unit="points", digits=2),
            Column("seeds", "Seeds needed", digits=0),
            Column("least", can, unit="points", digits=2),
        ),
        sections,
        footnotes=(CONSTANT,) * constant,
        notes=(
            f"Difference to {base.title} over common seeds, ± half the 95 % t interval, and the standard deviation "
            "of the pairs.",
            "Seeds needed: the fewest with which a paired t test at 5 % finds the difference with a probability of "
            f"80 %, if difference and deviation are what was measured; > {MOST}: more than that. From few seeds "
            "both are rough themselves: take the order of magnitude for planning, and the interval for judging.",
            "Least difference: what this number of seeds finds with a probability of 80 %, at the measured deviation.",
        ),
        protocol=SELECTED[SELECTION],
    )
    return marked(table)


def _plan(apart: Summary, seeds: int, of: tuple[Source, ...]) -> tuple[Cell, Cell]:
    """Seeds needed, and what the seeds that there are can find; empty where the pairs do not vary, or are too few."""
    if math.isnan(apart.std):
        return Cell(), Cell()
    if apart.std < 1e-9:  # what rounding leaves of equal differences is no spread
        return Cell(marks=(CONSTANT[0],)), Cell(marks=(CONSTANT[0],))
    needed = seeds_needed(apart.mean, apart.std, POWER, ALPHA, most=MOST)
    least = detectable_difference(apart.std, seeds, POWER, ALPHA)
    return Cell(MOST, bound=True, of=of) if needed is None else Cell(needed, of=of), Cell(least, of=of)
