"""What a benchmark has left on disk, read with the formats' own libraries, and the net and the data built again.

Nothing here is imported from the package but the places of `project`: what it computes must not be able to err with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from scipy.special import log_softmax

from recomputed.project import CREDITS, DIGITS, LOST, NAME, PRESET, RATE, SEEDS

PERSONAL = "local-only"


class Data(NamedTuple):
    """Inputs float64 [n, d] as nets see them, labels [n] and, by name, attributes [n]; training examples, then test."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    attributes: dict[str, np.ndarray]


class Key(NamedTuple):
    """A run."""

    scenario: str
    arm: str
    seed: int


SCENARIOS = (DIGITS, CREDITS)
RUNS = tuple(
    key for scenario in SCENARIOS for arm in RATE for seed in SEEDS if (key := Key(scenario, arm, seed)) != LOST
)
GLOBAL = tuple(key for key in RUNS if key.arm != PERSONAL)


@dataclass(frozen=True)
class Left:
    """A project's files."""

    root: Path

    @property
    def results(self) -> Path:
        return self.root / "results" / NAME / PRESET

    def folder(self, key: Key) -> Path:
        return self.results / "runs" / key.scenario / key.arm / f"seed-{key.seed}"

    def rounds(self, key: Key) -> list[dict[str, Any]]:
        """The metrics of each evaluated round, with "round"."""
        lines = _lines(self.folder(key) / "rounds.jsonl")
        return [line["metrics"] | {"round": line["round"]} for line in lines]

    def timing(self, key: Key) -> list[dict[str, Any]]:
        return _lines(self.folder(key) / "timing.jsonl")

    def end(self, key: Key) -> dict[str, Any]:
        return json.loads((self.folder(key) / "end.json").read_text())

    def model(self, key: Key, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Weight [..., classes, d] and bias [..., classes] of the one layer, float64."""
        tensors = load_file(self.folder(key) / name)
        return tensors["1.weight"].double().numpy(), tensors["1.bias"].double().numpy()

    def at_round(self, key: Key, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self.model(key, f"snapshots/round-{number:06d}.safetensors")

    @cache  # noqa: B019 - one object for a session
    def data(self, scenario: str) -> Data:
        folder = self.root / "data" / "prepared" / scenario.partition(".")[0]
        arrays = {file.stem: np.load(file) for file in folder.glob("*.npy")}
        x, test = (
            arrays[f"{part}_x"].reshape(len(arrays[f"{part}_y"]), -1).astype(float) for part in ("train", "test")
        )
        mean, std = _moments(scenario, x)
        attributes = {name: arrays[f"train_{name}"] for name in ("sex", "age_group") if f"train_{name}" in arrays}
        return Data((x - mean) / std, arrays["train_y"], (test - mean) / std, arrays["test_y"], attributes)

    @cache  # noqa: B019
    def parts(self, scenario: str, seed: int) -> dict[str, list[np.ndarray]]:
        """Part of the data -> rows of each client."""
        dataset, partition, *_ = scenario.split(".")
        manifest = self.root / "results" / "partitions" / dataset / partition / f"seed-{seed}.json"
        table = pd.read_parquet(self.root / json.loads(manifest.read_text())["file"])
        return {part: [np.asarray(rows) for rows in table[part]] for part in ("train", "validation", "test")}

    def table(self, kind: str, scenario: str) -> pd.DataFrame:
        return pd.read_parquet(self.results / kind / f"{scenario}.parquet")

    @cache  # noqa: B019
    def _evaluated(self, scenario: str) -> dict[tuple, dict[str, float]]:
        groups = self.table("evaluation", scenario).groupby(["arm", "seed", "selection"])
        return {key: dict(zip(of["metric"], of["value"], strict=True)) for key, of in groups}

    def evaluated(self, key: Key, selection: str) -> dict[str, float]:
        """Metric -> value that the evaluation has written."""
        return self._evaluated(key.scenario).get((key.arm, key.seed, selection), {})

    def evaluated_models(self, runs=RUNS) -> Iterator[tuple[Key, str, tuple[np.ndarray, np.ndarray], dict[str, float]]]:
        """(run, selection, its model, what was evaluated of it)."""
        for key in runs:
            for selection, name in (("last", "final.safetensors"), ("validation", "selected.safetensors")):
                yield key, selection, self.model(key, name), self.evaluated(key, selection)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _moments(scenario: str, x: np.ndarray):
    """Of all pixels, rounded as the parameter file has them; of each column that is no indicator."""
    if scenario == DIGITS:
        return round(float((x / 16).mean()), 4) * 16, round(float((x / 16).std()), 4) * 16
    indicator = np.isin(x, (0, 1)).all(0)
    return np.where(indicator, 0, x.mean(0)), np.where(indicator, 1, x.std(0))


def logits(model, x: np.ndarray) -> np.ndarray:
    """[n, classes] in single precision, by torch's own layer."""
    weight, bias = (torch.from_numpy(part).float() for part in model)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(*reversed(weight.shape)))
    net.load_state_dict({"1.weight": weight, "1.bias": bias})
    with torch.no_grad():
        return net(torch.from_numpy(x).float()).double().numpy()


def losses(outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cross-entropy [n], nats."""
    return -log_softmax(outputs, 1)[np.arange(len(y)), y]


def hits(outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (outputs.argmax(1) == y).astype(float)


def own(model, client: int):
    """The model of a client: its own, or that of everybody."""
    weight, bias = model
    return (weight[client], bias[client]) if weight.ndim == 3 else model


def of_clients(model, x: np.ndarray, y: np.ndarray, rows: list[np.ndarray], score) -> list[np.ndarray]:
    """`score` [n_k] of each client's examples under its model."""
    return [score(logits(own(model, k), x[mine]), y[mine]) for k, mine in enumerate(rows)]
