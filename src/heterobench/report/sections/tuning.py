"""What tuning tried and chose."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from heterobench.report import labels
from heterobench.report.table import Cell, Column, Group, Row, Section, Table
from heterobench.resolve import Arm, Benchmark, Scenario

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from heterobench.report.data import ReportData

KEY = "tuning"
TITLE = "Tuned values"
READING = (
    "Every method had the same number of trials in each scenario, the first of them its defaults. The note under the "
    "table says by which design. Two-stage draws the shared hyper-parameters (usually the step size) alike for all "
    "methods, with a method's own ones at their defaults; then it changes one of the own ones at a time at the best of "
    "these, which stays a candidate. Trials that a method has no own values for go to shared values close to that "
    "best, so having more hyper-parameters is no worse luck. Random draws all of them together. Optuna begins like "
    "two-stage and goes on with its own proposals.",
    "The trials have seeds of their own, so the runs of the tables had no part in the choice. The intervals of the "
    "tables hold for the chosen values: what another choice would have changed is not in them.",
    "The last columns show what the test set would have chosen among the same trials. Nobody could have done that: the "
    "distance says how much there was to gain by looking, and how good a guide the validation data was.",
)
CAPTIONS = {
    "tuning": "Validation accuracy of every trial, by method. Filled: chosen; ring: the defaults; dots: the others. "
    "A wide row is a method that depends on its hyper-parameters; trials that were stopped early, failed or lie below "
    "the axis are left out."
}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("tuned",) if benchmark.tuning else ()


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("tuning",) if benchmark.tuning else ()


def tables(data: ReportData) -> list[Table]:
    return [_tuned(data)] if data.benchmark.tuning else []


def figures(data: ReportData) -> dict[str, Figure]:
    return {"tuning": _trials(data)} if data.benchmark.tuning else {}


def setting(values: dict[str, Any]) -> str:
    """``lr 0.1, mu 0.01``."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


COLUMNS = (
    Column("values", "Chosen values", words=True),
    Column("trial", "Trial", digits=0),
    Column("stage", "Stage", digits=0),
    Column("validation", "Validation accuracy", unit="%", direction="max"),
    Column("gain", "Gain over defaults", unit="points", signed=True),
    Column("test", "Test, last round", unit="%", direction="max"),
    Column("oracle", "Test set's choice", words=True),
    Column("oracle_test", "Its test, last round", unit="%", direction="max"),
)


def _tuned(data: ReportData) -> Table:
    benchmark, tuning = data.benchmark, data.benchmark.tuning

    def row(scenario: Scenario, arm: Arm) -> Row:
        found = data.tuning.get((scenario.name, arm.name))
        if found is None:
            return Row(arm.name, arm.title, (Cell(text="not there"), *(Cell() for _ in COLUMNS[1:])))
        trials = found["trials"]
        chosen, oracle = trials[found["chosen"]], trials[found["oracle"]]
        best, defaults = chosen["validation"], trials[0]["validation"]
        whole = trials[0]["status"] == "finished"
        same = found["chosen"] == found["oracle"]
        cells = (
            Cell(value=found["chosen"], text=setting(chosen["hyperparameters"])),
            Cell(value=found["chosen"]),
            Cell(value=chosen["stage"]),
            Cell(value=100 * best),
            Cell(value=100 * (best - defaults) if whole else math.nan),
            Cell(value=100 * chosen["test"]),
            Cell(value=found["oracle"], text="the same" if same else setting(oracle["hyperparameters"])),
            Cell(value=100 * oracle["test"]),
        )
        return Row(arm.name, arm.title, cells)

    def section(scenario: Scenario) -> Section:
        parts = (("Methods", labels.methods(benchmark)), ("References", labels.references(benchmark)))
        groups = tuple(Group(name, tuple(row(scenario, arm) for arm in arms)) for name, arms in parts if arms)
        return Section(scenario.name, labels.title(benchmark, scenario), groups)

    stopped = tuning.early_stopping
    notes = (
        f"{tuning.trials} trials for each method and scenario, on seed{'s' * (len(tuning.seeds) > 1)} "
        f"{', '.join(map(str, tuning.seeds))}; trial 0 is the defaults.",
        f"Design {tuning.design}: {labels.DESIGNS[tuning.design]}. Shared: {', '.join(tuning.shared)}."
        if tuning.design != "random"
        else f"Design random: {labels.DESIGNS['random']}.",
        "Chosen by the test set (oracle): an upper bound, no fair answer."
        if tuning.rule == "oracle"
        else "Chosen by validation accuracy, each trial at its own best round; of equal ones by validation loss there.",
        *(
            [
                f"After {100 * stopped.after:g} % of the rounds only the best {100 * stopped.keep:g} % of a stage's "
                "trials went on, in the second stage compared with the best of the first as well; the defaults have no "
                "gain beside them where they were stopped."
            ]
            if stopped
            else []
        ),
        *(["not there: the trials were not finished."] if _incomplete(data) else []),
        "Personal models: the test accuracy is the mean over the clients' models.",
    )
    return Table(
        "tuned",
        "What tuning chose",
        ", ".join(labels.common(benchmark)),
        COLUMNS,
        tuple(section(scenario) for scenario in benchmark.scenarios),
        notes=notes,
    )


