"""What clients see: transformations, labels, stages and clients that never train."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterobench import keyed
from heterobench.config.schema import PartitionFile
from heterobench.errors import ConfigurationError, PartitionError
from heterobench.partition import heterogeneity, store
from heterobench.partition.changes import CHANGES, View, check, registry
from heterobench.partition.partition import ABSENT, DETAILS, Partition, draw
from heterobench.partition.rows import Rows
from heterobench.partition.schemes import Columns
from heterobench.project import Project
from partitioning import balanced

OPTIONS = {
    "feature-noise": {"sigma": 0.5},
    "rotation": {"maximum": 30},
    "colour": {"values": [0, 90]},
    "noisy-labels": {"rate": 0.4},
    "limited-labels": {"share": 0.3},
    "server-labels": {"share": 0.2},
    "unseen-classes": {"number": 1},
    "class-incremental": {"tasks": 2},
    "permuted-tasks": {"tasks": 3},
    "drift": {"stages": 3, "alpha": 0.5},
    "held-out-clients": {"number": 1},
}
every_change = pytest.mark.parametrize("change", sorted(CHANGES))


def file(*changes, scheme="iid", clients=4, **options):
    """A partition file with changes, each a name or (name, options)."""
    entries = [(name, OPTIONS[name]) if isinstance(name, str) else name for name in changes]
    return PartitionFile(
        title="a test",
        scheme=scheme,
        clients=clients,
        options=options,
        changes=[{"change": name, "options": given} for name, given in entries],
    )


def apply(name, view, seed=0, **options):
    (change, checked), *_ = check(file((name, options)), "test")
    return change.apply(view, checked, keyed.generator(seed, "test"))


def view(labels, owner, clients):
    return View(Columns(np.asarray(labels)), np.asarray(owner, np.int32), clients)


def together(partition):
    return np.concatenate([part.indices for part in partition.parts])


def test_every_change_is_tested():
    assert set(OPTIONS) == set(CHANGES)


# all of them


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=8, max_size=60).filter(lambda labels: len(set(labels)) > 1),
    names=st.lists(st.sampled_from(sorted(CHANGES)), max_size=3, unique=True),
    clients=st.integers(2, 6),
    seed=st.integers(0, 2**40),
)
def test_changes_move_nothing(labels, names, clients, seed):
    """Whoever holds an example without changes holds it with them, unless the server takes it; nothing is lost, details
    fit, seeds decide."""
    if len(set(names) & {"class-incremental", "permuted-tasks", "drift"}) > 1:
        with pytest.raises(PartitionError, match="stages; keep one"):
            draw(file(*names, clients=clients), labels, seed)
        return
    plain, found = (draw(file(*some, clients=clients), labels, seed) for some in ((), names))
    server = np.empty(0, np.int64) if found.server is None else found.server
    assert (found.server is not None) == ("server-labels" in names)
    for client in range(clients):
        before, after = (np.sort(np.concatenate([part[client] for part in p.parts])) for p in (plain, found))
        assert np.array_equal(np.setdiff1d(before, server), after)
    assert sorted([*together(found).tolist(), *server.tolist()]) == list(range(len(labels)))
    owned = np.setdiff1d(np.arange(len(labels)), server)
    for name, values in found.details.items():
        assert values.shape == (len(labels),)
        assert values.dtype == DETAILS[name]
    if "observed" in found.details:
        assert set(found.details["observed"][owned].tolist()) <= set(labels)
    if "stage" in found.details:
        assert found.details["stage"][owned].min() >= 0  # every example comes once
        assert heterogeneity.stage_counts(found, np.array(labels), 4).sum() == len(owned)
    held_out = np.zeros(clients, bool) if found.held_out is None else found.held_out
    assert held_out.sum() == ("held-out-clients" in names)
    assert not found.train.sizes[held_out].any()
    assert not found.validation.sizes[held_out].any()
    assert np.array_equal(found.train.sizes > 0, (found.sizes > 0) & ~held_out)
    assert set(found.transforms) == {"noise", "rotation", "colour"} & {
        {"feature-noise": "noise"}.get(name, name) for name in names
    }
    assert all(strength.shape == (clients,) for strength in found.transforms.values())
    assert draw(file(*names, clients=clients), labels, seed).hash == found.hash


@every_change
def test_a_change_is_part_of_the_hash_and_a_function_of_the_seed(change):
    labels = balanced(4, 50)
    plain, first, again = (draw(file(*some), labels, 3) for some in ((), (change,), (change,)))
    assert plain.hash != first.hash == again.hash
    both = draw(file(change, "rotation" if change != "rotation" else "colour"), labels, 3)
    assert both.hash not in (plain.hash, first.hash)


@every_change
def test_two_seeds_draw_differently(change):
    """But for the one change that draws nothing."""
    someone = view(balanced(4, 50), np.arange(200) % 10, 10)
    one, other = (apply(change, someone, seed, **OPTIONS[change]) for seed in (1, 5))
    fields = [(one.observed, other.observed), (one.labelled, other.labelled), (one.stage, other.stage)]
    fields += [
        (one.held_out, other.held_out),
        (one.server, other.server),
        *((one.transforms[n], other.transforms[n]) for n in one.transforms),
    ]
    differ = any(a is not None and not np.array_equal(a, b) for a, b in fields)
    assert differ == (change != "feature-noise")


def test_changes_are_drawn_by_the_seed_and_by_their_place():
    """Which labels are flipped does not depend on who holds them, so equal draws would flip the same."""
    labels = balanced(4, 50)
    flipped = [draw(file("noisy-labels"), labels, seed).details["observed"] != labels for seed in (1, 2)]
    second = draw(file("rotation", "noisy-labels"), labels, 1).details["observed"] != labels
    assert not np.array_equal(*flipped)
    assert not np.array_equal(flipped[0], second)


def test_what_examples_of_nobody_see_is_absent():
    where = np.where(np.arange(60) < 20, -1, np.arange(60) % 3)
    changes = ["noisy-labels", "limited-labels", "drift"]
    asked = file(*changes, scheme="natural-key", clients=None, key="person")
    found = draw(asked, balanced(4, 15), 0, attributes={"person": where})
    assert set(found.details) == set(DETAILS)
    for name, values in found.details.items():
        assert np.all(values[:20] == ABSENT[name])
    assert np.all(found.details["stage"][20:] >= 0)
    assert np.all(found.details["observed"][20:] >= 0)


# features


def test_noise_grows_with_the_number_of_the_client():
    found = apply("feature-noise", view([0] * 5, np.arange(5), 5), sigma=0.5)
    assert found.transforms["noise"] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize("change", ["rotation", "colour"])
def test_listed_strengths_are_dealt_out_equally(change):
    someone = view([0] * 10, np.arange(10), 10)
    firsts = set()
    for seed in range(20):
        strength = apply(change, someone, seed, values=[0, 90, 180, 270]).transforms[change]
        assert sorted(np.unique(strength, return_counts=True)[1].tolist()) == [2, 2, 3, 3]
        firsts.add(float(strength[0]))
    assert len(firsts) == 4


def test_strengths_up_to_a_maximum_are_uniform():
    strength = apply("rotation", view([0], [0], 4000), maximum=20).transforms["rotation"]
    assert np.abs(strength).max() <= 20
    assert abs(strength.mean()) < 5 * 20 / np.sqrt(3 * 4000)
    assert abs(strength.var() / (20**2 / 3) - 1) < 5 * np.sqrt(4 / 5 / 4000)  # kurtosis of the uniform is 9/5


# labels


def test_symmetric_noise_flips_to_any_other_class_alike():
    """Labels 0, 2, 5, 9: each flip is binomial with rate / 3."""
    labels = np.repeat([0, 2, 5, 9], 4000)
    rate = 0.3
    found = apply("noisy-labels", view(labels, np.arange(len(labels)) % 7, 7), rate=rate)
    for label in (0, 2, 5, 9):
        for seen in (0, 2, 5, 9):
            p = 1 - rate if seen == label else rate / 3
            share = (found.observed[labels == label] == seen).mean()
            assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / 4000)


def test_pair_noise_flips_to_the_next_class():
    labels = np.repeat([0, 2, 5], 4000)
    found = apply("noisy-labels", view(labels, np.arange(len(labels)) % 7, 7), kind="pair", rate=0.45)
    for label, following in ((0, 2), (2, 5), (5, 0)):
        seen = found.observed[labels == label]
        assert set(seen.tolist()) == {label, following}
        assert abs((seen == following).mean() - 0.45) < 5 * np.sqrt(0.45 * 0.55 / 4000)


def test_rates_up_to_a_maximum_are_one_for_each_client():
    """Clients' shares of wrong labels have mean maximum / 2 and the variance of a uniform rate plus the binomial's."""
    clients, each, maximum = 1000, 100, 0.8
    owner = np.repeat(np.arange(clients), each)
    labels = np.arange(len(owner)) % 2
    found = apply("noisy-labels", view(labels, owner, clients), maximum=maximum)
    shares = (found.observed != labels).reshape(clients, each).mean(1)
    mean, spread = maximum / 2, maximum**2 / 12
    assert abs(shares.mean() - mean) < 5 * np.sqrt(spread / clients + 0.25 / clients / each)
    expected = spread + (mean - mean**2 - spread) / each
    squares = (shares - mean) ** 2
    assert abs(squares.mean() - expected) < 5 * squares.std() / np.sqrt(clients)


@pytest.mark.parametrize("options", [{}, {"rate": 0.1, "maximum": 0.2}, {"rate": 1.2}, {"rate": 0.1, "kind": "pairs"}])
def test_noise_without_one_rate_is_refused(options):
    with pytest.raises(ConfigurationError, match=r"test: changes.0: options"):
        check(file(("noisy-labels", options)), "test")


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 1.0])
def test_a_share_of_labels_is_known(stratified, share):
    labels = np.random.default_rng(1).integers(0, 4, 500)
    owner = np.random.default_rng(2).choice(5, 500, p=[0.6, 0.2, 0.1, 0.09, 0.01])
    found = apply("limited-labels", view(labels, owner, 5), share=share, stratified=stratified)
    for client in range(5):
        groups = [owner == client]
        if stratified:
            groups = [(owner == client) & (labels == label) for label in range(4)]
        for group in groups:
            if group.any():
                assert found.labelled[group].sum() == max(int(share * group.sum() + 0.5), 1)


def test_known_labels_are_drawn_uniformly():
    someone, draws, known = view([0, 1] * 10, [0] * 20, 1), 1000, np.zeros(20)
    for seed in range(draws):
        known += apply("limited-labels", someone, seed, share=0.2).labelled
    assert np.all(np.abs(known / draws - 0.2) < 5 * np.sqrt(0.16 / draws))


def test_the_server_takes_a_share_of_each_class_and_nobody_else_knows_a_label():
    labels, owner = np.repeat([0, 1, 2], [101, 40, 3]), np.arange(144) % 4
    held_out = np.array([False, False, True, False])
    found = apply("server-labels", replace(view(labels, owner, 4), held_out=held_out), share=0.1)
    free = owner != 2
    sizes = [int((free & (labels == label)).sum()) for label in range(3)]
    assert [found.server[labels == k].sum() for k in range(3)] == [max(int(0.1 * n + 0.5), 1) for n in sizes]
    assert not found.server[~free].any()
    assert np.array_equal(found.owner, np.where(found.server, -1, owner))
    assert not found.labelled.any()
    with pytest.raises(PartitionError, match="two changes give examples to the server"):
        apply("server-labels", found, share=0.1)


def test_examples_of_the_server_are_part_of_the_stored_content(tmp_path):
    labels = balanced(4, 50)
    found = draw(file("server-labels"), labels, 0)
    counts = heterogeneity.label_counts(found, labels, 4)
    path = store.save(Project(tmp_path), "data", "one", found, counts, heterogeneity.measure(counts))
    again = store.load(path)
    assert np.array_equal(again.server, found.server)
    assert again.hash == found.hash
    assert replace(found, server=found.server[1:]).hash != found.hash


def test_unseen_classes_have_no_labels_anywhere():
    labels = balanced(6, 20)
    someone = view(labels, np.arange(120) % 4, 4)
    assert np.array_equal(apply("unseen-classes", someone, classes=[1, 4]).labelled, ~np.isin(labels, [1, 4]))
    drawn = {tuple(np.unique(labels[~apply("unseen-classes", someone, s, number=2).labelled])) for s in range(60)}
    assert len(drawn) > 5
    assert all(len(some) == 2 for some in drawn)
    for options, message in [
        ({"classes": [1, 7]}, r"no example has the labels \[7\]"),
        ({"number": 6}, "leaves none of 6"),
        ({"classes": [0, 1, 2, 3, 4, 5]}, "every class would be unseen"),
    ]:
        with pytest.raises(PartitionError, match=message):
            apply("unseen-classes", someone, **options)


def test_a_label_is_known_if_no_change_hides_it():
    labels = balanced(4, 50)
    limited, unseen = ("limited-labels", {"share": 0.5}), ("unseen-classes", {"classes": [2]})
    found = draw(file(limited, unseen), labels, 0).details["labelled"]
    first = draw(file(limited), labels, 0).details["labelled"]
    assert np.array_equal(found, first & (labels != 2))


# streams


def test_classes_come_in_groups():
    labels = balanced(7, 10) + 3
    someone = view(labels, np.arange(70) % 4, 4)
    assert apply("class-incremental", someone, tasks=3, order="label").stage.tolist() == [
        {3: 0, 4: 0, 5: 0, 6: 1, 7: 1, 8: 2, 9: 2}[label] for label in labels.tolist()
    ]
    orders = set()
    for seed in range(20):
        stage = apply("class-incremental", someone, seed, tasks=3).stage
        groups = [np.unique(labels[stage == task]) for task in range(3)]
        assert [len(group) for group in groups] == [3, 2, 2]
        assert sorted(np.concatenate(groups).tolist()) == list(range(3, 10))
        orders.add(tuple(np.concatenate(groups).tolist()))
    assert len(orders) > 15
    with pytest.raises(PartitionError, match="8 tasks of 7 classes"):
        apply("class-incremental", someone, tasks=8)


def test_permuted_tasks_divide_each_client_equally():
    owner = np.random.default_rng(0).choice(4, 300, p=[0.5, 0.3, 0.19, 0.01])
    found = apply("permuted-tasks", view([0] * 300, owner, 4), tasks=5)
    assert found.per_stage == ("permutation",)
    for client in range(4):
        sizes = np.bincount(found.stage[owner == client], minlength=5)
        assert np.ptp(sizes) <= 1
        assert np.all(np.diff(sizes) <= 0)


def test_drift_moves_from_one_prior_to_the_other():
    """The share of a class that is in each stage follows from the client's two priors; counts are multinomial."""
    each, stages, alpha, classes, clients = 3000, 4, 1.0, 3, 2
    labels = np.tile(np.repeat(np.arange(classes), each), clients)
    owner = np.repeat(np.arange(clients), classes * each)
    found = apply("drift", view(labels, owner, clients), 8, stages=stages, alpha=alpha)
    generator = keyed.generator(8, "test")
    begin, end = (generator.dirichlet(np.full(classes, alpha), size=clients) for _ in range(2))
    for client in range(clients):
        for label in range(classes):
            p, q = begin[client, label], end[client, label]
            stage = found.stage[(owner == client) & (labels == label)]
            for t in range(stages):
                late = t / (stages - 1)
                expected = (p * (1 - late) + q * late) / (p + q) / (stages / 2)
                assert abs((stage == t).mean() - expected) <= 5 * np.sqrt(expected * (1 - expected) / each) + 1e-12


