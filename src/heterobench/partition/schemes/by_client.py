"""Label skew, client by client: every client has a distribution over classes and draws its examples from it.

Both schemes draw without replacement, one example after the other; they differ in whose turn it is.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from heterobench.config.numbers import ExamplesOrNone, Positive, Spread
from heterobench.config.strict import Strict
from heterobench.errors import PartitionError
from heterobench.partition.schemes.drawing import enough, equal, hand_out, search
from heterobench.partition.schemes.quantity import log_normal_sizes
from heterobench.partition.schemes.registry import scheme


class DirichletByClient(Strict):
    alpha: Positive = Field(description="mean concentration of a class; small: a client sees few classes")
    prior: Literal["uniform", "data"] = Field(
        "uniform", description="mean of the clients' distributions: all classes alike, or as frequent as in the data"
    )


@scheme("dirichlet-by-client", DirichletByClient)
def dirichlet_by_client(columns, clients, options, generator, minimum):
    """Client after client draws p_i ~ Dir(alpha * K * prior) over the K classes, then its examples from p_i.

    Sizes are equal up to one example. Client 0 draws all its examples first, each of a class ~ p_0, then client 1,
    and so on; a class that has run out is drawn again. So the first clients follow their p_i exactly, and the last
    ones hold what is left, whatever their p_i say.

    For a client that meets no empty class and holds s examples, the squared class shares sum to
    (1 - 1/s) E + 1/s on average, where E = sum_k a_k (a_k + 1) / (a_0 (a_0 + 1)), a = alpha * K * prior, a_0 = sum a.

    Sources: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", arXiv 1909.06335 (q ~ Dir(alpha p)); Reddi et al., arXiv 2003.00295; pfl-research's
    pfl/data/partition.py. Alpha is pfl-research's, one class' concentration; Hsu et al.'s is the sum over classes, K
    times as much. `prior: data` is their p for classes that are not balanced.

    Different here: pfl-research flattens a client's p_i a little after every 20 * s draws and drops the examples that
    do not fill a client; here nothing is flattened and nothing dropped, and a client whose p_i gives all remaining
    classes weight 0 draws from them alike.
    """
    labels = columns.labels
    sizes = enough("dirichlet-by-client", options, equal(len(labels), clients), minimum)
    turns = np.repeat(np.arange(clients, dtype=np.int32), sizes)
    pool = np.unique(labels, return_counts=True)[1]
    mean = pool / pool.sum() if options.prior == "data" else np.full(len(pool), 1 / len(pool))
    priors = class_priors(options.alpha * len(pool) * mean, clients, generator)
    return hand_out(labels, class_counts(turns, priors, pool, generator), generator)


class DirichletInner(Strict):
    alpha: Positive = Field(description="concentration of every class; small: a client sees few classes")
    sigma: Spread = Field(0.0, description="client sizes are log-normal with this sigma; 0: equal sizes")
    sizes: list[ExamplesOrNone] | None = Field(None, description="client sizes, instead of sigma")

    @model_validator(mode="after")
    def _one_rule(self):
        if self.sizes is not None and self.sigma:
            raise ValueError("give sizes or sigma, not both")
        return self


@scheme("dirichlet-inner", DirichletInner)
def dirichlet_inner(columns, clients, options, generator, minimum):
    """Clients with p_i ~ Dir(alpha, ..., alpha) over classes take turns at random, one example at a time.

    Sizes are given first. Then, until all are full: a client that is not full, uniformly at random, takes one example
    of a class ~ p_i; a class that has run out is drawn again. So what the last draws find is spread over the clients,
    and large clients, which are filled last, are nearest to the mixture that is left.

    Sources: Acar et al., "Federated Learning Based on Dynamic Regularization", arXiv 2111.04263; FedDyn's
    utils_dataset.py, rule "Dirichlet" (its unbalanced_sgm is our sigma), which FedSpeed's, FedCM's and others' code
    took over; flwr-datasets' InnerDirichletPartitioner.

    Different here: FedDyn's equal sizes are floor(n / clients), ours are all examples; its log-normal sizes are rounded
    down and the remainder goes to one client, ours are cut at cumulative shares. FedDyn draws for ever where a client's
    p_i gives the remaining classes weight 0, and flwr-datasets divides 0 by 0; here such a client draws from
    the remaining classes alike.
    """
    labels = columns.labels
    sizes = _sizes(len(labels), clients, options, generator, minimum)
    turns = _random_turns(sizes, generator)
    pool = np.unique(labels, return_counts=True)[1]
    priors = class_priors(np.full(len(pool), options.alpha), clients, generator)
    return hand_out(labels, class_counts(turns, priors, pool, generator), generator)


def _sizes(examples, clients, options, generator, minimum):
    if options.sizes is not None:
        if len(options.sizes) != clients or sum(options.sizes) != examples:
            raise PartitionError(
                f"dirichlet-inner: sizes must be {clients} numbers with sum {examples}, found {len(options.sizes)} "
                f"with sum {sum(options.sizes)}"
            )
        return enough("dirichlet-inner", options, np.array(options.sizes), minimum)
    if not options.sigma:
        return enough("dirichlet-inner", options, equal(examples, clients), minimum)

    def draw():
        return log_normal_sizes(examples, clients, options.sigma, generator)[None]

    return search("dirichlet-inner", options, draw, examples, clients, minimum)[0]


def _random_turns(sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The client of each turn, int32 [sizes.sum()], where each turn is that of a client that is not full, uniformly.

    Each client has a clock that rings at rate one until it is full: who of those that still ring is next, is uniform.
    """
    client = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    rings = np.cumsum(generator.exponential(size=len(client)))
    first = (np.cumsum(sizes) - sizes)[client]
    rings -= np.where(first > 0, rings[first - 1], 0.0)
    return client[np.argsort(rings, kind="stable")]


