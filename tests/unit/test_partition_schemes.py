"""Every scheme is a partition and is the one that its name says."""

import time
import unittest.mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterobench import keyed
from heterobench.config.schema import PartitionFile
from heterobench.errors import ConfigurationError, PartitionError
from heterobench.partition.partition import draw
from heterobench.partition.schemes import SCHEMES, Columns, by_class, check, drawing, registry
from partitioning import OPTIONS, assign, balanced, counts, file, niid_bench

every_scheme = pytest.mark.parametrize("scheme", sorted(SCHEMES))
every_plain_scheme = pytest.mark.parametrize("scheme", sorted(n for n, s in SCHEMES.items() if not s.natural))
every_whole_scheme = pytest.mark.parametrize("scheme", sorted(n for n, s in SCHEMES.items() if not s.drops))


def test_every_scheme_is_tested():
    assert set(OPTIONS) == set(SCHEMES)


@every_scheme
@settings(max_examples=50, deadline=None)
@given(
    examples=st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 4)), min_size=1, max_size=120),
    clients=st.integers(1, 12),
    minimum=st.integers(0, 4),
    validation=st.sampled_from([0.0, 0.1, 0.5]),
    test=st.sampled_from([0.0, 0.1, 0.49]),
    seed=st.integers(0, 2**40),
)
def test_is_a_partition(scheme, examples, clients, minimum, validation, test, seed):
    """No example is lost or doubled, nobody is below the minimum, whoever holds anything can train."""
    labels, person = np.array(examples).T
    natural, known = SCHEMES[scheme].natural, set(person[person >= 0].tolist())
    few = unittest.mock.patch.object(drawing, "MOST_DRAWS", 30)  # what is hopeless is given up earlier
    try:
        with few:
            asked = file(scheme, None if natural else clients, minimum, validation, test)
            found = draw(asked, labels, seed, attributes={"person": person})
    except PartitionError:
        return  # there is none; which requests must succeed is tested below
    together = np.concatenate([part.indices for part in found.parts])
    if natural:
        expected = np.flatnonzero(person >= 0)
        assert found.clients == len(known) * (1 if scheme == "natural-key" else 2)
    else:
        expected = np.arange(len(labels))
        assert found.clients == clients
    if scheme == "long-tail-dirichlet":
        assert len(set(together.tolist())) == len(together) <= len(labels)
    else:
        assert sorted(together.tolist()) == expected.tolist()
    assert found.sizes.min() >= minimum
    assert np.array_equal(found.train.sizes > 0, found.sizes > 0)
    for part in found.parts:
        assert all(np.all(np.diff(row) > 0) for row in part)


@every_scheme
def test_is_a_function_of_its_seed(scheme):
    labels, clients = balanced(10, 50), None if SCHEMES[scheme].natural else 10
    person = {"person": np.arange(500) % 5}
    first, again, other = (draw(file(scheme, clients), labels, seed, attributes=person) for seed in (3, 3, 4))
    assert first.hash == again.hash != other.hash
    np.random.seed(0)  # a draw from the global generator would show here
    assert draw(file(scheme, clients), labels, 3, attributes=person).hash == first.hash


@every_whole_scheme
def test_one_client_holds_everything(scheme):
    options = {"classes_per_client": 4} if scheme == "k-classes" else {}
    assert assign(scheme, balanced(4, 5), 1, **options).tolist() == [0] * 20


def test_only_schemes_that_say_so_may_leave_examples_to_nobody(monkeypatch):
    def careless(columns, clients, options, generator, minimum):
        return np.where(np.arange(len(columns)) < 3, -1, 0).astype(np.int32)

    for drops in (False, True):
        monkeypatch.setitem(SCHEMES, "iid", registry.Scheme("iid", registry.NoOptions, careless, drops=drops))
        if drops:
            assert draw(file("iid", 2), balanced(2, 5), 0).sizes.tolist() == [7, 0]
        else:
            with pytest.raises(PartitionError, match="'iid' left 3 examples to nobody"):
                draw(file("iid", 2), balanced(2, 5), 0)


@every_scheme
@pytest.mark.parametrize("labels", [[], [[1, 2]], [0.5, 1.0], [0, -1]])
def test_wrong_labels_are_refused(scheme, labels):
    with pytest.raises(PartitionError, match="label"):
        draw(file(scheme, 2), np.array(labels), 0)


@every_plain_scheme
def test_an_impossible_minimum_ends_with_a_clear_error(scheme):
    start = time.process_time()
    with pytest.raises(PartitionError, match=rf"{scheme}.*minimum|{scheme}.*at least 21"):
        assign(scheme, balanced(10, 20), 10, minimum=21)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(("scheme", "skew"), [("dirichlet-by-class", 0.01), ("quantity-dirichlet", 0.01)])
