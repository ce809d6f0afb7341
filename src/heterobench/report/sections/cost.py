"""What a method costs: bytes, time, energy, and all of them until a target accuracy is reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report import labels
from heterobench.report.metrics import CENSORED_AT, METRICS
from heterobench.report.sections.provenance import meters
from heterobench.report.tables import by_metric, measured
from heterobench.resolve import Benchmark, Scenario
from heterobench.stats.ties import RULE

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "cost", "Cost"
READING = (
    "Bytes are those of the encoded messages, up and down, over all clients and rounds. Wall time depends on the "
    "machine and on what else it computed: compare it within this page only, and with care.",
    "Simulated time is what the declared devices and links of the schedule would take. Energy is measured where the "
    "hardware has a counter, and a model of the CPU's where it has none; the heading of its column says so.",
    "To target: what it took to reach a validation accuracy that was fixed beforehand. A value after > is a lower "
    "bound: some runs did not get there within their budget, and each of these counts with its whole budget. Runs that "
    "failed or are missing, or diverged and stopped before, are left out.",
)
CAPTIONS: dict[str, str] = {}
ALWAYS = ("bytes_up", "bytes_down", "seconds")
WHERE_RECORDED = ("gradient_examples", "flops", "simulated_seconds", "joules")
SPENT = (
    "Per run, summed over all clients and rounds; 1 MB = 10^6 bytes. Wall time is that of training, evaluation aside; "
    "it depends on the machine and on what else it computed."
)
REACHED = (
    "Target: a validation accuracy, interpolated between evaluated rounds of the best so far. > x: some runs did not "
    "reach the target (reached/all runs beside it). x is a lower bound of the mean over the runs that are there: those "
    "that did not reach it in their budget count with the whole of it. Runs that failed or are missing are left out of "
    "x, and so are those that diverged and stopped before they reached it."
)


def targets(benchmark: Benchmark) -> bool:
    return any(scenario.target is not None for scenario in benchmark.scenarios)


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("cost", "target") if targets(benchmark) else ("cost",)


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    benchmark = data.benchmark
    spent = (*ALWAYS, *measured(data, "run", WHERE_RECORDED))

    def heading(scenario: Scenario) -> str:
        target = "no target" if scenario.target is None else f"target {100 * scenario.target:g} %"
        return f"{labels.title(benchmark, scenario)} ({target})"

    notes, columns = energy(data)
    made = [by_metric(data, "cost", "Communication, time and energy", "run", spent, (SPENT, *notes), columns=columns)]
    if targets(benchmark):
        reached = ("rounds_to_target", *(m for m in measured(data, "run", CENSORED_AT) if m != "rounds_to_target"))
        title = "What it took to reach the target"
        made.append(by_metric(data, "target", title, "run", reached, (REACHED, *notes, RULE), heading, columns))
    return made


def energy(data: ReportData) -> tuple[tuple[str, ...], dict[str, tuple[str, str]]]:
    """(notes, titles of columns) that say how energy was counted, and mark it where it is a model's."""
    kinds = meters(data)
    if not kinds:
        return (), {}
    note = f"Energy: {'; '.join(kinds)}. Simulated clients cost the energy of the simulator, not that of devices."
    modelled = any(not p["energy"]["measured"] for p in data.provenance.values() if p.get("energy"))
    names = ("joules", "joules_to_target") if modelled else ()
    return (note,), {name: ("", f"{METRICS[name].title}, modelled") for name in names}


def figures(data: ReportData) -> dict[str, Any]:
    return {}
