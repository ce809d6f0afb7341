"""Learning curves, over rounds, over what was sent and over simulated time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report import labels
from heterobench.resolve import Benchmark

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "curves", "Learning curves"
READING = (
    "A line is the mean over seeds, its band the 95 % t interval of that mean. All panels share their vertical axis. "
    "FedAvg, or what stands for it, is the black line; references are grey.",
    "A cross: a run diverged here, and no mean is drawn beyond it, since a mean over the runs that are left would be "
    "too good. Horizontal lines: references without rounds of communication, or without a global model.",
)
BAND = (
    "Mean over seeds; the band is the 95 % t interval. Horizontal lines: references without rounds of "
    "communication, or without a global model, after their last round. A cross: a run diverged here, and "
    "no mean is drawn beyond it."
)
OVERVIEWS = {
    "curves-rounds": ("rounds", f"Test accuracy over rounds. {BAND}"),
    "curves-bytes": ("bytes", "The same over megabytes sent up and down by all clients together."),
    "curves-time": (
        "time",
        "The same over the seconds that training would take on the devices and links that the schedule declares: a "
        "model, and no measurement.",
    ),
}
ONE = "curve-"


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return (*overviews(benchmark), *(ONE + scenario.name for scenario in benchmark.scenarios))


def overviews(benchmark: Benchmark) -> list[str]:
    """Simulated time only where every schedule has a clock."""
    clocks = all(scenario.schedule_file.clock is not None for scenario in benchmark.scenarios)
    return [name for name, (axis, _) in OVERVIEWS.items() if axis != "time" or clocks]


def caption(name: str, benchmark: Benchmark) -> str:
    if name in OVERVIEWS:
        return OVERVIEWS[name][1]
    scenario = next(s for s in benchmark.scenarios if s.name == name.removeprefix(ONE))
    return f"Test accuracy over rounds: {labels.title(benchmark, scenario)}."


def folded(name: str) -> bool:
    """The scenarios one by one are shown on demand."""
    return name not in OVERVIEWS


def tables(data: ReportData) -> list[Table]:
    return []


def figures(data: ReportData) -> dict[str, Any]:
    from heterobench.report import figures as draw

    benchmark = data.benchmark
    levels = {
        (source.scenario, source.arm): row["mean"]
        for source, row in data.cells.items()
        if source[2:] == ("last", "test_accuracy") and row["n_finite"] == row["n_expected"]
    }
    found = {name: draw.overview(benchmark, data.curves, levels, OVERVIEWS[name][0]) for name in overviews(benchmark)}
    return found | {ONE + s.name: draw.single(benchmark, s, data.curves[s.name], levels) for s in benchmark.scenarios}
