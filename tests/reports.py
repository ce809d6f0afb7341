"""A made-up benchmark with results as the workflow leaves them: for tests of tables, figures and the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from heterobench.config.schema import Budget, Clock, LogNormal, ModelFile, PartitionFile, ScheduleFile
from heterobench.files import write_json, write_sealed
from heterobench.keyed import generator
from heterobench.longform import Evaluated, write
from heterobench.partition.picture import draw_picture
from heterobench.project import Project
from heterobench.records.record import seal
from heterobench.report import outputs
from heterobench.report.data import ReportData, read
from heterobench.report.metrics import FAMILIES, METRICS
from heterobench.report.sections import calibration, coherence, corrected, landscape
from heterobench.resolve import Arm, Benchmark, Scenario

REVISION = "abc1234" + "0" * 33
PARTITIONS = {
    "iid": "IID",
    "dirichlet-0.1": "Dirichlet(0.1)",
    "k-classes-2": "2 classes per client",
    "quantity-dirichlet-0.5": "Quantity, Dirichlet(0.5)",
}
ARMS = {
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "scaffold": "SCAFFOLD",
    "fednova": "FedNova",
    "feddyn": "FedDyn",
    "fedavgm": "FedAvgM",
    "fedadagrad": "FedAdagrad",
    "fedadam": "FedAdam",
    "fedyogi": "FedYogi",
    "centralised": "Centralised (reference)",
    "local-only": "Local only (reference)",
}
CLOCK = Clock(
    examples_per_second=LogNormal(median=1000, sigma=0.5),
    downlink_bytes_per_second=LogNormal(median=1e6, sigma=0.5),
    uplink_bytes_per_second=LogNormal(median=1e5, sigma=0.5),
)
CLIENTS = tuple(name for name in METRICS if name.startswith("client_") and name != "client_dissimilarity")
GROUPS = ("calibration", "fairness", "corrected-labels", "coherence", "landscape", "connectivity")
CHOSEN = {
    "calibration": (*calibration.ERRORS, *calibration.SCALED),
    "fairness": tuple(f"{family}_sex" for family in FAMILIES if family != "barrier_layer"),
    "corrected-labels": corrected.METRICS[1:],
    "coherence": tuple(metric for _, metrics in coherence.TABLES.values() for metric in metrics),
    "landscape": landscape.SHAPE,
    "connectivity": (*landscape.BARRIERS, "barrier_layer_1", "barrier_layer_2"),
}
AT_LAST = ("coherence", "landscape", "connectivity")


def make_benchmark(
    root: Path,
    partitions=PARTITIONS,
    arms=ARMS,
    seeds=5,
    datasets=("digits",),
    rounds=30,
    target=0.9,
    clock=True,
    **more,
) -> Benchmark:
    def scenario(dataset, name, title):
        return Scenario(
            dataset=dataset,
            partition=name,
            model="mlp",
            schedule="full",
            partition_file=PartitionFile(title=title, scheme="iid", clients=10),
            model_file=ModelFile(title="MLP", architecture="mlp"),
            schedule_file=ScheduleFile(title="full participation", clock=CLOCK if clock else None),
            budget=Budget(rounds=rounds, local_epochs=2, batch_size=16),
            settings={"lr": 0.1},
            target=target,
        )

    def arm(name, title):
        algorithm = "fedopt" if name in ("fedavgm", "fedadagrad", "fedadam", "fedyogi") else name
        algorithm = "fedavg" if name.startswith("variant-") else algorithm
        settings = {"optimizer": "momentum" if name == "fedavgm" else name[3:]} if algorithm == "fedopt" else {}
        return Arm(name, title, algorithm, {}, settings)

    return Benchmark(
        name="label-skew",
        preset="mini",
        title="Label skew",
        about="Clients see different classes, or different amounts of data.",
        scenarios=tuple(scenario(d, *item) for d in datasets for item in partitions.items()),
        arms=tuple(arm(*item) for item in arms.items()),
        seeds=tuple(range(seeds)),
        project=Project(root),
        **more,
    )


def run_id(s: int, a: int, seed: int) -> str:
    return f"{s:04x}{a:04x}{seed:08x}"


def make_frames(benchmark: Benchmark) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(evaluation, curves) with the columns of the `evaluate` step; learning slows down as the split gets harder."""
    rows, points = [], []
    for s, scenario in enumerate(benchmark.scenarios):
        for a, arm in enumerate(benchmark.arms):
            for seed in benchmark.seeds:
                found, curves = _run(benchmark, s, a, seed)
                key = {"scenario": scenario.name, "arm": arm.name, "seed": seed}
                origin = {"benchmark": benchmark.name, "preset": benchmark.preset, "run_id": run_id(s, a, seed)}
                rows += [
                    origin | key | {"selection": selection, "metric": metric, "value": float(value)}
                    for selection, metric, value in found
                ]
                points += [
                    key | {"round": int(number), "metric": metric, "value": float(value)}
                    for metric, at in curves.items()
                    for number, value in at.items()
                ]
    return pd.DataFrame(rows), pd.DataFrame(points)


