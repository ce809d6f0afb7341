"""Results of made-up methods as `ReportData`, for the sections that compare and rank."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from heterobench.config.schema import Budget, ModelFile, PartitionFile, ScheduleFile
from heterobench.keyed import generator
from heterobench.project import Project
from heterobench.report.data import ReportData
from heterobench.resolve import Arm, Benchmark, Scenario

NAMES = (
    *("FedAvg", "FedProx", "SCAFFOLD", "FedNova", "FedDyn", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"),
    *("FedSpeed, a longer name", "FedAMD", "FedAU", "Coordinate clipping", "FedExP", "FedDC", "FedRS", "FedLC"),
)


def methods(count: int) -> tuple[Arm, ...]:
    """So many ranked methods; what computes them does not matter here."""
    titles = [*NAMES, *(f"Method {place}" for place in range(len(NAMES), count))]
    return tuple(Arm(f"m{place}" if place else "fedavg", titles[place], "fedavg", {}, {}) for place in range(count))


REFERENCE = Arm("centralised", "Centralised (reference)", "centralised", {}, {})


def make_benchmark(arms, scenarios: int = 4, seeds: int = 5, target: float | None = 0.9) -> Benchmark:
    titles = ("IID", "Dirichlet(0.1)", "2 classes per client", "Quantity, Dirichlet(0.5)")
    titles = tuple(titles[s] if s < len(titles) else f"Partition {s}" for s in range(scenarios))
    return Benchmark(
        name="made-up",
        preset="mini",
        title="Made up",
        about="",
        scenarios=tuple(
            Scenario(
                dataset="digits",
                partition=f"p{place}",
                model="mlp",
                schedule="full",
                partition_file=PartitionFile(title=title, scheme="iid", clients=10),
                model_file=ModelFile(title="MLP", architecture="mlp"),
                schedule_file=ScheduleFile(title="full participation"),
                budget=Budget(rounds=30, local_epochs=2, batch_size=16),
                settings={"lr": 0.1},
                target=target,
            )
            for place, title in enumerate(titles)
        ),
        arms=tuple(arms),
        seeds=tuple(range(seeds)),
        project=Project(Path("nowhere")),
    )


def make_data(benchmark: Benchmark, accuracy, correct=None, run=None) -> ReportData:
    """`accuracy` [arms, scenarios, seeds] in 0..1, NaN for a run that is missing.

    `correct` (arm, scenario, seed numbers) -> bool [n] or None; `run` metric -> [arms, scenarios, seeds], NaN for no
    row and inf for a target that was never reached.
    """
    accuracy = np.asarray(accuracy, dtype=float)
    rows, ledger, outcomes = [], [], {scenario.name: [] for scenario in benchmark.scenarios}
    for m, arm in enumerate(benchmark.arms):
        for s, scenario in enumerate(benchmark.scenarios):
            for k, seed in enumerate(benchmark.seeds):
                there = not np.isnan(accuracy[m, s, k])
                key = {"scenario": scenario.name, "arm": arm.name, "seed": seed}
                status = "finished" if there else "missing"
                ledger.append(key | {"status": status, "run_id": f"{m}-{s}-{seed}" if there else None, "error": None})
                if not there:
                    continue
                found = [("validation", "test_accuracy", accuracy[m, s, k])]
                found += [("run", name, values[m][s][k]) for name, values in (run or {}).items()]
                rows += [
                    key | {"selection": selection, "metric": metric, "value": float(value)}
                    for selection, metric, value in found
                    if not np.isnan(value)
                ]
                if correct is not None and (bits := correct(m, s, k)) is not None:
                    outcomes[scenario.name].append({"arm": arm.name, "seed": seed, "correct": bits})
    return ReportData(
        benchmark=benchmark,
        evaluation=pd.DataFrame(rows, columns=["scenario", "arm", "seed", "selection", "metric", "value"]),
        curves={},
        ledger=pd.DataFrame(ledger).assign(revision="", dirty=False, folder=""),
        outcomes={name: pd.DataFrame(found, columns=["arm", "seed", "correct"]) for name, found in outcomes.items()},
        tuning={},
    )


def plausible(count: int, scenarios: int = 4, seeds: int = 5, examples: int = 360, references: bool = True):
    """A benchmark in which methods differ a little, with answers to test examples and costs."""
    extra = (REFERENCE,) if references else ()
    benchmark = make_benchmark((*methods(count), *extra), scenarios, seeds)
    random = generator(0, "made-up results", count)
    shape = (len(benchmark.arms), scenarios, seeds)
    skill = random.normal(2.5, 0.35, shape[0])[:, None, None] - 0.35 * np.arange(scenarios)[None, :, None]
    skill = skill + random.normal(0, 0.25, shape[:2])[:, :, None] + random.normal(0, 0.08, shape)
    hard = random.normal(0, 1.6, examples)
    bits = random.random((*shape, examples)) < 1 / (1 + np.exp(hard - skill[..., None]))
    accuracy = bits.mean(axis=-1)
    rounds = 4 + 30 * (0.97 - accuracy) + random.exponential(2, shape)
    bytes_up = 5e6 * np.where(np.arange(shape[0]) == 2, 2.0, 1.0)[:, None, None] * np.ones(shape)
    bytes_up[3::4] /= 8
    run = {
        "rounds_to_target": np.where(rounds < 10, rounds, np.inf),
        "bytes": 2 * bytes_up,
        "simulated_seconds": random.uniform(50, 400, shape[0])[:, None, None] * np.ones(shape),
    }
    return make_data(benchmark, accuracy, lambda m, s, k: bits[m, s, k], run)


def with_status(data, changes):
    """The data with the status of some runs, (arm, scenario number, seed) -> status; their values stay as they are."""
    names = [scenario.name for scenario in data.benchmark.scenarios]
    ledger = data.ledger.copy()
    for (arm, scenario, seed), status in changes.items():
        at = (ledger["arm"] == arm) & (ledger["scenario"] == names[scenario]) & (ledger["seed"] == seed)
        assert at.sum() == 1
        ledger.loc[at, "status"] = status
    return replace(data, ledger=ledger)


def restricted(data, benchmark):
    """The data of a smaller benchmark."""
    names, arms = {s.name for s in benchmark.scenarios}, {arm.name for arm in benchmark.arms}

    def rows(frame):
        kept = frame["arm"].isin(arms) & frame["seed"].isin(benchmark.seeds)
        return frame[kept & frame["scenario"].isin(names)] if "scenario" in frame else frame[kept]

    outcomes = {name: rows(data.outcomes[name]) for name in names}
    return replace(
        data, benchmark=benchmark, evaluation=rows(data.evaluation), ledger=rows(data.ledger), outcomes=outcomes
    )


def with_value(data, arm, scenario, seed, value):
    """The data with another test accuracy; None removes its row."""
    frame = data.evaluation.copy()
    at = (frame["arm"] == arm) & (frame["scenario"] == data.benchmark.scenarios[scenario].name)
    at &= (frame["seed"] == seed) & (frame["metric"] == "test_accuracy")
    assert at.sum() == 1
    if value is None:
        frame = frame[~at]
    else:
        frame.loc[at, "value"] = value
    return replace(data, evaluation=frame)


def by_name(made):
    return {table.name: table for table in made}


def column(table, key, section=None):
    """Row key -> cell of a column."""
    at = [c.key for c in table.columns].index(key)
    return {row.key: row.cells[at] for s, _, row in table.bodies if section in (None, s.key)}


# figures


def words(figure):
    return {text.get_text() for text in texts(figure)}


def texts(figure):
    """All words that are drawn; ticks beyond the ends of their axis are not."""
    from matplotlib.text import Text

    figure.canvas.draw()
    hidden = set()
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:
                hidden |= {tick.label1, tick.label2}
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]


def check_layout(figure):
    """No words on others, none outside of the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.bbox.width, figure.bbox.height
    drawn = texts(figure)
    assert drawn
    boxes = {t: Text.get_window_extent(t, renderer) for t in drawn}
    for text, box in boxes.items():
        inside = min(box.x0, box.y0) >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text.get_text()!r} is cut off: {box} of {width:.0f} x {height:.0f}"
    for one, other in itertools.combinations(drawn, 2):
        assert not overlap(one, boxes[one], other, boxes[other]), f"{one.get_text()!r} and {other.get_text()!r} overlap"


def overlap(one, a, other, b):
    """Whether two words overlap; of words with one slant by how far their lines are apart, of others by their boxes."""
    if one.get_rotation() == other.get_rotation() and one.get_rotation() % 90:
        slant = np.radians(one.get_rotation())
        apart = abs((b.x0 - a.x0) * np.sin(slant) - (b.y0 - a.y0) * np.cos(slant))
        return apart < one.get_fontsize() * one.figure.dpi / 72
    across = min(a.x1, b.x1) - max(a.x0, b.x0)
    up = min(a.y1, b.y1) - max(a.y0, b.y0)
    # boxes of two lines under each other touch by the room that a font keeps for accents
    return across >= 1 and up >= 0.12 * min(a.height, b.height)