def class_priors(alpha: np.ndarray, clients: int, generator: np.random.Generator) -> np.ndarray:
    """Clients' distributions over classes, each ~ Dir(alpha), [clients, classes]; all zeros where a draw underflows."""
    return np.nan_to_num(generator.dirichlet(alpha, size=clients))


def class_counts(turns: np.ndarray, priors: np.ndarray, pool: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """How many examples of each class each client takes, int [classes, clients].

    In turn j client turns[j] takes one example of a class ~ priors[turns[j]] among those that are left of `pool` (int
    [classes], as many in all as there are turns). Drawing again what has run out is the same as drawing from the prior
    restricted to what is left, so all turns are drawn at once, and whenever a class has run out only the later turns
    that drew it are drawn again.
    """
    drawn = np.empty(len(turns), np.int16)  # two bytes: numpy sorts them by radix
    left, open_classes = pool.copy(), np.ones(len(pool), bool)
    start, again = 0, np.arange(len(turns))
    while True:
        drawn[again] = _draw_classes(turns[again], priors, open_classes, generator)
        asked = np.bincount(drawn[start:], minlength=len(pool))
        over = np.flatnonzero(asked > left)
        if not len(over):
            break
        by_class = np.argsort(drawn[start:], kind="stable")
        refused = by_class[(np.cumsum(asked) - asked)[over] + left[over]]  # the first turn that finds nothing
        out, first = over[refused.argmin()], refused.min()
        left -= np.bincount(drawn[start : start + first], minlength=len(pool))
        open_classes[out] = False
        start += first
        again = start + np.flatnonzero(drawn[start:] == out)
    clients = len(priors)
    return np.bincount(drawn.astype(np.int64) * clients + turns, minlength=len(pool) * clients).reshape(-1, clients)


def _draw_classes(turns, priors, open_classes, generator):
    """A class ~ priors[turns[j]] among the open ones for each turn; any of them where that prior has no open class."""
    clients, row = np.unique(turns, return_inverse=True)
    weights = np.where(open_classes, priors[clients], 0.0)
    weights[weights.sum(1) == 0] = open_classes
    cumulative = np.cumsum(weights, 1)
    cumulative /= cumulative[:, -1:]  # exactly one from the last open class on
    point = generator.random(len(turns))
    found = np.zeros(len(turns), np.int16)
    for bound in cumulative.T[:-1]:
        found += point >= bound[row]
    return found
