"""A short article with all tables and figures of a benchmark, typeset where a LaTeX engine is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heterobench.errors import HeterobenchError
from heterobench.files import atomic, write_text
from heterobench.report import labels, outputs, sections
from heterobench.resolve import Benchmark

if TYPE_CHECKING:
    from heterobench.report.data import ReportData

ENGINES = {
    "latexmk": ("-pdf", "-interaction=nonstopmode", "-halt-on-error"),
    "tectonic": (),
    "pdflatex": ("-interaction=nonstopmode", "-halt-on-error"),
}
"""In the order in which they are looked for, with their options."""
RUNS = 3  # of pdflatex, until tables of contents and references stand still
ADVICE = (
    "install pdflatex (Debian and Ubuntu: apt-get install texlive-latex-recommended lmodern), latexmk, or tectonic; "
    "the tables in LaTeX and the figures as PDF are there without them"
)


class TypesettingError(HeterobenchError):
    """The article cannot be typeset; tables, figures and page do not depend on it."""


def engine() -> str:
    """The first of `ENGINES` that is installed; raises TypesettingError, which says what to install."""
    for name in ENGINES:
        # latexmk is a script around pdflatex, and nothing without it
        if shutil.which(name) and (name != "latexmk" or shutil.which("pdflatex")):
            return name
    raise TypesettingError(f"no LaTeX engine ({', '.join(ENGINES)}) is installed: {ADVICE}")


def source(data: ReportData) -> str:
    """The article, which reads ``tables/<name>.tex`` and ``figures/<name>.pdf`` beside it."""
    import jinja2

    from heterobench.report.latex import escape_latex
    from heterobench.report.reading import general

    benchmark = data.benchmark
    loader = jinja2.PackageLoader("heterobench.report", "templates")
    marks = {"block_start_string": "<%", "block_end_string": "%>", "comment_start_string": "<#"}
    marks |= {"comment_end_string": "#>", "variable_start_string": "<<", "variable_end_string": ">>"}
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, **marks
    )
    n = len(benchmark.seeds)
    facts = [*labels.common(benchmark), f"{n} seed{'s' * (n > 1)}", f"preset {benchmark.preset}"]
    return environment.get_template("paper.tex").render(
        tex=escape_latex,
        title=benchmark.title,
        about=benchmark.about.strip(),
        facts=", ".join(facts),
        general=general(benchmark),
        parts=[part for section in sections.ORDER if (part := _part(section, data)) is not None],
    )


def _part(section: Any, data: ReportData) -> dict[str, Any] | None:
    """What the article has of a section; None where there is nothing. Partitions are pictures of the page alone."""
    benchmark = data.benchmark
    part = {
        "title": section.TITLE,
        "reading": section.READING,
        "tables": section.table_names(benchmark),
        "figures": [(name, sections.caption(section, name, benchmark)) for name in section.figure_names(benchmark)],
        "facts": section.facts(data) if hasattr(section, "facts") else [],
    }
    return part if any(part[key] for key in ("tables", "figures", "facts")) else None


def write_paper(benchmark: Benchmark) -> list[Path]:
    """Write ``paper.tex`` and ``paper.pdf`` into the folder of a benchmark whose tables and figures are there.

    Raises TypesettingError where no engine is installed, or with the end of what the engine says where it fails.
    """
    from heterobench.report.data import read

    name = engine()
    paths = [outputs.paper_file(benchmark, form) for form in ("tex", "pdf")]
    write_text(paths[0], source(read(benchmark)))
    with tempfile.TemporaryDirectory(prefix="heterobench-") as place:
        _run(name, paths[0], Path(place))
        with atomic(paths[1]) as temporary:
            shutil.copyfile(Path(place) / "paper.pdf", temporary)
    return paths


def _run(name: str, file: Path, place: Path) -> None:
    directory = {"tectonic": "--outdir"}.get(name, "-output-directory")
    command = [name, *ENGINES[name], f"{directory}={place}", file.name]
    # no dates in the PDF: same tables, same bytes
    environment = os.environ | {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
    for _ in range(RUNS if name == "pdflatex" else 1):
        result = subprocess.run(
            command,
            cwd=file.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
        if result.returncode:
            raise TypesettingError(f"{file}: {name} failed:\n{result.stdout[-3000:]}")
