"""`snakemake paper`: all tables and figures as a short PDF, or an early word on what is missing for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heterobench.report.paper import ENGINES
from miniature import environment, miniature

SMALL = {"seeds: 2": "seeds: 1", "[dirichlet-0.1, iid]": "[iid]", "rounds: 15": "rounds: 3", ", local-only]": "]"}


@pytest.fixture
def root(tmp_path) -> Path:
    made = miniature(tmp_path / "project")
    file = made / "params/benchmarks/miniature.yaml"
    text = file.read_text()
    for before, after in SMALL.items():
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)
    return made


def run(root: Path, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(
        command,
        cwd=root,
        env=environment() | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def without_engines(folder: Path) -> str:
    """A search path with every program of the usual one but those that typeset."""
    folder.mkdir()
    for place in reversed(environment()["PATH"].split(os.pathsep)):
        for program in Path(place).glob("*"):
            link = folder / program.name
            if program.name not in ENGINES:
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    return str(folder)


def test_without_latex_the_end_comes_before_any_job(root, tmp_path):
    result = run(root, without_engines(tmp_path / "bin"), "paper", "--cores", "1")
    assert result.returncode != 0
    assert "no LaTeX engine (latexmk, tectonic, pdflatex) is installed: install pdflatex" in result.stdout
    assert not (root / "results" / "miniature").exists()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_the_paper_is_made_from_tables_and_figures(root):
    result = run(root, environment()["PATH"], "paper", "--cores", "2")
    assert result.returncode == 0, result.stdout[-4000:]
    folder = root / "results/miniature/mini"
    assert (folder / "paper.pdf").read_bytes().startswith(b"%PDF")
    assert "\\input{tables/accuracy.tex}" in (folder / "paper.tex").read_text()
    assert "Nothing to be done" in run(root, environment()["PATH"], "paper", "--cores", "1").stdout
