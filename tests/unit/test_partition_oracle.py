"""flwr-datasets' partitioners as an independent check, where their definitions are ours.

Skipped where the extra `oracle` (flwr-datasets) is not installed.
"""

from __future__ import annotations

import numpy as np
import pytest

from heterobench.partition.schemes.by_class import divide
from partitioning import assign, balanced, counts

datasets = pytest.importorskip("datasets", reason="flwr-datasets is not installed (extra: oracle)")
theirs = pytest.importorskip("flwr_datasets.partitioner", reason="flwr-datasets is not installed (extra: oracle)")


def table(partitioner, labels, person=None):
    """Label counts [clients, classes] of a partitioner of theirs."""
    columns = {"label": labels, "row": np.arange(len(labels))} | ({} if person is None else {"person": person})
    partitioner.dataset = datasets.Dataset.from_dict(columns)
    parts = [partitioner.load_partition(client) for client in range(partitioner.num_partitions)]
    assert sorted(sum((list(part["row"]) for part in parts), start=[])) == list(range(len(labels)))  # noqa: RUF017
    return np.array([np.bincount(part["label"], minlength=labels.max() + 1) for part in parts])


def test_iid_has_their_sizes():
    labels = balanced(4, 26)
    for clients in (3, 8, 10):
        found = np.bincount(assign("iid", labels, clients), minlength=clients)
        expected = table(theirs.IidPartitioner(num_partitions=clients), labels).sum(1)
        assert sorted(found.tolist()) == sorted(expected.tolist())


def test_natural_clients_are_theirs():
    labels, person = balanced(5, 30), np.random.default_rng(0).integers(0, 7, 150)
    partitioner = theirs.NaturalIdPartitioner(partition_by="person")
    expected = table(partitioner, labels, person)
    owner = assign("natural-key", labels, None, attributes={"person": person})
    found = counts(owner, labels, 7)
    order = [int(partitioner.partition_id_to_natural_id[client]) for client in range(7)]
    assert np.array_equal(found[order], expected)


def test_shards_are_as_long_as_theirs_and_hold_as_few_labels():
    labels = balanced(10, 40)
    partitioner = theirs.ShardPartitioner(num_partitions=20, partition_by="label", num_shards_per_partition=2)
    expected, found = table(partitioner, labels), counts(assign("shards", labels, 20), labels, 20)
    assert np.all(expected.sum(1) == 20)
    assert np.all(found.sum(1) == 20)
    assert set(np.unique([found, expected]).tolist()) <= {0, 10, 20}  # whole shards of one label
    assert np.array_equal(found.sum(0), expected.sum(0))


@pytest.mark.parametrize("k", [2, 3])
def test_k_classes_divides_a_class_among_its_owners_as_they_do(k):
    """Their first-deterministic assignment is ours; a class with o owners is cut into the same sizes."""
    labels, clients = balanced(10, 47), 20
    partitioner = theirs.PathologicalPartitioner(
        num_partitions=clients,
        partition_by="label",
        num_classes_per_partition=k,
        class_assignment_mode="first-deterministic",
    )
    found = counts(assign("k-classes", labels, clients, classes_per_client=k), labels, clients)
    sizes = []
    for one in (table(partitioner, labels), found):
        assert np.all((one > 0).sum(1) == k)
        assert np.all(one[np.arange(clients), np.arange(clients) % 10] > 0)
        sizes.append({(column > 0).sum(): sorted(column[column > 0].tolist()) for column in one.T})
    both = set(sizes[0]) & set(sizes[1])
    assert both
    assert all(sizes[0][owners] == sizes[1][owners] for owners in both)


@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize("alpha", [0.2, 2.0])
def test_dirichlet_by_class_divides_the_same_draws_as_they_do(alpha, capped):
    """One generator, the same proportions; a size may differ by the rounding of a product. 401 examples over 8 clients:
    no client ever holds exactly its share, so their "more than the share" is our "the share or more"."""
    labels = np.repeat(np.arange(5), [101, 60, 80, 90, 70])
    for seed in range(8):
        partitioner = theirs.DirichletPartitioner(
            num_partitions=8,
            partition_by="label",
            alpha=alpha,
            min_partition_size=0,
            self_balancing=capped,
            seed=seed,
        )
        found = divide(np.bincount(labels), 8, alpha, np.random.default_rng(seed), capped)
        if not isinstance(found, str):
            assert np.abs(found.T - table(partitioner, labels)).max() <= 1


@pytest.mark.parametrize("alpha", [0.3, 3.0])
def test_inner_dirichlet_is_as_skewed_as_theirs(alpha):
    """Mean over clients of the sum of squared class shares: two samples of independent draws, five standard errors."""
    labels, clients, draws = balanced(4, 50), 5, 40
    found, expected = [], []
    for seed in range(draws):
        own = counts(assign("dirichlet-inner", labels, clients, seed, alpha=alpha), labels, clients)
        partitioner = theirs.InnerDirichletPartitioner(
            partition_sizes=[40] * clients, partition_by="label", alpha=alpha, seed=1000 + seed
        )
        other = table(partitioner, labels)
        assert np.array_equal(own.sum(1), other.sum(1))
        found.append(((own / 40) ** 2).sum(1).mean())
        expected.append(((other / 40) ** 2).sum(1).mean())
    error = np.sqrt((np.var(found) + np.var(expected)) / draws)
    assert abs(np.mean(found) - np.mean(expected)) < 5 * error
