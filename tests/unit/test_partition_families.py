"""The schemes by client, by quantity, by natural key and with a long tail against theory and plain loops."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from heterobench import keyed
from heterobench.errors import ConfigurationError, PartitionError
from heterobench.partition.partition import draw
from heterobench.partition.schemes import by_client, long_tail, quantity
from heterobench.partition.schemes import check as check_scheme
from partitioning import assign, balanced, counts, file, niid_bench

# by class, without the cap


@pytest.mark.parametrize("alpha", [0.2, 5.0])
def test_without_the_cap_every_class_has_the_moments_of_the_theory(alpha):
    """Mean 1/N and variance (N - 1) / (N^2 (N alpha + 1)), of the last class too, where a cap would bite."""
    clients, size, draws = 4, 500, 600
    labels = np.repeat([0, 1, 2], size)
    owners = [assign("dirichlet-by-class-uncapped", labels, clients, s, alpha=alpha) for s in range(draws)]
    variance = (clients - 1) / (clients**2 * (clients * alpha + 1))
    for label in range(3):
        mine = slice(label * size, (label + 1) * size)
        shares = np.array([np.bincount(owner[mine], minlength=clients) for owner in owners]) / size
        squares = (shares - 1 / clients) ** 2
        slack = 1 / size  # cutting rounds by less than one example
        assert np.all(np.abs(shares.mean(0) - 1 / clients) < 5 * np.sqrt(variance / draws) + slack)
        assert np.all(np.abs(squares.mean(0) - variance) < 5 * squares.std(0) / np.sqrt(draws) + 2 * slack)


@pytest.mark.parametrize("alpha", [0.1, 5.0])
def test_without_the_cap_it_is_the_reference_procedure_without_it(alpha):
    labels = np.random.default_rng(1).choice(7, 400, p=np.arange(1, 8) / 28)
    for seed in range(5):
        owner = assign("dirichlet-by-class-uncapped", labels, 4, seed, 5, alpha=alpha)
        oracle = niid_bench(labels, 4, alpha, 5, keyed.generator(seed, "test"), capped=False)
        assert np.array_equal(counts(owner, labels, 4).T, oracle)


# by client


def sequential(sizes, pool, priors, turns):
    """Distribution of the counts [clients][classes] of a draw, one example after the other, in exact fractions.

    turns: "in order" (client after client) or "at random" (uniform over the clients that are not full). A class is
    drawn from the client's prior restricted to the classes that are left; where that has no weight, any of these alike.
    """

    @cache
    def finish(missing, left, held):
        if not any(missing):
            return {held: Fraction(1)}
        waiting = [i for i, number in enumerate(missing) if number]
        result = Counter()
        for client in waiting[:1] if turns == "in order" else waiting:
            weights = [p if number else Fraction(0) for p, number in zip(priors[client], left, strict=True)]
            if not any(weights):
                weights = [Fraction(number > 0) for number in left]
            for k, weight in enumerate(weights):
                if not weight:
                    continue
                rest = tuple(number - (i == client) for i, number in enumerate(missing))
                stock = tuple(number - (j == k) for j, number in enumerate(left))
                mine = tuple(
                    tuple(n + (i == client and j == k) for j, n in enumerate(row)) for i, row in enumerate(held)
                )
                share = weight / sum(weights) / (1 if turns == "in order" else len(waiting))
                for outcome, probability in finish(rest, stock, mine).items():
                    result[outcome] += share * probability
        return dict(result)

    return finish(tuple(sizes), tuple(pool), tuple((0,) * len(pool) for _ in sizes))


@pytest.mark.parametrize("turns", ["in order", "at random"])
def test_drawing_all_turns_at_once_is_drawing_one_after_the_other(turns):
    """Every outcome of a small draw that runs out of classes, and of weight, has the probability of the plain loop."""
    sizes, pool = [2, 1, 2], [1, 2, 2]
    priors = [[Fraction(1, 2), Fraction(1, 2), Fraction(0)], [Fraction(1), Fraction(0), Fraction(0)],
              [Fraction(1, 4), Fraction(1, 4), Fraction(1, 2)]]  # fmt: skip
    exact = sequential(sizes, pool, tuple(map(tuple, priors)), turns)
    assert len(exact) > 2
    draws, seen = 3000, Counter()
    for seed in range(draws):
        generator = keyed.generator(seed, "test")
        order = (
            np.repeat([0, 1, 2], sizes) if turns == "in order" else by_client._random_turns(np.array(sizes), generator)
        )
        table = by_client.class_counts(order, np.array(priors, float), np.array(pool), generator)
        seen[tuple(map(tuple, table.T.tolist()))] += 1
    assert set(seen) <= set(exact)
    for outcome, probability in exact.items():
        error = 5 * np.sqrt(float(probability * (1 - probability)) / draws)
        assert abs(seen[outcome] / draws - float(probability)) < error, outcome


def test_turns_go_to_clients_that_are_not_full_uniformly():
    """Sizes 1 and 2: 011 in half of the cases, 101 and 110 in a quarter each; a shuffle would give a third each."""
    draws, seen = 4000, Counter()
    for seed in range(draws):
        seen["".join(map(str, by_client._random_turns(np.array([1, 2]), keyed.generator(seed, "test"))))] += 1
    for order, probability in {"011": 0.5, "101": 0.25, "110": 0.25}.items():
        assert abs(seen[order] / draws - probability) < 5 * np.sqrt(probability * (1 - probability) / draws)


@pytest.mark.parametrize("prior", ["uniform", "data"])
@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_clients_class_shares_have_the_moments_of_the_theory(alpha, prior):
    """The first clients together draw no more than the smallest class has, so they never meet an empty class.

    Shares m_k / s are Dirichlet-multinomial: with q = a / a_0, mean q_k and variance (1 - 1/s) V_k + q_k (1 - q_k) / s,
    where V_k = q_k (1 - q_k) / (a_0 + 1) is the Dirichlet's; E sum_k (m_k / s)^2 is
    (1 - 1/s) sum_k a_k (a_k + 1) / (a_0 (a_0 + 1)) + 1/s. What is averaged lies in an interval of known length, so its
    standard deviation is at most half of that (Popoviciu), and five standard errors are what is allowed.
    """
    size, clients, draws = 10, 400, 40
    labels = np.repeat([0, 1, 2, 3], [2000, 1000, 600, 400])
    first = 400 // size
    a = alpha * 4 * (np.array([0.5, 0.25, 0.15, 0.1]) if prior == "data" else np.full(4, 0.25))
    found = []
    for seed in range(draws):
        owner = assign("dirichlet-by-client", labels, clients, seed, alpha=alpha, prior=prior)
        found.append(np.histogram2d(owner, labels, bins=(np.arange(first + 1) - 0.5, np.arange(5) - 0.5))[0] / size)
    shares = np.concatenate(found)
    n, a0, q = len(shares), a.sum(), a / a.sum()
    variance = q * (1 - q) / (a0 + 1)
    assert np.all(np.abs(shares.mean(0) - q) < 5 * 0.5 / np.sqrt(n))
    spread = (shares - q) ** 2
    longest = np.maximum(q, 1 - q) ** 2
    assert np.all(
        np.abs(spread.mean(0) - (1 - 1 / size) * variance - q * (1 - q) / size) < 5 * longest / 2 / np.sqrt(n)
    )
    squares = (shares**2).sum(1)
    expected = (1 - 1 / size) * (a * (a + 1)).sum() / (a0 * (a0 + 1)) + 1 / size
    assert abs(squares.mean() - expected) < 5 * (1 - 1 / 4) / 2 / np.sqrt(n)


@pytest.mark.parametrize("scheme", ["dirichlet-by-client", "dirichlet-inner"])
def test_whose_turn_it_is_tells_the_two_schemes_apart(scheme):
    """The same priors from the same generator: client after client, or anyone who is not full."""
    labels, clients, alpha = balanced(3, 40), 6, 0.2
    for seed in range(5):
        generator, sizes = keyed.generator(seed, "test"), np.full(clients, 20)
        turns = np.repeat(np.arange(clients), 20)
        if scheme == "dirichlet-inner":
            turns = by_client._random_turns(sizes, generator)
        priors = generator.dirichlet(np.full(3, alpha), size=clients)
        expected = by_client.class_counts(turns, priors, np.full(3, 40), generator)
        assert np.array_equal(counts(assign(scheme, labels, clients, seed, alpha=alpha), labels, clients), expected.T)


def test_inner_dirichlet_has_the_sizes_that_it_was_given():
    labels = balanced(5, 30)
    sizes = [10, 0, 100, 40]
    for seed in range(3):
        owner = assign("dirichlet-inner", labels, 4, seed, alpha=0.1, sizes=sizes)
        assert np.bincount(owner, minlength=4).tolist() == sizes
    equal = np.bincount(assign("dirichlet-inner", labels, 7, alpha=0.1))
    assert np.ptp(equal) == 1
    uneven = np.bincount(assign("dirichlet-inner", labels, 4, alpha=0.1, sigma=1.0, minimum=2), minlength=4)
    assert uneven.sum() == 150
    assert np.ptp(uneven) > 1
    assert uneven.min() >= 2
    for wrong in ([10, 100, 40], [10, 1, 100, 40]):
        with pytest.raises(PartitionError, match="sizes must be 4 numbers with sum 150"):
            assign("dirichlet-inner", labels, 4, alpha=0.1, sizes=wrong)
    with pytest.raises(ConfigurationError, match="sizes or sigma, not both"):
        assign("dirichlet-inner", labels, 4, alpha=0.1, sizes=sizes, sigma=1)


# quantity


def test_log_normal_sizes_have_log_normal_ratios():
    """log(size_0 / size_1) is normal with variance 2 sigma^2; rounding is far below the tolerance."""
    sigma, draws = 0.7, 2000
    sizes = [quantity.log_normal_sizes(10**8, 2, sigma, keyed.generator(s, "test")) for s in range(draws)]
    ratios = np.log([first / second for first, second in sizes])
    assert all(sum(pair) == 10**8 for pair in sizes)
    assert abs(ratios.mean()) < 5 * sigma * np.sqrt(2 / draws)
    assert abs(ratios.var() / (2 * sigma**2) - 1) < 5 * np.sqrt(2 / draws)


def test_extreme_log_normal_sizes_are_still_sizes():
    assert quantity.log_normal_sizes(100, 5, 1000.0, keyed.generator(0, "test")).sum() == 100


@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.5])
def test_power_law_sizes(exponent):
    labels, clients = balanced(4, 2500), 20
    sizes = np.bincount(assign("quantity-power-law", labels, clients, exponent=exponent), minlength=clients)
    shares = np.array([(i + 1) ** -exponent for i in range(clients)])
    assert np.all(np.abs(sizes - 10_000 * shares / shares.sum()) < 1)
    other = np.bincount(assign("quantity-power-law", labels, clients, 5, exponent=exponent), minlength=clients)
    assert np.array_equal(sizes, other)


@pytest.mark.parametrize("scheme", ["quantity-log-normal", "quantity-power-law"])
def test_quantity_schemes_skew_nothing_but_sizes(scheme):
    labels = balanced(4, 500)
    table = counts(assign(scheme, labels, 6), labels, 6)
    sizes = table.sum(1, keepdims=True)
    assert np.ptp(sizes) > 50
    assert np.all(np.abs(table - sizes / 4) <= 5 * np.sqrt(sizes * 3 / 16))


# long tail


def test_long_tail_sizes_are_the_published_ones():
    """CIFAR-10-LT: 12,406 images for an imbalance of 100, 13,996 for 50."""
    sizes = np.full(10, 5000)
    assert long_tail.tail_sizes(sizes, 100).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert long_tail.tail_sizes(sizes, 100).sum() == 12_406
    assert long_tail.tail_sizes(sizes, 50).sum() == 13_996
    assert long_tail.tail_sizes(sizes, 1).tolist() == [5000] * 10
    assert long_tail.tail_sizes(np.array([7]), 10).tolist() == [7]


def test_long_tail_of_unequal_classes_is_the_largest_that_fits():
    for sizes in ([50, 100, 100], [100, 20, 100], [100, 100, 3], [97, 31, 11]):
        kept = long_tail.tail_sizes(np.array(sizes), 10)
        assert np.all(kept <= sizes)
        head = min(size * 10 ** (k / 2) for k, size in enumerate(sizes))
        assert kept.tolist() == [int(head * 10 ** (-k / 2) + 1e-6) for k in range(3)]


def test_long_tail_is_divided_like_dirichlet_by_class():
    labels = balanced(5, 80)
    kept = long_tail.tail_sizes(np.full(5, 80), 8)
    short = np.repeat(np.arange(5), kept)
    for seed in range(10):
        owner = assign("long-tail-dirichlet", labels, 4, seed, 5, imbalance=8, alpha=0.5)
        mine = owner >= 0
        assert np.bincount(labels[mine]).tolist() == kept.tolist()
        table = counts(owner[mine], labels[mine], 4)
        assert np.array_equal(table.T, niid_bench(short, 4, 0.5, 5, keyed.generator(seed, "test")))


def test_long_tail_keeps_any_example_alike():
    labels, draws = np.repeat([0, 1], 20), 600
    kept = np.zeros(40)
    for seed in range(draws):
        kept += assign("long-tail-dirichlet", labels, 2, seed, imbalance=4) >= 0
    assert np.all(kept[:20] == draws)
    assert np.all(np.abs(kept[20:] / draws - 0.25) < 5 * np.sqrt(0.25 * 0.75 / draws))


def test_long_tail_without_tail_is_refused():
    with pytest.raises(PartitionError, match=r"imbalance=1000.*classes \[2, 3\] would keep no example"):
        assign("long-tail-dirichlet", balanced(4, 10), 2, imbalance=1000)


# natural clients

PERSON = np.array([7, 3, 3, -1, 7, 7, 12, 3, 5, 12])
LABELS = np.arange(10) % 3


def test_every_value_of_the_key_is_a_client():
    owner = assign("natural-key", LABELS, None, attributes={"person": PERSON})
    order = {3: 0, 5: 1, 7: 2, 12: 3, -1: -1}
    assert owner.tolist() == [order[value] for value in PERSON.tolist()]
    assert draw(file("natural-key", None), LABELS, 0, attributes={"person": PERSON}).sizes.tolist() == [3, 1, 3, 2]
    few = assign("natural-key", LABELS, None, attributes={"person": PERSON}, least=3)
    assert few.tolist() == [{3: 0, 7: 1}.get(value, -1) for value in PERSON.tolist()]


def test_natural_clients_are_drawn_uniformly_and_keep_their_order():
    draws, chosen = 1000, Counter()
    for seed in range(draws):
        owner = assign("natural-key", LABELS, 2, seed, attributes={"person": PERSON})
        values = [set(PERSON[owner == client].tolist()) for client in range(2)]
        assert all(len(value) == 1 for value in values)
        one, other = (min(value) for value in values)
        assert one < other
        assert np.array_equal(owner >= 0, np.isin(PERSON, (one, other)))
        chosen[one, other] += 1
    assert len(chosen) == 6
    assert all(abs(n / draws - 1 / 6) < 5 * np.sqrt(5 / 36 / draws) for n in chosen.values())


@pytest.mark.parametrize(
    ("options", "clients", "minimum", "message"),
    [
        ({}, 5, 0, "4 values have at least 1 examples, but 5 clients are asked for"),
        ({"least": 4}, None, 0, "0 values have at least 4 examples, but some clients"),
        ({}, None, 2, "leave the smallest client 1, below the minimum of 2"),
        ({"key": "persons"}, None, 0, "no attribute 'persons'; did you mean 'person'"),
    ],
)
def test_natural_clients_that_there_are_not(options, clients, minimum, message):
    with pytest.raises(PartitionError, match=message):
        assign("natural-key", LABELS, clients, 0, minimum, attributes={"person": PERSON}, **options)


def test_an_attribute_that_the_data_set_lacks_is_found_before_any_job():
    with pytest.raises(ConfigurationError, match=r"a.yaml: options: key: .* no attribute 'person'; .*allowed: role"):
        check_scheme(file("natural-key", None), "a.yaml", ["role"])
    assert check_scheme(file("natural-key", None), "a.yaml", ["person"])
    assert check_scheme(file("iid", 2), "a.yaml", [])
    with pytest.raises(ConfigurationError, match="'iid' needs a number of clients"):
        check_scheme(file("iid", None), "a.yaml")


@pytest.mark.parametrize("scheme", ["domain", "domain-dirichlet"])
def test_every_client_is_of_one_domain(scheme):
    where = np.random.default_rng(0).choice([-1, 2, 5, 9], 400, p=[0.1, 0.4, 0.3, 0.2])
    labels = np.arange(400) % 4
    for clients in (None, 9):
        owner = assign(scheme, labels, clients, attributes={"person": where}, clients_per_domain=3)
        assert np.array_equal(owner < 0, where < 0)
        for number, value in enumerate((2, 5, 9)):
            sizes = np.bincount(owner[where == value], minlength=9)
            assert sizes[3 * number : 3 * number + 3].sum() == sizes.sum()
            if scheme == "domain":
                assert np.ptp(sizes[3 * number : 3 * number + 3]) <= 1
    with pytest.raises(PartitionError, match="3 domains make 9 clients, not 4"):
        assign(scheme, labels, 4, attributes={"person": where}, clients_per_domain=3)
    with pytest.raises(PartitionError, match=scheme):
        assign(scheme, labels, None, attributes={"person": where}, clients_per_domain=300)
    with pytest.raises(PartitionError, match="0 domains"):
        assign(scheme, labels, None, attributes={"person": np.full(400, -1)})


def test_labels_inside_a_domain_are_dirichlet():
    """In each domain: moments of the share of a class with one of its two clients, p ~ Dir(alpha, alpha)."""
    where, labels, draws, alpha = np.repeat([0, 1], 400), np.tile([0, 1], 400), 800, 2.0
    shares = []
    for seed in range(draws):
        owner = assign("domain-dirichlet", labels, None, seed, attributes={"person": where}, alpha=alpha)
        shares.append([(owner[(where == d) & (labels == k)] == 2 * d).mean() for d in (0, 1) for k in (0, 1)])
    squares = (np.array(shares) - 0.5) ** 2
    variance = 1 / (4 * (2 * alpha + 1))
    assert np.all(np.abs(squares.mean(0) - variance) < 5 * squares.std(0) / np.sqrt(draws) + 2 / 200)
    correlation = np.corrcoef(np.array(shares).T)
    assert np.all(np.abs(correlation - np.eye(4)) < 5 / np.sqrt(draws) + 1e-9)  # classes and domains are independent
