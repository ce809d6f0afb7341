"""Clients that the data name themselves: writers, subjects, roles, and domains of several clients."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from pydantic import Field

from heterobench.config.numbers import Count, Positive
from heterobench.config.strict import Strict, nearest
from heterobench.errors import PartitionError
from heterobench.partition.schemes.by_class import divide
from heterobench.partition.schemes.drawing import enough, equal, hand_out, named, search
from heterobench.partition.schemes.registry import Columns, scheme


class NaturalKey(Strict):
    key: str = Field(description="attribute of the data set whose values are the clients, e.g. writer")
    least: Count = Field(1, description="values with fewer examples are no clients")


@scheme("natural-key", NaturalKey, natural=True, drops=True)
def natural_key(columns, clients, options, generator, minimum):
    """Each value of the attribute `key` that has `least` examples is a client, in the order of the values.

    clients: all of them, or so many, drawn uniformly without replacement. The examples of all other values, and those
    whose value is not known, go to nobody.

    Source: LEAF (Caldas et al., arXiv 1812.01097) for writers and roles as clients; flwr-datasets'
    NaturalIdPartitioner. Different here: LEAF's sampling takes users until it has a share of the examples; we draw a
    number of clients.
    """
    column = _attribute("natural-key", columns, options)
    values, sizes = np.unique(column[column >= 0], return_counts=True)
    values = values[sizes >= options.least]
    available = len(values)
    if clients is not None and clients <= available:
        values = np.sort(generator.choice(values, clients, replace=False))
    if available < (clients or 1):
        raise PartitionError(
            f"{named('natural-key', options)}: {available} values have at least {options.least} examples, but "
            f"{clients or 'some'} clients are asked for; lower least or take fewer clients"
        )
    owner = _places(column, values)
    enough("natural-key", options, np.bincount(owner[owner >= 0], minlength=len(values)), minimum)
    return owner


class Domain(Strict):
    key: str = Field("domain", description="attribute of the data set that names the domain")
    clients_per_domain: Count = 1


@scheme("domain", Domain, natural=True, drops=True)
def domain(columns, clients, options, generator, minimum):
    """Each domain's shuffled examples are divided equally over clients_per_domain clients of its own.

    Domains are taken in the order of their values: the first clients_per_domain clients are those of the first. Where
    `clients` is left out, no client may be empty. Examples whose domain is not known go to nobody.

    Source: one client a domain is the setting of Li et al., "FedBN: Federated Learning on Non-IID Features via Local
    Batch Normalization", arXiv 2102.07623 (digits and Office-Caltech-10); deviation: none.
    """

    def divided(labels):
        return hand_out(np.zeros(len(labels), int), equal(len(labels), options.clients_per_domain)[None], generator)

    return _inside_domains("domain", columns, clients, options, minimum, divided)


class DomainDirichlet(Domain):
    alpha: Positive = Field(description="concentration; small: each class of a domain sits with few clients")


@scheme("domain-dirichlet", DomainDirichlet, natural=True, drops=True)
def domain_dirichlet(columns, clients, options, generator, minimum):
    """Label and domain skew together: inside each domain, `dirichlet_by_class_uncapped` over its clients.

    Clients and unknown domains as in `domain`; the draw of a domain is repeated until each of its clients has
    `minimum` examples.

    Source: our combination of the two cited procedures. Papers with both skews differ in how they make them (Ma et
    al., arXiv 2503.06457, have one client a domain and drop examples); here every example is kept.
    """
    count = options.clients_per_domain

    def divided(labels):
        sizes = np.unique(labels, return_counts=True)[1]

        def draw():
            return divide(sizes, count, options.alpha, generator, capped=False)

        found = search("domain-dirichlet", options, draw, len(labels), count, _least(clients, minimum))
        return hand_out(labels, found, generator)

    return _inside_domains("domain-dirichlet", columns, clients, options, minimum, divided)


def _inside_domains(name, columns, clients, options, minimum, divided):
    """`divided` gives the examples of one domain to clients 0 ... clients_per_domain - 1; domains follow each other."""
    column = _attribute(name, columns, options)
    values = np.unique(column[column >= 0])
    total = len(values) * options.clients_per_domain
    if not total or clients not in (None, total):
        raise PartitionError(
            f"{named(name, options)}: {len(values)} domains make {total} clients, not {clients}; "
            f"leave clients out, or change clients_per_domain"
        )
    owner = np.full(len(columns), -1, np.int32)
    order = np.argsort(column, kind="stable")
    bounds = np.searchsorted(column[order], [*values, values[-1] + 1])
    for number, (first, last) in enumerate(pairwise(bounds)):
        mine = order[first:last]
        owner[mine] = number * options.clients_per_domain + divided(columns.labels[mine])
    enough(name, options, np.bincount(owner[owner >= 0], minlength=total), _least(clients, minimum))
    return owner


def _least(clients: int | None, minimum: int) -> int:
    """Without a number of clients, those at the end are only known by what they hold."""
    return max(minimum, 1) if clients is None else minimum


def _attribute(name: str, columns: Columns, options: Strict) -> np.ndarray:
    if options.key not in columns.attributes:
        raise PartitionError(
            f"{named(name, options)}: key: the data set has no attribute {options.key!r}"
            f"{nearest(options.key, columns.attributes)}"
        )
    return np.asarray(columns.attributes[options.key])


def _places(column: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where each entry stands in the ascending `values`, int32 [n]; -1 if it is none of them."""
    place = np.minimum(np.searchsorted(values, column), len(values) - 1)
    return np.where(values[place] == column, place, -1).astype(np.int32)