def test_drift_with_tiny_concentrations_has_stages():
    found = apply("drift", view([0, 1] * 50, [0] * 100, 1), stages=5, alpha=1e-300)
    assert set(found.stage.tolist()) <= set(range(5))


# clients


def test_held_out_clients():
    labels = balanced(4, 100)
    for options, number in [({"number": 3}, 3), ({"share": 0.25}, 3), ({"share": 0.01}, 1), ({"clients": [4, 7]}, 2)]:
        found = draw(file(("held-out-clients", options), clients=10), labels, 0)
        plain = draw(file(clients=10), labels, 0)
        assert found.held_out.sum() == number
        for client in range(10):
            if found.held_out[client]:
                assert not len(found.train[client])
                assert not len(found.validation[client])
                assert len(found.test[client]) == 40
            else:
                for one, other in zip(found.parts, plain.parts, strict=True):
                    assert np.array_equal(one[client], other[client])
    assert np.flatnonzero(found.held_out).tolist() == [4, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": 4}, "4 of 4 leave nobody"),
        ({"clients": [0, 4]}, "no client 4 among 4"),
        ({"share": 0.99}, "4 of 4 leave nobody"),
    ],
)
def test_somebody_has_to_train(options, message):
    with pytest.raises(PartitionError, match=message):
        draw(file(("held-out-clients", options)), balanced(4, 10), 0)


