"""What the tracker shows of a run: pure functions from a record to parameters, tags and metric points."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from heterobench.files import digest, file_digest
from heterobench.records.record import Record
from heterobench.records.revision import dirty

RUN_ID = "heterobench.run_id"
IMPORTED = "heterobench.imported"
KIND = "heterobench.kind"
SUPERSEDED = "heterobench.superseded"  # "true": the results hold something else in its place by now
PROJECT = "heterobench.project"  # host:folder, where several projects use one tracker

# MLflow's limits on names and values of parameters and tags.
LONGEST_NAME, LONGEST_PARAMETER, LONGEST_TAG = 250, 6000, 5000
FAMILIES = {  # word in a metric's name -> section of the charts page
    **{word: word for word in ("accuracy", "loss", "bytes", "seconds")},
    "joules": "energy",
    "flops": "compute",
    "examples": "compute",
}
CHANGES = {True: "+dirty", False: "", None: "+unknown"}  # that were not committed, after a revision
FORBIDDEN = re.compile(r"[^\w\-. :/]")


def name_of(text: str) -> str:
    """`text` as a name that MLflow accepts: letters, digits, ``_-. :/``, at most 250 characters."""
    return FORBIDDEN.sub("_", text)[:LONGEST_NAME]


def truth(value: bool) -> str:
    """As a tag."""
    return "true" if value else "false"


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one: {"a": {"b": 1}} -> {"a.b": 1}; lists and empty dictionaries stay values."""
    rows = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            rows |= flat(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = value
    return rows


def parameters(config: dict[str, Any]) -> dict[str, str]:
    """The configuration under short names: ``hyperparameters.lr``, ``budget.rounds``, ``partition``, ..."""
    tree = dict(config["configuration"])
    algorithm = dict(tree.pop("algorithm", {}))
    tree |= {"algorithm": algorithm.get("name"), "arm": algorithm.get("arm")}
    tree |= {"hyperparameters": algorithm.get("hyperparameters", {}), "seed": config["seed"]}
    rows = {}
    for key, value in flat(tree).items():
        text = value if isinstance(value, str) else json.dumps(value)
        rows[name_of(key.removesuffix(".name"))] = text[:LONGEST_PARAMETER]
    return rows


def tags(config: dict[str, Any], provenance: dict[str, Any], end: dict[str, Any]) -> dict[str, str]:
    """Who, what, from which data and which code; every value a string."""
    configuration = config["configuration"]
    revision = provenance.get("revision") or ""
    rows = {
        RUN_ID: config["run_id"],
        KIND: "run",
        "benchmark": config["benchmark"],
        "preset": config["preset"],
        "scenario": config["scenario"],
        "dataset": configuration.get("dataset"),
        "partition": configuration.get("partition", {}).get("name"),
        "algorithm": configuration.get("algorithm", {}).get("name"),
        "arm": config["arm"],
        "seed": config["seed"],
        "trial": config.get("trial"),
        "data_hash": config["data_hash"],
        "partition_hash": config.get("partition_hash"),
        "code": config["code"],
        "revision": revision + CHANGES[dirty(provenance)] if revision else "unknown",
        "host": provenance.get("host"),
        "status": end["status"],
        "error": end.get("error"),
        "diverged": end.get("diverged"),
        # What the columns "Source" and "User" and the version link of the runs page show.
        "mlflow.source.name": f"heterobench {config['benchmark']}",
        "mlflow.source.type": "PROJECT",
        "mlflow.source.git.commit": revision,
    }
    return {key: str(value)[:LONGEST_TAG] for key, value in rows.items() if value not in (None, "")}


def run_name(config: dict[str, Any]) -> str:
    """``fedavg #0 dirichlet-0.1 digits mlp full``: the runs page shows some 24 characters, so what differs
    between neighbours stands first."""
    tree = config["configuration"]
    parts = [tree.get(key) for key in ("partition", "dataset", "model", "schedule")]
    names = [part.get("name") if isinstance(part, dict) else part for part in parts]
    scenario = " ".join(names) if all(names) else config["scenario"]
    trial = f" trial {config['trial']}" if "trial" in config else ""
    return f"{config['arm']}{trial} #{config['seed']} {scenario}"


def metric_name(name: str) -> str:
    """``accuracy/test_accuracy`` for ``test_accuracy``: the charts page has one section for each family."""
    words = name.lower().replace("/", "_").split("_")
    family = next((family for word, family in FAMILIES.items() if word in words), None)
    return name_of(f"{family}/{name}" if family else name)


def points(record: Record, start: float) -> list[tuple[str, float, int, int]]:
    """(metric, value, milliseconds, round) of all rounds, plus the metrics "seconds" and "joules" of training so far.

    The times are those of the record, so that the same record always gives the same points. An infinite
    value becomes NaN: SQL stores hold no infinity, MLflow would write 1.8e308, and one such point flattens
    its whole chart. The artifact rounds.jsonl keeps the difference.
    """
    timing = {row["round"]: row for row in record.timing}
    rows, now = [], start
    for row in record.rounds:
        clock = timing.get(row["round"], {})
        now = float(clock.get("time", now))
        values = {k: v for k, v in row["metrics"].items() if isinstance(v, (int, float))}
        values |= {key: clock[key] for key in ("seconds", "joules") if key in clock and key not in values}
        for key, value in values.items():
            number = float(value)
            rows.append(
                (
                    metric_name(key),
                    number if math.isfinite(number) else math.nan,
                    round(now * 1000),
                    row["round"],
                )
            )
    return rows


def version(end: dict[str, Any]) -> str:
    """Changes when the record does (a failed run was repeated), so that the tracker's copy is renewed."""
    return digest({key: end.get(key) for key in ("status", "rounds", "sha256", "error")})[:16]


def files_version(files: list[Path], root: Path) -> str:
    """Digest over names and contents of `files`."""
    return digest({str(path.relative_to(root)): file_digest(path) for path in files})[:16]
