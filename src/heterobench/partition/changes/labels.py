"""Labels that clients see wrongly, see of some examples only, or never see of some classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from heterobench.config.numbers import Count, Label, PositiveShare, ProperShare, Share
from heterobench.config.strict import Strict
from heterobench.errors import PartitionError
from heterobench.partition.changes.registry import View, change, exactly_one, random_places


class NoisyLabels(Strict):
    kind: Literal["symmetric", "pair"] = Field(
        "symmetric", description="symmetric: to any other class alike; pair: to the next class"
    )
    rate: Share | None = Field(None, description="probability that a label is flipped, the same for all clients")
    maximum: Share | None = Field(None, description="a client's rate is uniform in [0, maximum]")

    @model_validator(mode="after")
    def _one_rule(self):
        return exactly_one(self, "rate", "maximum")


@change("noisy-labels", NoisyLabels)
def noisy_labels(view: View, options: NoisyLabels, generator: np.random.Generator) -> View:
    """Each label is flipped independently with its client's probability; `observed` is what clients then train on.

    symmetric: to one of the K - 1 other classes, uniformly. pair: from class k to class k + 1 mod K, in the order of
    the labels that occur. So a client's share of wrong labels is its rate in expectation.

    Sources: the two kinds of van Rooyen et al., arXiv 1505.07634, and Han et al. (Co-teaching), arXiv 1804.06872.
    FedCorr (Xu et al., arXiv 2204.04677) draws rates per client and replaces a label by any class, the true one
    included: its rate r is r (K - 1) / K here.
    """
    if view.observed is not None:
        raise PartitionError("two changes flip labels; keep one")
    labels = view.columns.labels
    classes, number = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise PartitionError("noisy-labels: needs at least two classes")
    rates = np.full(view.clients, options.rate or 0.0)
    if options.maximum is not None:
        rates = generator.uniform(0, options.maximum, view.clients)
    flipped = generator.random(len(labels)) < _of_owner(view, rates, 0.0)
    step = generator.integers(1, len(classes), len(labels)) if options.kind == "symmetric" else 1
    other = classes[(number + step) % len(classes)]
    return replace(view, observed=np.where(flipped, other, labels).astype(np.int64))


class LimitedLabels(Strict):
    share: PositiveShare = Field(description="of each client's examples whose labels the client knows")
    stratified: bool = Field(False, description="that share of each of the client's classes, instead of all together")


@change("limited-labels", LimitedLabels)
def limited_labels(view: View, options: LimitedLabels, generator: np.random.Generator) -> View:
    """A client knows the labels of floor(share * size + 1/2) of its examples, at least one; drawn uniformly.

    stratified: the rule holds for each class of the client, so that every class it holds has a labelled example.

    Source: Jeong et al., "Federated Semi-Supervised Learning with Inter-Client Consistency & Disjoint Learning"
    (FedMatch), arXiv 2006.12097, labels at the client: a few of each class; that is `stratified`. Deviation: a share
    instead of a number.
    """
    group = view.owner.astype(np.int64)
    if options.stratified:
        classes, number = np.unique(view.columns.labels, return_inverse=True)
        group = np.where(view.owner < 0, -1, group * len(classes) + number)
    place, size = random_places(group, generator)
    labelled = place < np.maximum(np.floor(options.share * size + 0.5), 1)
    return _labelled(view, labelled)


class ServerLabels(Strict):
    share: ProperShare = Field(description="of each class's examples that the server holds")


@change("server-labels", ServerLabels)
def server_labels(view: View, options: ServerLabels, generator: np.random.Generator) -> View:
    """Labels at the server: it takes floor(share * size + 1/2) examples of each class, at least one, drawn uniformly
    from all clients together; clients keep the others and know no label at all.

    Examples of clients that are held out stay where they are. A client may end below the partition's `minimum`, which
    counts before changes.

    Source: Jeong et al., FedMatch, arXiv 2006.12097, labels at the server: a few of each class. Deviation: a share
    instead of a number.
    """
    if view.server is not None:
        raise PartitionError("two changes give examples to the server; keep one")
    _, number = np.unique(view.columns.labels, return_inverse=True)
    free = view.owner >= 0
    if view.held_out is not None:
        free &= ~_of_owner(view, view.held_out, True)
    place, size = random_places(np.where(free, number, -1), generator)
    server = free & (place < np.maximum(np.floor(options.share * size + 0.5), 1))
    kept = replace(view, owner=np.where(server, -1, view.owner).astype(np.int32), server=server)
    return _labelled(kept, np.zeros(len(server), bool))


class UnseenClasses(Strict):
    number: Count | None = Field(None, description="so many classes, drawn")
    classes: list[Label] | None = Field(None, min_length=1, description="these labels")

    @model_validator(mode="after")
    def _one_rule(self):
        return exactly_one(self, "number", "classes")


@change("unseen-classes", UnseenClasses)
def unseen_classes(view: View, options: UnseenClasses, generator: np.random.Generator) -> View:
    """Of some classes no client knows a label: their examples are there, unlabelled.

    This is the open-set (open-world) setting of federated semi-supervised learning: with `limited-labels` before it,
    labelled examples are of seen classes only, and the unlabelled ones are of all classes. Tests score all classes.

    Source: Zhang et al., "Towards Unbiased Training in Federated Open-world Semi-supervised Learning" (FedoSSL), arXiv
    2305.00771: labelled data of 6 of CIFAR-10's 10 classes, half of which are labelled. Deviation: FedoSSL also has
    classes that are unseen at some clients only; here a class is seen by all or by none.
    """
    classes = np.unique(view.columns.labels)
    if options.classes is None:
        if options.number >= len(classes):
            raise PartitionError(f"unseen-classes: number {options.number} leaves none of {len(classes)} classes")
        unseen = generator.choice(classes, options.number, replace=False)
    else:
        unseen = np.array(options.classes)
        if strange := set(options.classes) - set(classes.tolist()):
            raise PartitionError(f"unseen-classes: no example has the labels {sorted(strange)}")
        if len(np.unique(unseen)) == len(classes):
            raise PartitionError("unseen-classes: every class would be unseen")
    return _labelled(view, ~np.isin(view.columns.labels, unseen))


def _labelled(view: View, labelled: np.ndarray) -> View:
    """A label is known if no change hides it."""
    return replace(view, labelled=labelled if view.labelled is None else view.labelled & labelled)


def _of_owner(view: View, values: np.ndarray, nobody: float) -> np.ndarray:
    """Each example's value of its client, [n]."""
    return np.where(view.owner >= 0, values[view.owner], nobody)
