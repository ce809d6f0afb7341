"""Tables kept in the repository, and the digests that tell whether runs are the same."""

from __future__ import annotations

import csv
import hashlib
import shutil
import subprocess

import pytest

from heterobench.commands.keep import COLUMNS, differences, keep
from heterobench.errors import ConfigurationError, RunError
from heterobench.files import write_json, write_text
from heterobench.records import record
from heterobench.report import outputs
from reports import make_benchmark

ARMS = {"fedavg": "FedAvg", "fedprox": "FedProx"}


def run_of(benchmark, scenario, arm, seed, status="finished"):
    folder = benchmark.project.run(benchmark.name, benchmark.preset, scenario, arm, seed)
    write_json(folder / record.CONFIG, {"run_id": f"{arm}-{seed}"})
    origin = {"revision": "abc", "dirty": seed == 1, "packages": {"torch": "2.0"}, "hardware": {"cpu": "A, B"}}
    origin["hardware"]["gpu"] = None
    write_json(folder / record.PROVENANCE, origin)
    write_text(folder / record.ROUNDS, f"{scenario} {arm} {seed}\n")
    (folder / record.FINAL).write_bytes(f"model of {scenario} {arm} {seed}".encode())
    record.seal(folder, status)
    return folder


@pytest.fixture
def benchmark(tmp_path):
    """Two scenarios, two methods, two seeds; a report, and all runs but one."""
    made = make_benchmark(tmp_path / "project", partitions={"iid": "IID", "k-classes-2": "2"}, arms=ARMS, seeds=2)
    for table in ("accuracy", "published"):
        for form in outputs.FORMATS:
            write_text(outputs.table_file(made, table, form), f"{table} as {form}\n")
    for scenario in made.scenarios:
        for arm in ARMS:
            for seed in made.seeds:
                run_of(made, scenario.name, arm, seed)
    shutil.rmtree(made.project.run(made.name, made.preset, made.scenarios[1].name, "fedprox", 0))
    return made


def rows(path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_tables_are_copied_and_every_run_has_its_digests(benchmark, tmp_path):
    written = keep(benchmark, ["published"], tmp_path / "kept")
    place = tmp_path / "kept" / benchmark.name / benchmark.preset
    assert written == [place / name for name in ("published.csv", "published.md", "records.csv", "SHA256SUMS")]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=place, check=True)
    assert (place / "published.md").read_text() == "published as md\n"
    found = rows(place / "records.csv")
    assert len(found) == 2 * 2 * 2
    assert tuple(found[0]) == COLUMNS
    (missing,) = [row for row in found if row["status"] != "finished"]
    assert (missing["algorithm"], missing["seed"], missing["run_id"], missing["rounds"]) == ("fedprox", "0", "", "")
    ended = [row for row in found if row["status"] == "finished"]
    assert len({row["rounds"] for row in ended}) == len({row["model"] for row in ended}) == 7
    assert {row["revision"] for row in ended} == {"abc", "abc+changes"}
    assert {row["cpu or gpu"] for row in ended} == {"A  B"}


def test_what_comes_out_again_is_recognised(benchmark, tmp_path):
    """The same; another record, another model; a run that is not there; one more than was kept."""
    keep(benchmark, ["accuracy"], tmp_path)
    assert list(differences(benchmark, tmp_path)) == []
    one, two = (scenario.name for scenario in benchmark.scenarios)
    run_of(benchmark, two, "fedprox", 0)
    assert list(differences(benchmark, tmp_path)) == []
    folder = benchmark.project.run(benchmark.name, benchmark.preset, one, "fedavg", 1)
    write_text(folder / record.ROUNDS, "others\n")
    record.seal(folder, "finished")
    assert list(differences(benchmark, tmp_path)) == [f"{one} fedavg 1: other rounds"]
    (folder / record.FINAL).write_bytes(b"other")
    record.seal(folder, "finished")
    record.seal(benchmark.project.run(benchmark.name, benchmark.preset, two, "fedavg", 0), "failed")
    assert list(differences(benchmark, tmp_path)) == [
        f"{one} fedavg 1: other rounds and model",
        f"{two} fedavg 0: not run here",
    ]


def test_what_was_altered_is_neither_kept_nor_taken_for_the_same(benchmark, tmp_path):
    """A damaged run is not kept, a kept number that was changed is told, and so is a run that was damaged later."""
    keep(benchmark, ["accuracy"], tmp_path / "kept")
    place = tmp_path / "kept" / benchmark.name / benchmark.preset
    digest = hashlib.sha256((place / "accuracy.csv").read_bytes()).hexdigest()
    write_text(place / "accuracy.csv", "another number\n")
    (problem,) = differences(benchmark, tmp_path / "kept")
    assert problem.startswith(f"accuracy.csv: altered: expected sha256 {digest}")
    (place / "SHA256SUMS").unlink()
    (problem,) = differences(benchmark, tmp_path / "kept")
    assert problem.startswith("SHA256SUMS: missing")

    keep(benchmark, ["accuracy"], tmp_path / "kept")
    run = benchmark.project.run(benchmark.name, benchmark.preset, benchmark.scenarios[0].name, "fedavg", 1)
    (run / record.FINAL).write_bytes(b"other")
    (problem,) = differences(benchmark, tmp_path / "kept")
    assert problem.startswith(f"{benchmark.scenarios[0].name} fedavg 1: damaged: final.safetensors: altered")
    with pytest.raises(RunError, match=r"fedavg 1: damaged: final\.safetensors: altered: expected sha256"):
        keep(benchmark, ["accuracy"], tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_mistakes_are_told_and_nothing_is_written(benchmark, tmp_path):
    with pytest.raises(ConfigurationError, match="no table 'acuracy'; allowed: accuracy, published"):
        keep(benchmark, ["published", "acuracy"], tmp_path / "kept")
    with pytest.raises(RunError, match=r"records\.csv: no such file; nothing was kept"):
        list(differences(benchmark, tmp_path / "kept"))
    shutil.rmtree(benchmark.project.benchmark(benchmark.name, benchmark.preset) / "runs")
    with pytest.raises(RunError, match="none of its 8 runs has finished"):
        keep(benchmark, ["accuracy"], tmp_path / "kept")
    shutil.rmtree(outputs.summary_file(benchmark).parent)
    with pytest.raises(RunError, match="no report yet"):
        keep(benchmark, ["accuracy"], tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
