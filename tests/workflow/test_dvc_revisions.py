"""Two git revisions side by side: parameters, metrics and curves, as DVC shows them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from heterobench import resolve
from heterobench.files import read_json
from heterobench.project import Project
from heterobench.report.data import ReportData
from heterobench.report.outputs import curve_file, evaluation_file, score_folders
from heterobench.report.scores import write_scores
from miniature import miniature
from raw_files import dvc, git, isolate

SCENARIO = "digits.dirichlet-0.1.softmax.full"
RAISED = 0.0625  # by how much FedAvg is better in the second revision; exact in binary
ACCURACY = {"fedavg": 0.5, "scaffold": 0.75, "local-only": 0.25}  # of seed 0; seed 1 has 1/8 more
ROUNDS = 4


def evaluate(benchmark: resolve.Benchmark, raised: float = 0.0) -> None:
    """Evaluations and curves as the workflow leaves them; local-only has no global model and so no curve."""
    for scenario in benchmark.scenarios:
        rows, points = [], []
        for arm in benchmark.arms:
            for seed in benchmark.seeds:
                key = {"scenario": scenario.name, "arm": arm.name, "seed": seed}
                accuracy = ACCURACY[arm.name] + seed / 8 + (raised if arm.name == "fedavg" else 0)
                values = [("validation", "test_accuracy", accuracy), ("last", "test_accuracy", accuracy - 1 / 16)]
                values += [("validation", "test_loss", 1 - accuracy), ("run", "seconds", 3.0 + seed + raised)]
                values += [("run", "bytes_up", 1000.0), ("run", "bytes_down", 2000.0)]
                values += [("run", "rounds_to_target", np.nan), ("run", "rounds", float(ROUNDS))]
                rows += [key | {"selection": s, "metric": m, "value": v} for s, m, v in values]
                if arm.name != "local-only":
                    for number in range(1, ROUNDS + 1):
                        value = accuracy * number / ROUNDS
                        points.append(key | {"round": number, "metric": "test_accuracy", "value": value})
        for path, table in ((evaluation_file, rows), (curve_file, points)):
            path(benchmark, scenario.name).parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(table).to_parquet(path(benchmark, scenario.name), index=False)


def results(benchmark: resolve.Benchmark) -> ReportData:
    """What scores are made from, as it lies there."""
    read = lambda path: {s.name: pd.read_parquet(path(benchmark, s.name)) for s in benchmark.scenarios}  # noqa: E731
    evaluation = pd.concat(read(evaluation_file).values(), ignore_index=True)
    return ReportData(benchmark, evaluation, read(curve_file), pd.DataFrame(), {}, {})


@pytest.fixture
def bench(tmp_path, monkeypatch) -> resolve.Benchmark:
    isolate(monkeypatch, tmp_path)
    project = Project(miniature(tmp_path / "project"))
    file = project.params / "benchmarks" / "miniature.yaml"
    file.write_text(file.read_text().replace("[scaffold, local-only]", "[fedavg, scaffold, local-only]"))
    return resolve.benchmark(project, "miniature", "mini")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_scores_are_means_over_seeds_and_equal_results_give_equal_bytes(bench):
    evaluate(bench)
    write_scores(results(bench))
    metrics, curves = score_folders(bench)
    assert read_json(metrics / SCENARIO / "fedavg.json") == {
        "test_accuracy": 0.5625,
        # two values 1/8 apart: standard error 1/16; 95 % t quantile with one degree of freedom: tan(0.95 pi / 2)
        "test_accuracy_low": pytest.approx(0.5625 - np.tan(0.95 * np.pi / 2) / 16),
        "test_accuracy_high": pytest.approx(0.5625 + np.tan(0.95 * np.pi / 2) / 16),
        "test_loss": 0.4375,
        "last_test_accuracy": 0.5,
        "bytes_up": 1000.0,
        "bytes_down": 2000.0,
        "runs": 2.0,
    }  # neither wall times, which differ between equal runs, nor a target that was never reached
    assert (curves / SCENARIO / "scaffold.csv").read_text() == (
        "round,test_accuracy\n1,0.203125\n2,0.40625\n3,0.609375\n4,0.8125\n"
    )
    scenarios = [scenario.name for scenario in bench.scenarios]
    assert sorted(files(metrics)) == sorted(f"{s}/{arm}.json" for s in scenarios for arm in ACCURACY)
    assert sorted(files(curves)) == sorted(f"{s}/{arm}.csv" for s in scenarios for arm in ("fedavg", "scaffold"))

    first = files(metrics) | files(curves)
    (metrics / SCENARIO / "of-an-arm-that-is-gone.json").write_text("{}")
    write_scores(results(bench))
    assert files(metrics) | files(curves) == first


def test_a_diverged_run_leaves_a_gap_and_no_invalid_json(bench):
    evaluate(bench)
    for of in (evaluation_file, curve_file):
        path = of(bench, SCENARIO)
        table = pd.read_parquet(path)
        column = "selection" if of is evaluation_file else "round"
        diverged = (table["arm"] == "scaffold") & (table[column].isin(["validation", "last", 3, 4]))
        table.loc[diverged, "value"] = np.nan
        table.to_parquet(path, index=False)
    write_scores(results(bench))
    metrics, curves = score_folders(bench)
    found = json.loads((metrics / SCENARIO / "scaffold.json").read_text(), parse_constant=pytest.fail)
    assert found == {"bytes_down": 2000.0, "bytes_up": 1000.0, "runs": 2.0}
    assert (curves / SCENARIO / "scaffold.csv").read_text() == "round,test_accuracy\n1,0.203125\n2,0.40625\n"


def show(project: Project, *arguments: str) -> dict:
    result = dvc(project, *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow  # what DVC is given is tested without it
def test_dvc_compares_two_revisions(bench, tmp_path):
    project = bench.project
    evaluate(bench)
    write_scores(results(bench))
    git(project.root, "add", "-A")
    git(project.root, "add", "-f", "scores")
    git(project.root, "commit", "-q", "-m", "first")
    file = project.params / "algorithms" / "scaffold.yaml"
    assert file.read_text().count("server_lr: 1.0") == 1
    file.write_text(file.read_text().replace("server_lr: 1.0", "server_lr: 0.5"))
    evaluate(bench, RAISED)
    write_scores(results(bench))
    git(project.root, "commit", "-q", "-a", "-m", "second")
    assert git(project.root, "status", "--short") == ""

    # Parameters: the one that changed, of all files.
    changed = {"server_lr": {"old": 1.0, "new": 0.5, "diff": -0.5}}
    ((path, found),) = show(project, "params", "diff", "HEAD~1", "HEAD").items()
    assert path == "params/algorithms/scaffold.yaml"
    assert {key.rpartition(".")[2]: value for key, value in found.items()} == changed

    # Metrics: each file and number that changed.
    difference = show(project, "metrics", "diff", "HEAD~1", "HEAD")
    fedavg = f"scores/metrics/miniature/mini/{SCENARIO}/fedavg.json"
    other = fedavg.replace(SCENARIO, "digits.iid.softmax.full")
    assert set(difference) == {fedavg, other}
    assert difference[fedavg]["test_accuracy"] == {"old": 0.5625, "new": 0.625, "diff": RAISED}
    assert {"bytes_up", "runs"}.isdisjoint(difference[fedavg])
    table = dvc(project, "metrics", "diff", "HEAD~1", "HEAD", "--md").stdout
    assert re.search(rf"\| {re.escape(fedavg)} +\| test_accuracy +\| 0\.5625 +\| 0\.625 +\| 0\.0625 +\|", table)
    shown = dvc(project, "metrics", "show", "--md").stdout
    assert len(re.findall(r"^\| scores/metrics/", shown, flags=re.MULTILINE)) == 6  # a row for each scenario and arm

    # Curves: one picture for each arm in each scenario, one line for each revision.
    result = dvc(project, "plots", "diff", "HEAD~1", "HEAD", "--json", "--split", "-o", str(tmp_path / "plots"))
    assert result.returncode == 0, result.stderr
    pictures = json.loads(result.stdout)["data"]
    curve = f"scores/curves/miniature/mini/{SCENARIO}/fedavg.csv"
    assert set(pictures) == {
        f"scores/curves/miniature/mini/{scenario.name}/{arm}.csv"
        for scenario in bench.scenarios
        for arm in ("fedavg", "scaffold")
    }
    (picture,) = pictures[curve]
    assert picture["revisions"] == ["HEAD~1", "HEAD"]
    assert picture["content"]["encoding"]["x"]["field"] == "round"
    assert picture["content"]["layer"][0]["encoding"]["y"]["field"] == "test_accuracy"
    lines = {rev: [] for rev in picture["revisions"]}
    for point in picture["anchor_definitions"]["<DVC_METRIC_DATA>"]:
        lines[point["rev"]].append((float(point["round"]), float(point["test_accuracy"])))
    assert lines["HEAD~1"] == [(n, 0.5625 * n / ROUNDS) for n in range(1, ROUNDS + 1)]
    assert lines["HEAD"] == [(n, 0.625 * n / ROUNDS) for n in range(1, ROUNDS + 1)]
    page = dvc(project, "plots", "diff", "HEAD~1", "-o", "dvc_plots")
    assert page.returncode == 0, page.stderr
    assert "fedavg.csv" in (project.root / "dvc_plots" / "index.html").read_text()
    assert git(project.root, "status", "--short") == ""


def test_without_scores_dvc_still_works(bench):
    """A fresh clone, or somebody who does not keep scores."""
    shutil.rmtree(bench.project.root / "scores", ignore_errors=True)
    git(bench.project.root, "add", "-A")
    git(bench.project.root, "commit", "-q", "-m", "first")
    for command in (("metrics", "diff"), ("params", "diff"), ("metrics", "show")):
        result = dvc(bench.project, *command)
        assert result.returncode == 0, result.stderr
