"""The short article of a benchmark: all tables and figures, where LaTeX is installed."""

import os
import re
import shutil
import subprocess

import pytest

from heterobench.report import outputs, paper, sections
from heterobench.report.write import write_figures, write_tables
from reports import ARMS, GROUPS, PARTITIONS, make_benchmark, stored

FEW = {name: ARMS[name] for name in ("fedavg", "scaffold", "local-only")}
TWO = {name: PARTITIONS[name] for name in ("iid", "dirichlet-0.1")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    benchmark = make_benchmark(
        tmp_path_factory.mktemp("paper"), TWO, FEW, seeds=2, metrics=GROUPS, snapshots=3, rounds=8
    )
    data = stored(benchmark)
    write_tables(data)
    write_figures(data)
    return data


def programs(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_engines_are_taken_in_their_order(tmp_path, monkeypatch):
    for number, (installed, taken) in enumerate(
        (
            (("pdflatex", "tectonic", "latexmk"), "latexmk"),
            (("tectonic", "latexmk"), "tectonic"),
            (("pdflatex",), "pdflatex"),
        )
    ):
        monkeypatch.setenv("PATH", programs(tmp_path / str(number), *installed))
        assert paper.engine() == taken


def test_without_an_engine_the_error_says_what_to_install(tmp_path, monkeypatch, data):
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", "latexmk"))
    before = set(outputs.folder(data.benchmark).iterdir())
    with pytest.raises(paper.TypesettingError, match="apt-get install texlive-latex-recommended"):
        paper.write_paper(data.benchmark)
    assert set(outputs.folder(data.benchmark).iterdir()) == before


def test_article_has_every_table_and_figure_once(data):
    text = paper.source(data)
    assert re.findall(r"\\input\{tables/(.*?)\.tex\}", text) == list(sections.table_names(data.benchmark))
    assert re.findall(r"\{figures/(.*?)\.pdf\}", text) == list(sections.figure_names(data.benchmark))
    for words in ("Label skew", "How to read this", "Hyper-parameters", "Where this comes from", "abc123400000"):
        assert words in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_article_is_typeset_and_nothing_stands_out_of_its_pages(data, tmp_path):
    tex, pdf = paper.write_paper(data.benchmark)
    first = pdf.read_bytes()
    assert first.startswith(b"%PDF")
    paper.write_paper(data.benchmark)
    assert pdf.read_bytes() == first
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"-output-directory={tmp_path}", tex.name]
    for _ in range(2):
        result = subprocess.run(command, cwd=tex.parent, capture_output=True, text=True, errors="replace")
    assert result.returncode == 0
    assert "Overfull" not in result.stdout
    assert "undefined" not in result.stdout
    names = sections.figure_names(data.benchmark)
    assert len(re.findall(r"figures/[^>]*\.pdf", result.stdout.replace("\n", ""))) >= len(names)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_what_the_engine_says_is_told(data):
    table = outputs.table_file(data.benchmark, "accuracy", "tex")
    before = table.read_text()
    paper.write_paper(data.benchmark)
    kept = outputs.paper_file(data.benchmark).read_bytes()
    table.write_text(before.replace("\\toprule", "\\nosuchrule"))
    try:
        with pytest.raises(paper.TypesettingError, match=r"paper\.tex: .* failed:[\s\S]*nosuchrule"):
            paper.write_paper(data.benchmark)
    finally:
        table.write_text(before)
    assert outputs.paper_file(data.benchmark).read_bytes() == kept
    assert os.path.exists(outputs.paper_file(data.benchmark, "tex"))