def test_an_unlikely_minimum_ends_too(scheme, skew):
    with pytest.raises(PartitionError) as error:
        assign(scheme, balanced(10, 20), 20, minimum=9, alpha=skew)
    for part in (
        scheme,
        f"alpha={skew}",
        f"{drawing.MOST_DRAWS} draws",
        "minimum of 9",
        "smallest client",
        "lower",
    ):
        assert part in str(error.value)


def test_iid_sizes_differ_by_at_most_one():
    for clients in (1, 3, 7, 10, 143, 300):
        sizes = np.bincount(assign("iid", balanced(10, 20), clients), minlength=clients)
        assert sizes.max() - sizes.min() <= 1


def test_iid_is_independent_of_labels():
    """A client's count of a class is hypergeometric: mean and variance over many draws."""
    labels, clients, draws = balanced(4, 25), 5, 2000
    found = np.array([counts(assign("iid", labels, clients, s), labels, clients)[0, 0] for s in range(draws)])
    variance = 20 * 0.25 * 0.75 * (100 - 20) / 99
    assert abs(found.mean() - 5) < 5 * np.sqrt(variance / draws)
    assert abs(found.var() / variance - 1) < 5 * np.sqrt(2 / draws)


def test_shards_are_two_runs_of_the_sorted_labels():
    """McMahan's setting in small: 20 clients, 40 shards of 15 of 10 balanced classes of 60."""
    labels, clients = balanced(10, 60), 20
    table = counts(assign("shards", labels, clients), labels, clients)
    assert np.all(table.sum(1) == 30)
    assert np.all((table > 0).sum(1) <= 2)
    assert set(table[table > 0].tolist()) <= {15, 30}


def test_shards_are_handed_out_at_random():
    """Both shards of client 0 show one label in 3 of 39 cases: 4 shards a label, 3 left of 39."""
    labels, draws = balanced(10, 60), 2000
    one = sum((counts(assign("shards", labels, 20, s), labels, 20)[0] == 30).any() for s in range(draws))
    assert abs(one / draws - 3 / 39) < 5 * np.sqrt(3 / 39 * 36 / 39 / draws)


def test_shards_that_straddle_labels():
    """Shards not longer than the smallest class touch two classes at most, so a client four."""
    labels = np.repeat(np.arange(5), [31, 47, 33, 60, 29])
    table = counts(assign("shards", labels, 8), labels, 8)
    assert np.all((table > 0).sum(1) <= 4)
    assert np.all(np.abs(table.sum(1) - 25) <= 1)


@pytest.mark.parametrize("k", [1, 2, 3, 10])
@pytest.mark.parametrize("clients", [10, 13, 40])
def test_k_classes_gives_each_client_exactly_k(k, clients):
    labels = balanced(10, 101)
    table = counts(assign("k-classes", labels, clients, classes_per_client=k), labels, clients)
    assert np.all((table > 0).sum(1) == k)
    assert np.all(table[np.arange(clients), np.arange(clients) % 10] > 0)
    for column in table.T:  # equal division of the class among its owners
        assert np.ptp(column[column > 0]) <= 1


def test_k_classes_draws_the_other_classes_uniformly():
    """Client 0 of 6 owns class 0 and each other class with probability 1/5."""
    labels, draws = balanced(6, 12), 2000
    owned = sum(counts(assign("k-classes", labels, 6, s), labels, 6)[0] > 0 for s in range(draws))
    assert owned[0] == draws
    assert np.all(np.abs(owned[1:] / draws - 0.2) < 5 * np.sqrt(0.2 * 0.8 / draws))


def test_k_classes_never_loses_a_class():
    with pytest.raises(PartitionError, match=r"3 clients cannot own 10 classes.*4 classes per client or 5 clients"):
        assign("k-classes", balanced(10, 20), 3)
    assert len(assign("k-classes", balanced(10, 20), 3, classes_per_client=4)) == 200
    with pytest.raises(PartitionError, match="take at most 10"):
        assign("k-classes", balanced(10, 20), 3, classes_per_client=11)
    with pytest.raises(PartitionError, match="fewer examples than owners"):
        assign("k-classes", balanced(10, 2), 30)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 5.0])
@pytest.mark.parametrize("clients", [2, 6])
def test_dirichlet_by_class_is_the_reference_procedure(alpha, clients):
    labels = np.random.default_rng(1).choice(7, 400, p=np.arange(1, 8) / 28)
    for seed in range(10):
        owner = assign("dirichlet-by-class", labels, clients, seed, 10, alpha=alpha)
        oracle = niid_bench(labels, clients, alpha, 10, keyed.generator(seed, "test"))
        assert np.array_equal(counts(owner, labels, clients).T, oracle)


def test_dirichlet_by_class_is_capped():
    """Whoever holds n/clients examples gets nothing of later classes: overshoot comes from one class only."""
    labels = balanced(10, 50)
    for seed in range(20):
        table = counts(assign("dirichlet-by-class", labels, 10, seed, alpha=0.1), labels, 10)
        before = np.cumsum(table, 1) - table
        assert np.all(table[before >= 50] == 0)


