"""How examples are given to clients: one pure function per scheme, registered under its exact name.

A scheme is ``(labels [n], clients, options, generator, minimum) -> owner int32 [n]``, the client of each
example. Every example gets one owner and every client `minimum` or more; else it raises PartitionError.
"Dirichlet" and "k classes" mean different procedures in different papers; a name here means one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from heterobench.config.schema import PartitionFile
from heterobench.config.strict import Strict, build, nearest
from heterobench.errors import ConfigurationError, PartitionError

MOST_DRAWS = 1000  # of a scheme that draws again until `minimum` holds


@dataclass(frozen=True)
class Scheme:
    name: str
    options: type[Strict]
    assign: Callable[[np.ndarray, int, Strict, np.random.Generator, int], np.ndarray]


SCHEMES: dict[str, Scheme] = {}


def scheme(name: str, options: type[Strict]):
    """Register the decorated function as the scheme `name`."""

    def register(function):
        if name in SCHEMES:
            raise ValueError(f"two schemes are called {name!r}")
        SCHEMES[name] = Scheme(name, options, function)
        return function

    return register


def check(file: PartitionFile, where: str) -> tuple[Scheme, Strict]:
    """The scheme of a partition file and its validated options.

    Raises ConfigurationError, opened by `where`, for an unknown scheme, an unknown option or a wrong value.
    """
    if file.scheme not in SCHEMES:
        raise ConfigurationError(f"{where}: scheme: no scheme {file.scheme!r}{nearest(file.scheme, SCHEMES)}")
    found = SCHEMES[file.scheme]
    return found, build(found.options, file.options, f"{where}: options")


class NoOptions(Strict):
    pass


@scheme("iid", NoOptions)
def iid(labels, clients, options, generator, minimum):
    """Shuffled examples in equal parts: sizes differ by at most one, the first clients hold the larger."""
    sizes = _enough("iid", options, _equal(len(labels), clients), minimum)
    return _hand_out(np.zeros(len(labels), int), sizes[None], generator)


class DirichletByClass(Strict):
    alpha: float = Field(gt=0, description="concentration; small: each class sits with few clients")


@scheme("dirichlet-by-class", DirichletByClass)
def dirichlet_by_class(labels, clients, options, generator, minimum):
    """Each class is divided over clients in proportions p ~ Dir(alpha, ..., alpha), with NIID-Bench's cap.

    Classes are taken in the order of their labels. For each: draw p; set p_i = 0 for every client that holds
    n/clients examples or more already; normalise; cut the shuffled examples of the class at
    floor(cumulative p * size of the class). If a client ends below `minimum`, draw all classes again.

    Source: Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study", arXiv 2102.02079
    (p_k ~ Dir(beta)); the procedure is that of NIID-Bench's utils.py, partition "noniid-labeldir", where
    `minimum` is 10. Without the cap, or with a prior per client, it would be another scheme: equal alphas of
    different schemes do not compare.

    Kept as it is there: rounding down leaves the remainder of a class to the last client with p_i > 0, so
    that client sees an example or two of nearly every class until it is full. Different here: where all
    clients with room drew p_i = 0 the reference divides 0 by 0, and we draw again; a label without examples
    is no class; rounding cannot give a full client an example.
    """
    classes = np.unique(labels, return_counts=True)[1]
    share = len(labels) / clients

    def draw():
        counts = np.zeros((len(classes), clients), int)
        held = np.zeros(clients, int)
        for k, size in enumerate(classes):
            p = generator.dirichlet(np.full(clients, options.alpha))
            cumulative = np.cumsum(np.where(held < share, p, 0.0))
            if not cumulative[-1] > 0:
                return "every client with room drew 0"
            counts[k] = _cut(cumulative, size)
            held += counts[k]
        return counts

    counts = _search("dirichlet-by-class", options, draw, len(labels), clients, minimum)
    return _hand_out(labels, counts, generator)


class Shards(Strict):
    shards_per_client: int = Field(2, ge=1)


@scheme("shards", Shards)
def shards(labels, clients, options, generator, minimum):
    """Examples sorted by label, cut into clients * shards_per_client shards; each client gets random shards.

    Shards are equal up to one example (the source divides evenly: 200 shards of 300). Examples of one label
    are shuffled first, so the order of the data's files has no say. A shard may straddle two labels.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    arXiv 1602.05629, section 3 ("pathological non-IID": 100 clients, 2 shards each).
    """
    count = clients * options.shards_per_client
    sizes = _equal(len(labels), count)
    holder = np.repeat(np.arange(clients, dtype=np.int32), options.shards_per_client)
    holder = holder[generator.permutation(count)]
    held = np.bincount(holder, weights=sizes, minlength=clients).astype(int)
    _enough("shards", options, held, minimum)
    owner = np.empty(len(labels), np.int32)
    owner[_sorted_by(labels, generator)] = np.repeat(holder, sizes)
    return owner


class KClasses(Strict):
    classes_per_client: int = Field(ge=1)


@scheme("k-classes", KClasses)
def k_classes(labels, clients, options, generator, minimum):
    """Each client owns exactly k classes; the examples of a class are divided equally among its owners.

    Of K classes, client i owns class i mod K and k - 1 others drawn uniformly without replacement. Where
    a class does not divide evenly its first owners hold one example more.

    Source: Li et al., arXiv 2102.02079 ("#C=k"); NIID-Bench's utils.py, partition "noniid-#label<k>".

    With fewer clients than classes a class may be left without owner, where the reference fails. Here, as
    where a class has fewer examples than owners or a client fewer than `minimum`, the draw is repeated. No
    example is ever left out: if clients * k < K, PartitionError is raised at once.
    """
    sizes = np.unique(labels, return_counts=True)[1]
    total, k = len(sizes), options.classes_per_client
    if k > total:
        raise PartitionError(f"{_named('k-classes', options)}: there are {total} classes; take at most {total}")
    if clients * k < total:
        raise PartitionError(
            f"{_named('k-classes', options)}: {clients} clients cannot own {total} classes, and no example "
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

    return _hand_out(labels, _search("k-classes", options, draw, len(labels), clients, minimum), generator)


class QuantityDirichlet(Strict):
    alpha: float = Field(gt=0, description="concentration; small: few clients hold nearly everything")


@scheme("quantity-dirichlet", QuantityDirichlet)
def quantity_dirichlet(labels, clients, options, generator, minimum):
    """Client sizes in proportions q ~ Dir(alpha, ..., alpha); who holds which examples is a plain shuffle.

    The shuffled examples are cut at floor(cumulative q * n); q is drawn again until everyone has `minimum`.

    Source: Li et al., arXiv 2102.02079 (q ~ Dir(beta)); NIID-Bench's utils.py, partition
    "iid-diff-quantity". Difference: the reference compares q_i * n with its minimum of 10, here the size
    after rounding is compared, so a client that reaches the minimum only by rounding is kept.
    """

    def draw():
        q = generator.dirichlet(np.full(clients, options.alpha))
        return _cut(np.cumsum(q), len(labels))[None]

    sizes = _search("quantity-dirichlet", options, draw, len(labels), clients, minimum)
    return _hand_out(np.zeros(len(labels), int), sizes, generator)


def _equal(size: int, parts: int) -> np.ndarray:
    """Sizes of `parts` parts that differ by at most one and sum to `size`."""
    return size // parts + (np.arange(parts) < size % parts)


def _cut(cumulative: np.ndarray, size: int) -> np.ndarray:
    """Sizes of the pieces of `size` examples cut at floor(cumulative share * size); they sum to `size`.

    Dividing by the last entry makes the share exactly one from the last positive proportion on.
    """
    return np.diff(np.floor(cumulative / cumulative[-1] * size).astype(int), prepend=0)


def _sorted_by(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """All examples sorted by label, in random order inside each label."""
    shuffled = generator.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def _hand_out(labels: np.ndarray, counts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Owners when client i gets counts[k, i] random examples of the k-th class; row k sums to its size."""
    owner = np.empty(len(labels), np.int32)
    clients = np.tile(np.arange(counts.shape[1], dtype=np.int32), len(counts))
    owner[_sorted_by(labels, generator)] = np.repeat(clients, counts.ravel())
    return owner


