"""Group fairness, global and per client."""

import math

import numpy as np
import pytest

from heterobench.keyed import generator
from heterobench.metrics import group_fairness as g


def counts_of(cells):
    """[clients, groups, 2, 2] from {(client, group, label, prediction): number}, two clients and two groups."""
    made = np.zeros((2, 2, 2, 2), dtype=int)
    for cell, number in cells.items():
        made[cell] = number
    return made


def random_examples(n=500, clients=4, groups=3, key="examples"):
    random = generator(0, f"group fairness {key}")
    client, group = random.integers(0, clients, n), random.integers(0, groups, n)
    label = (random.random(n) < 0.3 + 0.1 * group).astype(int)
    return client, group, label, (random.random(n) < 0.2 + 0.3 * label + 0.1 * client / clients).astype(int)


def test_no_gap_in_any_client_and_a_wide_one_over_all():
    """Simpson: everybody is predicted 1 in client 0 and 0 in client 1, and the groups live in different clients."""
    counts = counts_of({(0, 0, 1, 1): 10, (0, 1, 1, 1): 90, (1, 0, 1, 0): 90, (1, 1, 1, 0): 10})
    assert g.demographic_parity(counts).value.tolist() == [0, 0]
    assert g.demographic_parity(counts.sum(axis=0)).value == pytest.approx(0.8)
    assert g.signed_difference(counts.sum(axis=0)) == pytest.approx(0.8)


def test_wide_gaps_in_clients_and_none_over_all():
    counts = counts_of({(0, 0, 1, 1): 10, (0, 1, 1, 0): 10, (1, 0, 1, 0): 10, (1, 1, 1, 1): 10})
    assert g.demographic_parity(counts).value.tolist() == [1, 1]
    assert g.signed_difference(counts).tolist() == [-1, 1]
    assert g.demographic_parity(counts.sum(axis=0)).value == 0


def test_global_gaps_from_summed_counts_are_those_of_pooled_examples():
    client, group, label, prediction = random_examples()
    counts = g.group_counts(client, group, label, prediction, 4, 3)
    assert counts.sum() == 500
    pooled = counts.sum(axis=0)
    positive = [prediction[group == s].mean() for s in range(3)]
    true = [prediction[(group == s) & (label == 1)].mean() for s in range(3)]
    false = [prediction[(group == s) & (label == 0)].mean() for s in range(3)]
    right = [(prediction == label)[group == s].mean() for s in range(3)]
    assert g.demographic_parity(pooled).value == max(positive) - min(positive)
    assert g.equal_opportunity(pooled).value == max(true) - min(true)
    assert g.equalised_odds(pooled).value == max(max(true) - min(true), max(false) - min(false))
    assert g.accuracy_parity(pooled).value == pytest.approx(max(right) - min(right))
    assert g.worst_group_accuracy(pooled) == min(right)


def test_gaps_of_a_client_are_those_of_its_examples_alone():
    client, group, label, prediction = random_examples()
    counts = g.group_counts(client, group, label, prediction, 4, 3)
    for metric in (g.demographic_parity, g.equal_opportunity, g.equalised_odds, g.accuracy_parity):
        for k in range(4):
            mine = client == k
            alone = g.group_counts(client[mine] - k, group[mine], label[mine], prediction[mine], 1, 3)
            assert metric(counts).value[k] == metric(alone).value[0]


def test_equalised_odds_is_the_larger_gap():
    # true positive rates .5 and 1, false positive rates .2 and .9
    cells = {(0, 0): (8, 2, 5, 5), (0, 1): (1, 9, 0, 10)}
    counts = np.zeros((1, 2, 2, 2), dtype=int)
    for (k, s), numbers in cells.items():
        counts[k, s] = np.reshape(numbers, (2, 2))
    assert g.equal_opportunity(counts).value == pytest.approx([0.5])
    assert g.equalised_odds(counts).value == pytest.approx([0.7])
    assert g.equalised_odds(counts[:, :, ::-1]).value == pytest.approx([0.7])  # labels renamed: rates change places