def _run(benchmark: Benchmark, s: int, a: int, seed: int) -> tuple[list[tuple], dict[str, dict[int, float]]]:
    """Values of one run, and its curves: metric -> round -> value."""
    scenario, arm = benchmark.scenarios[s], benchmark.arms[a]
    silent, pooled = arm.name == "local-only", arm.name == "centralised"
    random = generator(seed, "made-up", s, a)
    hard = generator(seed, "hardness", s).normal(0, 0.02)
    limit = min(0.97, 0.96 - 0.09 * s * (not pooled) + 0.008 * ((a * 3) % 5) + hard - 0.3 * silent)
    rounds = np.arange(1, scenario.budget.rounds + 1)
    curve = limit - 0.85 * np.exp(-rounds / (3 + s + 0.5 * a)) + random.normal(0, 0.012, len(rounds))
    curve = np.clip(curve, 0, 1)
    chosen = int(np.argmax(curve + random.normal(0, 0.01, len(rounds))))
    sent = 0.0 if silent or pooled else 1.9e5 * (2 if arm.name == "scaffold" else 1)
    picks = {"last": len(rounds) - 1, "validation": chosen}
    found = []
    for selection, at in picks.items():
        found += [(selection, "test_accuracy", curve[at]), (selection, "round", at + 1)]
        found += [(selection, "test_loss", 2 * (1 - curve[at])), (selection, "validation_accuracy", curve[at] + 0.005)]
        found += [(selection, name, abs(curve[at] - 0.02 * k)) for k, name in enumerate(CLIENTS)]
        found += _chosen(benchmark, arm, selection, random)
    if not silent:
        best = int(np.argmax(curve))
        found += [("oracle", "test_accuracy", curve[best]), ("oracle", "round", best + 1)]
    reached = np.flatnonzero(curve >= scenario.target) if scenario.target and not silent else []
    first = int(reached[0]) + 1 if len(reached) else math.inf
    run = {"bytes_up": sent * len(rounds), "bytes_down": sent * len(rounds), "bytes": 2 * sent * len(rounds)}
    run |= {"seconds": 6 + random.random(), "rounds": len(rounds), "train_examples": 1150, "joules": 20 + a}
    if scenario.schedule_file.clock and not pooled:
        run["simulated_seconds"] = (1.5 + 0.1 * seed) * len(rounds)
    if scenario.target:
        run |= {"rounds_to_target": first, "seconds_to_target": first * 0.2, "bytes_to_target": 2 * first * sent}
    found += [("run", metric, value) for metric, value in run.items() if not math.isnan(value)]
    curves = {"bytes_up": sent * rounds, "bytes_down": sent * rounds} | ({} if silent else {"test_accuracy": curve})
    if scenario.schedule_file.clock and not pooled:
        curves["simulated_seconds"] = (1.5 + 0.1 * seed) * rounds
    points = {metric: dict(zip(rounds, values, strict=True)) for metric, values in curves.items()}
    if "coherence" in benchmark.metrics and benchmark.snapshots and not silent:
        kept = np.unique(np.linspace(1, len(rounds), benchmark.snapshots).round().astype(int))
        for metric, start in (("train_m_coherence", 80), ("client_dissimilarity", 1.5)):
            points[metric] = {r: start ** (1 - r / 60) * (1 + 0.1 * random.random()) for r in kept}
    return found, points


def _chosen(benchmark: Benchmark, arm: Arm, selection: str, random: np.random.Generator) -> list[tuple]:
    """Values of the groups of metrics that the benchmark asks for."""
    found = []
    for group in benchmark.metrics:
        defined = arm.name != "local-only" if group in AT_LAST else True
        if group == "connectivity" and arm.name == "fedavg":
            defined = False
        if defined and (selection == "last" or group not in AT_LAST):
            found += [(selection, metric, 0.2 + 0.6 * random.random()) for metric in CHOSEN[group]]
    return found


def make_ledger(benchmark: Benchmark) -> pd.DataFrame:
    """All runs, finished, of one revision."""
    project, place = benchmark.project, (benchmark.name, benchmark.preset)
    return pd.DataFrame(
        {
            "scenario": scenario.name,
            "arm": arm.name,
            "seed": seed,
            "status": "finished",
            "run_id": run_id(s, a, seed),
            "error": "",
            "revision": REVISION,
            "dirty": False,
            "folder": str(project.run(*place, scenario.name, arm.name, seed).relative_to(project.root)),
        }
        for s, scenario in enumerate(benchmark.scenarios)
        for a, arm in enumerate(benchmark.arms)
        for seed in benchmark.seeds
    )