def test_clients_without_data_do_not_count_as_training():
    with pytest.raises(PartitionError, match="leave nobody with data"):
        apply("held-out-clients", view([0, 1], [0, 0], 3), clients=[0])


# files


def test_mistakes_in_a_change_name_the_key_and_the_nearest_word():
    with pytest.raises(ConfigurationError, match=r"a.yaml: changes.1: no change 'rotations'; did you mean 'rotation'"):
        check(file("colour", ("rotations", {})), "a.yaml")
    with pytest.raises(ConfigurationError, match=r"a.yaml: changes.0: options: unknown key 'tass'; did you mean 'task"):
        check(file(("class-incremental", {"tass": 2})), "a.yaml")
    with pytest.raises(ValueError, match="two changes"):
        registry.change("drift", registry.Strict)(lambda: None)


@pytest.mark.parametrize("change", ["feature-noise", "rotation", "noisy-labels", "held-out-clients", "drift"])
def test_the_same_twice_is_refused(change):
    with pytest.raises(PartitionError, match=r"two changes .*keep one"):
        draw(file(change, change), balanced(4, 10), 0)


# hash and storage of all that changes make

rows_of = st.lists(st.lists(st.integers(0, 5), max_size=2), min_size=2, max_size=2)


@st.composite
def contents(draw_from):
    """Partitions of 6 examples over 2 clients with any details."""
    parts = []
    for row in draw_from(st.tuples(rows_of, rows_of, rows_of)):
        parts.append(Rows(np.cumsum([0, *map(len, row)]), np.array([*chain(*row)], int)))
    held = np.unique(np.concatenate([part.indices for part in parts]))
    details = {}
    for name in draw_from(st.sets(st.sampled_from(sorted(DETAILS)))):
        values = np.full(6, ABSENT[name], DETAILS[name])
        values[held] = draw_from(st.lists(st.integers(0, 1), min_size=len(held), max_size=len(held)))
        details[name] = values
    two = st.lists(st.integers(0, 1), min_size=2, max_size=2)
    held_out = draw_from(st.none() | two)
    names = draw_from(st.sets(st.sampled_from(["noise", "rotation"])))
    return Partition(
        *parts,
        details,
        None if held_out is None else np.array(held_out, bool),
        {name: np.array(draw_from(two), float) for name in names},
        draw_from(st.sampled_from([(), ("permutation",), ("permutation", "noise"), ("permutation noise",)])),
    )


