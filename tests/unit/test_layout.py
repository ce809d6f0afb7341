"""Titles of any length and letters: figures hold them, and every form of a table says them in full or in its code."""

from __future__ import annotations

import csv
import io
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from compared import texts
from heterobench import words
from heterobench.partition.picture import draw_picture
from heterobench.report import latex, render, sections
from heterobench.report.figures import overview, save, single
from reports import make_benchmark, make_data, make_frames

TITLES = {
    "capitals": "FEDERATED AVERAGING WITH THE STEP SIZE OF ITS AUTHORS",
    "letters": "federated averaging with the step size of its authors",
    "one word": "W" * 200,
    "words": " ".join(["word"] * 40),
    "formula": r"$\frac{1}{ and $x$ \alpha ^_ {",
    "markup": '<script>alert(1)</script> & "quoted" | pipe `tick` *a* _b_ #c ~d~ [e](f)',
    "LaTeX": r"\end{document} 100% of $ & # _ {a} ^ ~ \input{x}",
    "other letters": "Ελληνικά кириллица עברית 漢字 é ö ß",
}


FIGURES = [key if key in ("one word", "formula") else pytest.param(key, marks=pytest.mark.slow) for key in TITLES]


def made(key, root):
    title = TITLES[key]
    arms = {"fedavg": title, "fedprox": f"{title[:-1]}.", "scaffold": f"{title[:-1]}!"}
    partitions = {"iid": title, "dirichlet-0.1": f"{title[:-1]}?"}
    return make_data(make_benchmark(root, partitions, arms, seeds=2, rounds=4))


def inside(figure) -> None:
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in texts(figure):
        box = Text.get_window_extent(text, renderer)
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= figure.bbox.width + 1, text
        assert box.y1 <= figure.bbox.height + 1, text


@pytest.mark.parametrize("key", FIGURES)
def test_every_figure_holds_every_title(key, tmp_path):
    data = made(key, tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawn = 0
        for section in sections.ORDER:
            for figure in sections.figures(section, data).values():
                inside(figure)
                save(figure, tmp_path / "a.svg")
                drawn += 1
    assert drawn > 3


@pytest.mark.parametrize("value", [0.0, 1.0, 0.99951])
def test_curves_that_all_end_alike_leave_room_for_their_numbers(value, tmp_path):
    """A narrow range has long numbers at its ticks: 100.25 takes more room than 80."""
    benchmark = make_benchmark(tmp_path, {"iid": "IID"}, {"fedavg": "FedAvg", "fedprox": "FedProx"}, seeds=2, rounds=4)
    _, curves = make_frames(benchmark)
    curves.loc[curves["metric"] == "test_accuracy", "value"] = value
    for scenario in benchmark.scenarios:
        inside(single(benchmark, scenario, curves, {}))
    figure = overview(benchmark, {scenario.name: curves for scenario in benchmark.scenarios}, {}, "rounds")
    inside(figure)
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())  # there is no round 2.5


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.said = set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.said += data


@pytest.mark.parametrize("key", TITLES)
def test_every_form_of_a_table_says_every_title(key, tmp_path):
    data = made(key, tmp_path)
    title = data.benchmark.arms[0].title
    table = next(t for s in sections.ORDER for t in sections.tables(s, data, ()) if t.name == "accuracy")
    rows = list(csv.DictReader(io.StringIO(render.to_csv(table))))
    assert title in {row["row_title"] for row in rows}
    lines = [line for line in render.to_markdown(table).splitlines() if line.startswith("|")]
    assert len({len(line.replace("\\|", "").split("|")) for line in lines}) == 1  # as many cells in every line
    parser = Tags()
    parser.feed(render.to_html_fragment(table))
    assert "script" not in parser.tags
    assert title in parser.said
    written = latex.to_latex(table)
    assert written.count(r"\end{document}") == 1  # its own
    assert all(len(part) <= latex.WIDTH for part in latex._parts(table, latex._lengths(table)))


@pytest.mark.parametrize("title", ["漢字" * 60, "[e] " * 40, "*" * 150, "[short]", "*"])
def test_no_title_is_an_argument_of_a_line_break(title, tmp_path):
    """LaTeX reads a star or a bracket after a line break, and after blanks and the end of a line, as its argument."""
    arms = {"fedavg": title, "fedprox": f"{title}."}
    data = make_data(make_benchmark(tmp_path, {"iid": title, "dirichlet-0.1": f"{title}!"}, arms, seeds=2, rounds=4))
    table = next(t for s in sections.ORDER for t in sections.tables(s, data, ()) if t.name == "accuracy")
    assert not re.search(r"\\\\\s*[\[*]", latex.to_latex(table))


def test_a_name_fits_and_tells_apart_what_differs():
    long = [f"{'a method with a long name ' * 4}{n}" for n in range(3)] + ["x" * 100 + "y" * 100, "x" * 101 + "y" * 100]
    names = words.names([*long, "FedAvg", ""])
    assert len(set(names)) == len(names)
    assert names[-2:] == ["FedAvg", ""]
    assert all(words.width(name) <= words.NAME for name in names)
    assert words.names([long[0], long[0]]) == [names[0]] * 2  # one title, one name


def test_a_wrapped_text_is_no_wider_and_no_longer():
    for text in TITLES.values():
        lines = words.wrapped(text, 1.0, most=3).split("\n")
        assert len(lines) <= 3
        assert all(words.width(line) <= 1.0 for line in lines)
        whole = words.wrapped(text, 1.0)
        assert "".join(whole.split()) == "".join(text.split())  # without `most`, nothing is lost


@pytest.mark.parametrize("clients", [1, 40, 1000])
@pytest.mark.parametrize("title", ["one word", "formula"])
def test_the_picture_of_a_partition_takes_any_title_and_size(tmp_path, clients, title):
    counts = np.random.default_rng(0).integers(0, 9, (clients, 3))
    draw_picture(counts, TITLES[title], tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 1000
