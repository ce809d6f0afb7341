"""What all tests of this folder share: one benchmark, run, evaluated and reported once, as far as it is needed."""

import os
import shutil

import pytest

from recomputed import project, raw


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory):
    """The benchmark of `project`, trained."""
    root = tmp_path_factory.mktemp("recomputed")
    if given := os.environ.get(project.GIVEN):
        return project.of(shutil.copytree(given, root / "project"))
    with pytest.MonkeyPatch.context() as patch:
        return project.make(root, patch)


@pytest.fixture(scope="session")
def left(benchmark):
    """The files that it has left, read without the package."""
    return raw.Left(benchmark.project.root)


@pytest.fixture(scope="session")
def evaluated(benchmark):
    """The same, evaluated."""
    files = raw.Left(benchmark.project.root)
    if not (files.results / "evaluation").is_dir():
        project.evaluate(benchmark)
    return files


@pytest.fixture(scope="session")
def tables(benchmark, evaluated):
    """The folder of its tables."""
    from heterobench.report.data import read
    from heterobench.report.write import write_tables

    write_tables(read(benchmark))
    return benchmark.project.benchmark(benchmark.name, benchmark.preset) / "tables"