def lose(
    evaluation: pd.DataFrame, ledger: pd.DataFrame, scenario: str, arm: str, seeds: Sequence[int], error: str = ""
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(evaluation, ledger) without runs: failed where there is an `error`, else missing."""
    gone = (evaluation["scenario"] == scenario) & (evaluation["arm"] == arm) & evaluation["seed"].isin(seeds)
    ledger = ledger.copy()
    of = (ledger["scenario"] == scenario) & (ledger["arm"] == arm) & ledger["seed"].isin(seeds)
    ledger.loc[of, "status"] = "failed" if error else "missing"
    ledger.loc[of, "error"] = error or "no such folder"
    if not error:
        ledger.loc[of, ["run_id", "revision"]] = ""
    return evaluation[~gone], ledger


def make_data(benchmark: Benchmark, evaluation=None, curves=None, ledger=None, tuning=None) -> ReportData:
    """What the workflow would have left, where nothing else is given."""
    frames = make_frames(benchmark) if evaluation is None or curves is None else ()
    evaluation = frames[0] if evaluation is None else evaluation
    curves = frames[1] if curves is None else curves
    return ReportData(
        benchmark,
        evaluation,
        {s.name: curves[curves["scenario"] == s.name] for s in benchmark.scenarios},
        make_ledger(benchmark) if ledger is None else ledger,
        {s.name: make_outcomes(benchmark, place) for place, s in enumerate(benchmark.scenarios)},
        make_tuning(benchmark) if tuning is None else tuning,
    )


def make_outcomes(benchmark: Benchmark, scenario: int) -> pd.DataFrame:
    """Of 60 test examples, more or less easy ones."""
    rows = []
    for a, arm in enumerate(arm for arm in benchmark.arms if arm.name != "local-only"):
        for seed in benchmark.seeds:
            easy = generator(0, "easy", scenario).random(60)
            luck = generator(seed, "right", scenario, a).random(60)
            rows.append({"arm": arm.name, "seed": seed, "correct": luck < 0.5 + 0.4 * easy + 0.01 * a})
    return pd.DataFrame(rows)


def make_tuning(benchmark: Benchmark) -> dict[tuple[str, str], dict]:
    """What a tuned benchmark has tried; the second trial is the best."""
    if benchmark.tuning is None:
        return {}
    trials = [
        {
            "trial": number,
            "stage": 1 + (number > 1),
            "hyperparameters": {"lr": 0.1 / (number + 1)},
            "score": score,
            "validation": score,
            "test": score - 0.01,
            "status": "finished",
            "rounds": 30,
            "run_ids": {"100": f"{number:016x}"},
        }
        for number, score in enumerate((0.8, 0.9, 0.7, 0.85)[: benchmark.tuning.trials])
    ]
    best = max(trials, key=lambda trial: trial["score"])
    answer = {"rule": "validation", "budget": benchmark.tuning.model_dump(exclude={"rule"}), "trials": trials}
    answer |= {"chosen": best["trial"], "oracle": best["trial"], "hyperparameters": best["hyperparameters"]}
    return {(s.name, arm.name): answer for s in benchmark.scenarios for arm in benchmark.arms}


def store(data: ReportData) -> None:
    """The files that the workflow leaves: results, and of each run configuration and provenance."""
    benchmark = data.benchmark
    for scenario in benchmark.scenarios:
        rows = data.evaluation[data.evaluation["scenario"] == scenario.name]
        ledger = data.ledger[data.ledger["scenario"] == scenario.name]
        tables = Evaluated(rows, data.curves[scenario.name], ledger, data.outcomes[scenario.name])
        write(benchmark, scenario.name, tables)
        manifest = {"heterogeneity": {"label_total_variation_mean": 0.25, "size_gini": 0.125}}
        for seed in benchmark.seeds:
            write_sealed(benchmark.project.partition_manifest(scenario.dataset, scenario.partition, seed), manifest)
        counts = generator(0, "picture").integers(0, 50, (10, 10))
        picture = benchmark.project.partition_picture(scenario.dataset, scenario.partition)
        draw_picture(counts, scenario.partition_file.title, picture)
        for arm in benchmark.arms:
            _store_runs(data, scenario, arm)
            if benchmark.tuning:
                chosen = data.tuning[scenario.name, arm.name]
                write_sealed(outputs.tuning_file(benchmark, scenario.name, arm.name), chosen)


def _store_runs(data: ReportData, scenario: Scenario, arm: Arm) -> None:
    benchmark = data.benchmark
    settings = benchmark.job(scenario.name, arm.name).configuration()
    for seed in benchmark.seeds:
        run = data.runs[scenario.name, arm.name, seed]
        if run["status"] == "missing":
            continue
        folder = benchmark.project.run(benchmark.name, benchmark.preset, scenario.name, arm.name, seed)
        write_json(folder / "config.json", {"run_id": run["run_id"], "seed": seed, "configuration": settings})
        about = {"packages": {"torch": "2.11"}, "hardware": {"cpu": "A processor", "gpu": None}}
        about["energy"] = {"method": "modelled", "measured": False, "scope": "CPU time"}
        write_json(folder / "provenance.json", about)
        seal(folder, run["status"])


def stored(benchmark: Benchmark, **more) -> ReportData:
    """Results written, and read as a report reads them; `more`: as for `make_data`."""
    store(make_data(benchmark, **more))
    return read(benchmark)