def test_dirichlet_proportions_have_the_moments_of_the_theory():
    """The first class meets no cap: mean 1/N, variance (N - 1) / (N^2 (N alpha + 1))."""
    clients, alpha, size, draws = 5, 0.5, 1000, 1500
    labels = np.repeat([0, 1], size)
    shares = np.array([
        np.bincount(assign("dirichlet-by-class", labels, clients, s, alpha=alpha)[:size], minlength=clients)
        for s in range(draws)
    ]) / size  # fmt: skip
    variance = (clients - 1) / (clients**2 * (clients * alpha + 1))
    slack = 1 / size  # cutting rounds by less than one example
    assert np.all(np.abs(shares.mean(0) - 1 / clients) < 5 * np.sqrt(variance / draws) + slack)
    squares = (shares - 1 / clients) ** 2
    error = 5 * squares.std(0) / np.sqrt(draws) + 2 * slack
    assert np.all(np.abs(squares.mean(0) - variance) < error)


def test_dirichlet_with_large_alpha_is_nearly_uniform():
    labels = balanced(10, 100)
    table = counts(assign("dirichlet-by-class", labels, 5, alpha=1e7), labels, 5)
    assert np.all(np.abs(table[:, :-3] - 20) <= 1)  # the cap may bite in the last classes, by a rounding


@pytest.mark.parametrize("alpha", [1e-300, 1e-5, 1e-2, 1e8])
def test_extreme_concentrations_lose_nothing(alpha):
    labels = balanced(10, 30)
    for scheme in ("dirichlet-by-class", "quantity-dirichlet", "dirichlet-by-client", "dirichlet-inner"):
        owner = assign(scheme, labels, 3, alpha=alpha)
        assert owner.min() >= 0
        assert owner.max() < 3


def test_all_or_nothing_proportions_end_too():
    """Ten equal classes hardly ever find ten different clients, and a full client takes no second one."""
    with pytest.raises(PartitionError, match="every client with room drew 0"):
        assign("dirichlet-by-class", balanced(10, 30), 10, alpha=1e-300)


def test_when_every_client_with_room_draws_zero_it_is_drawn_again():
    class Underflow:
        """Three draws that give client 0 everything: at the second class it is full and all others have 0."""

        def __init__(self):
            self.generator, self.left = np.random.default_rng(0), 3

        def dirichlet(self, alpha):
            self.left -= 1
            return np.eye(len(alpha))[0] if self.left >= 0 else self.generator.dirichlet(alpha)

        def permutation(self, n):
            return self.generator.permutation(n)

    labels, options = balanced(4, 10), by_class.DirichletByClass(alpha=1.0)
    owner = by_class.dirichlet_by_class(Columns(labels), 4, options, Underflow(), 0)
    assert counts(owner, labels, 4).sum() == 40


def test_quantity_dirichlet_skews_sizes_and_nothing_else():
    """Sizes have the Dirichlet's variance; labels of a large client are those of a random sample."""
    clients, alpha, draws = 5, 2.0, 1500
    labels = balanced(4, 250)
    shares = np.array([
        np.bincount(assign("quantity-dirichlet", labels, clients, s, alpha=alpha), minlength=clients)
        for s in range(draws)
    ]) / 1000  # fmt: skip
    variance = (clients - 1) / (clients**2 * (clients * alpha + 1))
    squares = (shares - 1 / clients) ** 2
    assert np.all(np.abs(squares.mean(0) - variance) < 5 * squares.std(0) / np.sqrt(draws) + 2e-3)
    table = counts(assign("quantity-dirichlet", labels, clients, alpha=alpha), labels, clients)
    sizes = table.sum(1, keepdims=True)
    assert np.all(np.abs(table - sizes / 4) <= 5 * np.sqrt(sizes * 3 / 16) + 1e-9)


def test_mistakes_in_a_file_name_the_key_and_the_nearest_word():
    with pytest.raises(ConfigurationError, match=r"a.yaml: scheme: no scheme 'shard'; did you mean 'shards'"):
        check(PartitionFile(title="", scheme="shard", clients=2), "a.yaml")
    with pytest.raises(ConfigurationError, match=r"a.yaml: options: unknown key 'alhpa'; did you mean 'alpha'"):
        check(PartitionFile(title="", scheme="quantity-dirichlet", clients=2, options={"alhpa": 1}), "a.yaml")
    with pytest.raises(ConfigurationError, match=r"a.yaml: options: alpha: .*greater than 0"):
        check(PartitionFile(title="", scheme="dirichlet-by-class", clients=2, options={"alpha": 0}), "a.yaml")
    with pytest.raises(ConfigurationError, match="unknown key 'alpha'"):
        check(PartitionFile(title="", scheme="iid", clients=2, options={"alpha": 1}), "a.yaml")
    with pytest.raises(ValueError, match="two schemes"):
        registry.scheme("iid", registry.NoOptions)(lambda: None)