def content(partition):
    """All of it, as plain values."""
    return (
        [(part.offsets.tolist(), part.indices.tolist()) for part in partition.parts],
        {name: (str(values.dtype), values.tolist()) for name, values in partition.details.items()},
        None if partition.held_out is None else partition.held_out.tolist(),
        {name: values.tolist() for name, values in partition.transforms.items()},
        partition.per_stage,
    )


@settings(max_examples=100, deadline=None)
@given(contents(), contents())
def test_hash_changes_exactly_when_the_content_does(one, other):
    assert (one.hash == other.hash) == (content(one) == content(other))


def test_a_detail_that_differs_in_one_example_changes_the_hash():
    base = draw(file(*OPTIONS.keys() - {"class-incremental", "drift"}), balanced(4, 20), 0)
    for name in DETAILS:
        changed = base.details[name].copy()
        changed[7] = 1 - changed[7]
        other = Partition(*base.parts, {**base.details, name: changed}, base.held_out, base.transforms, base.per_stage)
        assert other.hash != base.hash
    for name in base.transforms:
        changed = {**base.transforms, name: np.nextafter(base.transforms[name], np.inf)}
        assert Partition(*base.parts, base.details, base.held_out, changed, base.per_stage).hash != base.hash
    assert Partition(*base.parts, base.details, ~base.held_out, base.transforms, base.per_stage).hash != base.hash
    assert Partition(*base.parts, base.details, base.held_out, base.transforms).hash != base.hash


