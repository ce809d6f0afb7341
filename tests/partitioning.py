"""What several tests of partitions share: partition files, plain loops, and a reference procedure."""

from __future__ import annotations

import numpy as np

from heterobench import keyed
from heterobench.config.schema import PartitionFile
from heterobench.partition.schemes import Columns, check

OPTIONS = {
    "iid": {},
    "dirichlet-by-class": {"alpha": 0.5},
    "dirichlet-by-class-uncapped": {"alpha": 0.5},
    "dirichlet-by-client": {"alpha": 0.5},
    "dirichlet-inner": {"alpha": 0.5},
    "shards": {"shards_per_client": 2},
    "k-classes": {"classes_per_client": 2},
    "quantity-dirichlet": {"alpha": 0.5},
    "quantity-log-normal": {"sigma": 0.5},
    "quantity-power-law": {"exponent": 0.5},
    "long-tail-dirichlet": {"imbalance": 2, "alpha": 0.5},
    "natural-key": {"key": "person"},
    "domain": {"key": "person", "clients_per_domain": 2},
    "domain-dirichlet": {"key": "person", "clients_per_domain": 2, "alpha": 0.5},
}


def file(scheme, clients, minimum=0, validation=0.1, test=0.1, **options):
    return PartitionFile(
        title="a test",
        scheme=scheme,
        clients=clients,
        minimum=minimum,
        validation=validation,
        test=test,
        options=OPTIONS[scheme] | options,
    )


def assign(scheme, labels, clients, seed=0, minimum=0, attributes=None, **options):
    found, checked = check(file(scheme, clients, **options), "test")
    columns = Columns(np.asarray(labels), attributes or {})
    return found.assign(columns, clients, checked, keyed.generator(seed, "test"), minimum)


def counts(owner, labels, clients):
    """[clients, classes], by a plain loop."""
    table = np.zeros((clients, max(labels) + 1), int)
    for client, label in zip(owner, labels, strict=True):
        table[client, label] += 1
    return table


def balanced(classes, each):
    return np.random.default_rng(7).permutation(np.repeat(np.arange(classes), each))


def niid_bench(labels, clients, alpha, minimum, generator, capped=True):
    """The procedure of arXiv 2102.02079 with lists and loops, as an oracle: sizes [classes][clients]."""
    room = len(labels) / clients if capped else len(labels) + 1
    classes = sorted(set(labels.tolist()))
    while True:
        held, table = [0] * clients, []
        for label in classes:
            size = int((labels == label).sum())
            p = generator.dirichlet([alpha] * clients)
            p = [p[i] if held[i] < room else 0.0 for i in range(clients)]
            cuts = [0, *(int(np.floor(sum(p[: i + 1]) / sum(p) * size)) for i in range(clients - 1)), size]
            table.append([cuts[i + 1] - cuts[i] for i in range(clients)])
            held = [held[i] + table[-1][i] for i in range(clients)]
        if min(held) >= minimum:
            return table
