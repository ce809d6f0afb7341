"""Everything that a benchmark's report consists of, in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heterobench.files import read_json
from heterobench.records.record import Record
from heterobench.report import outputs
from heterobench.report.index import write_report
from heterobench.report.scores import write_scores
from heterobench.report.write import write_figures, write_tables
from heterobench.resolve import Benchmark


def origins(benchmark: Benchmark) -> list[dict[str, Any]]:
    """Provenance of all finished runs."""
    folders = [
        benchmark.project.run(benchmark.name, benchmark.preset, scenario.name, arm.name, seed)
        for scenario in benchmark.scenarios
        for arm in benchmark.arms
        for seed in benchmark.seeds
    ]
    return [Record(folder).provenance for folder in folders if Record(folder).finished]


def revisions(found: list[dict[str, Any]]) -> list[str]:
    """Git revisions that the runs were computed with; "+" where the working tree had changes."""
    names = {(p["revision"] or "no git revision")[:12] + ("+" if p["dirty"] else "") for p in found}
    return sorted(names)


def pictures(benchmark: Benchmark) -> list[tuple[str, Path]]:
    """(caption, file) of every partition, in the order of the scenarios."""
    result, seed = [], min(benchmark.seeds)
    for dataset, name in dict.fromkeys((s.dataset, s.partition) for s in benchmark.scenarios):
        measured = read_json(benchmark.project.partition_manifest(dataset, name, seed))["heterogeneity"]
        title = next(s.partition_file.title for s in benchmark.scenarios if s.partition == name)
        caption = (
            f"{title}, {dataset}, seed {seed}: mean label distance to all data "
            f"(total variation) {measured['label_total_variation_mean']:.2f}, Gini of sizes {measured['size_gini']:.2f}"
        )
        result.append((caption, benchmark.project.partition_picture(dataset, name)))
    return result


def build(benchmark: Benchmark) -> list[Path]:
    """Tables, figures, the page and the scores; returns their paths."""
    found = origins(benchmark)
    code = revisions(found)
    write_tables(benchmark, code)
    write_figures(benchmark)
    write_scores(benchmark)
    about = {
        "Packages": sorted({f"{name} {version}" for p in found for name, version in p["packages"].items()}),
        "Hardware": sorted({p["hardware"]["gpu"] or p["hardware"]["cpu"] for p in found}),
    }
    write_report(benchmark, pictures(benchmark), about, code)
    return [
        *outputs.table_files(benchmark),
        *outputs.figure_files(benchmark),
        outputs.report_file(benchmark),
        *outputs.score_folders(benchmark),
    ]
