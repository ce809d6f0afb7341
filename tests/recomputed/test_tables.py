"""The number in each cell of each table against records; and Markdown, LaTeX, HTML and CSV show the same."""

from __future__ import annotations

import csv
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

from recomputed import expected
from recomputed.expected import BASE, METHODS
from recomputed.project import LOST, RATE, SEEDS
from recomputed.raw import PERSONAL, SCENARIOS

pytestmark = pytest.mark.xdist_group("recomputed")
UNITS = {"%": 100, "points": 100, "MB": 1e-6, "10³": 1e-3, "GFLOP": 1e-9}  # a stored value's share of a printed one
TITLES = {"fedavg": "FedAvg", "still": "Still", "wild": "Wild", PERSONAL: "Local only"}
BY_SCENARIO = {
    "accuracy": ("validation", "test_accuracy"),
    "accuracy-last": ("last", "test_accuracy"),
    "accuracy-oracle": ("oracle", "test_accuracy"),
    "loss": ("validation", "test_loss"),
}
BY_METRIC = {
    **dict.fromkeys(("clients", "clients-spread", "clients-loss"), "validation"),
    **dict.fromkeys(("calibration", "calibration-scaled"), "validation"),
    **dict.fromkeys(("fairness", "fairness-local", "fairness-information"), "validation"),
    **dict.fromkeys(("cost", "target"), "run"),
}
NUMBERS = {"rel": 1e-9, "abs": 1e-9, "nan_ok": True}


@pytest.fixture(scope="module")
def left(evaluated):
    return evaluated


def rows_of(tables, name):
    with (tables / f"{name}.csv").open() as stream:
        return list(csv.DictReader(stream))


def number(text):
    return float(text) if text else math.nan


def check_means(left, name, row, scenario, selection, metric):
    arm, where = row["row"], (name, scenario, row["row"], metric)
    values = expected.values(left, scenario, arm, selection, metric)
    mean, scale = expected.mean(values.values()), UNITS.get(row["unit"], 1)
    undefined = not values and arm == PERSONAL
    bound = expected.bound(left, scenario, arm, metric) if metric.endswith("_to_target") else math.nan
    if not math.isnan(bound):
        assert number(row["value"]) == pytest.approx(bound * scale, **NUMBERS), where
        assert (row["lower_bound"], row["half_width"]) == ("1", ""), where
    else:
        assert number(row["value"]) == pytest.approx(mean.value * scale, **NUMBERS), where
        assert number(row["half_width"]) == pytest.approx(mean.half * scale, **NUMBERS), where
        assert number(row["std"]) == pytest.approx(mean.std * scale, **NUMBERS), where
        assert row["lower_bound"] == "0"
    if not undefined:
        assert [int(row[key]) for key in ("n_finite", "n", "n_expected")] == [mean.finite, mean.runs, len(SEEDS)], where
    bold = expected.bold(left, scenario, selection, metric, row["direction"])
    assert row["bold"] == str(int(arm in bold)), where


@pytest.mark.parametrize("name", BY_SCENARIO)
def test_tables_of_one_metric(left, tables, name):
    rows = rows_of(tables, name)
    assert {(row["row"], row["column"]) for row in rows} == {(arm, s) for arm in RATE for s in SCENARIOS}
    for row in rows:
        check_means(left, name, row, row["column"], *BY_SCENARIO[name])


@pytest.mark.parametrize("name", BY_METRIC)
def test_tables_of_several_metrics(left, tables, name):
    rows = rows_of(tables, name)
    sections = {row["section"] for row in rows}
    assert sections <= set(SCENARIOS)
    assert len(rows) == len({(row["section"], row["row"], row["column"]) for row in rows}) >= len(RATE) * len(sections)
    for row in rows:
        check_means(left, name, row, row["section"], BY_METRIC[name], row["column"])


def test_the_table_of_differences(left, tables):
    stars = set()
    for row in rows_of(tables, "difference"):
        one, base = (
            expected.values(left, row["column"], arm, "validation", "test_accuracy") for arm in (row["row"], BASE)
        )
        found = expected.paired(one, base)
        assert row["unit"] == "points"
        assert number(row["value"]) == pytest.approx(100 * found.value, **NUMBERS)
        assert number(row["half_width"]) == pytest.approx(100 * found.half, **NUMBERS)
        assert int(row["n_finite"]) == found.finite
        clear = abs(found.value) > found.half
        assert ("*" in row["marks"].split()) == clear
        stars.add(clear)
    assert stars == {True, False}


# over scenarios


def cube(left) -> np.ndarray:
    """Accuracies in % [methods, scenarios, seeds]; what is not there counts as the worst of its scenario and seed."""
    found = np.array([
        [[100 * expected.values(left, s, arm, "validation", "test_accuracy").get(seed, math.nan) for seed in SEEDS]
         for s in SCENARIOS] for arm in METHODS
    ])  # fmt: skip
    assert np.isnan(found).sum() == 1
    return np.where(np.isnan(found), np.nanmin(found, axis=0), found)