def _enough(name: str, options: Strict, sizes: np.ndarray, minimum: int) -> np.ndarray:
    """`sizes` [clients], if every client holds `minimum`."""
    if (smallest := sizes.min()) < minimum:
        raise PartitionError(
            f"{_named(name, options)}: {sizes.sum()} examples over {len(sizes)} clients leave the smallest "
            f"client {smallest}, below the minimum of {minimum}; lower minimum or take fewer clients"
        )
    return sizes


def _search(name: str, options: Strict, draw: Callable, examples: int, clients: int, minimum: int) -> np.ndarray:
    """The first of at most MOST_DRAWS results of `draw` in which every client holds `minimum` examples.

    `draw` returns counts [classes, clients], or says why this draw cannot be used.
    """
    if clients * minimum > examples:
        raise PartitionError(
            f"{_named(name, options)}: {clients} clients with at least {minimum} examples each need "
            f"{clients * minimum}, but there are {examples}; lower minimum or take fewer clients"
        )
    best, unusable = -1, ""
    for _ in range(MOST_DRAWS):
        if isinstance(counts := draw(), str):
            unusable = counts
            continue
        if (smallest := int(counts.sum(0).min())) >= minimum:
            return counts
        best = max(best, smallest)
    seen = f"the best draw left the smallest client {best}" if best >= 0 else unusable
    raise PartitionError(
        f"{_named(name, options)}: {MOST_DRAWS} draws of {examples} examples over {clients} clients, never "
        f"had everyone the minimum of {minimum} ({seen}); lower minimum, take fewer clients or a milder skew"
    )


def _named(name: str, options: Strict) -> str:
    shown = ", ".join(f"{key}={value}" for key, value in options.model_dump().items())
    return f"{name} ({shown})" if shown else name