def _incomplete(data: ReportData) -> bool:
    return len(data.tuning) < len(data.benchmark.scenarios) * len(data.benchmark.arms)


def _trials(data: ReportData) -> Figure:
    import matplotlib
    from matplotlib.figure import Figure

    from heterobench import words
    from heterobench.report.figures import STYLE, TITLE, styles

    benchmark = data.benchmark
    arms = labels.methods(benchmark) + labels.references(benchmark)
    look = styles(benchmark)
    scenarios = benchmark.scenarios
    columns = min(len(scenarios), 2)
    rows = math.ceil(len(scenarios) / columns)
    names = words.names([arm.title for arm in arms])
    room = (9.6 - words.widest(names) - 0.3) / columns - 0.2
    titles = {s.name: words.wrapped(labels.title(benchmark, s), room, TITLE, most=3) for s in scenarios}
    more = max(title.count("\n") for title in titles.values())
    with matplotlib.rc_context(STYLE):
        height = 0.24 * len(arms) + 0.75 + 0.17 * more
        figure = Figure(figsize=(9.6, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for ax, scenario in zip(axes.flat, scenarios, strict=False):
            points = {arm.name: _finished(data.tuning.get((scenario.name, arm.name))) for arm in arms}
            left = _left([score for scores in points.values() for _, score, _ in scores])
            for place, arm in enumerate(arms):
                shown = [(n, score, chosen) for n, score, chosen in points[arm.name] if score >= left]
                for number, score, chosen in sorted(shown, key=lambda point: point[2]):
                    ax.scatter(
                        score,
                        place,
                        s=46 if chosen else 30 if number == 0 else 14,
                        facecolors=look[arm.name]["color"] if chosen or number else "none",
                        edgecolors=look[arm.name]["color"],
                        linewidths=1.1,
                        alpha=1 if chosen or number == 0 else 0.55,
                        zorder=3,
                    )
            ax.set_title(titles[scenario.name], color="#1c1e21")
            ax.set_yticks(range(len(arms)), names)
            ax.set_ylim(len(arms) - 0.5, -0.5)
            ax.set_xlabel("Validation accuracy (%)")
            ax.set_xlim(left=left - 1)
            ax.tick_params(axis="y", length=0)
        for ax in list(axes.flat)[len(scenarios) :]:
            ax.remove()
    return figure


def _finished(found: dict[str, Any] | None) -> list[tuple[int, float, bool]]:
    """(trial, validation accuracy in %, chosen) of the trials that ran to their end."""
    if found is None:
        return []
    return [
        (trial["trial"], 100 * score, trial["trial"] == found["chosen"])
        for trial in found["trials"]
        if trial["status"] == "finished" and math.isfinite(score := trial["validation"])
    ]


def _left(scores: list[float]) -> float:
    """Where the axis begins: it shows nine tenths of all trials, so that a collapse does not press them together."""
    if not scores:
        return 0.0
    ordered = sorted(scores)
    return ordered[len(ordered) // 10]
