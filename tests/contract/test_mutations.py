"""Is the contract able to see an error? Known places of the methods are broken on purpose, one at a time, in a copy
of the package; then at least one contract test of that method must fail, and without the edit none does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import heterobench
from contract.arms import PROJECT

pytestmark = pytest.mark.slow

PACKAGE = Path(heterobench.__file__).parent
PASSED, FAILED = 0, 1  # exit codes of pytest; 2 to 5 say that it was interrupted, misused or found nothing to run

# In the other process: is it really the copy that is tested? An error here is neither PASSED nor FAILED.
GUARD = """
import pathlib, pytest, heterobench

def pytest_configure(config):
    if pathlib.Path(heterobench.__file__).parent.parent != pathlib.Path(__file__).parent:
        raise pytest.UsageError(f"{heterobench.__file__} was imported instead of the copy")
"""


class Mutation(NamedTuple):
    """`edits` of files in algorithms/, (file, text, other text), that break `method`."""

    method: str
    what: str
    edits: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        return f"{self.method}: {self.what}"


CORRECTION = 'return g + work["correction"], aux'
VARIATE = 'c = client["c"] - down["c"] - dy / done.lr_sum'
PULL = 'return g + hp.alpha * (work["theta"] - work["target"]), aux'
TARGET = '{"target": down["theta"] - client["h"]}'
NORMALISED = 'd = (work["theta"] - down["theta"]) / a'
PROXIMAL = 'return g + hp.mu * (work["theta"] - work["anchor"]), aux'
SPEED = 'return g + hp.alpha * (theta - work["target"]), aux'


def once(method: str, what: str, text: str, other: str, file: str | None = None) -> Mutation:
    return Mutation(method, what, ((file or method, text, other),))


MUTATIONS = [
    once("scaffold", "correction has the other sign", CORRECTION, 'return g - work["correction"], aux'),
    once("scaffold", "no correction", CORRECTION, "return g, aux"),
    once(
        "scaffold",
        "client variate with the server's sign turned",
        VARIATE,
        VARIATE.replace('- down["c"]', '+ down["c"]'),
    ),
    once("scaffold", "client variate without the server's", VARIATE, VARIATE.replace(' - down["c"]', "")),
    once("scaffold", "client variate with the path's sign turned", VARIATE, VARIATE.replace("- dy", "+ dy")),
    once("scaffold", "server variate is the cohort's", "/ info.population", "/ info.cohort"),
    once("feddyn", "quadratic term has the other sign", PULL, PULL.replace("g +", "g -")),
    once("feddyn", "neither quadratic nor linear term", PULL, "return g, aux"),
    Mutation(
        "feddyn",
        "linear term alone",
        (
            ("feddyn", TARGET, '{"target": client["h"]}'),
            ("feddyn", PULL, 'return g + hp.alpha * work["target"], aux'),
        ),
    ),
    once("feddyn", "quadratic term alone", TARGET, '{"target": down["theta"]}'),
    once("fednova", "not normalised", NORMALISED, NORMALISED.removesuffix(" / a")),
    once("fednova", "normaliser has the other sign", NORMALISED, NORMALISED.replace("/ a", "/ -a")),
    once("fednova", "no effective number of steps", 'hp.server_lr * up["tau"] * up["d"]', 'hp.server_lr * up["d"]'),
    once("fedprox", "proximal term has the other sign", PROXIMAL, PROXIMAL.replace("g +", "g -")),
    once("fedprox", "no proximal term", PROXIMAL, "return g, aux"),
    once(
        "fedprox",
        "norm instead of its square",
        PROXIMAL,
        'd = work["theta"] - work["anchor"]\n        return g + hp.mu * d / d.norm().clamp(min=1e-12), aux',
    ),
    once("fedspeed", "correction has the other sign", TARGET, TARGET.replace("- client", "+ client"), "feddyn"),
    once("fedspeed", "no correction", TARGET, '{"target": down["theta"]}', "feddyn"),
    once("fedspeed", "proximal term and correction have the other sign", SPEED, SPEED.replace("g +", "g -")),
    once("fedspeed", "neither proximal term nor correction", SPEED, "return g, aux"),
    once("fedspeed", "step downhill", "theta + uphill(hp, here)", "theta - uphill(hp, here)"),
]


def copied(folder: Path) -> Path:
    """A folder that holds a copy of the package and the guard."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "guard.py").write_text(GUARD)
    return folder


def broken(folder: Path, mutation: Mutation) -> None:
    """Edit the copy; ValueError where it does not say, exactly once, what is to be changed."""
    for name, text, other in mutation.edits:
        file = folder / PACKAGE.name / "algorithms" / f"{name}.py"
        source = file.read_text()
        if source.count(text) != 1:
            raise ValueError(f"algorithms/{name}.py has {source.count(text)} times, not once: {text}")
        file.write_text(source.replace(text, other))
        compile(file.read_text(), str(file), "exec")


def contract(folder: Path, methods: str) -> tuple[int, str]:
    """Exit code and output of the contract tests of `methods` (as of pytest -k), with the package in `folder`."""
    tests = PROJECT.root / "tests" / "contract" / "test_contract.py"
    options = ["-k", methods, "-x", "-q", "-p", "no:cacheprovider", "-p", "guard"]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(tests), *options],
        cwd=PROJECT.root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_broken_method_fails_the_contract(mutation, tmp_path):
    folder = copied(tmp_path)
    broken(folder, mutation)
    code, output = contract(folder, mutation.method)
    assert code == FAILED, output
    assert f"{mutation.method}]" in output.split("short test summary info")[-1], output  # a test of this very method


def test_unbroken_methods_pass_it(tmp_path):
    code, output = contract(copied(tmp_path), " or ".join(sorted({mutation.method for mutation in MUTATIONS})))
    assert code == PASSED, output
    assert " passed" in output


def test_an_edit_that_finds_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="0 times"):
        broken(copied(tmp_path), once("fedavg", "nothing to see", "no such text", ""))


def test_the_guard_refuses_another_package(tmp_path):
    (tmp_path / "guard.py").write_text(GUARD)  # without a copy beside it
    code, output = contract(tmp_path, "fedavg")
    assert code not in (PASSED, FAILED)
    assert "instead of the copy" in output
