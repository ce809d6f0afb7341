"""Streams: each client's examples come in stages, one after the other."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from heterobench.config.numbers import Few, Positive
from heterobench.config.strict import Strict
from heterobench.errors import PartitionError
from heterobench.partition.changes.registry import View, change, random_places


class ClassIncremental(Strict):
    tasks: Few = Field(ge=2, description="groups of classes, one a stage")
    order: Literal["drawn", "label"] = Field("drawn", description="in which the classes come")


@change("class-incremental", ClassIncremental)
def class_incremental(view: View, options: ClassIncremental, generator: np.random.Generator) -> View:
    """The classes come in groups: stage t has the examples of the t-th group, for all clients the same.

    Classes in a drawn order are cut into `tasks` groups whose numbers differ by at most one, the first ones larger.

    Source: Dong et al., "Federated Class-Incremental Learning" (GLFC), arXiv 2203.11473. Deviation: there, clients of
    three kinds see old, new or both classes' examples; here all clients go on to the next stage together.
    """
    classes, number = np.unique(view.columns.labels, return_inverse=True)
    if options.tasks > len(classes):
        raise PartitionError(f"class-incremental: {options.tasks} tasks of {len(classes)} classes; take fewer tasks")
    order = generator.permutation(len(classes)) if options.order == "drawn" else np.arange(len(classes))
    stage = np.empty(len(classes), int)
    for task, group in enumerate(np.array_split(order, options.tasks)):
        stage[group] = task
    return view.staged(stage[number])


class PermutedTasks(Strict):
    tasks: Few = Field(ge=2, description="stages, each with a permutation of its own")


@change("permuted-tasks", PermutedTasks)
def permuted_tasks(view: View, options: PermutedTasks, generator: np.random.Generator) -> View:
    """Each client's shuffled examples are dealt out to the stages; each stage permutes all inputs in its own way.

    A client's stages differ by at most one example, the first ones larger.

    Source: Goodfellow et al., "An Empirical Investigation of Catastrophic Forgetting in Gradient-Based Neural
    Networks", arXiv 1312.6211 (permuted MNIST). Deviation: there, every stage has all examples, permuted anew; here
    every example comes once, so that all streams have the examples of one data set.
    """
    place, _ = random_places(view.owner, generator)
    return view.staged(place % options.tasks, ("permutation",))


class Drift(Strict):
    stages: Few = Field(ge=2)
    alpha: Positive = Field(description="concentration of both priors; small: the end has other classes")


@change("drift", Drift)
def drift(view: View, options: Drift, generator: np.random.Generator) -> View:
    """Each client's class distribution moves from one prior to another, in equal steps.

    Client i draws p_i, q_i ~ Dir(alpha, ..., alpha) over classes. An example of class k belongs to the beginning with
    probability p_ik / (p_ik + q_ik), else to the end; one of the beginning is in stage t of T with probability
    proportional to 1 - t / (T - 1), one of the end with probability proportional to t / (T - 1), t = 0 ... T - 1. So
    the first stage is all beginning, the last all end, and a stage between them mixes both linearly. Nothing moves
    between clients, and a client's stages need not be of one size; a small client may have none in a stage.

    Source: no reference procedure; the linear mixture of two distributions is "gradual drift" of Gama et al., "A
    Survey on Concept Drift Adaptation", ACM Computing Surveys 46(4), 2014.
    """
    classes, number = np.unique(view.columns.labels, return_inverse=True)
    concentration = np.full(len(classes), options.alpha)
    begin, end = (np.nan_to_num(generator.dirichlet(concentration, size=view.clients)) for _ in range(2))
    total = begin + end
    late = np.divide(end, total, out=np.full_like(total, 0.5), where=total > 0)
    belongs_late = generator.random(len(number)) < late[np.maximum(view.owner, 0), number]
    falling = np.linspace(1, 0, options.stages)
    bounds = np.cumsum(falling / falling.sum())[:-1]
    stage = np.searchsorted(bounds, generator.random(len(number)), side="right")
    return view.staged(np.where(belongs_late, options.stages - 1 - stage, stage))
