"""Label skew, class after class: every class is divided over the clients."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from heterobench.config.numbers import Count, Positive
from heterobench.config.strict import Strict
from heterobench.errors import PartitionError
from heterobench.partition.schemes.drawing import cut, enough, equal, hand_out, named, search, sorted_by
from heterobench.partition.schemes.registry import scheme


class DirichletByClass(Strict):
    alpha: Positive = Field(description="concentration; small: each class sits with few clients")


@scheme("dirichlet-by-class", DirichletByClass)
def dirichlet_by_class(columns, clients, options, generator, minimum):
    """Each class is divided over clients in proportions p ~ Dir(alpha, ..., alpha), with NIID-Bench's cap.

    Classes are taken in the order of their labels. For each: draw p; set p_i = 0 for every client that holds
    n/clients examples or more already; normalise; cut the shuffled examples of the class at
    floor(cumulative p * size of the class). If a client ends below `minimum`, draw all classes again.

    Source: Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study", arXiv 2102.02079
    (p_k ~ Dir(beta)); the procedure is that of NIID-Bench's utils.py, partition "noniid-labeldir", where
    `minimum` is 10. The papers do not mention the cap: it comes with the code of Yurochkin et al. (see
    `dirichlet_by_class_uncapped`). Without it, or with a prior per client, it would be another scheme: equal
    alphas of different schemes do not compare.

    Kept as it is there: rounding down leaves the remainder of a class to the last client with p_i > 0, so
    that client sees an example or two of nearly every class until it is full. Different here: where all
    clients with room drew p_i = 0 the reference divides 0 by 0, and we draw again; a label without examples
    is no class; rounding cannot give a full client an example.
    """
    return _dirichlet("dirichlet-by-class", columns.labels, clients, options, generator, minimum, capped=True)


@scheme("dirichlet-by-class-uncapped", DirichletByClass)
def dirichlet_by_class_uncapped(columns, clients, options, generator, minimum):
    """Each class is divided over clients in proportions p ~ Dir(alpha, ..., alpha), whatever clients hold already.

    As `dirichlet_by_class` without the cap: classes are divided independently of each other, so sizes are more uneven
    and the share of a class that a client holds has exactly the Dirichlet's mean 1/N and variance
    (N - 1) / (N^2 (N alpha + 1)), up to rounding.

    Source: Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", arXiv 1905.12022
    (p_k ~ Dir(0.5) over the learners). Their own code has the cap that their text lacks; FL-bench's
    data/utils/schemes/dirichlet.py has had it in older versions and has none since, and flwr-datasets'
    DirichletPartitioner is this scheme with self_balancing=False.

    Different here: examples and owners are the reference's in distribution, but no draw is repeated more than 1000
    times, where the reference may never end.
    """
    return _dirichlet("dirichlet-by-class-uncapped", columns.labels, clients, options, generator, minimum, capped=False)


def _dirichlet(name, labels, clients, options, generator, minimum, capped):
    sizes = np.unique(labels, return_counts=True)[1]

    def draw():
        return divide(sizes, clients, options.alpha, generator, capped)

    return hand_out(labels, search(name, options, draw, len(labels), clients, minimum), generator)


def divide(
    sizes: np.ndarray, clients: int, alpha: float, generator: np.random.Generator, capped: bool
) -> np.ndarray | str:
    """Classes of `sizes` [classes] over clients, each in proportions ~ Dir(alpha): int [classes, clients].

    capped: a client that holds sizes.sum() / clients examples or more gets none of later classes. Where the proportions
    leave no client a share, the answer is that sentence.
    """
    counts = np.zeros((len(sizes), clients), int)
    held = np.zeros(clients, int)
    room = sizes.sum() / clients if capped else np.inf
    for k, size in enumerate(sizes):
        p = generator.dirichlet(np.full(clients, alpha))
        cumulative = np.cumsum(np.where(held < room, p, 0.0))
        if not cumulative[-1] > 0:
            return "every client with room drew 0"
        counts[k] = cut(cumulative, size)
        held += counts[k]
    return counts


class Shards(Strict):
    shards_per_client: Count = 2


@scheme("shards", Shards)
def shards(columns, clients, options, generator, minimum):
    """Examples sorted by label, cut into clients * shards_per_client shards; each client gets random shards.

    Shards are equal up to one example (the source divides evenly: 200 shards of 300). Examples of one label
    are shuffled first, so the order of the data's files has no say. A shard may straddle two labels.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    arXiv 1602.05629, section 3 ("pathological non-IID": 100 clients, 2 shards each).
    """
    labels = columns.labels
    count = clients * options.shards_per_client
    sizes = equal(len(labels), count)
    holder = np.repeat(np.arange(clients, dtype=np.int32), options.shards_per_client)
    holder = holder[generator.permutation(count)]
    held = np.bincount(holder, weights=sizes, minlength=clients).astype(int)
    enough("shards", options, held, minimum)
    owner = np.empty(len(labels), np.int32)
    owner[sorted_by(labels, generator)] = np.repeat(holder, sizes)
    return owner


class KClasses(Strict):
    classes_per_client: Count


@scheme("k-classes", KClasses)
def k_classes(columns, clients, options, generator, minimum):
    """Each client owns exactly k classes; the examples of a class are divided equally among its owners.

    Of K classes, client i owns class i mod K and k - 1 others drawn uniformly without replacement. Where
    a class does not divide evenly its first owners hold one example more.

    Source: Li et al., arXiv 2102.02079 ("#C=k"); NIID-Bench's utils.py, partition "noniid-#label<k>".

    With fewer clients than classes a class may be left without owner, where the reference fails. Here, as
    where a class has fewer examples than owners or a client fewer than `minimum`, the draw is repeated. No
    example is ever left out: if clients * k < K, PartitionError is raised at once.
    """
    labels = columns.labels
    sizes = np.unique(labels, return_counts=True)[1]
    total, k = len(sizes), options.classes_per_client
    if k > total:
        raise PartitionError(f"{named('k-classes', options)}: there are {total} classes; take at most {total}")
    if clients * k < total:
        raise PartitionError(
            f"{named('k-classes', options)}: {clients} clients cannot own {total} classes, and no example "
            f"may be lost; take {-(-total // clients)} classes per client or {-(-total // k)} clients"
        )

    def draw():
        rank = generator.random((clients, total))
        rank[np.arange(clients), np.arange(clients) % total] = -1  # the class that client i always owns
        mine = np.argsort(rank, axis=1)[:, :k]
        owned = np.zeros((total, clients), bool)
        owned[mine, np.arange(clients)[:, None]] = True
        owners = owned.sum(1)
        if np.any(owners == 0):
            return "a class had no owner"
        if np.any(sizes < owners):
            return "a class had fewer examples than owners"
        place = np.cumsum(owned, 1) - 1  # of each owner among the owners of its class
        return owned * ((sizes // owners)[:, None] + (place < (sizes % owners)[:, None]))

    return hand_out(labels, search("k-classes", options, draw, len(labels), clients, minimum), generator)
