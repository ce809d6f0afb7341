"""Are the tests able to see an error? Known places of the package are broken on purpose, one at a time, in a copy; then
at least one of the tests that are named with the mutation must fail, and without the edits none does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import heterobench
from contract.arms import PROJECT
from mutants import aggregation, engine, evaluation, integrity, methods, report, selection, statistics
from mutants.mutation import Edit, Mutation, once
from recomputed.project import GIVEN, evaluate, make, of

pytestmark = pytest.mark.slow

PACKAGE = Path(heterobench.__file__).parent
PASSED, FAILED = 0, 1  # exit codes of pytest; 2 to 5 say that it was interrupted, misused or found nothing to run
LISTS = (methods, statistics, selection, evaluation, aggregation, report, engine, integrity)
MUTATIONS = [mutation for each in LISTS for mutation in each.MUTATIONS]

# In the other process: is it really the copy that is tested? An error here is neither PASSED nor FAILED.
GUARD = """
import pathlib, pytest, heterobench

def pytest_configure(config):
    if pathlib.Path(heterobench.__file__).parent.parent != pathlib.Path(__file__).parent:
        raise pytest.UsageError(f"{heterobench.__file__} was imported instead of the copy")
"""


def copied(folder: Path) -> Path:
    """A folder that holds a copy of the package, compiled as far as it was, and the guard."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name)
    (folder / "guard.py").write_text(GUARD)
    return folder


def edit(folder: Path, edits: tuple[Edit, ...]) -> None:
    """Edit the copy; ValueError where it does not say, exactly once, what is to be changed."""
    for name, text, other in edits:
        file = folder / PACKAGE.name / name
        source = file.read_text()
        if source.count(text) != 1:
            raise ValueError(f"{name} has {source.count(text)} times, not once: {text}")
        file.write_text(source.replace(text, other))
        if file.suffix == ".py":
            compile(file.read_text(), str(file), "exec")
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            compiled.unlink()


def judged(folder: Path, tests: tuple[str, ...], given: Path | None = None) -> tuple[int, str]:
    """Exit code and output of `tests` (arguments of pytest in tests/), with the package in `folder`.

    `given`: a project that they may copy (`recomputed.project`).
    """
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "guard"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(f"tests/{word}" if ".py" in word else word for word in tests)],
        cwd=PROJECT.root,
        env=os.environ | {"PYTHONPATH": str(folder)} | ({GIVEN: str(given)} if given else {}),
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout + done.stderr


def named(mutations: list[Mutation]) -> list[tuple[str, ...]]:
    """All tests that are named: those of single names at once, those of the contract by the words that choose them."""
    chosen = sorted({m.tests[-1] for m in mutations if "-k" in m.tests})
    single = sorted({test for m in mutations if "-k" not in m.tests for test in m.tests})
    return [("contract/test_contract.py", "-k", " or ".join(chosen)), tuple(single)]


@pytest.fixture(scope="session")
def stages(tmp_path_factory):
    """Stage -> a project of `recomputed.project` that the unbroken package has brought so far."""
    with pytest.MonkeyPatch.context() as patch:
        benchmark = make(tmp_path_factory.mktemp("stages"), patch)
    trained = benchmark.project.root
    evaluated = shutil.copytree(trained, trained.with_name("evaluated"))
    evaluate(of(evaluated))
    return {"trained": trained, "evaluated": evaluated}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_broken_package_fails_the_tests_that_are_named(mutation, stages, tmp_path):
    folder = copied(tmp_path)
    edit(folder, mutation.edits)
    code, output = judged(folder, mutation.tests, stages.get(mutation.given))
    assert code == FAILED, output
    told = [line for line in output.split("short test summary info")[-1].splitlines() if line.startswith("FAILED")]
    assert told, output  # and not an error while they were prepared
    assert all(mutation.told in line for line in told), output


@pytest.mark.parametrize("tests", named(MUTATIONS), ids=["contract", "named"])
def test_the_unbroken_package_passes_them(tests, tmp_path):
    code, output = judged(copied(tmp_path), tests)
    assert code == PASSED, output
    assert " passed" in output


def test_mutations_are_told_apart():
    assert len({str(mutation) for mutation in MUTATIONS}) == len(MUTATIONS)


def test_an_edit_that_finds_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="0 times"):
        edit(copied(tmp_path), once("training.py", "nothing to see", "no such text", "").edits)


def test_the_guard_refuses_another_package(tmp_path):
    (tmp_path / "guard.py").write_text(GUARD)  # without a copy beside it
    code, output = judged(tmp_path, ("contract/test_contract.py", "-k", "fedavg"))
    assert code not in (PASSED, FAILED)
    assert "instead of the copy" in output
