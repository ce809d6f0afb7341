"""One page with everything: opens from the file system, asks no server for anything."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from heterobench.errors import RunError
from heterobench.files import write_text
from heterobench.report import labels, outputs, render
from heterobench.report.write import read_tables
from heterobench.resolve import Benchmark

READING = (
    "Every method of a column saw the same partitions, the same initial weights, the same cohorts and "
    "batches, seed by seed. The first table is the comparison: its round is chosen on validation data, "
    "and the test set has no say in it.",
    "± is half the width of a 95 % interval over seeds. Two methods whose intervals overlap may still differ "
    "clearly, because they are compared seed by seed: see the table of differences.",
    "References stand below the methods and are never bold: training on everybody's data together shows "
    "what the split costs, training alone shows what working together brings.",
    "Click on the head of a column to sort the rows.",
)
BAND = (
    "Mean over seeds; the band is the 95 % t interval. Horizontal lines: references without rounds of "
    "communication, or without a global model, after their last round. A cross: a run diverged here, and "
    "no mean is drawn beyond it."
)
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def inline(path: Path, title: str) -> Markup:
    """An image as HTML that needs no file: SVG as it is, PNG and JPEG as a data URI.

    Raises RunError where the file is missing or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise RunError(f"{path}: no such picture; let snakemake draw it first")
    if path.suffix == ".svg":
        return _svg(path.read_text(encoding="utf-8"), title)
    if path.suffix not in TYPES:
        raise RunError(f"{path}: pictures of a page are SVG, PNG or JPEG")
    data = base64.b64encode(path.read_bytes()).decode()
    return Markup('<img alt="{}" src="data:{};base64,{}">').format(title, TYPES[path.suffix], data)


def _svg(text: str, title: str) -> Markup:
    """The <svg> element alone: without prolog, metadata and names of name spaces, which HTML knows."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    head = Markup('<svg role="img" aria-label="{}"').format(title)
    return head + Markup(text[len("<svg") :])


def page(
    benchmark: Benchmark,
    pictures: Sequence[tuple[str, Path]] = (),
    provenance: Mapping[str, Any] | None = None,
    revisions: Sequence[str] = (),
) -> str:
    """The report as one HTML page, from the evaluation, the figures and the partition pictures on disk.

    `pictures`: (caption, file) of each partition; `provenance`: label -> text, or several texts.
    """
    made = read_tables(benchmark, revisions)
    fragments = [Markup(render.to_html_fragment(table, folded=index > 0)) for index, table in enumerate(made)]
    n = len(benchmark.seeds)
    facts = [
        *labels.common(benchmark),
        f"{len(benchmark.scenarios)} scenario{'s' * (len(benchmark.scenarios) > 1)}",
        f"{len(benchmark.arms)} methods and references",
        f"{n} seed{'s' * (n > 1)}",
        f"preset {benchmark.preset}",
    ]
    short = {
        "difference": f"Difference to {labels.baseline(benchmark).title}",
        "accuracy-last": "Last round",
        "loss": "Loss",
        "clients": "Per client",
        "cost": "Cost",
        "accuracy-oracle": "Extra: best on test",
    }
    contents = [("accuracy", "Test accuracy"), ("curves", "Learning curves")]
    contents += [(table.name, short[table.name]) for table in made[1:]]
    contents += ([("partitions", "Partitions")] if pictures else []) + [("provenance", "Provenance")]
    overviews = (
        ("curves-rounds", f"Test accuracy over rounds. {BAND}"),
        ("curves-bytes", "The same over megabytes sent up and down by all clients together."),
    )
    shown = {"Benchmark": f"params/benchmarks/{benchmark.name}.yaml, preset {benchmark.preset}"}
    shown["Seeds"] = ", ".join(map(str, benchmark.seeds))
    shown["Runs"] = f"results/{benchmark.name}/{benchmark.preset}/runs/"
    if revisions:
        shown["Code"] = ", ".join(revisions)
    for key, value in (provenance or {}).items():
        shown[key] = value if isinstance(value, str) else ", ".join(map(str, value))
    body = (
        render.environment()
        .get_template("report.html")
        .render(
            benchmark=benchmark,
            facts=facts,
            contents=contents,
            reading=READING,
            main_table=fragments[0],
            other_tables=fragments[1:],
            overviews=[
                {"caption": text, "image": inline(outputs.figure_file(benchmark, name, "svg"), text)}
                for name, text in overviews
            ],
            scenarios=[
                {
                    "caption": labels.title(benchmark, s),
                    "image": inline(
                        outputs.figure_file(benchmark, outputs.curve_figure(s.name), "svg"),
                        f"Learning curves, {labels.title(benchmark, s)}",
                    ),
                }
                for s in benchmark.scenarios
            ],
            pictures=[{"caption": text, "image": inline(path, text)} for text, path in pictures],
            provenance=list(shown.items()),
        )
    )
    return (
        render.environment()
        .get_template("page.html")
        .render(
            title=f"{benchmark.title} · heterobench",
            body=Markup(body),
            style=render.asset("page.css"),
            script=render.asset("sort.js"),
        )
    )


def write_report(
    benchmark: Benchmark,
    pictures: Sequence[tuple[str, Path]] = (),
    provenance: Mapping[str, Any] | None = None,
    revisions: Sequence[str] = (),
) -> None:
    """Write `outputs.report_file`; see `page`."""
    write_text(outputs.report_file(benchmark), page(benchmark, pictures, provenance, revisions))