def holm(p):
    """The j-th smallest of m times m - j + 1, not below the one before, at most 1."""
    found, before = np.empty(len(p)), 0.0
    for place, which in enumerate(np.argsort(p, kind="stable")):
        before = max(before, min(1.0, (len(p) - place) * p[which]))
        found[which] = before
    return found


def wilcoxon(apart):
    """Exact two-sided p of differences [n]: the share of all signs with a rank sum that is as small or smaller."""
    apart = apart[apart != 0]
    if not len(apart):
        return 1.0
    ranks = stats.rankdata(np.abs(apart))
    smaller = min(ranks[apart > 0].sum(), ranks[apart < 0].sum())
    signs = np.array(np.meshgrid(*[[0, 1]] * len(ranks))).reshape(len(ranks), -1)
    return min(1.0, 2 * np.mean(ranks @ signs <= smaller + 1e-9))


def test_the_comparison_over_scenarios(left, tables):
    values = cube(left)
    printed = values.mean(2).round(1)
    ranks = np.mean([stats.rankdata(-printed[:, s]) for s in range(len(SCENARIOS))], axis=0)
    others = [m for m in range(len(METHODS)) if METHODS[m] != BASE]
    base = METHODS.index(BASE)
    p = dict(zip(others, holm([wilcoxon((printed[base] - printed[m]).round(6)) for m in others]), strict=True))
    cells = {(row["row"], row["column"]): row for row in rows_of(tables, "comparison")}
    for m, arm in enumerate(METHODS):
        observed = [expected.values(left, s, arm, "validation", "test_accuracy") for s in SCENARIOS]
        means = [100 * np.mean(list(of.values())) for of in observed]
        assert number(cells[arm, "mean"]["value"]) == pytest.approx(np.mean(means), **NUMBERS)
        assert number(cells[arm, "rank"]["value"]) == pytest.approx(ranks[m], **NUMBERS)
        if m == base:
            continue
        apart = [
            100 * expected.paired(of, expected.values(left, s, BASE, "validation", "test_accuracy")).value
            for of, s in zip(observed, SCENARIOS, strict=True)
        ]
        assert number(cells[arm, "difference"]["value"]) == pytest.approx(np.mean(apart), **NUMBERS)
        over = expected.mean(apart)
        assert number(cells[arm, "scenarios"]["value"]) == pytest.approx(over.value, **NUMBERS)
        assert number(cells[arm, "scenarios"]["half_width"]) == pytest.approx(over.half, **NUMBERS)
        assert number(cells[arm, "p"]["value"]) == pytest.approx(p[m], **NUMBERS)
        better = [(one > other) + (one == other) / 2 for one, other in _pairs(values, m, base)]
        assert number(cells[arm, "improvement"]["value"]) == pytest.approx(np.mean(better), **NUMBERS)
        ahead = printed[m] - printed[base]
        record = "–".join(str(int(count)) for count in ((ahead > 0).sum(), (ahead == 0).sum(), (ahead < 0).sum()))
        assert cells[arm, "record"]["text"] == record


def _pairs(values, m, other):
    return [(a, b) for s in range(len(SCENARIOS)) for a in values[m, s] for b in values[other, s]]


def test_the_table_of_pairs(left, tables):
    values = cube(left)
    printed = values.mean(2).round(1)
    k, n = printed.shape
    ranks = np.mean([stats.rankdata(-printed[:, s]) for s in range(n)], axis=0)
    pairs = [(a, b) for a in range(k) for b in range(a + 1, k)]
    p = holm([wilcoxon((printed[a] - printed[b]).round(6)) for a, b in pairs])
    cells = {(row["row"], row["column"]): row for row in rows_of(tables, "pairwise")}
    for (a, b), adjusted in zip(pairs, p, strict=True):
        row = f"{METHODS[a]} {METHODS[b]}"
        apart = []
        for scenario in SCENARIOS:
            both = (expected.values(left, scenario, METHODS[m], "validation", "test_accuracy") for m in (a, b))
            apart.append(100 * expected.paired(*both).value)
        assert number(cells[row, "difference"]["value"]) == pytest.approx(np.mean(apart), **NUMBERS)
        assert number(cells[row, "wilcoxon"]["value"]) == pytest.approx(adjusted, **NUMBERS)
        q = abs(ranks[a] - ranks[b]) / math.sqrt(k * (k + 1) / (6 * n)) * math.sqrt(2)
        assert number(cells[row, "nemenyi"]["value"]) == pytest.approx(
            stats.studentized_range.sf(q, k, math.inf), abs=1e-6
        )


# forms


