"""What there is: tables for `heterobench list`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from heterobench import models, resolve
from heterobench.config.reading import load, names
from heterobench.config.schema import BenchmarkFile, ModelFile, PartitionFile, ScheduleFile
from heterobench.project import Project


def _algorithms(project: Project) -> tuple[list[str], list[list[str]]]:
    from heterobench import registry

    rows = []
    for name, file in resolve.algorithm_files(project).items():
        module = registry.algorithm(name)
        tags = sorted(module.make(module.HyperParameters(**file.defaults)).tags)
        rows.append([name, file.title, ", ".join(tags), file.reference])
        rows += [[key, variant.title, f"variant of {name}", ""] for key, variant in file.variants.items()]
    return ["name", "title", "tags", "reference"], rows


def _datasets(project: Project) -> tuple[list[str], list[list[str]]]:
    from heterobench.data.page import natural_clients, size
    from heterobench.data.schema import load_dataset_file

    rows = []
    for name in names(project, "datasets"):
        file = load_dataset_file(project, name)
        prepared = (project.prepared(name) / "manifest.json").is_file()
        shape, classes = "x".join(map(str, file.shape)), str(len(file.classes))
        facts = [file.kind, shape, classes, size(file), natural_clients(file), file.licence]
        rows.append([name, file.title, *facts, "yes" if prepared else "no"])
    return ["name", "title", "kind", "shape", "classes", "examples", "clients", "licence", "prepared"], rows


def _partitions(project: Project) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name in names(project, "partitions"):
        file = load(project, "partitions", name, PartitionFile)
        options = ", ".join(f"{key} = {value}" for key, value in file.options.items())
        changes = ", ".join(entry.change for entry in file.changes)
        clients = str(file.clients or "all")
        rows.append([name, file.title, file.scheme, clients, options, changes, file.reference])
    return ["name", "title", "scheme", "clients", "options", "changes", "reference"], rows


def _models(project: Project) -> tuple[list[str], list[list[str]]]:
    files = {name: load(project, "models", name, ModelFile) for name in names(project, "models")}
    rows = []
    for name, file in files.items():
        kinds = models.architecture(file.architecture, f"params/models/{name}.yaml").KINDS
        rows.append([name, file.title, file.architecture, ", ".join(kinds), file.reference])
    return ["name", "title", "architecture", "inputs", "reference"], rows


def _published(project: Project) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name, file in resolve.algorithm_files(project).items():
        for entry in file.published:
            for number in entry.numbers:
                partition = number.partition
                options = partition.options if partition else {}
                split = ", ".join([partition.scheme if partition else "", *(f"{k} = {v}" for k, v in options.items())])
                value = f"{number.value:.2f}" + (f" ± {number.deviation:.2f}" if number.deviation is not None else "")
                use = entry.reason_of(number) or "target"
                where = [entry.setting, entry.evidence, entry.source]
                rows.append([number.variant or name, number.dataset, split, value, use, *where])
    return ["algorithm", "dataset", "partition", "accuracy (%)", "use", "setting", "evidence", "source"], rows


def _schedules(project: Project) -> tuple[list[str], list[list[str]]]:
    files = {name: load(project, "schedules", name, ScheduleFile) for name in names(project, "schedules")}
    rows = []
    for name, f in files.items():
        availability = f"{f.availability.pattern}, {f.availability.mean:g}" if f.availability else ""
        work = f"{f.local_work.min:g} to {f.local_work.max:g}" if f.local_work else ""
        rows.append([name, f.title, f"{f.participation:g}", availability, f"{f.stragglers:g}", work])
    return ["name", "title", "participation", "availability", "stragglers", "local work"], rows


def _benchmarks(project: Project) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name in names(project, "benchmarks"):
        for preset in load(project, "benchmarks", name, BenchmarkFile).presets:
            table = resolve.benchmark(project, name, preset)
            counts = [len(table.scenarios), len(table.arms), len(table.seeds)]
            runs = counts[0] * counts[1] * counts[2]
            rows.append([name, preset, table.title, *map(str, counts), str(runs)])
    return ["name", "preset", "title", "scenarios", "algorithms", "seeds", "runs"], rows


KINDS = {
    "algorithms": _algorithms,
    "benchmarks": _benchmarks,
    "datasets": _datasets,
    "models": _models,
    "partitions": _partitions,
    "published": _published,
    "schedules": _schedules,
}


def show(project: Project, kind: str) -> None:
    """Print the things of one kind: a table on a terminal, tab-separated lines into a pipe."""
    header, rows = KINDS[kind](project)
    console = Console()
    if not console.is_terminal:
        for row in [header, *rows]:
            print("\t".join(row))
        return
    table = Table(*header, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
