"""What all tests of this folder share: one benchmark, run, evaluated and reported once, as far as it is needed."""

import pytest

from recomputed import project, raw


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory):
    """The benchmark of `project`, trained."""
    with pytest.MonkeyPatch.context() as patch:
        return project.make(tmp_path_factory.mktemp("recomputed"), patch)


@pytest.fixture(scope="session")
def left(benchmark):
    """The files that it has left, read without the package."""
    return raw.Left(benchmark.project.root)


@pytest.fixture(scope="session")
def evaluated(benchmark):
    """The same, evaluated."""
    from heterobench.evaluation import write_evaluation

    for scenario in raw.SCENARIOS:
        write_evaluation(benchmark, scenario)
    return raw.Left(benchmark.project.root)


@pytest.fixture(scope="session")
def tables(benchmark, evaluated):
    """The folder of its tables."""
    from heterobench.report.data import read
    from heterobench.report.write import write_tables

    write_tables(read(benchmark))
    return benchmark.project.benchmark(benchmark.name, benchmark.preset) / "tables"