class Rows(HTMLParser):
    """Row title -> texts of its cells, where "**" stands around the value of a cell of class "best"."""

    def __init__(self, text: str):
        super().__init__()
        self.rows, self.title, self.place, self.best = {}, "", "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag in ("th", "td", "sup"):
            self.place = tag
        if tag == "tr":
            self.title = ""
        if tag == "td" and self.title:
            self.rows[self.title].append("")
            self.best = dict(attributes).get("class", "").startswith("best")

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.place = ""

    def handle_data(self, text):
        if self.place == "th" and not self.title:
            self.title = text.strip()
            self.rows[self.title] = []
        if self.place == "td" and self.title:
            value = f"**{text}**" if self.best and not self.rows[self.title][-1] else text
            self.rows[self.title][-1] += value


def markdown(text: str) -> dict[str, list[str]]:
    lines = [re.sub("<sup>.*?</sup>", "", line).split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {head.removeprefix("| "): [cell.removesuffix(" |") for cell in cells] for head, *cells in lines}


def latex(text: str) -> dict[str, list[str]]:
    """The same, with LaTeX's commands put back into what Markdown writes."""
    text = re.sub(r"\\textsuperscript\{(\d/\d)\}", r" (\1)", text)
    text = re.sub(r"\\textsuperscript\{.*?\}", "", text)
    text = re.sub(r"\$\\mathbf\{(.*?)\}\$", r"**\1**", text)
    text = re.sub(r" \{\\footnotesize\$\\pm\\,(.*?)\$\}", r" ± \1", text)
    text = re.sub(r"\$([^$\\]*)\$", r"\1", text)
    lines = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if line.endswith(r"\\")]
    return {head: cells for head, *cells in lines}


def shown(left, scenario, arm, selection, metric, scale, digits, direction) -> str:
    """A cell as Markdown has it."""
    values = expected.values(left, scenario, arm, selection, metric)
    mean = expected.mean(values.values())
    text = f"{mean.value * scale:.{digits}f}"
    if arm in expected.bold(left, scenario, selection, metric, direction):
        text = f"**{text}**"
    runs = f" ({mean.finite}/{len(SEEDS)})" if mean.finite < len(SEEDS) else ""
    half = f" ± {mean.half * scale:.{digits}f}" if mean.half > 1e-9 * abs(mean.value) else ""  # more than rounding
    return f"{text}{half}{runs}"


@pytest.mark.parametrize(
    ("name", "scale", "digits", "direction"),
    [
        ("accuracy", 100, 1, "max"),
        ("accuracy-last", 100, 1, "max"),
        ("loss", 1, 3, "min"),
        ("accuracy-oracle", 100, 1, ""),
    ],
)
def test_every_form_shows_value_interval_bold_and_how_many_runs(left, tables, name, scale, digits, direction):
    forms = {
        "md": markdown((tables / f"{name}.md").read_text()),
        "tex": latex((tables / f"{name}.tex").read_text()),
        "html": Rows((tables / f"{name}.html").read_text()).rows,
    }
    some = 0
    for arm in METHODS:
        for place, scenario in enumerate(SCENARIOS):
            text = shown(left, scenario, arm, *BY_SCENARIO[name], scale, digits, direction)
            for form, rows in forms.items():
                found = rows[TITLES[arm]][place]
                if form == "html":  # there spaces are widths
                    text, found = (re.sub(r"[ ()]", "", each) for each in (text, found))
                assert found == text, (form, arm, scenario)
            some += (scenario, arm) == LOST[:2]
    assert some == 1


def test_a_lower_bound_is_shown_as_one_in_every_form(left, tables):
    """Rounds to the target, the first column of its table; and differences carry their sign."""
    texts = {form: (tables / f"target.{form}").read_text() for form in ("md", "tex", "html")}
    for scenario in SCENARIOS:
        for arm in METHODS:
            bound = expected.bound(left, scenario, arm, "rounds_to_target")
            if math.isnan(bound):
                continue
            assert re.search(rf"\| {TITLES[arm]} \| \\> {bound:.1f} \(", texts["md"]), (scenario, arm)
            assert re.search(rf"{TITLES[arm]} & \$> {bound:.1f}\$", texts["tex"]), (scenario, arm)
            assert re.search(rf">{TITLES[arm]}</th>\s*<td[^>]*><span[^>]*>&gt; {bound:.1f}<", texts["html"]), (
                scenario,
                arm,
            )
    signs = set()
    for row in rows_of(tables, "difference"):
        value = f"{number(row['value']):+.1f}"
        minus = value.replace("-", "−")
        assert minus in "".join(markdown((tables / "difference.md").read_text())[TITLES[row["row"]]])
        assert value in "".join(latex((tables / "difference.tex").read_text())[TITLES[row["row"]]])
        signs.add(value[0])
    assert signs == {"+", "-"}
