"""From a number of a report to its runs, and to the same runs in the tracker."""

import dataclasses
import json
import math
import sqlite3

import pandas as pd
import pytest

from heterobench.config.schema import Tuning
from heterobench.report import sections, trace
from heterobench.report.table import Cell, Column, Row, Section, Source
from heterobench.report.trace import Traces, encoded, experiment, server
from heterobench.tracking import store
from reports import REVISION, lose, make_benchmark, make_data, make_ledger, run_id, stored

ARMS = {"fedavg": "FedAvg", "fedprox": "FedProx", "local-only": "Local only (reference)"}
PARTITIONS = {"iid": "IID", "dirichlet-0.1": "Dirichlet(0.1)"}
IID, HARD = "digits.iid.mlp.full", "digits.dirichlet-0.1.mlp.full"


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return make_benchmark(tmp_path, PARTITIONS, ARMS, seeds=3)


def key(traces, cell, row="fedavg", column="x", section=""):
    return traces.key(Section(section, "", ()), Row(row, row, ()), Column(column, column), cell)


def behind(traces, made):
    """Sources of a cell, as the page finds them."""
    payload = json.loads(encoded(traces.payload()))
    found = []
    for place in payload["makings"][int(made)]:
        scenario, arm, selection, metric, values = payload["sources"][place]
        runs = payload["runs"][f"{scenario} {arm}"]
        found.append((payload["scenarios"][scenario][0], payload["arms"][arm][0], selection, metric, values, runs))
    return found


def test_a_cell_leads_to_the_values_of_its_runs(benchmark):
    data = stored(benchmark)
    traces = Traces(data)
    source = Source(HARD, "fedprox", "validation", "test_accuracy")
    ((scenario, arm, selection, metric, values, runs),) = behind(traces, key(traces, Cell(1.0, of=(source,))))
    assert Source(scenario, arm, selection, metric) == source
    of = data.evaluation
    of = of[(of.scenario == HARD) & (of.arm == "fedprox") & (of.metric == metric) & (of.selection == selection)]
    assert values == pytest.approx([100 * v for v in of.sort_values("seed").value], rel=1e-4)
    assert runs == [[0, run_id(1, 1, seed), 0, 0] for seed in range(3)]
    assert traces.payload()["revisions"] == [REVISION]
    assert traces.payload()["settings"]["1 1"]["hyperparameters"]["lr"] == 0.1
    assert traces.payload()["settings"]["1 1"]["budget"]["rounds"] == 30


def test_runs_that_are_not_there_say_so(benchmark):
    data = make_data(benchmark)
    evaluation, ledger = lose(data.evaluation, data.ledger, IID, "fedavg", [1])
    evaluation, ledger = lose(evaluation, ledger, IID, "fedavg", [2], "a\nRuntimeError: <b>boom</b>")
    ledger.loc[0, ["revision", "dirty"]] = "f" * 40, True
    traces = Traces(make_data(benchmark, evaluation, ledger=ledger))
    made = key(traces, Cell(1.0, of=(Source(IID, "fedavg", "last", "test_accuracy"),)))
    ((*_, values, runs),) = behind(traces, made)
    assert values[0] is not None
    assert values[1:] == [None, None]
    assert [trace.STATES[state] for state, *_ in runs] == ["finished", "missing", "failed"]
    assert runs[0][3] == 1
    ledger["dirty"] = pd.array([None] * len(ledger), dtype="boolean")
    traces = Traces(make_data(benchmark, evaluation, ledger=ledger))
    ((*_, unknown),) = behind(traces, key(traces, Cell(1.0, of=(Source(IID, "fedavg", "last", "test_accuracy"),))))
    assert [changes for _, _, _, changes, *_ in unknown] == [None, None, None]
    assert runs[1][1] == ""
    assert runs[2][-1] == "RuntimeError: <b>boom</b>"
    assert traces.payload()["revisions"] == ["f" * 40, "", REVISION]
    assert traces.payload()["settings"]["0 0"] == {}  # no record is there to tell


def test_cells_that_name_no_source_get_what_their_keys_speak_of(benchmark):
    traces = Traces(make_data(benchmark))
    both = [(IID, "fedprox"), (HARD, "fedprox")]
    pairs = lambda made: [(scenario, arm) for scenario, arm, *_ in behind(traces, made)]  # noqa: E731
    assert pairs(key(traces, Cell(0.5), "fedprox", "borda")) == both
    assert pairs(key(traces, Cell(0.5), "borda", "fedprox")) == both
    assert pairs(key(traces, Cell(text="lr 0.1"), "fedprox", "values", HARD)) == [(HARD, "fedprox")]
    assert pairs(key(traces, Cell(0.5), "fedprox", "fedavg", IID)) == [(IID, "fedavg"), (IID, "fedprox")]
    assert len(pairs(key(traces, Cell(0.5), "borda", "kemeny"))) == len(PARTITIONS) * len(ARMS)
    assert key(traces, Cell(text="words"), "borda", "winner") == ""
    assert key(traces, Cell(), "fedprox", "borda") == ""
    (*_, values, _) = behind(traces, key(traces, Cell(0.5), "fedprox", "borda"))[0]
    assert values is None


