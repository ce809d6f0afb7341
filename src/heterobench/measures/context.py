"""What metrics are computed from: the data that judge all models of a seed alike, and one model with its answers.

The probe is a fixed choice of training examples, as clients see and label them, for what costs several passes: the
gradients and the curvature of a model. It depends on the seed and the partition only, so all methods have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from heterobench import keyed, personal
from heterobench.data.dataset import Dataset
from heterobench.federation import Examples, Federation, joined, sizes
from heterobench.task import Batch, Classification, hits

PROBE = 256  # examples, at most
CLIENTS, CLIENT_EXAMPLES = 64, 2048  # of what clients' gradients are compared by
KEPT = 2**26  # logits of personal models that are kept in memory; where there are more, they are computed again


class ClientProbe(NamedTuple):
    """Two disjoint sets of training examples of one client, rows of the pool, and how many examples it has at all."""

    first: np.ndarray
    second: np.ndarray
    examples: int


class Attribute(NamedTuple):
    """A protected attribute: `values` int [pool], -1 where not known, and how many there are."""

    values: np.ndarray
    number: int


@dataclass(frozen=True, eq=False)
class EvaluationData:
    """What every model of a seed is judged on: the federation, and what is known of the data set.

    `dataset` is its name, `classes` how many it has; `protected` maps attributes whose use is "protected" to their
    values in the pool.
    """

    task: Classification
    federation: Federation
    seed: int
    dataset: str = ""
    classes: int = 0
    protected: Mapping[str, Attribute] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Classification, federation: Federation, seed: int, dataset: Dataset) -> EvaluationData:
        protected = {
            name: Attribute(np.asarray(dataset.train[name]), len(about["names"]))
            for name, about in dataset.manifest["attributes"].items()
            if about["use"] == "protected"
        }
        return cls(task, federation, seed, dataset.name, len(dataset.classes), protected)

    @cached_property
    def held_out(self) -> np.ndarray:
        """bool [clients]: who never trains."""
        held = self.federation.held_out
        return np.zeros(len(self.federation), bool) if held is None else held

    @cached_property
    def test_sizes(self) -> np.ndarray:
        """int64 [clients]: numbers of clients' own test examples."""
        return sizes(self.federation.test)

    @cached_property
    def test_rows(self) -> np.ndarray:
        """int64 [n]: clients' own test examples in the pool, one client after the other."""
        return joined(self.federation.test)

    @cached_property
    def probe(self) -> Batch:
        """At most `PROBE` training examples of all clients."""
        rows = np.sort(joined(self.federation.train))
        drawn = keyed.generator(self.seed, "probe").permutation(len(rows))[:PROBE]
        return self.federation.pool.batch(rows[np.sort(drawn)])

    @cached_property
    def test_probe(self) -> Batch:
        """At most `PROBE` examples of the global test set."""
        test = self.federation.global_test
        drawn = keyed.generator(self.seed, "test probe").permutation(len(test))[:PROBE]
        return test.batch(np.sort(drawn))

    @cached_property
    def client_probes(self) -> list[ClientProbe]:
        """Of at most `CLIENTS` clients; `CLIENT_EXAMPLES` in all, but at least two each, where a client has them."""
        clients, train = self.federation.active, self.federation.train
        if len(clients) > CLIENTS:
            clients = np.sort(keyed.generator(self.seed, "probed clients").choice(clients, CLIENTS, replace=False))
        each = max(2, CLIENT_EXAMPLES // max(1, len(clients)))
        probes = []
        for client in clients:
            rows = np.asarray(train[int(client)])
            drawn = rows[keyed.generator(self.seed, "client probe", int(client)).permutation(len(rows))[:each]]
            probes.append(ClientProbe(drawn[::2], drawn[1::2], len(rows)))
        return probes


class Answers(NamedTuple):
    """Logits float32 [n, C] of one model and labels int64 [n]: global test set; clients' validation examples."""

    test: Tensor
    test_labels: Tensor
    validation: Tensor
    validation_labels: Tensor


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A saved model: theta [P], or personal models [clients, P]; what it says is computed once.

    `baseline` is the theta [P] that a path is looked at to, where there is one.
    """

    data: EvaluationData
    theta: Tensor
    baseline: Tensor | None = None

    @property
    def personal(self) -> bool:
        return self.theta.dim() == 2

    @cached_property
    def thetas(self) -> list[Tensor]:
        """The global model; or each client's own, held out clients aside: they have none of their own."""
        return [self.theta] if not self.personal else [self.theta[k] for k in np.flatnonzero(~self.data.held_out)]

    @cached_property
    def _kept(self) -> list[Answers] | None:
        federation = self.data.federation
        examples = len(federation.global_test) + len(federation.all_validation)
        first = self._answers(self.thetas[0]) if self.thetas else None
        if first is not None and len(self.thetas) > 1 and len(self.thetas) * examples * first.test.shape[1] > KEPT:
            return None
        return [first, *map(self._answers, self.thetas[1:])] if first is not None else []

    def _answers(self, theta: Tensor) -> Answers:
        federation = self.data.federation
        test = _judged(self.data.task, theta, federation.global_test)
        return Answers(*test, *_judged(self.data.task, theta, federation.pool, federation.all_validation))

    @property
    def answers(self) -> Iterator[Answers]:
        """Of each of `thetas`."""
        yield from (map(self._answers, self.thetas) if self._kept is None else self._kept)

    def mean(self, measure: Callable[[Answers], Mapping[str, float]]) -> dict[str, float]:
        """What `measure` says of the global model; of personal ones the mean over clients' own, NaN if one is NaN."""
        found = [measure(answers) for answers in self.answers]
        return {name: float(np.mean([each[name] for each in found])) for name in (found[0] if found else ())}

    @cached_property
    def test_scores(self) -> dict[str, np.ndarray]:
        """Float [n] of clients' own test examples, each judged by its client's model: "loss", "accuracy" (0 or 1).

        Accuracies by a model that has diverged are NaN.
        """
        data = self.data
        if self.personal:
            found = personal.scores(data.task, data.federation.pool, self.theta, data.federation.test)
        else:
            found = data.task.scores(self.theta, data.federation.pool.chunks(data.test_rows))
        return {name: values.cpu().numpy() for name, values in found.items()}


def _judged(task: Classification, theta: Tensor, examples: Examples, rows: np.ndarray | None = None):
    """Logits [n, C] and labels [n], on the CPU."""
    parts = [(task.forward(theta, batch.x).cpu(), batch.y.cpu()) for batch in examples.chunks(rows)]
    if not parts:
        one = task.forward(theta, examples.batch(np.zeros(1, np.int64)).x).cpu()
        return one[:0], torch.zeros(0, dtype=torch.int64)
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def losses(logits: Tensor, labels: Tensor) -> np.ndarray:
    """Cross-entropy of each example, float [n], in nats: the bits of `Classification.scores`."""
    return functional.cross_entropy(logits, labels, reduction="none").numpy()


def right(logits: Tensor, labels: Tensor) -> np.ndarray:
    """Whether the class with the highest logit is the label: 1 or 0, float [n]; NaN throughout of a diverged model."""
    return hits(logits, labels).numpy()
