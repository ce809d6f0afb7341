"""From a prepared data set and a partition to the federation of a run: what clients see, and what judges them.

Training and validation examples carry the labels that clients observe: a round that was chosen by labels which nobody
in the federation has would be an oracle's. Clients' own test examples and the global test set carry the true labels:
what counts is whether a model is right, not whether it agrees with the noise. All three parts of a client are seen
under its transformations, because they come from one and the same client. The global test set is seen as it is; only
where inputs are permuted from stage to stage its example i is seen as in stage i mod stages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from heterobench.augmentation import Views
from heterobench.data import transforms
from heterobench.data.dataset import Dataset
from heterobench.federation import Examples, Federation, chosen
from heterobench.partition.partition import Partition


@dataclass(frozen=True, eq=False)
class Opened:
    """A data set whose arrays go to a device; where nothing is transformed, all federations share them.

    `augmentation`: what training makes of images, in the words of a model's file.
    """

    dataset: Dataset
    device: str = "cpu"
    augmentation: str = "none"

    @cached_property
    def examples(self) -> tuple[Examples, Examples]:
        """Official training and test examples as they are."""
        data = self.dataset
        parts = (data.train_x, data.train_y), (data.test_x, data.test_y)
        return tuple(Examples.normalised(x, y, data.mean, data.std, data.maximum, self.device) for x, y in parts)

    def federation(self, partition: Partition, seed: int) -> Federation:
        """What the clients of a partition see in the run of `seed`.

        Raises ConfigurationError where a transformation does not make sense for the data.
        """
        data, details = self.dataset, partition.details
        pool, global_test = self._seen(partition, seed)
        if "observed" in details:
            y = torch.from_numpy(labels(partition, np.asarray(data.train_y))).to(self.device)
            pool = Examples(pool.x, y, pool.scale, pool.shift)
        train, validation, unlabelled = partition.train, partition.validation, None
        if "labelled" in details:
            unlabelled = chosen(train, ~details["labelled"])
            train, validation = (chosen(part, details["labelled"]) for part in (train, validation))
        return Federation(
            pool,
            train,
            validation,
            partition.test,
            global_test,
            unlabelled,
            details["stage"] if partition.stages > 1 else None,
            partition.held_out,
            dict(_domains(data.manifest["attributes"], data.test)) | dict(_stages(partition, data)),
            partition.server,
            self._views,
        )

    @cached_property
    def _views(self) -> Views | None:
        if self.augmentation == "none":
            return None
        return Views.crops_and_flips(*self.dataset.shape[1:], self.device)

    def _seen(self, partition: Partition, seed: int) -> tuple[Examples, Examples]:
        data = self.dataset
        transforms.check(partition.transforms, partition.per_stage, data.kind, f"data set {data.name}")
        if not (partition.transforms or partition.per_stage):
            return self.examples
        owner = np.full(len(data.train_y), -1)
        for part in partition.parts:
            owner[part.indices] = part.owner
        strengths = {name: np.where(owner >= 0, values[owner], 0.0) for name, values in partition.transforms.items()}
        permuted = "permutation" in partition.per_stage
        pool = self._transformed(
            data.train_x, data.train_y, strengths, partition.details["stage"] if permuted else None, seed
        )
        if not permuted:
            return pool, Examples.normalised(data.test_x, data.test_y, data.mean, data.std, data.maximum, self.device)
        return pool, self._transformed(data.test_x, data.test_y, {}, _turn(len(data.test_y), partition.stages), seed)

    def _transformed(self, x, y, strengths: Mapping[str, np.ndarray], stages: np.ndarray | None, seed: int):
        data = self.dataset
        x = transforms.transformed(x, data.mean, data.std, data.maximum, strengths, stages, seed)
        return Examples.normalised(x, y, (), (), device=self.device)


def labels(partition: Partition, true: np.ndarray) -> np.ndarray:
    """int64 [n]: observed labels of training and validation examples, true ones of all others."""
    found = np.array(true, np.int64)
    for part in (partition.train, partition.validation):
        found[part.indices] = partition.details["observed"][part.indices]
    return found


def _turn(examples: int, stages: int) -> np.ndarray:
    """The stage under which each example of the global test set is seen: one after the other in turn."""
    return np.arange(examples) % stages


def _domains(attributes: Mapping[str, Mapping[str, Any]], test: Mapping[str, np.ndarray]) -> Iterator:
    """``test_accuracy_<attribute>_<value>`` and its test examples, for attributes whose use is "domain"."""
    for attribute, about in attributes.items():
        if about["use"] != "domain":
            continue
        for value, name in enumerate(about["names"]):
            rows = np.flatnonzero(np.asarray(test[attribute]) == value)
            if len(rows):
                yield f"test_accuracy_{attribute}_{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}", rows


def _stages(partition: Partition, data: Dataset) -> Iterator:
    """``stage_accuracy_<k>`` and its test examples: those that are seen as in stage k, or those of its classes.

    Nothing where a class comes in several stages: then the global test set has no part that is one stage's test.
    """
    if partition.stages == 1:
        return
    stage, numbers = partition.details["stage"], range(partition.stages)
    if partition.per_stage:
        turn = _turn(len(data.test_y), partition.stages)
        yield from ((f"stage_accuracy_{k}", np.flatnonzero(turn == k)) for k in numbers)
        return
    classes = [np.unique(np.asarray(data.train_y)[stage == k]) for k in numbers]
    if len(np.unique(np.concatenate(classes))) == sum(len(own) for own in classes):
        yield from ((f"stage_accuracy_{k}", np.flatnonzero(np.isin(data.test_y, classes[k]))) for k in numbers)