def test_undefined_rates_are_nan_and_counted_and_never_zero():
    counts = np.zeros((3, 3, 2, 2), dtype=int)
    counts[0, :, 1, 1] = counts[0, :, 0, 0] = 5
    counts[0, 2] = [[4, 0], [0, 0]]  # group 2 of client 0 has no positives
    counts[1, 0] = [[2, 1], [1, 2]]  # client 1 knows one group only; client 2 nobody
    parity, chance, odds = g.demographic_parity(counts), g.equal_opportunity(counts), g.equalised_odds(counts)
    assert parity.undefined.tolist() == [0, 2, 3]
    assert chance.undefined.tolist() == [1, 2, 3]
    assert odds.undefined.tolist() == [1, 2, 3]
    assert np.isnan(g.true_positive_rates(counts)[0]).tolist() == [False, False, True]
    assert chance.value[0] == 0  # of the two groups that have a rate
    assert parity.value[0] == 0.5
    for made in (parity, chance, odds):
        assert np.isnan(made.value[1:]).all()
    assert g.worst_group_accuracy(counts)[:2] == pytest.approx([1, 4 / 6])
    assert math.isnan(g.worst_group_accuracy(counts)[2])


def test_equalised_odds_needs_both_rates():
    counts = np.array([[[0, 0], [3, 7]], [[0, 0], [5, 5]]])  # no negatives at all
    assert g.equal_opportunity(counts).value == pytest.approx(0.2)
    assert math.isnan(g.equalised_odds(counts).value)
    assert g.equalised_odds(counts).undefined == 2


def test_clients_without_a_gap_do_not_enter_the_mean():
    made = g.local(g.Gaps(np.array([0.2, math.nan, 0.5]), np.array([0, 1, 0])), np.array([1, 100, 3]))
    assert made == (pytest.approx((0.2 + 3 * 0.5) / 4), 0.5, 2, 1)
    none = g.local(g.Gaps(np.array([math.nan]), np.array([2])), np.array([5]))
    assert math.isnan(none.mean)
    assert math.isnan(none.largest)
    assert none[2:] == (0, 1)


def test_mean_signed_difference_is_the_global_one_when_clients_share_the_groups():
    random = generator(0, "shared groups")
    counts = np.zeros((5, 2, 2, 2), dtype=int)
    sizes = random.integers(1, 20, 5)
    for k, size in enumerate(sizes):  # 3 of group 0 for every 7 of group 1 in each client
        for s, share in enumerate((3, 7)):
            positive = random.integers(0, share * size + 1)
            counts[k, s, 1] = [share * size - positive, positive]
    local = g.signed_difference(counts)
    assert np.average(local, weights=sizes) == pytest.approx(g.signed_difference(counts.sum(axis=0)), abs=1e-12)
    # the absolute gaps do not average to the global gap
    assert np.average(np.abs(local), weights=sizes) > abs(g.signed_difference(counts.sum(axis=0))) + 0.01


def test_demographic_parity_of_several_classes():
    group, prediction = np.array([0] * 4 + [1] * 4), np.array([0, 0, 1, 2, 0, 2, 2, 2])
    # gaps .25, .25, .5
    assert g.demographic_parity_of_classes(group, prediction, 2, 3) == (pytest.approx(1 / 3), 0.5, 0)
    assert g.demographic_parity_of_classes(group, prediction, 3, 3)[1:] == (0.5, 1)
    binary = g.demographic_parity_of_classes(group, prediction // 2, 2, 2)
    assert binary[:2] == (0.5, 0.5)
    mean, largest, undefined = g.demographic_parity_of_classes(np.zeros(8, dtype=int), prediction, 2, 3)
    assert (math.isnan(mean), math.isnan(largest), undefined) == (True, True, 1)


@pytest.mark.parametrize(("position", "named"), list(enumerate(["client", "group", "label", "prediction"])))
def test_codes_out_of_range_are_named(position, named):
    columns = [column.copy() for column in random_examples()]
    columns[position][7] = 9
    with pytest.raises(ValueError, match=f"^{named}: from 0 to 9"):
        g.group_counts(*columns, 4, 3)
    columns[position] = columns[position].astype(float)
    with pytest.raises(ValueError, match=f"^{named}: dtype"):
        g.group_counts(*columns, 4, 3)


def test_bad_tables_are_named():
    with pytest.raises(ValueError, match=r"^counts: shape"):
        g.demographic_parity(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"^counts: 3 groups"):
        g.signed_difference(np.ones((3, 2, 2)))
    with pytest.raises(ValueError, match=r"^counts: must"):
        g.accuracies(-np.ones((3, 2, 2)))
    with pytest.raises(ValueError, match=r"^weights"):
        g.local(g.Gaps(np.zeros(2), np.zeros(2)), np.ones(3))
