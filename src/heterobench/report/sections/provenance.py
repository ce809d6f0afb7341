"""Where the numbers come from: parameters, runs, code, packages, hardware."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heterobench.records.record import COMPUTED
from heterobench.resolve import Benchmark

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "provenance", "Where this comes from"
READING = (
    "A number in a table opens what it is made of: its runs with their seeds, values and git revisions, their "
    "configuration, the folder of each record, and the way to the same runs in MLflow. After a revision, a plus says "
    "that the working tree had changes that were not committed, a question mark that this is not known.",
)
CAPTIONS: dict[str, str] = {}


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    return []


def figures(data: ReportData) -> dict[str, Any]:
    return {}


def revision(row: Mapping[str, Any]) -> str:
    """Git revision of a row of the ledger, e.g. "2bfde4449155+"; the plus where the working tree had changes."""
    if not isinstance(row["revision"], str) or not row["revision"]:
        return "revision not known"
    return row["revision"][:12] + ("?" if row["dirty"] is None else "+" * row["dirty"])


def revisions(data: ReportData) -> list[str]:
    """Of the code that the runs were computed with."""
    return sorted({revision(row) for row in data.runs.values() if row["status"] in COMPUTED})


def meters(data: ReportData) -> list[str]:
    """How energy was counted, as the runs tell it, e.g. "modelled, no measurement (CPU time of this process)"."""
    told = [meter for p in data.provenance.values() if (meter := p.get("energy"))]
    kinds = {(m["method"], bool(m["measured"]), m.get("scope", "")) for m in told}
    return [
        f"{method}, {'measured' if measured else 'no measurement'}" + f" ({scope})" * bool(scope)
        for method, measured, scope in sorted(kinds)
    ]


def facts(data: ReportData) -> list[tuple[str, str]]:
    """(label, text) on what the report was made from."""
    benchmark = data.benchmark
    found = data.provenance.values()
    packages = {f"{name} {version}" for p in found for name, version in p["packages"].items()}
    hardware = {p["hardware"]["gpu"] or p["hardware"]["cpu"] for p in found}
    lines = {
        "Benchmark": [f"params/benchmarks/{benchmark.name}.yaml, preset {benchmark.preset}"],
        "Seeds": map(str, benchmark.seeds),
        "Runs": [f"results/{benchmark.name}/{benchmark.preset}/runs/"],
        "Code": revisions(data),
        "Packages": sorted(packages),
        "Hardware": sorted(hardware),
        "Energy": meters(data),
    }
    return [(label, text) for label, parts in lines.items() if (text := ", ".join(parts))]
