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

from heterobench.config.schema import Budget, ModelFile, PartitionFile, ScheduleFile
from heterobench.errors import RunError
from heterobench.keyed import generator
from heterobench.project import Project
from heterobench.report import labels, outputs, render
from heterobench.report.aggregate import aggregate
from heterobench.report.index import inline, page, write_report
from heterobench.report.table import Cell, Column, number, spread
from heterobench.report.tables import tables
from heterobench.report.write import write_figures, write_tables
from heterobench.resolve import Arm, Benchmark, Scenario
from heterobench.stats.intervals import mean_interval, paired_difference

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


def make_benchmark(root, partitions=PARTITIONS, arms=ARMS, seeds=5, datasets=("digits",), rounds=30, target=0.9):
    def scenario(dataset, name, title):
        return Scenario(
            dataset=dataset,
            partition=name,
            model="mlp",
            schedule="full",
            partition_file=PartitionFile(title=title, scheme="iid", clients=10),
            model_file=ModelFile(title="MLP", architecture="mlp"),
            schedule_file=ScheduleFile(title="full participation"),
            budget=Budget(rounds=rounds, local_epochs=2, batch_size=16),
            settings={"lr": 0.1},
            target=target,
        )

    def arm(name, title):
        algorithm = "fedopt" if name in ("fedavgm", "fedadagrad", "fedadam", "fedyogi") else name
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
    )


def make_frames(benchmark):
    """(evaluation, curves) with the columns of the `evaluate` step; learning slows down as the split gets
    harder."""
    rows, points = [], []
    for s, scenario in enumerate(benchmark.scenarios):
        for a, arm in enumerate(benchmark.arms):
            silent, pooled = arm.name == "local-only", arm.name == "centralised"
            for seed in benchmark.seeds:
                random = generator(seed, "made-up", s, a)
                hard = generator(seed, "hardness", s).normal(0, 0.02)
                limit = min(0.97, 0.96 - 0.09 * s * (not pooled) + 0.008 * ((a * 3) % 5) + hard - 0.3 * silent)
                rounds = np.arange(1, scenario.budget.rounds + 1)
                curve = limit - 0.85 * np.exp(-rounds / (3 + s + 0.5 * a)) + random.normal(0, 0.012, len(rounds))
                curve = np.clip(curve, 0, 1)
                chosen = int(np.argmax(curve + random.normal(0, 0.01, len(rounds))))
                megabytes = 0.0 if silent or pooled else 1.9e5 * (2 if arm.name == "scaffold" else 1)
                picks = {"last": len(rounds) - 1, "validation": chosen} | (
                    {} if silent else {"oracle": int(np.argmax(curve))}
                )
                found = []
                for selection, at in picks.items():
                    found += [(selection, "test_accuracy", curve[at]), (selection, "round", at + 1)]
                    if selection != "oracle":
                        found += [
                            (selection, "test_loss", 2 * (1 - curve[at])),
                            (selection, "client_accuracy_mean", curve[at] - 0.01),
                            (selection, "client_accuracy_weighted", curve[at]),
                            (selection, "client_accuracy_std", 0.05 + 0.03 * s),
                            (selection, "client_accuracy_worst_decile", curve[at] - 0.1 - 0.05 * s),
                            (selection, "validation_accuracy", curve[at] + 0.005),
                        ]
                reached = np.flatnonzero(curve >= scenario.target) if scenario.target and not silent else []
                first = int(reached[0]) + 1 if len(reached) else math.nan
                run = {"bytes_up": megabytes * len(rounds), "bytes_down": megabytes * len(rounds)}
                run |= {"seconds": 6 + random.random(), "rounds": len(rounds), "train_examples": 1150}
                run |= {"rounds_to_target": first, "seconds_to_target": first * 0.2}
                found += [("run", metric, value) for metric, value in run.items()]
                key = {"scenario": scenario.name, "arm": arm.name, "seed": seed}
                rows += [
                    {"benchmark": benchmark.name, "preset": benchmark.preset, "run_id": f"{s}-{a}-{seed}"}
                    | key
                    | {"selection": selection, "metric": metric, "value": float(value)}
                    for selection, metric, value in found
                ]
                metrics = {"bytes_up": megabytes * rounds, "bytes_down": megabytes * rounds}
                metrics |= {} if silent else {"test_accuracy": curve}
                points += [
                    key | {"round": int(r), "metric": metric, "value": float(value)}
                    for metric, values in metrics.items()
                    for r, value in zip(rounds, values, strict=True)
                ]
    return pd.DataFrame(rows), pd.DataFrame(points)