def test_equal_makings_are_kept_once(benchmark):
    traces = Traces(make_data(benchmark))
    sources = tuple(Source(IID, arm, "last", "test_accuracy") for arm in ARMS)
    assert key(traces, Cell(1.0, of=sources)) == key(traces, Cell(2.0, of=sources)) == "0"
    assert key(traces, Cell(1.0, of=sources[:1])) == "1"
    assert key(traces, Cell(1.0, of=sources[:1] * 2)) == "1"
    assert len(traces.payload()["sources"]) == len(ARMS)


def test_cells_without_a_number_but_with_sources_can_be_asked(benchmark):
    """0/5: why is there nothing? The runs tell."""
    traces = Traces(make_data(benchmark))
    assert key(traces, Cell(math.nan, n_expected=3, of=(Source(IID, "fedavg", "last", "test_loss"),))) == "0"


def test_tuned_values_are_marked(tmp_path):
    benchmark = make_benchmark(tmp_path, PARTITIONS, ARMS, seeds=1, tuning=Tuning(trials=2, seeds=[7]))
    data = stored(benchmark)
    traces = Traces(data)
    key(traces, Cell(1.0, of=(Source(IID, "fedavg"),)))
    assert traces.payload()["settings"]["0 0"]["tuned"] == ["lr"]


def test_no_text_ends_the_script_that_holds_it():
    text = encoded({"error": "</script><b>", "infinite": math.inf, "letters": "ζ²"})
    assert "<" not in text
    assert json.loads(text) == {"error": "</script><b>", "infinite": "Infinity", "letters": "ζ²"}


def test_every_table_of_every_section_can_be_traced(benchmark):
    """No number in any table is without its runs."""
    data = make_data(benchmark)
    traces = Traces(data)
    for section in sections.ORDER:
        for table in sections.tables(section, data):
            for part, _, row in table.bodies:
                for column, cell in zip(table.columns, row.cells, strict=True):
                    if math.isfinite(cell.value):
                        assert traces.key(part, row, column, cell), (table.name, row.title, column.title)
                    for source in cell.of:
                        assert (source.scenario, source.arm) in {(s, a) for s, a, _ in data.runs}


# the tracker


def test_experiment_of_the_tracker_is_found_without_mlflow(benchmark):
    project = benchmark.project
    assert experiment(benchmark) is None
    uri = store.tracking_uri(project)
    client = store.client(uri)
    client.create_experiment("other/mini")
    made = client.create_experiment("label-skew/mini")
    assert experiment(benchmark) == made
    assert experiment(dataclasses.replace(benchmark, preset="paper")) is None
    client.delete_experiment(made)
    assert experiment(benchmark) is None


def test_a_tracker_that_cannot_be_read_stops_no_report(benchmark):
    path = benchmark.project.root / "mlflow.db"
    path.write_text("no database at all")
    assert experiment(benchmark) is None
    path.unlink()
    sqlite3.connect(path).close()
    assert experiment(benchmark) is None  # no tables
    assert Traces(make_data(benchmark)).payload()["mlflow"]["experiment"] is None


def test_address_of_the_tracker(benchmark, monkeypatch):
    assert server(benchmark.project) == "http://127.0.0.1:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://runs.example.org/")
    assert server(benchmark.project) == "https://runs.example.org"
    assert experiment(benchmark) is None


def test_the_tag_is_the_one_that_runs_are_imported_under(benchmark):
    from heterobench.tracking import entries

    payload = Traces(make_data(benchmark)).payload()
    assert payload["mlflow"]["tag"] == entries.RUN_ID
    config = {"run_id": "abc", "benchmark": "b", "preset": "p", "scenario": IID, "arm": "fedavg", "seed": 1}
    config |= {"configuration": {"dataset": "digits"}, "data_hash": "d", "code": "c"}
    tags = entries.tags(config, {}, {"status": "finished"})
    assert (tags["scenario"], tags["arm"]) == (IID, "fedavg")  # what the page searches for


def test_a_ledger_may_hold_what_a_parquet_file_makes_of_nothing(benchmark):
    ledger = make_ledger(benchmark)
    ledger["revision"] = None
    ledger["error"] = math.nan
    traces = Traces(make_data(benchmark, ledger=ledger))
    ((*_, runs),) = behind(traces, key(traces, Cell(1.0, of=(Source(IID, "fedavg"),))))
    assert runs[0] == [0, run_id(0, 0, 0), 0, 0]
