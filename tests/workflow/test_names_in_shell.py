"""No value of a shell command means more to the shell than its letters."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import heterobench
from miniature import environment, miniature, snakemake

ROOT = Path(__file__).parents[2]
QUOTED = {"PYTHON", "TRAIN"}  # joined by shlex in common.smk
TARGET = "results/partitions/digits/iid/seed-0.json"  # of the miniature


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return miniature(tmp_path_factory.mktemp("shell") / "my (new) $(touch pwned) 'drive'")


def test_every_value_of_a_shell_command_is_quoted():
    """A rule that is added without `:q` fails here."""
    commands = 0
    for path in sorted(ROOT.glob("workflow/rules/*.smk")):
        for command in re.findall(r"^ +shell:\n((?: +\".*\"\n)+)", path.read_text(), re.MULTILINE):
            commands += 1
            for value in re.findall(r"\{([^}]*)\}", command):
                assert value in QUOTED or value.endswith(":q"), f"{path.name}: {{{value}}} in {command}"
    assert commands >= 10
    makefile = (ROOT / "Makefile").read_text()
    assert not re.findall(r'^\t.*(?<!")\$\(PYTHON\)', makefile, re.MULTILINE)


def test_a_project_and_an_interpreter_with_spaces_and_signs(project):
    """Data, preparation and partition through the shell, by an interpreter in that folder."""
    venv = project / "my environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    packages = next(venv.glob("lib/python*/site-packages"))
    source = Path(heterobench.__file__).parents[1]
    (packages / "shared.pth").write_text(f"{source}\n{sysconfig.get_paths()['purelib']}\n")
    command = [
        venv / "bin/python",
        "-m",
        "snakemake",
        "--cores",
        "1",
        "--config",
        "benchmarks=[label-skew]",
        "--",
        TARGET,
    ]
    made = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    assert (project / TARGET).is_file()
    assert not list(project.rglob("pwned"))


def test_a_name_for_the_shell_is_refused_before_any_job(project):
    """In the name of a file and of a preset; nothing is run, and the message says what a name may be."""
    for name in ("$(touch pwned)", "Dir(0.1)"):
        file = project / "params/partitions" / f"{name}.yaml"
        file.write_text((project / "params/partitions/iid.yaml").read_text())
        told = snakemake(project, "-n")
        file.unlink()
        assert told.returncode != 0
        assert "params/partitions" in told.stdout
        assert "allowed are" in told.stdout
        assert "localrule" not in told.stdout
    assert not list(project.rglob("pwned"))


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_an_environment_that_was_made_for_another_place_is_made_anew(place, tmp_path):
    """A copied or moved project would else run the code of the original; `make -n` only tells what it would do."""
    root = tmp_path / "My Drive"
    (root / ".venv").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    made_for = root if place == "here" else tmp_path / "original"
    (root / ".venv/pyvenv.cfg").write_text(f"version = 3.11\ncommand = /usr/bin/python3 -m venv {made_for}/.venv\n")
    (root / ".venv/.ready").touch()
    done = subprocess.run(["make", "-n", "env"], cwd=root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("rm -rf .venv" in done.stdout) == (place == "elsewhere"), done.stdout
    assert ("-m pip install" in done.stdout) == (place == "elsewhere")