def store(benchmark, evaluation, curves):
    for scenario in benchmark.scenarios:
        for frame, path in (
            (evaluation, outputs.evaluation_file(benchmark, scenario.name)),
            (curves, outputs.curve_file(benchmark, scenario.name)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            frame[frame["scenario"] == scenario.name].to_parquet(path)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    return make_benchmark(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def frames(benchmark):
    return make_frames(benchmark)


@pytest.fixture(scope="module")
def made(benchmark, frames):
    return {t.name: t for t in tables(aggregate(frames[0], benchmark), benchmark, ["abc1234"])}


@pytest.fixture(scope="module")
def written(benchmark, frames):
    store(benchmark, *frames)
    write_tables(benchmark, ["abc1234"])
    write_figures(benchmark)
    return benchmark


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
    done = {t.name: t for t in tables(aggregate(evaluation, benchmark), benchmark)}
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
    evaluation = evaluation.drop(
        index=evaluation.index[(evaluation["arm"] == "feddyn") & (evaluation["scenario"] == hard)]
    )
    done = {t.name: t for t in tables(aggregate(evaluation, benchmark), benchmark)}
    table = done["accuracy"]
    assert cell(table, "fedprox", iid).runs == "3/5"
    assert not cell(table, "fedprox", iid).bold
    assert cell(table, "feddyn", hard).runs == "0/5"
    assert number(cell(table, "feddyn", hard), table.columns[1]) == "–"
    assert any("k/n" in note for note in table.notes)
    for form in (render.to_markdown, render.to_latex, render.to_html):
        assert "3/5" in form(table)
        assert "0/5" in form(table)
    assert not any(
        "k/n" in note
        for note in {t.name: t for t in tables(aggregate(frames[0], benchmark), benchmark)}["accuracy"].notes
    )


def test_runs_that_never_reach_the_target_give_a_lower_bound(benchmark, frames):
    evaluation = frames[0].copy()
    iid, hard = benchmark.scenarios[0].name, benchmark.scenarios[-1].name
    at = pick(evaluation, iid, "fedprox", "run", "rounds_to_target")
    evaluation.loc[at, "value"] = [10, 12, math.nan, 14, math.nan]
    table = {t.name: t for t in tables(aggregate(evaluation, benchmark), benchmark)}["cost"]
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
    assert "> 19.2" in render.to_latex(table)
    assert not any("k/n" in note for note in table.notes)  # nothing diverged, and the bound is over all runs
    assert "&gt; 19.2" in render.to_html(table)


def test_benchmark_without_target_has_no_such_columns(tmp_path):
    benchmark = make_benchmark(tmp_path, {"iid": "IID"}, target=None, seeds=2)
    table = {t.name: t for t in tables(aggregate(make_frames(benchmark)[0], benchmark), benchmark)}["cost"]
    assert [c.key for c in table.columns] == ["bytes_up", "bytes_down", "seconds"]


def test_single_seed_has_no_interval(tmp_path):
    benchmark = make_benchmark(tmp_path, seeds=1)
    done = tables(aggregate(make_frames(benchmark)[0], benchmark), benchmark)
    text = render.to_markdown(done[0])
    assert "One seed, so no interval" in text
    assert "±" not in text
    assert sum(row.cells[0].bold for _, _, row in done[0].bodies) == 1


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


@pytest.mark.parametrize("name", outputs.TABLES)
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
    assert [plain(text.split("b")[0].split("*")[0]) for text, _ in cells] == expected
    assert [attributes.get("data-value", "") for _, attributes in cells] == [row["value"] for row in rows]

    panels = [
        [line.removesuffix(r" \\").split(" & ")[1:] for line in panel.splitlines() if re.match(ROW, line)]
        for panel in render.to_latex(table).split("\\toprule")[1:]
    ]
    each = len(panels) // len(table.sections)  # panels that stand for one section
    parts = [panels[start : start + each] for start in range(0, len(panels), each)]
    body = [[text for piece in row for text in piece] for part in parts for row in zip(*part, strict=True)]
    assert [plain(text) for row in body for text in row] == expected


@pytest.mark.parametrize("name", outputs.TABLES)
def test_bold_is_the_same_in_all_forms(made, name):
    table = made[name]
    count = sum(c.bold for _, _, row in table.bodies for c in row.cells)
    heads = len([s for s in table.sections if s.title])
    assert render.to_markdown(table).count("**") == 2 * (count + heads)
    assert render.to_latex(table).count("\\mathbf") == count
    assert render.to_html_fragment(table).count('class="best"') == count
    assert sum(int(row["bold"]) for row in csv.DictReader(io.StringIO(render.to_csv(table)))) == count


def test_many_columns_become_panels_in_latex_with_all_cells(tmp_path):
    benchmark = make_benchmark(tmp_path, datasets=("digits", "other"), seeds=2)
    table = tables(aggregate(make_frames(benchmark)[0], benchmark), benchmark)[0]
    assert [column.group for column in table.columns] == ["digits"] * 4 + ["other"] * 4
    text = render.to_latex(table)
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
    assert render.escape_latex(text) == escaped


def test_titles_are_escaped_in_every_form(tmp_path):
    nasty = "a|b <i>_x_</i> & 5 %"
    benchmark = make_benchmark(tmp_path, {"iid": nasty}, {"fedavg": nasty, "fedprox": "*B*"}, seeds=2)
    table = tables(aggregate(make_frames(benchmark)[0], benchmark), benchmark)[0]
    assert "a\\|b \\<i\\>\\_x\\_\\</i\\>" in render.to_markdown(table)
    assert "a|b &lt;i&gt;_x_&lt;/i&gt; &amp; 5 %" in render.to_html(table)
    assert r"a\textbar{}b \textless{}i\textgreater{}\_x\_" in render.to_latex(table)
    assert next(csv.DictReader(io.StringIO(render.to_csv(table))))["row_title"] == nasty


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles_alone_and_inside_a_document(made, tmp_path):
    for name in ("accuracy", "clients", "cost", "difference"):
        (tmp_path / f"{name}.tex").write_text(render.to_latex(made[name]), encoding="utf-8")
    inputs = "".join(f"\\input{{{name}.tex}}" for name in ("accuracy", "difference"))
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + inputs + "End.\\end{document}"
    (tmp_path / "document.tex").write_text(document)
    for name in ("accuracy", "clients", "cost", "difference", "document"):
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", f"{name}.tex"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert result.returncode == 0, result.stdout[-2000:]
        assert "Overfull \\hbox" not in result.stdout, name


def test_numbers_as_they_are_shown():
    column = Column("x", "x", digits=1, signed=True)
    assert number(Cell(value=-0.04), column) == "0.0"
    assert number(Cell(value=1.25, half=0.5), column) == "+1.2"
    assert number(Cell(value=math.inf), column) == "–"
    assert spread(Cell(value=1.0, half=0.0), column) == ""


# files


def test_all_declared_files_are_written(written):
    for path in outputs.table_files(written) + outputs.figure_files(written):
        assert path.stat().st_size > 0, path
    here = {p for p in outputs.folder(written).rglob("*") if p.is_file() and p.parent.name in ("tables", "figures")}
    assert here == {*outputs.table_files(written), *outputs.figure_files(written)}
    text = outputs.table_file(written, "accuracy", "md").read_text()
    for needed in (
        "5 seeds",
        "95 %",
        "Bold:",
        "validation accuracy",
        "Code: abc1234",
        "results/label-skew/mini/runs/",
    ):
        assert needed in text


def test_names_of_files_need_no_heavy_import():
    code = (
        "import sys, heterobench.report.outputs; "
        "print([m for m in ('pandas', 'matplotlib', 'scipy', 'torch', 'jinja2') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_missing_evaluation_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match=r"evaluation/.*parquet: no such file"):
        write_tables(make_benchmark(tmp_path))


def test_equal_inputs_give_equal_bytes(written):
    paths = outputs.figure_files(written) + outputs.table_files(written)
    before = {path: path.read_bytes() for path in paths}
    write_tables(written, ["abc1234"])
    write_figures(written)
    assert [path.name for path in paths if path.read_bytes() != before[path]] == []


# figures


def test_curve_is_the_mean_with_its_interval(benchmark, frames):
    from heterobench.report.figures import curve

    frame = frames[1][frames[1]["scenario"] == benchmark.scenarios[0].name]
    made = curve(frame, "scaffold")
    seven = frame[(frame["arm"] == "scaffold") & (frame["metric"] == "test_accuracy") & (frame["round"] == 7)]
    expected = mean_interval(100 * seven["value"])
    assert (made.mean[6], made.low[6], made.high[6]) == pytest.approx(expected[:3], rel=1e-12)
    assert made.megabytes[6] == pytest.approx(7 * 2 * 2 * 0.19)
    assert curve(frame, "local-only") is None


def test_no_mean_is_drawn_where_a_seed_diverged(benchmark, frames):
    from heterobench.report.figures import curve

    frame = frames[1][frames[1]["scenario"] == benchmark.scenarios[0].name].copy()
    bad = (
        (frame["arm"] == "fedavg") & (frame["seed"] == 2) & (frame["round"] > 10) & (frame["metric"] == "test_accuracy")
    )
    frame.loc[bad, "value"] = math.nan
    made = curve(frame, "fedavg")
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


def test_page_asks_for_nothing_from_elsewhere(written, tmp_path):
    import matplotlib.image

    picture = tmp_path / "partition.png"
    matplotlib.image.imsave(picture, np.zeros((4, 4, 3)))
    vector = outputs.figure_file(written, "curves-rounds", "svg")
    text = page(written, [("Two <classes>", picture), ("IID", vector)], {"Revision": ["abc1234", "def"]}, ["abc1234"])
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    references = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", text) + re.findall(r"url\(([^)]*)\)", text)
    assert references
    assert all(reference.startswith(("#", "data:image/")) for reference in references)
    assert "@import" not in text
    assert "Two &lt;classes&gt;" in text
    assert "abc1234, def" in text
    for name in outputs.TABLES:
        assert f'id="{name}"' in text
    for anchor in re.findall(r'<a href="#([\w-]+)"', text):
        assert f'id="{anchor}"' in text, anchor
    assert text.count("<svg") == 2 + len(written.scenarios) + 1
    write_report(written)
    assert outputs.report_file(written).read_text().startswith("<!doctype html>")


def test_pictures_that_are_missing_or_of_another_kind_are_errors(tmp_path):
    with pytest.raises(RunError, match="no such picture"):
        inline(tmp_path / "no.svg", "x")
    (tmp_path / "x.tiff").write_bytes(b"")
    with pytest.raises(RunError, match="SVG, PNG or JPEG"):
        inline(tmp_path / "x.tiff", "x")


def test_benchmark_of_another_shape(tmp_path):
    """One scenario, no FedAvg, no reference: everything is still written."""
    benchmark = make_benchmark(tmp_path, {"iid": "IID"}, {"scaffold": "SCAFFOLD", "fednova": "FedNova"}, seeds=2)
    store(benchmark, *make_frames(benchmark))
    write_tables(benchmark)
    write_figures(benchmark)
    write_report(benchmark)
    assert "Difference to SCAFFOLD" in outputs.report_file(benchmark).read_text()
    assert dataclasses.replace(benchmark, seeds=(0,)).seeds == (0,)
