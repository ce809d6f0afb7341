"""Tables, figures and the page, from evaluations made up by a keyed generator."""

import csv
import dataclasses
import io
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from heterobench.config.schema import EarlyStopping, Tuning
from heterobench.errors import RunError
from heterobench.keyed import generator
from heterobench.longform import Evaluated, write
from heterobench.report import labels, latex, outputs, reading, render, sections
from heterobench.report.aggregate import aggregate
from heterobench.report.data import read, read_tables
from heterobench.report.index import inline, page, write_report
from heterobench.report.sections import cost, curves, partitions, provenance, results, runs, tuning
from heterobench.report.svg import Drawings
from heterobench.report.table import Cell, Column, Group, Row, Section, Table, number, spread
from heterobench.report.write import write_figures, write_tables
from heterobench.stats.intervals import mean_interval, paired_difference
from reports import ARMS, GROUPS, PARTITIONS, lose, make_benchmark, make_data, make_frames, make_ledger, store, stored

KEPT = ("accuracy", "difference", "accuracy-last", "loss", "clients", "cost", "accuracy-oracle")
"""Tables of every benchmark whose names other things rely on."""


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    return make_benchmark(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def frames(benchmark):
    return make_frames(benchmark)


FEW = {name: ARMS[name] for name in ("fedavg", "fedprox", "scaffold", "centralised", "local-only")}
TWO = {name: PARTITIONS[name] for name in ("iid", "dirichlet-0.1")}
ELSEWHERE = ("comparison", "rankings")
"""Sections that take their time and have tests of their own."""


def tables(data, revisions=()):
    """The tables of a report by name, in its order."""
    here = [section for section in sections.ORDER if section.KEY not in ELSEWHERE]
    made = [table for section in here for table in sections.tables(section, data, revisions)]
    return {table.name: table for table in made}


def tables_of(benchmark, evaluation, ledger=None):
    return tables(make_data(benchmark, evaluation, ledger=ledger))


@pytest.fixture(scope="module")
def made(benchmark, frames):
    return tables(make_data(benchmark, *frames), ["abc1234"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Results, tables and figures of a small benchmark on disk, and the tables of each section."""
    data = stored(make_benchmark(tmp_path_factory.mktemp("written"), TWO, FEW, seeds=3))
    made = write_tables(data, ["abc1234"])
    write_figures(data)
    return data, made


def cell(table, arm, column, section=None):
    index = [c.key for c in table.columns].index(column)
    found = [r.cells[index] for s, _, r in table.bodies if r.key == arm and section in (None, s.key)]
    assert len(found) == 1
    return found[0]


def pick(frame, scenario, arm, selection, metric):
    keys = {"scenario": scenario, "arm": arm, "selection": selection, "metric": metric}
    mask = np.logical_and.reduce([frame[key] == value for key, value in keys.items()])
    return frame.index[mask]


# aggregation


def test_aggregate_has_every_cell_once_and_the_numbers_of_the_statistics(benchmark, frames):
    evaluation = frames[0]
    table = aggregate(evaluation, benchmark)
    keys = ["scenario", "arm", "selection", "metric"]
    assert not table.duplicated(keys).any()
    pairs = evaluation[["selection", "metric"]].drop_duplicates()
    assert len(table) == len(benchmark.scenarios) * len(benchmark.arms) * len(pairs)
    scenario = benchmark.scenarios[1].name
    row = table.loc[pick(table, scenario, "scaffold", "last", "test_accuracy")].iloc[0]
    by_seed = {
        arm: evaluation.loc[pick(evaluation, scenario, arm, "last", "test_accuracy")]
        .set_index("seed")["value"]
        .to_dict()
        for arm in ("scaffold", "fedavg")
    }
    mean, low, high, std, n, n_finite = mean_interval(by_seed["scaffold"].values())
    assert tuple(row[["mean", "low", "high", "std", "n", "n_finite"]]) == (mean, low, high, std, n, n_finite)
    difference = paired_difference(by_seed["scaffold"], by_seed["fedavg"])
    assert tuple(row[["difference", "difference_low", "difference_high"]]) == difference[:3]


def test_order_of_rows_does_not_matter(benchmark, frames):
    shuffled = frames[0].sample(frac=1, random_state=np.random.RandomState(0))
    pd.testing.assert_frame_equal(aggregate(frames[0], benchmark), aggregate(shuffled, benchmark))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: e.drop(columns="value"), "value"),
        (lambda e: pd.concat([e, e.iloc[:1]]), "given twice"),
        (lambda e: e.assign(seed=e["seed"] + 1), "seed 5"),
        (lambda e: e.assign(arm=e["arm"].replace("fedavg", "other")), "arm 'other'"),
        (lambda e: e.iloc[:0], "no values"),
    ],
)
def test_evaluations_of_something_else_are_errors(benchmark, frames, spoil, message):
    with pytest.raises(RunError, match=message):
        aggregate(spoil(frames[0]), benchmark)


def test_references_are_known_by_their_tags(benchmark):
    assert [arm.name for arm in labels.references(benchmark)] == ["centralised", "local-only"]
    assert [arm.name for arm in benchmark.arms if labels.is_personal(benchmark, arm)] == ["local-only"]
    assert labels.baseline(benchmark).name == "fedavg"


def test_bold_is_the_rule_of_ties_and_never_a_reference(tmp_path):
    arms = {"fedavg": "A", "fedprox": "B", "scaffold": "C", "centralised": "Pooled"}
    benchmark = make_benchmark(tmp_path, {"iid": "IID"}, arms)
    evaluation, _ = make_frames(benchmark)
    name = benchmark.scenarios[0].name
    for arm, values in {
        "fedavg": [0.1, 0.2, 0.3, 0.4, 0.5],
        "fedprox": [0.11, 0.18, 0.31, 0.39, 0.49],
        "scaffold": [0.09, 0.191, 0.289, 0.39, 0.49],
        "centralised": [0.9, 0.9, 0.9, 0.9, 0.9],
    }.items():
        evaluation.loc[pick(evaluation, name, arm, "validation", "test_accuracy"), "value"] = values
        evaluation.loc[pick(evaluation, name, arm, "oracle", "test_accuracy"), "value"] = values
    done = tables_of(benchmark, evaluation)
    assert {r.key for _, _, r in done["accuracy"].bodies if r.cells[0].bold} == {"fedavg", "fedprox"}
    assert not any(r.cells[0].bold for _, _, r in done["accuracy-oracle"].bodies)
    assert [g.title for g in done["accuracy"].sections[0].groups] == ["Methods", "References"]
    assert cell(done["difference"], "scaffold", name).marks == ("*",)
    assert cell(done["difference"], "fedprox", name).marks == ()


# diverged, missing and censored runs


def test_diverged_and_missing_runs_are_shown(benchmark, frames):
    evaluation = frames[0].copy()
    iid, hard = benchmark.scenarios[0].name, benchmark.scenarios[1].name
    evaluation.loc[pick(evaluation, iid, "fedprox", "validation", "test_accuracy")[:2], "value"] = math.nan
    evaluation, ledger = lose(evaluation, make_ledger(benchmark), hard, "feddyn", range(5))
    done = tables_of(benchmark, evaluation, ledger)
    table = done["accuracy"]
    assert cell(table, "fedprox", iid).runs == "3/5"
    assert not cell(table, "fedprox", iid).bold
    assert cell(table, "feddyn", hard).runs == "0/5"
    assert number(cell(table, "feddyn", hard), table.columns[1]) == "–"
    assert any("k/n" in note for note in table.notes)
    for form in (render.to_markdown, latex.to_latex, render.to_html):
        assert "3/5" in form(table)
        assert "0/5" in form(table)
    assert not any("k/n" in note for note in tables_of(benchmark, frames[0])["accuracy"].notes)


def test_what_is_missing_is_listed_with_its_reason(benchmark, frames):
    iid, hard = benchmark.scenarios[0].name, benchmark.scenarios[1].name
    evaluation, ledger = lose(frames[0], make_ledger(benchmark), hard, "feddyn", [1, 3])
    evaluation, ledger = lose(evaluation, ledger, iid, "fednova", [0], "RuntimeError: out of memory")
    evaluation = evaluation.drop(index=pick(evaluation, iid, "fedavg", "last", "test_loss")[[2]])
    evaluation.loc[pick(evaluation, hard, "scaffold", "validation", "test_accuracy")[:2], "value"] = math.nan
    done = tables_of(benchmark, evaluation, ledger)

    finished = done["runs"]
    assert "217 of 220" in finished.about
    assert [
        cell(finished, arm, place).text for arm, place in (("feddyn", hard), ("fednova", iid), ("fedavg", iid))
    ] == [
        "3/5",
        "4/5",
        "5/5",
    ]

    def texts(table):
        return [(row.title, *(c.text for c in row.cells)) for _, _, row in table.bodies]

    assert texts(done["missing-runs"]) == [
        ("FedNova", "IID", "0", "failed", "RuntimeError: out of memory"),
        ("FedDyn", "Dirichlet(0.1)", "1", "missing", "no such folder"),
        ("FedDyn", "Dirichlet(0.1)", "3", "missing", "no such folder"),
    ]
    assert texts(done["missing-values"]) == [
        ("FedAvg", "IID", "Test loss (test_loss, last)", "2", "not in the evaluation"),
        ("SCAFFOLD", "Dirichlet(0.1)", "Test accuracy (test_accuracy, validation)", "0, 1", "not a finite number"),
    ]
    for form in (render.to_markdown, latex.to_latex, render.to_html, render.to_csv):
        assert "out of memory" in form(done["missing-runs"])


def test_where_nothing_is_missing_the_report_says_so(made):
    for name in ("missing-runs", "missing-values"):
        assert made[name].bodies == []
        for form in (render.to_markdown, latex.to_latex, render.to_html):
            assert "Nothing: " in form(made[name])
        assert len(render.to_csv(made[name]).splitlines()) == 1


def test_an_arm_without_any_finished_run_is_missing_and_not_undefined(benchmark, frames):
    """Local training has no global model, but that is not why its runs have no accuracy when they all failed."""
    iid = benchmark.scenarios[0].name
    evaluation, ledger = lose(frames[0], make_ledger(benchmark), iid, "local-only", range(5), "killed")
    done = tables_of(benchmark, evaluation, ledger)
    assert cell(done["accuracy"], "local-only", iid).runs == "0/5"
    assert cell(done["accuracy"], "local-only", iid).marks == ()
    assert cell(done["accuracy-oracle"], "local-only", iid).runs == "0/5"
    assert cell(tables_of(benchmark, frames[0])["accuracy-oracle"], "local-only", iid).marks == ("b",)


def test_runs_that_never_reach_the_target_give_a_lower_bound(benchmark, frames):
    evaluation = frames[0].copy()
    iid, hard = benchmark.scenarios[0].name, benchmark.scenarios[-1].name
    at = pick(evaluation, iid, "fedprox", "run", "rounds_to_target")
    evaluation.loc[at, "value"] = [10, 12, math.inf, 14, math.inf]
    table = tables_of(benchmark, evaluation)["target"]
    made = cell(table, "fedprox", "rounds_to_target", iid)
    assert (made.value, made.bound, made.runs, made.bold) == (
        (10 + 12 + 30 + 14 + 30) / 5,
        True,
        "3/5",
        False,
    )
    column = next(c for c in table.columns if c.key == "rounds_to_target")
    assert number(made, column) == "> 19.2"
    assert spread(made, column) == ""
    never = cell(table, "fedavg", "rounds_to_target", hard)
    assert (number(never, column), never.runs) == ("> 30.0", "0/5")
    undefined = cell(table, "local-only", "rounds_to_target", iid)
    assert (undefined.runs, undefined.marks) == ("", ("b",))
    assert "> 19.2" in latex.to_latex(table)
    assert not any("k/n" in note for note in table.notes)  # nothing diverged, and the bound is over all runs
    assert "&gt; 19.2" in render.to_html(table)


def test_a_bound_leaves_out_the_runs_without_an_end_and_says_so(benchmark, frames):
    """Of five runs two reach the target, one spends its budget of 30 rounds, one diverges and stops, one is missing."""
    iid = benchmark.scenarios[0].name
    evaluation, ledger = lose(frames[0].copy(), make_ledger(benchmark), iid, "fedprox", [4])
    at = pick(evaluation, iid, "fedprox", "run", "rounds_to_target")
    evaluation.loc[at, "value"] = [10, math.inf, 14, math.inf]
    stopped = pick(evaluation, iid, "fedprox", "run", "rounds")
    evaluation.loc[stopped, "value"] = [30, 30, 30, math.nan]
    of = (ledger["scenario"] == iid) & (ledger["arm"] == "fedprox") & (ledger["seed"] == 3)
    ledger.loc[of, "status"] = "diverged"
    table = tables_of(benchmark, evaluation, ledger)["target"]
    made = cell(table, "fedprox", "rounds_to_target", iid)
    assert (made.value, made.bound, made.runs) == ((10 + 30 + 14) / 3, True, "2/5")
    said = next(note for note in table.notes if note.startswith("Target:"))
    assert "mean over the runs that are there" in said
    assert "left out of x" in said


def test_benchmark_without_target_has_no_such_columns(tmp_path):
    benchmark = make_benchmark(tmp_path, {"iid": "IID"}, target=None, seeds=2)
    done = tables_of(benchmark, make_frames(benchmark)[0])
    assert "target" not in done
    assert [c.key for c in done["cost"].columns][:3] == ["bytes_up", "bytes_down", "seconds"]


def test_costs_say_where_they_come_from(written):
    """Energy that nobody measured is called a model; pooled training has no devices, which is nothing missing."""
    data, made = written
    table = next(table for table in made["cost"] if table.name == "cost")
    assert "Energy, modelled" in [column.title for column in table.columns]
    assert any("modelled, no measurement (CPU time)" in note for note in table.notes)
    iid = data.benchmark.scenarios[0].name
    assert cell(table, "centralised", "simulated_seconds", iid).marks == ("‡",)
    assert cell(table, "local-only", "simulated_seconds", iid).value == pytest.approx(30 * 1.6)
    assert next(table for table in made["missing"] if table.name == "missing-values").bodies == []
    for p in data.provenance.values():
        p["energy"] |= {"measured": True, "method": "RAPL"}
    measured = next(table for table in sections.tables(cost, data) if table.name == "cost")
    assert "Energy" in [column.title for column in measured.columns]
    assert any("RAPL, measured" in note for note in measured.notes)
    data.__dict__.pop("provenance")


def test_single_seed_has_no_interval(tmp_path):
    benchmark = make_benchmark(tmp_path, seeds=1)
    table = tables_of(benchmark, make_frames(benchmark)[0])["accuracy"]
    text = render.to_markdown(table)
    assert "One seed, so no interval" in text
    assert "±" not in text
    assert sum(row.cells[0].bold for _, _, row in table.bodies) == 1


# the four forms


ROW = r"[A-Z].* & .*(\d|--).* \\\\$"  # of a LaTeX table


class Cells(HTMLParser):
    """Visible text of every body cell, row by row, and the numbers behind it."""

    def __init__(self):
        super().__init__()
        self.rows, self.inside = [], False

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.inside = tag == "td"
            self.rows[-1] += [["", dict(attributes)]] if self.inside else []

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "td"

    def handle_data(self, text):
        if self.inside:
            self.rows[-1][-1][0] += text


def plain(text):
    """ "**−1.20** ± 0.3 (3/5)<sup>*</sup>", in any of the forms, as (value, half)."""
    text = re.sub(r"<sup>.*?</sup>|\\textsuperscript\{.*?\}|\(?\d/\d\)?", "", text)
    text = text.replace("−", "-").replace("\\pm", "±").replace(">", "").replace("&gt;", "")
    text = re.sub(r"\\[a-z]+|[{}$*,\\]", "", text).strip()
    value, _, half = text.partition("±")
    return value.strip().replace("--", "–"), half.strip()


@pytest.mark.parametrize("name", [*KEPT, "target", "clients-spread", "clients-loss"])
def test_all_forms_show_the_same_numbers(made, name):
    table = made[name]
    rows = list(csv.DictReader(io.StringIO(render.to_csv(table))))
    columns = {column.key: column for column in table.columns}
    expected = []
    for row in rows:
        digits, signed = columns[row["column"]].digits, columns[row["column"]].signed
        value = "–" if row["value"] == "" else f"{float(row['value']):{'+' if signed else ''}.{digits}f}"
        value = value.lstrip("+-") if value.strip("+-0.") == "" else value
        shown = row["half_width"] != "" and float(row["half_width"]) > 1e-9 * abs(float(row["value"]))
        expected.append((value, f"{float(row['half_width']):.{digits}f}" if shown else ""))
    assert len(expected) == len(table.bodies) * len(table.columns) > 0

    lines = [line for line in render.to_markdown(table).splitlines() if line.startswith("| ")]
    fields = [line.replace("\\>", ">").strip("| ").split(" | ")[1:] for line in lines if "| --:" not in line]
    cells = [
        text
        for row in fields
        for text in row
        if re.search(r"\d|–", text) and not re.search("[A-Za-z]{3}", text.split("<")[0])
    ]
    assert [plain(text) for text in cells] == expected

    parser = Cells()
    parser.feed(render.to_html_fragment(table))
    cells = [item for row in parser.rows for item in row if item[0]]
    assert [plain(re.split("[b*†‡]", text)[0]) for text, _ in cells] == expected
    values = [attributes.get("data-value", "") for _, attributes in cells]
    assert [float(value) if value else None for value in values] == [
        pytest.approx(float(row["value"]), rel=1e-7) if row["value"] else None for row in rows
    ]

    panels = [
        [line.removesuffix(r" \\").split(" & ")[1:] for line in panel.splitlines() if re.match(ROW, line)]
        for panel in latex.to_latex(table).split("\\toprule")[1:]
    ]
    parts = [[]]  # panels that stand beside each other: together they have all columns
    for panel in panels:
        if sum(len(part[0]) for part in parts[-1]) == len(table.columns):
            parts.append([])
        parts[-1].append(panel)
    body = [[text for piece in row for text in piece] for part in parts for row in zip(*part, strict=True)]
    assert [plain(text) for row in body for text in row] == expected


@pytest.mark.parametrize("name", [*KEPT, "target", "clients-spread", "clients-loss"])
def test_bold_is_the_same_in_all_forms(made, name):
    table = made[name]
    count = sum(c.bold for _, _, row in table.bodies for c in row.cells)
    heads = len([s for s in table.sections if s.title])
    assert render.to_markdown(table).count("**") == 2 * (count + heads)
    assert latex.to_latex(table).count("\\mathbf") == count
    assert render.to_html_fragment(table).count('class="best"') == count
    assert sum(int(row["bold"]) for row in csv.DictReader(io.StringIO(render.to_csv(table)))) == count


def test_many_columns_become_panels_in_latex_with_all_cells(tmp_path):
    benchmark = make_benchmark(tmp_path, datasets=("digits", "other"), seeds=2)
    table = tables_of(benchmark, make_frames(benchmark)[0])["accuracy"]
    assert [column.group for column in table.columns] == ["digits"] * 4 + ["other"] * 4
    text = latex.to_latex(table)
    assert text.count("\\begin{table}") == 2
    assert text.count("FedAvgM") == 2
    assert "digits" in render.to_html_fragment(table)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50 % of_it & {more}", r"50 \% of\_it \& \{more\}"),
        ("a\\b~c^d#e$f", r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d\#e\$f"),
        ("α = 0.1, λ, Γ, μ", r"$\alpha$ = 0.1, $\lambda$, $\Gamma$, $\mu$"),
        ("±", r"$\pm$"),
        ("Erdős–Rényi", "Erdos--Rényi"),
        ("日", "[U+65E5]"),
    ],
)
def test_latex_escape(text, escaped):
    assert latex.escape_latex(text) == escaped


def test_titles_are_escaped_in_every_form(tmp_path):
    nasty = "a|b <i>_x_</i> & 5 %"
    benchmark = make_benchmark(tmp_path, {"iid": nasty}, {"fedavg": nasty, "fedprox": "*B*"}, seeds=2)
    table = tables_of(benchmark, make_frames(benchmark)[0])["accuracy"]
    assert "a\\|b \\<i\\>\\_x\\_\\</i\\>" in render.to_markdown(table)
    assert "a|b &lt;i&gt;_x_&lt;/i&gt; &amp; 5 %" in render.to_html(table)
    assert r"a\textbar{}b \textless{}i\textgreater{}\_x\_" in latex.to_latex(table)
    assert next(csv.DictReader(io.StringIO(render.to_csv(table))))["row_title"] == nasty


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles_alone_and_inside_a_document(written, tmp_path):
    made = {table.name: table for tables in written[1].values() for table in tables}
    assert tuple(made) == sections.table_names(written[0].benchmark)
    for name in made:
        (tmp_path / f"{name}.tex").write_text(latex.to_latex(made[name]), encoding="utf-8")
    inputs = "".join(f"\\input{{{name}.tex}}" for name in ("accuracy", "difference"))
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + inputs + "End.\\end{document}"
    (tmp_path / "document.tex").write_text(document)
    for name in (*made, "document"):
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", f"{name}.tex"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert result.returncode == 0, result.stdout[-2000:]
        assert "Overfull" not in result.stdout, name


def test_numbers_as_they_are_shown():
    column = Column("x", "x", digits=1, signed=True)
    assert number(Cell(value=-0.04), column) == "0.0"
    assert number(Cell(value=1.25, half=0.5), column) == "+1.2"
    assert number(Cell(value=math.inf), column) == "–"
    assert spread(Cell(value=1.0, half=0.0), column) == ""


WORDS = Table(
    "words",
    "Words & numbers",
    "",
    (Column("what", "What", words=True), Column("n", "Count", digits=0), Column("share", "Share")),
    (
        Section(
            "",
            "",
            (
                Group(
                    "",
                    (
                        Row("a", "First", (Cell(text="no <end> in sight " * 4), Cell(3), Cell(0.75, text="3/4"))),
                        Row("b", "Second", (Cell(text="10 | 9"), Cell(12), Cell(text="none"))),
                        Row("c", "Third", (Cell(), Cell(math.nan), Cell(1, text="4/4", bold=True))),
                    ),
                ),
            ),
        ),
    ),
    protocol="Round: any.",
    stub="Place",
)


def test_words_stand_in_every_form():
    rows = list(csv.DictReader(io.StringIO(render.to_csv(WORDS))))
    assert [row["text"] for row in rows][2::3] == ["3/4", "none", "4/4"]
    assert [row["value"] for row in rows][2::3] == ["0.75", "", "1.0"]
    parser = Cells()
    parser.feed(render.to_html_fragment(WORDS))
    cells = [item for row in parser.rows for item in row]
    assert cells[3:6] == [
        ["10 | 9", {"class": " words"}],
        ["12", {"data-value": "12"}],
        ["none", {}],
    ]
    assert cells[8] == ["4/4", {"data-value": "1", "class": "best"}]
    assert cells[6][0] == "–"
    assert "10 \\| 9" in render.to_markdown(WORDS)
    text = latex.to_latex(WORDS)
    assert r"\parbox[t]{14em}{\raggedright no \textless{}end\textgreater{} in sight" in text
    assert r"\textbf{4/4}" in text
    for form in (render.to_markdown, latex.to_latex, render.to_html):
        assert "Round: any." in form(WORDS)
    assert ">Place</button>" in render.to_html(WORDS)


def long_table(rows, columns=1, words="", sections=1):
    def row(n):
        return Row(f"{n}", f"Row {n}", tuple(Cell(text=f"{words}{n}/{c}") for c in range(columns)))

    body = tuple(row(n) for n in range(rows))
    heads = tuple(Column(f"{c}", f"Column {c}", words=bool(words)) for c in range(columns))
    parts = tuple(Section(f"{s}", f"Section {s}" * (sections > 1), (Group("", body),)) for s in range(sections))
    return Table("long", "Long", "", heads, parts)


@pytest.mark.parametrize(("rows", "sections"), [(54, 1), (130, 1), (11, 4), (30, 4), (60, 2)])
def test_a_long_table_is_cut_into_pages_in_latex(rows, sections):
    text = latex.to_latex(long_table(rows, sections=sections))
    assert [int(n) for n in re.findall(r"Row \d+ & (\d+)/0 ", text)] == [*range(rows)] * sections
    pages = text.split("\\begin{table}")[1:]
    assert max(page.count("Row ") for page in pages) <= latex.LINES
    if rows * sections + latex.HEADING * sections <= latex.LINES:
        assert len(pages) == 1


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_long_and_wide_tables_fit_on_their_pages(tmp_path):
    tried = {
        "rows": long_table(130),
        "sections": long_table(20, 3, sections=5),
        "wide": long_table(8, 24),
        "words": long_table(12, 4, "several words that go on and on until a line has no room for them "),
        "both": WORDS,
    }
    for name, table in tried.items():
        (tmp_path / f"{name}.tex").write_text(latex.to_latex(table), encoding="utf-8")
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", f"{name}.tex"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert result.returncode == 0, result.stdout[-2000:]
        assert "Overfull" not in result.stdout, name
        assert "Float too large" not in result.stdout, name


# sections


def section(name, tables=(), figures=()):
    """A section that announces and makes the given names."""
    made = type("made", (), {"__name__": name, "KEY": name})()
    made.table_names = lambda benchmark: tables
    made.figure_names = lambda benchmark: figures
    made.tables = lambda data: [dataclasses.replace(WORDS, name=each) for each in tables]
    made.figures = lambda data: dict.fromkeys(figures)
    return made


def test_two_sections_may_not_write_the_same_file(benchmark, monkeypatch):
    monkeypatch.setattr(sections, "ORDER", (section("a", ("x", "y"), ("p",)), section("b", ("z", "x"), ("p",))))
    with pytest.raises(ValueError, match="'x'"):
        sections.table_names(benchmark)
    with pytest.raises(ValueError, match="'p'"):
        sections.figure_names(benchmark)


def test_a_section_makes_what_it_announces(made, benchmark):
    data = make_data(benchmark)
    spoiled = section("a", ("x",), ("p",))
    spoiled.tables = lambda data: []
    spoiled.figures = lambda data: {"q": None}
    with pytest.raises(ValueError, match=r"announces the tables \['x'\] and makes \[\]"):
        sections.tables(spoiled, data)
    with pytest.raises(ValueError, match=r"announces the figures \['p'\] and makes \['q'\]"):
        sections.figures(spoiled, data)
    assert set(made) < set(sections.table_names(benchmark))


def test_every_section_says_how_to_read_it(benchmark):
    keys = [section.KEY for section in sections.ORDER]
    assert len(set(keys)) == len(keys)
    for each in sections.ORDER:
        assert each.TITLE
        assert all(isinstance(text, str) and text[-1] in ".?" for text in each.READING)
        assert len(each.READING) > 0
        for name in each.figure_names(benchmark):
            assert sections.caption(each, name, benchmark)


def test_groups_of_metrics_have_their_sections(tmp_path):
    plain = set(tables(make_data(make_benchmark(tmp_path, {"iid": "IID"}, FEW, seeds=2))))
    benchmark = make_benchmark(tmp_path, {"iid": "IID"}, FEW, metrics=GROUPS, snapshots=3, seeds=2)
    done = tables(make_data(benchmark))
    assert set(done) - plain == {
        *("calibration", "calibration-scaled", "fairness", "fairness-local", "fairness-information"),
        *("corrected-labels", "coherence", "dissimilarity", "landscape", "connectivity", "connectivity-layers"),
    }
    for name in set(done) - plain:
        found = [c for _, _, row in done[name].bodies for c in row.cells]
        assert any(math.isfinite(c.value) for c in found), name
    assert {"coherence-rounds", "dissimilarity-rounds"} < set(sections.figure_names(benchmark))
    only = dataclasses.replace(benchmark, metrics=("coherence",), snapshots=0)
    assert not {"coherence-rounds", "dissimilarity-rounds"} & set(sections.figure_names(only))
    assert cell(done["connectivity"], "fedavg", "barrier").marks == ("†",)
    assert cell(done["coherence"], "local-only", "train_m_coherence").marks == ("b",)
    assert cell(done["connectivity"], "fedprox", "barrier").runs == ""
    assert [column.group for column in done["fairness"].columns] == ["sex"] * 5
    assert done["missing-values"].bodies == []


# the protocol of tuning


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        (None, "each method's defaults; nothing is tuned"),
        (Tuning(trials=4, seeds=[100]), "4 trials for each method and scenario (seed 100), chosen by validation"),
        (Tuning(trials=2, seeds=[7, 8], rule="oracle"), "(seeds 7, 8), chosen by test accuracy"),
        (
            Tuning(trials=8, seeds=[100], early_stopping=EarlyStopping(after=0.2, keep=0.5)),
            "after 20% of the rounds the best 50% of them go on",
        ),
    ],
)
def test_every_table_of_numbers_says_which_rule_and_budget(tmp_path, tuning, said):
    benchmark = make_benchmark(tmp_path, {"iid": "IID"}, FEW, seeds=2, tuning=tuning)
    done = tables(make_data(benchmark))
    assert said in labels.tuning(benchmark)
    for name in KEPT:
        assert labels.tuning(benchmark) in done[name].protocol
        for form in (render.to_markdown, latex.to_latex, render.to_html):
            words = re.sub(r"\\(.)", r"\1", form(done[name])).replace("&#39;", "'")
            assert labels.tuning(benchmark) in words
    assert said.split(",")[0].lower() in dict(reading.general(benchmark))["Hyper-parameters"].lower()


# files


def test_all_declared_files_are_written(written):
    data, made = written
    benchmark = data.benchmark
    for path in outputs.table_files(benchmark) + outputs.figure_files(benchmark):
        assert path.stat().st_size > 0, path
    folder = outputs.folder(benchmark)
    here = {p for p in folder.rglob("*") if p.is_file() and p.parent.name in ("tables", "figures")}
    assert here == {*outputs.table_files(benchmark), *outputs.figure_files(benchmark)}
    assert set(KEPT) < {table.name for each in made.values() for table in each}
    text = outputs.table_file(benchmark, "accuracy", "md").read_text()
    for needed in (
        "3 seeds",
        "95 %",
        "Bold:",
        "validation accuracy",
        "Code: abc1234",
        "results/label-skew/mini/runs/",
    ):
        assert needed in text


def test_names_of_files_need_no_heavy_import():
    code = (
        "import sys, heterobench.report.outputs, heterobench.report.sections; "
        "print([m for m in ('pandas', 'matplotlib', 'scipy', 'torch', 'jinja2', 'mlflow') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["evaluation", "curves", "ledger", "outcomes"])
def test_results_of_before_say_what_to_do(tmp_path, kind):
    benchmark = make_benchmark(tmp_path, {"iid": "IID"}, {"fedavg": "FedAvg"}, seeds=1)
    store(make_data(benchmark))
    shutil.rmtree(outputs.folder(benchmark) / kind)
    with pytest.raises(RunError, match=rf"{kind}/.*parquet is missing. What to do: heterobench evaluate"):
        read(benchmark)


def test_a_ledger_of_before_says_what_to_do(tmp_path):
    benchmark = make_benchmark(tmp_path, {"iid": "IID"}, {"fedavg": "FedAvg"}, seeds=1)
    store(make_data(benchmark))
    name = benchmark.scenarios[0].name
    tables = read_tables(benchmark, name)
    write(benchmark, name, Evaluated(**tables | {"ledger": tables["ledger"].drop(columns="dirty")}))
    with pytest.raises(RunError, match=r"'dirty'.*evaluate again"):
        read(benchmark)


def test_a_choice_that_is_not_there_is_said_in_the_table_of_tuned_values(tmp_path):
    benchmark = make_benchmark(
        tmp_path, {"iid": "IID"}, {"fedavg": "FedAvg"}, seeds=1, tuning=Tuning(trials=2, seeds=[9])
    )
    store(make_data(benchmark))
    assert read(benchmark).tuning[benchmark.scenarios[0].name, "fedavg"]["chosen"] == 1
    outputs.tuning_file(benchmark, benchmark.scenarios[0].name, "fedavg").unlink()
    (table,) = tuning.tables(read(benchmark))
    assert [row.cells[0].text for _, _, row in table.bodies] == ["not there"]
    assert any("not there" in note for note in table.notes)


def test_every_file_is_read_once(tmp_path, monkeypatch):
    """Results are opened once for a whole report: tables, figures, scores and page."""
    from heterobench.report.build import build

    benchmark = make_benchmark(tmp_path, {"iid": "IID"}, {"fedavg": "FedAvg", "fedprox": "FedProx"}, seeds=2)
    store(make_data(benchmark))
    opened = []
    of_pandas = pd.read_parquet
    monkeypatch.setattr(pd, "read_parquet", lambda path, **more: opened.append(path) or of_pandas(path, **more))
    build(benchmark)
    assert sorted(path.parent.name for path in opened) == ["curves", "evaluation", "ledger", "outcomes"]


def test_equal_inputs_give_equal_bytes(written):
    data, _ = written
    paths = outputs.figure_files(data.benchmark) + outputs.table_files(data.benchmark)
    before = {path: path.read_bytes() for path in paths}
    again = read(data.benchmark)
    write_tables(again, ["abc1234"])
    write_figures(again)
    assert [path.name for path in paths if path.read_bytes() != before[path]] == []


def test_revisions_are_those_of_finished_runs(benchmark, frames):
    ledger = make_ledger(benchmark)
    ledger.loc[3, ["revision", "dirty"]] = "f" * 40, True
    ledger.loc[4, ["revision", "status"]] = "e" * 40, "failed"
    ledger.loc[5, "revision"] = ""
    data = make_data(benchmark, *frames, ledger=ledger)
    assert provenance.revisions(data) == ["abc123400000", "ffffffffffff+", "revision not known"]


# figures


def test_curve_is_the_mean_with_its_interval(benchmark, frames):
    from heterobench.report.curves import curves_of

    frame = frames[1][frames[1]["scenario"] == benchmark.scenarios[0].name]
    found = curves_of(frame)
    made = found["scaffold"]
    seven = frame[(frame["arm"] == "scaffold") & (frame["metric"] == "test_accuracy") & (frame["round"] == 7)]
    expected = mean_interval(100 * seven["value"])
    assert (made.mean[6], made.low[6], made.high[6]) == pytest.approx(expected[:3], rel=1e-12)
    assert made.megabytes[6] == pytest.approx(7 * 2 * 2 * 0.19)
    assert made.seconds[6] == pytest.approx(7 * (1.5 + 0.1 * 2))
    assert np.isnan(found["centralised"].seconds).all()
    assert "local-only" not in found


def test_curves_over_time_need_a_clock(tmp_path):
    with_clock, without = (make_benchmark(tmp_path, TWO, FEW, seeds=2, clock=clock) for clock in (True, False))
    assert "curves-time" in curves.figure_names(with_clock)
    assert "curves-time" not in curves.figure_names(without)
    assert set(sections.figures(curves, make_data(without))) == set(curves.figure_names(without))


def test_no_mean_is_drawn_where_a_seed_diverged(benchmark, frames):
    from heterobench.report.curves import curves_of

    frame = frames[1][frames[1]["scenario"] == benchmark.scenarios[0].name].copy()
    bad = (
        (frame["arm"] == "fedavg") & (frame["seed"] == 2) & (frame["round"] > 10) & (frame["metric"] == "test_accuracy")
    )
    frame.loc[bad, "value"] = math.nan
    made = curves_of(frame)["fedavg"]
    assert np.isfinite(made.mean[:10]).all()
    assert np.isnan(made.mean[10:]).all()


def test_labels_do_not_overlap_and_keep_their_order():
    from heterobench.report.figures import spaced

    random = generator(0, "labels")
    for n in (1, 2, 5, 11):
        wanted = list(random.uniform(0, 20, n))
        found = spaced(wanted, 2.0, 0.0, 25.0)
        assert np.argsort(found).tolist() == np.argsort(wanted).tolist()
        assert min(np.diff(sorted(found)), default=2.0) >= 2.0 - 1e-9
        assert 0 <= min(found) <= max(found) <= 25
    assert spaced([5.0, 20.0], 2.0, 0.0, 25.0) == [5.0, 20.0]
    assert spaced([5.0, 5.0], 2.0, 0.0, 25.0) == [4.0, 6.0]
    assert spaced([], 2.0, 0.0, 25.0) == []


def test_every_method_has_its_own_look(benchmark):
    from heterobench.report.figures import styles

    looks = [(style["color"], style["linestyle"]) for style in styles(benchmark).values()]
    assert len(set(looks)) == len(benchmark.arms)


# the page


def without_pictures(text):
    return re.sub("base64,[A-Za-z0-9+/=]+", "", text)


def test_page_asks_for_nothing_from_elsewhere(written):
    data, made = written
    write_report(data, made)
    text = without_pictures(outputs.report_file(data.benchmark).read_text())
    assert text.startswith("<!doctype html>")
    markup, _, scripts = text.partition('<script type="application/json" id="traces">')
    assert "http" not in markup
    references = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", markup) + re.findall(r"url\(([^)]*)\)", markup)
    assert references
    assert all(reference.startswith(("#", "data:image/")) for reference in references)
    assert "@import" not in text
    for call in ("fetch(", "XMLHttpRequest", "import(", "WebSocket", "sendBeacon"):
        assert call not in scripts
    for name in KEPT:
        assert f'id="table-{name}"' in text


def test_every_anchor_of_the_page_has_one_target(written):
    data, made = written
    text = page(data, made)
    ids = re.findall(r'\sid="([^"]*)"', text)
    assert len(set(ids)) == len(ids)
    anchors = re.findall(r'href="#([^"]+)"', text)
    assert {"reading", "reading-results", "results"} < set(anchors)
    assert set(anchors) <= set(ids)
    figures = sections.figure_names(data.benchmark)
    assert text.count('<svg role="img"') == len(figures) + len(data.benchmark.scenarios)


def test_sections_stand_in_their_order_with_their_reading(written):
    data, made = written
    text = page(data, made)
    shown = re.findall(r'<section class="part" id="([^"]*)"', text)
    order = [section.KEY for section in sections.ORDER]
    assert shown[-1] == "reading"
    assert shown[:-1] == [key for key in order if key in shown]
    assert not {"calibration", "fairness", "tuning"} & set(shown)  # nothing was asked for
    guide = text[text.index('id="reading"') :]
    for section in sections.ORDER:
        if section.KEY in shown:
            assert all(str(render.environment().from_string("{{ x }}").render(x=t)) in guide for t in section.READING)


def test_page_says_what_has_not_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "ORDER", (results, runs))
    benchmark = make_benchmark(tmp_path, TWO, FEW, seeds=2)
    data = make_data(benchmark)
    assert "have not finished" not in page(data, write_tables(data))
    evaluation, ledger = lose(data.evaluation, data.ledger, benchmark.scenarios[0].name, "fedavg", [0, 1], "boom")
    data = make_data(benchmark, evaluation, pd.concat(data.curves.values()), ledger)
    assert "2 of 20 runs have not finished" in page(data, write_tables(data))


def test_drawings_keep_their_lines_and_share_their_letters(tmp_path):
    from matplotlib.figure import Figure

    from heterobench.report.figures import save

    drawings, found = Drawings(), []
    for name in ("a", "b.c"):
        figure = Figure(figsize=(3, 2))
        figure.subplots().plot([0.123456789, 2, 3], [1, 4, 9])
        save(figure, tmp_path / f"{name}.svg")
        text = (tmp_path / f"{name}.svg").read_text()
        made = str(drawings.embed(text, "A <title>", name))
        assert made.startswith('<svg role="img" aria-label="A &lt;title&gt;" style="--w:288px"')
        assert len(made) < 0.7 * len(text)
        assert "<style" not in made
        numbers = [[float(n) for n in re.findall(r"-?[0-9.]+", d)] for d in re.findall(r'\sd="([^"]*)"', text)]
        kept = [[float(n) for n in re.findall(r"-?[0-9.]+", d)] for d in re.findall(r'\sd="([^"]*)"', made)]
        letters = re.findall(r'<path id="(DejaVu[^"]*)"', text)
        assert len(kept) == len(numbers) - len(letters)
        assert all(any(np.allclose(k, n, atol=0.005) for n in numbers if len(n) == len(k)) for k in kept)
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', made))
        own = set(re.findall(r'\sid="([^"]*)"', made))
        assert used - own == set(letters)
        found.append(own)
    assert not found[0] & found[1]
    sprite = str(drawings.sprite())
    assert sorted(re.findall(r'id="([^"]*)"', sprite)) == sorted(drawings.letters)
    assert Drawings().sprite() == ""


def test_a_partition_that_was_never_drawn_has_no_picture_and_stops_nothing(tmp_path):
    """As after a workflow that was killed early."""
    benchmark = make_benchmark(tmp_path, {"iid": "IID", "dirichlet-0.1": "Dirichlet"}, {"fedavg": "FedAvg"}, seeds=1)
    store(make_data(benchmark))
    assert len(partitions.pictures(read(benchmark))) == 2
    drawn = benchmark.scenarios[0]
    benchmark.project.partition_manifest(drawn.dataset, "dirichlet-0.1", 0).unlink()
    ((caption, picture),) = partitions.pictures(read(benchmark))
    assert caption.startswith("IID")
    picture.write_bytes(b"")  # damaged
    assert partitions.pictures(read(benchmark)) == []


def test_pictures_that_are_missing_or_of_another_kind_are_errors(tmp_path):
    with pytest.raises(RunError, match="no such picture"):
        inline(tmp_path / "no.svg", "x", Drawings())
    (tmp_path / "x.tiff").write_bytes(b"")
    with pytest.raises(RunError, match="SVG, PNG or JPEG"):
        inline(tmp_path / "x.tiff", "x", Drawings())


def test_pictures_of_pixels_are_part_of_the_page(tmp_path):
    import base64

    import matplotlib.image

    matplotlib.image.imsave(tmp_path / "p.png", np.zeros((4, 4, 3)))
    made = str(inline(tmp_path / "p.png", "Two <classes>", Drawings()))
    assert "Two &lt;classes&gt;" in made
    assert base64.b64decode(re.search(r"base64,([^\"]*)", made)[1]) == (tmp_path / "p.png").read_bytes()


def test_benchmark_of_another_shape(tmp_path):
    """One scenario, no FedAvg, no reference: everything is still written."""
    benchmark = make_benchmark(tmp_path, {"iid": "IID"}, {"scaffold": "SCAFFOLD", "fednova": "FedNova"}, seeds=2)
    data = stored(benchmark)
    made = write_tables(data)
    write_figures(data)
    write_report(data, made)
    assert "Difference to SCAFFOLD" in outputs.report_file(benchmark).read_text()
