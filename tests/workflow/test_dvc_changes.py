"""What changes for one data set is obtained and prepared again for that data set only."""

import gzip
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from heterobench.data.fetch import MIRROR
from heterobench.files import file_digest
from miniature import environment, miniature
from raw_files import REPOSITORY, isolate

pytestmark = pytest.mark.slow

BENCHMARK = """
title: Two data sets
presets:
  mini:
    seeds: 1
    scenarios:
      - {dataset: [digits, numbers], model: softmax, partition: iid, schedule: full}
    budget: {rounds: 1, local_epochs: 1, batch_size: 16}
    algorithms: [fedavg]
"""
TARGETS = ("data/prepared/digits/manifest.json", "data/prepared/numbers/manifest.json")


def add_numbers(root: Path, mirror: Path) -> None:
    """A second data set, in MNIST's packing, with a reader of its own."""
    (mirror / "numbers").mkdir(parents=True)
    downloads = []
    for part, size in (("train", 30), ("t10k", 8)):
        draw = np.random.default_rng(size)
        for kind, array in (("images-idx3", draw.integers(0, 3, (size, 4, 5))), ("labels-idx1", np.arange(size) % 3)):
            path = mirror / "numbers" / f"{part}-{kind}-ubyte.gz"
            header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
            path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0))
            entry = {"path": path.name, "sha256": file_digest(path), "bytes": path.stat().st_size}
            downloads.append(entry | {"sources": [{"mirror": f"numbers/{path.name}"}]})
    downloads.sort(key=lambda entry: entry["path"], reverse=True)
    entries = {"title": "Numbers", "licence": "none", "canonical": "nowhere", "classes": ["a", "b", "c"]}
    entries |= {"shape": [1, 4, 5], "maximum": 2, "mean": [0.5], "std": [0.5], "reader": "idx"}
    yaml = YAML()
    yaml.dump(
        entries | {"forms": [{"name": "published", "downloads": downloads}]}, root / "params/datasets/numbers.yaml"
    )
    stages = yaml.load(root / "dvc.yaml")
    stages["stages"]["fetch"]["foreach"].append("numbers")
    yaml.dump(stages, root / "dvc.yaml")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Both sets prepared by the workflow, by a copy of the code that a test may change: (project, code)."""
    home = tmp_path_factory.mktemp("changes")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, home)
        root = miniature(home / "project")
        add_numbers(root, home / "mirror")
        (root / "params/benchmarks/miniature.yaml").write_text(BENCHMARK)
        source, code = REPOSITORY / "src" / "heterobench", home / "code" / "heterobench"
        shutil.copytree(source, code, ignore=shutil.ignore_patterns("__pycache__"))
        patch.setenv("PYTHONPATH", str(home / "code"))
        patch.setenv("DVC_NO_ANALYTICS", "1")
        snakemake(root, home, "--cores", "1", *TARGETS)
        yield root, code


def snakemake(root: Path, home: Path, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=root,
        env=environment() | {MIRROR: str(home / "mirror")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


def pending(root: Path) -> set[str]:
    """Rules about the data that the workflow would run now."""
    plan = snakemake(root, root.parent, "--dry-run", *TARGETS)
    return set(re.findall(r"^((?:raw|prepare)_\S+) +\d+$", plan, flags=re.MULTILINE))


@pytest.fixture
def change(prepared):
    """Replace a piece of a file for the time of a test."""
    changed = {}

    def apply(path: Path, old: str, new: str) -> None:
        text = changed.setdefault(path, path.read_text())
        assert text.count(old) == 1, (path, old)
        path.write_text(text.replace(old, new))

    yield apply
    for path, text in changed.items():
        path.write_text(text)


def test_nothing_is_pending_when_nothing_changed(prepared):
    assert pending(prepared[0]) == set()


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("numbers", "std:\n- 0.5", "std:\n- 0.25", {"prepare_numbers"}),
        ("digits", "name: published", "name: reprinted", {"raw_digits", "prepare_digits"}),
        ("numbers", "title: Numbers", "title: Figures", set()),
        ("numbers", "- mirror: numbers/train-images-idx3-ubyte.gz", "- mirror: elsewhere/images.gz", set()),
    ],
)
def test_a_changed_parameter_file(prepared, change, path, old, new, expected):
    root, _ = prepared
    change(root / "params" / "datasets" / f"{path}.yaml", old, new)
    assert pending(root) == expected


@pytest.mark.parametrize(
    ("module", "added", "expected"),
    [
        ("data/readers/idx.py", "\nEXTRA = 1\n", {"prepare_numbers"}),
        ("data/readers/digits.py", "\nEXTRA = 1\n", {"prepare_digits"}),
        ("data/readers/idx.py", "\n# only a comment\n", set()),
        ("data/prepare.py", "\nEXTRA = 1\n", {"prepare_digits", "prepare_numbers"}),
    ],
)
def test_changed_code(prepared, change, module, added, expected):
    root, code = prepared
    text = (code / module).read_text()
    change(code / module, text, text + added)
    assert pending(root) == expected


def test_the_other_set_is_not_touched(prepared, change):
    """Run for real: a new form of one set goes through DVC and preparation, and files of the other keep their times."""
    root, _ = prepared
    change(root / "params" / "datasets" / "numbers.yaml", "name: published", "name: reprinted")
    folders = [root / "data" / kind / "digits" for kind in ("raw", "prepared")]
    times = {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}
    snakemake(root, root.parent, "--cores", "1", *TARGETS)
    assert {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()} == times
    assert '"form": "reprinted"' in (root / TARGETS[1]).read_text()
    assert pending(root) == set()