def test_the_same_numbers_under_another_name_are_another_content():
    rows = Rows(np.array([0, 1, 2]), np.array([0, 1]))
    ones, two = np.ones(2), np.ones(2, int)
    contents = [
        {"transforms": {"noise": ones}},
        {"transforms": {"rotation": ones}},
        {"transforms": {"noise": ones, "rotation": ones}},
        {"details": {"observed": two}},
        {"details": {"stage": two.astype(np.int32)}},
        {"details": {"labelled": two.astype(bool)}},
        {"details": {"observed": two, "labelled": two.astype(bool)}},
        {"held_out": two.astype(bool)},
        {"per_stage": ("permutation", "noise")},
        {"per_stage": ("permutation noise",)},
        {},
    ]
    assert len({Partition(rows, rows, rows, **content).hash for content in contents}) == len(contents)


@settings(max_examples=25, deadline=None)
@given(found=contents())
def test_everything_is_stored(tmp_path_factory, found):
    project = Project(tmp_path_factory.mktemp("stored"))
    counts = np.zeros((2, 3), int)
    path = store.save(project, "toy", "any", found, counts, heterogeneity.measure(counts))
    read = store.load(path)
    assert content(read) == content(found)
    assert read.hash == found.hash
    assert (read.stages, read.clients) == (found.stages, 2)


