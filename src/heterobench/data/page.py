"""A page for each data set, from its parameter file alone: what it is, how large, whose, and where it comes from."""

from __future__ import annotations

from pathlib import Path

from heterobench.config.reading import names
from heterobench.data.schema import KINDS, DatasetFile, Form, load_dataset_file
from heterobench.errors import ConfigurationError
from heterobench.files import atomic
from heterobench.project import Project

INDEX = "README.md"
MADE = "<!-- made from params/datasets/ by `snakemake data_set_pages` -->"  # in all that is written, and may be removed
CLASSES = 20  # more names than these are not listed


def write_pages(project: Project, folder: Path) -> list[Path]:
    """``<name>.md`` for every data set, and an index; returns the paths. Pages of sets that are gone are removed.

    ConfigurationError, and nothing written, where the folder holds a page of somebody else's.
    """
    files = {name: load_dataset_file(project, name) for name in names(project, "datasets")}
    pages = {f"{name}.md": page(name, file) for name, file in files.items()} | {INDEX: index(files)}
    folder.mkdir(parents=True, exist_ok=True)
    there = list(folder.glob("*.md"))
    if foreign := sorted(path for path in there if MADE not in path.read_text(encoding="utf-8", errors="replace")):
        raise ConfigurationError(
            f"--output {folder}: {foreign[0].name} was not made here and would be lost: allowed is a folder of such "
            "pages alone, or a new one"
        )
    for path in there:
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        with atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in pages]


def size(file: DatasetFile) -> str:
    return f"{file.samples.train:,} + {file.samples.test:,}" if file.samples else ""


def natural_clients(file: DatasetFile) -> str:
    """``539 writer``: the attributes that are natural clients or domains, with the number of their values."""
    found = [(name, a) for name, a in file.attributes.items() if a.use in ("client", "domain")]
    return ", ".join(f"{a.train} {name}" if a.train else name for name, a in found)


def index(files: dict[str, DatasetFile]) -> str:
    lines = [
        "# Data sets",
        "",
        MADE,
        "",
        "Made from `params/datasets/` by `snakemake data_set_pages`. Examples: training + test.",
        "",
        "| name | examples | input | classes | natural clients, domains | licence |",
        "| --- | ---: | --- | ---: | --- | --- |",
    ]
    for name, file in files.items():
        shape = " x ".join(map(str, file.shape))
        cells = [f"[{name}]({name}.md)", size(file), f"{file.kind}, {shape}", str(len(file.classes))]
        lines.append("| " + " | ".join([*cells, natural_clients(file), file.licence.replace("|", "/")]) + " |")
    return "\n".join(lines) + "\n"


def page(name: str, file: DatasetFile) -> str:
    shown = ", ".join(file.classes[:CLASSES]) + (", ..." if len(file.classes) > CLASSES else "")
    facts = {
        "name": f"`{name}`",
        "input": f"{file.kind}: {KINDS[file.kind]}",
        "shape": " x ".join(map(str, file.shape)),
        "examples": f"{size(file)} (training + test)" if file.samples else "not stated",
        "classes": f"{len(file.classes)}: {shown}",
        "licence": file.licence,
        "source": file.canonical,
        "reader": f"`src/heterobench/data/readers/{file.reader.replace('-', '_')}.py`",
    }
    lines = [f"# {file.title}", "", MADE, "", file.description.strip(), "", "| | |", "| --- | --- |"]
    lines += [f"| {key} | {str(value).strip().replace('|', '/')} |" for key, value in facts.items()]
    if file.attributes:
        lines += [
            "",
            "## What else is known of an example",
            "",
            "| attribute | use | values | |",
            "| --- | --- | ---: | --- |",
        ]
        lines += [f"| {key} | {a.use} | {a.train or ''} | {a.about} |" for key, a in file.attributes.items()]
    lines += ["", "## Forms, in the order in which they are tried", ""]
    for form in file.forms:
        lines += form_lines(form)
    return "\n".join(lines).rstrip() + "\n"


def form_lines(form: Form) -> list[str]:
    lines = [f"**{form.name}**" + (f": {form.note.strip()}" if form.note else ""), ""]
    for download in form.downloads:
        digest = f"sha256 {download.sha256}" if download.sha256 else f"md5 {download.md5}"
        bytes_ = f"{download.bytes:,} bytes, " if download.bytes else ""
        lines.append(
            f"- `{download.path}` ({bytes_}{digest}): " + "; ".join(str(source) for source in download.sources)
        )
    return [*lines, ""]
