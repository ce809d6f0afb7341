"""Tables of a benchmark kept in the repository, with the digests of the runs that they were made from.

``<output>/<benchmark>/<preset>/`` has each table as CSV and Markdown, as the report's rule has written it, and
``records.csv``: a line for each run that the benchmark asks for; ``SHA256SUMS`` tells whether any of these files has
been altered since (`sha256sum --check`). Runs are repeatable to the bit on equal hardware and
packages, so who runs the benchmark again can tell by the digests whether the same came out (`differences`).
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from heterobench.errors import ConfigurationError, RunError
from heterobench.files import difference, file_digest, write_text
from heterobench.records import record
from heterobench.records.revision import dirty
from heterobench.report import outputs
from heterobench.resolve import Benchmark

COLUMNS = ("scenario", "algorithm", "seed", "status", "run_id", "revision", "torch", "cpu or gpu", "rounds", "model")
DIGESTS = {"rounds": record.ROUNDS, "model": record.FINAL}
RECORDS, SUMS, DAMAGED, UNFINISHED = "records.csv", "SHA256SUMS", "damaged", "not finished"
FORMS = ("csv", "md")
CHANGES = {True: "+changes", False: "", None: "+unknown"}  # that were not committed, after a revision


def folder(benchmark: Benchmark, output: Path) -> Path:
    return output / benchmark.name / benchmark.preset


def keep(benchmark: Benchmark, tables: Sequence[str], output: Path) -> list[Path]:
    """Write tables and digests; returns their paths. Everything is checked before anything is written.

    ConfigurationError where the report has no such table, RunError where there is no report or no finished run.
    """
    made = {path.stem for path in outputs.summary_file(benchmark).parent.glob("*.md")}
    if not made:
        raise RunError(f"{benchmark.name} ({benchmark.preset}): no report yet; run snakemake, or heterobench report")
    if unknown := [table for table in tables if table not in made]:
        raise ConfigurationError(f"--tables: no table {unknown[0]!r}; allowed: {', '.join(sorted(made))}")
    rows = records(benchmark)
    if damaged := [row for row in rows if row["status"].startswith(DAMAGED)]:
        about = f"{' '.join(_key(damaged[0]))}: {damaged[0]['status']}"
        raise RunError(f"{about}. What to do: heterobench report --evaluate, then snakemake, which makes it again")
    if not any(row["run_id"] for row in rows):
        raise RunError(f"{benchmark.name} ({benchmark.preset}): none of its {len(rows)} runs has finished")
    target = folder(benchmark, output)
    target.mkdir(parents=True, exist_ok=True)
    written = [target / f"{table}.{form}" for table in tables for form in FORMS]
    for path in written:
        shutil.copyfile(outputs.table_file(benchmark, path.stem, path.suffix[1:]), path)
    lines = [",".join(COLUMNS), *(",".join(row[name] for name in COLUMNS) for row in rows)]
    write_text(target / RECORDS, "\n".join(lines) + "\n")
    written.append(target / RECORDS)
    sums = _sums(target / SUMS) | {path.name: file_digest(path) for path in written}
    write_text(target / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    return [*written, target / SUMS]


def _sums(path: Path) -> dict[str, str]:
    """File name -> sha256, as ``sha256sum`` writes and checks it."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def records(benchmark: Benchmark) -> list[dict[str, str]]:
    """A row of `COLUMNS` for each run that the benchmark asks for; one that is not computed has no digests."""
    return [
        _row(benchmark, scenario.name, arm.name, seed)
        for scenario in benchmark.scenarios
        for arm in benchmark.arms
        for seed in benchmark.seeds
    ]


def _row(benchmark: Benchmark, scenario: str, arm: str, seed: int) -> dict[str, str]:
    run = benchmark.project.run(benchmark.name, benchmark.preset, scenario, arm, seed)
    row = dict.fromkeys(COLUMNS, "") | {"scenario": scenario, "algorithm": arm, "seed": str(seed)}
    found = record.Record(run)
    if damage := found.damage():
        return row | {"status": f"{DAMAGED}: {'; '.join(damage)}"}
    if not found.computed:
        return row | {"status": UNFINISHED}
    origin = found.provenance
    where = origin["hardware"]["gpu"] or origin["hardware"]["cpu"]
    return row | {
        "status": found.end["status"],
        "run_id": found.config["run_id"],
        "revision": origin["revision"] + CHANGES[dirty(origin)] if origin["revision"] else "unknown",
        "torch": origin["packages"]["torch"],
        "cpu or gpu": where.replace(",", " "),
        **{name: found.end["sha256"][file] for name, file in DIGESTS.items()},
    }


def differences(benchmark: Benchmark, output: Path) -> Iterator[str]:
    """A line for each kept run whose digests are not those of the run at hand, or which is not there or damaged.

    And a line for each kept file that is not the one that was written. RunError where nothing was kept.
    """
    path = folder(benchmark, output) / RECORDS
    if not path.is_file():
        raise RunError(f"{path}: no such file; nothing was kept of {benchmark.name} ({benchmark.preset})")
    sums = _sums(path.with_name(SUMS))
    yield from (problem for name, digest in sums.items() if (problem := difference(path.with_name(name), digest)))
    if path.name not in sums:
        yield f"{SUMS}: missing, or without {path.name}: nothing tells whether what was kept has been altered"
    here = {_key(row): row for row in records(benchmark)}
    with open(path, encoding="utf-8", newline="") as stream:
        for kept in csv.DictReader(stream):
            if kept["status"] == UNFINISHED:
                continue
            name, now = " ".join(_key(kept)), here.get(_key(kept))
            if now is not None and now["status"].startswith(DAMAGED):
                yield f"{name}: {now['status']}"
            elif now is None or now["status"] == UNFINISHED:
                yield f"{name}: not run here"
            elif apart := [column for column in DIGESTS if now[column] != kept[column]]:
                yield f"{name}: other {' and '.join(apart)}"


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return row["scenario"], row["algorithm"], row["seed"]