def test_what_is_measured_and_shown_is_stored(tmp_path):
    labels, names = balanced(4, 50), ["noisy-labels", "limited-labels", "drift", "rotation", "held-out-clients"]
    inputs = np.random.default_rng(0).normal(size=(200, 3))
    asked, project = file(*names), Project(tmp_path)
    (manifest,) = store.make(project, "toy", "d", labels, 4, asked, "all", [0], inputs=inputs)
    found, _ = store.open_partition(project, "toy", "all", 0)
    path = project.root / manifest["file"]
    measured = store.load_measured(path)
    assert list(measured) == list(heterogeneity.MEASURES)
    observed, labelled = found.details["observed"], found.details["labelled"]
    for client in range(4):
        mine = np.concatenate([part[client] for part in found.parts])
        assert measured["label_noise"][client] == pytest.approx(np.mean(observed[mine] != labels[mine]))
        assert measured["labelled_share"][client] == pytest.approx(np.mean(labelled[mine]))
        for stage in range(found.stages):
            some = labels[mine[found.details["stage"][mine] == stage]]
            assert store.load_shown(path)["stages"][client, stage].tolist() == np.bincount(some, minlength=4).tolist()
    assert np.array_equal(measured["feature_distance"], heterogeneity.feature_distance(found, inputs))
    shown = store.load_shown(path)
    assert list(shown["beside"]) == ["label noise", "labelled share", "rotation"]
    assert np.array_equal(shown["held_out"], found.held_out)
    assert np.array_equal(shown["counts"], heterogeneity.label_counts(found, labels, 4))
    for name in heterogeneity.MEASURES[1:]:
        assert manifest["heterogeneity"][f"{name}_mean"] == pytest.approx(measured[name].mean())
    plain = store.make(project, "toy", "d", labels, 4, file(), "plain", [0])[0]
    assert set(manifest["heterogeneity"]) - set(plain["heterogeneity"]) == {
        "label_noise_mean",
        "labelled_share_mean",
        "feature_distance_mean",
    }


def test_a_flipped_bit_of_a_stream_is_never_believed(tmp_path):
    labels, project = balanced(4, 50), Project(tmp_path)
    asked = file("noisy-labels", "permuted-tasks", "rotation", "held-out-clients")
    (manifest,) = store.make(project, "toy", "d", labels, 4, asked, "stream", [0])
    path = project.root / manifest["file"]
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), max(len(whole) // 250, 1)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            assert store.load(path).hash == manifest["hash"]
        except PartitionError as error:
            refused += "make the partition again" in str(error)
    assert refused > 50
