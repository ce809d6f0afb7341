"""One page with everything: opens from the file system, asks no server for anything."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from markupsafe import Markup

from heterobench.errors import RunError
from heterobench.files import write_text
from heterobench.report import labels, outputs, reading, render, sections
from heterobench.report.data import ReportData
from heterobench.report.svg import Drawings
from heterobench.report.table import Table
from heterobench.report.tables import about
from heterobench.report.trace import Traces, encoded

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def inline(path: Path, title: str, drawings: Drawings) -> Markup:
    """An image as HTML that needs no file: SVG as it is, PNG and JPEG as a data URI.

    Raises RunError where the file is missing or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise RunError(f"{path}: no such picture; let snakemake draw it first")
    if path.suffix == ".svg":
        return drawings.embed(path.read_text(encoding="utf-8"), title, path.stem)
    if path.suffix not in TYPES:
        raise RunError(f"{path}: pictures of a page are SVG, PNG or JPEG")
    data = base64.b64encode(path.read_bytes()).decode()
    return Markup('<img alt="{}" src="data:{};base64,{}">').format(title, TYPES[path.suffix], data)


def _figures(section: ModuleType, data: ReportData, drawings: Drawings) -> list[dict[str, Any]]:
    benchmark = data.benchmark
    return [
        {
            "key": f"figure-{name}",
            "caption": (text := sections.caption(section, name, benchmark)),
            "image": inline(outputs.figure_file(benchmark, name, "svg"), text, drawings),
            "folded": sections.folded(section, name),
        }
        for name in section.figure_names(benchmark)
    ]


def _part(
    section: ModuleType, data: ReportData, made: Sequence[Table], traces: Traces, drawings: Drawings
) -> dict[str, Any] | None:
    """What the template shows of a section; None where it has nothing for this benchmark."""
    part = {
        "key": section.KEY,
        "title": section.TITLE,
        "reading": section.READING,
        "tables": [
            {
                "html": Markup(render.to_html_fragment(_short(table, data), level=3, folded=True, key=traces.key)),
                "folded": sections.folded(section, table.name),
            }
            for table in made
        ],
        "figures": _figures(section, data, drawings),
        "pictures": [
            {"caption": text, "image": inline(path, text, drawings)}
            for text, path in (section.pictures(data) if hasattr(section, "pictures") else ())
        ],
        "facts": section.facts(data) if hasattr(section, "facts") else [],
    }
    return part if any(part[key] for key in ("tables", "figures", "pictures", "facts")) else None


def _short(table: Table, data: ReportData) -> Table:
    """The table without what the head of the page says."""
    return replace(table, about="") if table.about == about(data.benchmark) else table


def page(data: ReportData, tables: Mapping[str, Sequence[Table]]) -> str:
    """The report as one HTML page, from the figures and the partition pictures on disk.

    `tables`: those of each section by its key, as `heterobench.report.write.write_tables` returns them.
    """
    benchmark = data.benchmark
    traces, drawings = Traces(data), Drawings()
    parts = [
        part
        for section in sections.ORDER
        if (part := _part(section, data, tables.get(section.KEY, ()), traces, drawings)) is not None
    ]
    n = len(benchmark.seeds)
    facts = [
        *labels.common(benchmark),
        f"{len(benchmark.scenarios)} scenario{'s' * (len(benchmark.scenarios) > 1)}",
        f"{len(benchmark.arms)} methods and references",
        f"{n} seed{'s' * (n > 1)}",
        f"preset {benchmark.preset}",
    ]
    done = sum(run["status"] == "finished" for run in data.runs.values())
    body = (
        render.environment()
        .get_template("report.html")
        .render(
            benchmark=benchmark,
            facts=facts,
            parts=parts,
            general=reading.general(benchmark),
            missing=len(data.runs) - done,
            runs=len(data.runs),
            traces=Markup(encoded(traces.payload())),
            letters=drawings.sprite(),
        )
    )
    return (
        render.environment()
        .get_template("page.html")
        .render(
            title=f"{benchmark.title} · heterobench",
            body=Markup(body),
            style=render.asset("page.css"),
            scripts=[render.asset(name) for name in ("sort.js", "trace.js", "contents.js")],
        )
    )


def write_report(data: ReportData, tables: Mapping[str, Sequence[Table]]) -> None:
    """Write `outputs.report_file`; see `page`."""
    write_text(outputs.report_file(data.benchmark), page(data, tables))
