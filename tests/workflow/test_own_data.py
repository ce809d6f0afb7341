"""The page "Bring your own data", line by line as a user types it, and its arrays against pandas and Pillow."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from heterobench.data.dataset import open_dataset
from heterobench.data.versioned import environment
from heterobench.files import read_json
from heterobench.project import Project
from miniature import REPOSITORY, miniature

PAGE = (REPOSITORY / "docs" / "own-data.md").read_text(encoding="utf-8")
BLOCKS = re.compile(r"(?:^`(?P<path>[^`\n]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


def script() -> str:
    """The page as a script of the shell: a block of YAML goes into the file that is named before it."""
    lines = ["set -eu"]
    for block in BLOCKS.finditer(PAGE):
        path, kind, text = block["path"], block["kind"], block["text"]
        assert (kind == "yaml") == (path is not None), text
        start = {"yaml": f"cat > {path} <<'END'", "python": "python - <<'END'", "sh": ""}[kind]
        lines += [start, text + ("END" if start else "")]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = miniature(tmp_path_factory.mktemp("own"))
    clean = {key: value for key, value in environment().items() if not key.startswith(("HETEROBENCH", "MLFLOW"))}
    run = subprocess.run(["sh", "-c", script()], cwd=root, env=clean, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return Project(root)


def together(data):
    """Examples of both parts, and their labels' names."""
    labels = np.concatenate([data.train_y, data.test_y])
    return np.concatenate([data.train_x, data.test_x]), [data.classes[label] for label in labels]


def same(x, labels, expected_x, expected_labels):
    """The same examples, in whatever order."""
    found = sorted((row.ravel().tolist(), label) for row, label in zip(x, labels, strict=True))
    expected = sorted((row.ravel().tolist(), label) for row, label in zip(expected_x, expected_labels, strict=True))
    return found == expected


@pytest.mark.slow
def test_every_example_ends_in_a_run(project):
    for name in ("birds", "beach", "drawings"):
        (folder,) = project.benchmark("single", "command-line").glob(f"runs/{name}.*/fedavg/seed-0")
        assert read_json(folder / "end.json")["status"] == "finished"
        assert len((folder / "rounds.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_the_table_is_what_pandas_reads(project):
    data, frame = open_dataset(project, "birds", verify=True), pd.read_csv(project.root / "own" / "birds.csv")
    sexes = [(frame.sex == sex).astype(float) for sex in ("female", "male")]
    x = np.stack([frame.wing_cm, frame.mass_g, *sexes], axis=1).astype(np.float32)
    assert same(*together(data), x, frame.kind)
    assert len(data.test_y) == sum(round(0.2 * n) for n in frame.kind.value_counts())
    manifest = read_json(project.partition_manifest("birds", "by-island", 0))
    assert manifest["clients"] == 3
    islands = np.array(["north", "rock", "south"])[data.train["island"]]
    order = {tuple(row): island for row, island in zip(x.tolist(), frame.island, strict=True)}
    assert [order[tuple(row)] for row in data.train_x.tolist()] == islands.tolist()


@pytest.mark.slow
def test_the_folders_are_what_pillow_reads(project):
    data = open_dataset(project, "beach", verify=True)
    files = sorted((project.root / "own" / "beach").rglob("*.png"))
    resized = [Image.open(file).convert("L").resize((12, 12), Image.Resampling.BILINEAR) for file in files]
    assert len(files) == 240
    assert same(*together(data), [np.asarray(image) for image in resized], [file.parent.name for file in files])


@pytest.mark.slow
def test_the_shards_are_what_pillow_decodes(project, tmp_path):
    data = open_dataset(project, "drawings", verify=True)
    tables = [pq.read_table(project.root / "own" / f"train-{shard}.parquet") for shard in range(2)]
    pixels, labels = [], []
    for number, row in enumerate(row for table in tables for row in table.to_pylist()):
        file = Path(tmp_path / f"{number}.png")
        file.write_bytes(row["image"]["bytes"])
        pixels.append(np.asarray(Image.open(file)))
        labels.append(["circle", "square"][row["label"]])
    assert same(*together(data), pixels, labels)
    assert data.manifest["attributes"]["school"]["names"] == ["a", "b", "c", "d"]
