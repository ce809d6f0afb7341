"""From a number on the page to its runs: one compact object that all cells point into.

A cell carries one number, that of what it is made from: one or several sources. A source is a metric of an arm in a
scenario, with its value for each seed; the runs of an arm in a scenario, with their identities, states and revisions,
stand there once.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from heterobench.addresses import apart
from heterobench.files import json_object
from heterobench.project import Project
from heterobench.records.record import CONFIG, encode
from heterobench.report import labels
from heterobench.report.metrics import METRICS
from heterobench.report.table import Cell, Column, Row, Section, Source
from heterobench.resolve import Benchmark
from heterobench.tracking.entries import RUN_ID
from heterobench.tracking.store import database, is_server, tracking_uri
from heterobench.tracking.superseded import CURRENT

if TYPE_CHECKING:
    from heterobench.report.data import ReportData

SERVER = "http://127.0.0.1:5000"
"""What `heterobench ui` serves, unless it is told otherwise."""
SELECTIONS = {
    "validation": "at the round with the best validation accuracy",
    "last": "after the last round",
    "oracle": "at the best round on the test set",
    "run": "over the whole run",
}
STATES = ("finished", "diverged", "failed", "missing")
DIGITS = 5  # significant ones of a run's value: more than a table shows


class Traces:
    """Collects the sources of all cells of a page."""

    def __init__(self, data: ReportData):
        self.data = data
        self.places: dict[Source, int] = {}
        self.makings: dict[tuple[int, ...], int] = {}
        self.scenarios = [scenario.name for scenario in data.benchmark.scenarios]
        self.arms = [arm.name for arm in data.benchmark.arms]

    def key(self, section: Section, row: Row, column: Column, cell: Cell) -> str:
        """What a cell carries: the number of what it is made from; empty where it shows nothing to go back from.

        A cell that names no sources gets those that the keys of its section, row and column speak of: the runs of
        these methods in these scenarios, without values. A number for which they speak of no method, like the
        agreement of two rankings, is made from the runs of all.
        """
        if not cell.text and not math.isfinite(cell.value) and not cell.of:
            return ""
        sources = cell.of or self._named(section.key, row.key, column.key)
        if not sources and math.isfinite(cell.value):
            sources = self._named(section.key, row.key, column.key, *self.arms)
        making = tuple(self.places.setdefault(source, len(self.places)) for source in dict.fromkeys(sources))
        return str(self.makings.setdefault(making, len(self.makings))) if making else ""

    def _named(self, *keys: str) -> Sequence[Source]:
        arms = [name for name in self.arms if name in keys]
        scenarios = [name for name in self.scenarios if name in keys] or self.scenarios
        return [Source(scenario, arm) for scenario in scenarios for arm in arms]

    def payload(self) -> dict[str, Any]:
        """All that the script of the page needs, as plain JSON."""
        data, benchmark = self.data, self.data.benchmark
        pairs = sorted({(s.scenario, s.arm) for s in self.places}, key=lambda pair: self._place(*pair))
        metrics = sorted({source.metric for source in self.places if source.metric})
        codes: dict[str, int] = {}
        return {
            "mlflow": {
                "server": server(benchmark.project),
                "tag": RUN_ID,
                "current": CURRENT,
                "experiment": experiment(benchmark),
            },
            "folder": f"results/{benchmark.name}/{benchmark.preset}/runs",
            "seeds": list(benchmark.seeds),
            "states": STATES,
            "scenarios": [[s.name, labels.title(benchmark, s), *labels.parts(s)] for s in benchmark.scenarios],
            "arms": [[arm.name, arm.title] for arm in benchmark.arms],
            "metrics": {name: metric(name) for name in metrics},
            "selections": SELECTIONS,
            "sources": [
                [*self._place(source.scenario, source.arm), source.selection, source.metric, self._values(source)]
                for source in self.places
            ],
            "makings": list(self.makings),
            "runs": {"{} {}".format(*self._place(*pair)): self._runs(*pair, codes) for pair in pairs},
            "settings": {"{} {}".format(*self._place(*pair)): settings(data, *pair) for pair in pairs},
            "revisions": list(codes),
        }

    def _place(self, scenario: str, arm: str) -> tuple[int, int]:
        return self.scenarios.index(scenario), self.arms.index(arm)

    def _values(self, source: Source) -> list[float | None] | None:
        """One for each seed, in the unit of tables; None where there is none."""
        if not source.metric:
            return None
        found = self.data.values.get(source, {})
        scale = METRICS[source.metric].scale if source.metric in METRICS else 1
        return [rounded(found.get(seed, math.nan) * scale) for seed in self.data.benchmark.seeds]

    def _runs(self, scenario: str, arm: str, codes: dict[str, int]) -> list[list[Any]]:
        """For each seed: state, run id, place of its revision, 1 where the tree had changes, last line of its error.

        None stands for changes that are not known.
        """
        rows = []
        for seed in self.data.benchmark.seeds:
            run = self.data.runs[scenario, arm, seed]
            revision = codes.setdefault(text(run["revision"]), len(codes))
            error = text(run["error"]).strip().splitlines()
            state = STATES.index(run["status"])
            dirty = None if run["dirty"] is None else int(run["dirty"])
            rows.append([state, text(run["run_id"]), revision, dirty, *error[-1:]])
        return rows


def text(value: Any) -> str:
    """A string of a table, where nothing may stand as None or NaN."""
    return value if isinstance(value, str) else ""


def rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def metric(name: str) -> list[Any]:
    """Title and unit of a metric."""
    of = METRICS.get(name)
    return [of.title, of.unit] if of else [name, ""]


def settings(data: ReportData, scenario: str, arm: str) -> dict[str, Any]:
    """What the runs of an arm in a scenario were told, from the record of the first that has one."""
    benchmark = data.benchmark
    place = (benchmark.name, benchmark.preset, scenario, arm)
    for seed in benchmark.seeds:
        found = (json_object(benchmark.project.run(*place, seed) / CONFIG) or {}).get("configuration")
        tuned = data.tuning.get((scenario, arm), {}).get("hyperparameters", {})
        with contextlib.suppress(KeyError, TypeError):  # absent or damaged: the next seed was told the same
            return {
                "algorithm": found["algorithm"]["name"],
                "hyperparameters": found["algorithm"]["hyperparameters"],
                "tuned": sorted(tuned),
                "budget": found["budget"],
            }
    return {}


def server(project: Project) -> str:
    """Address of the tracker's pages: the server that runs are sent to, or the one that `make ui` starts.

    Without user and password: a page is handed on, and the browser asks for them.
    """
    uri = tracking_uri(project)
    return apart(uri)[0].rstrip("/") if is_server(uri) else SERVER


def experiment(benchmark: Benchmark) -> str | None:
    """Id of the benchmark's experiment in the tracker's database; None where there is no such file or entry."""
    path = database(tracking_uri(benchmark.project))
    if path is None or not path.is_file():
        return None
    query = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            row = connection.execute(query, (f"{benchmark.name}/{benchmark.preset}",)).fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return None
    return str(row[0]) if row else None


def encoded(payload: dict[str, Any]) -> str:
    """JSON that may stand inside a <script>: no "<" can end it."""
    text = json.dumps(encode(payload), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")
