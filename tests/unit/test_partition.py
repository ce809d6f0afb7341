"""Compressed rows, the split inside each client, measurements, storage and pictures."""

import hashlib
import json
import struct
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterobench import keyed
from heterobench.config.reading import load as load_file
from heterobench.config.reading import names
from heterobench.config.schema import PartitionFile
from heterobench.data.schema import load_dataset_file
from heterobench.errors import PartitionError
from heterobench.partition import heterogeneity, store
from heterobench.partition.changes import CHANGES
from heterobench.partition.partition import Partition, draw
from heterobench.partition.picture import draw_picture
from heterobench.partition.rows import Rows
from heterobench.partition.schemes import SCHEMES, Columns, check
from heterobench.partition.split import part_sizes, split
from heterobench.project import Project

REPOSITORY = Project(Path(__file__).parents[2])
LABELS = np.random.default_rng(5).integers(0, 10, 600)
FILE = PartitionFile(title="a test", scheme="dirichlet-by-class", clients=7, minimum=2, options={"alpha": 0.3})


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def made(project):
    return store.make(project, "toy", "d" * 64, LABELS, 10, FILE, "dirichlet-0.3", [0, 1])


# rows


@settings(deadline=None)
@given(owner=st.lists(st.integers(0, 6), max_size=40))
def test_rows_of_an_assignment(owner):
    rows = Rows.from_assignment(np.array(owner, int), 7)
    assert [row.tolist() for row in rows] == [[j for j, o in enumerate(owner) if o == i] for i in range(7)]
    assert rows.sizes.tolist() == [owner.count(i) for i in range(7)]
    assert rows.owner.tolist() == sorted(owner)
    assert rows[-1].tolist() == rows[6].tolist()


def test_rows_are_read_only_views():
    rows = Rows.from_assignment(np.array([1, 0, 1]), 3)
    assert np.shares_memory(rows[1], rows.indices)
    assert rows[2].tolist() == []
    with pytest.raises(ValueError, match="read-only"):
        rows[1][0] = 5
    with pytest.raises(IndexError):
        rows[3]


@pytest.mark.parametrize(
    ("offsets", "indices"),
    [([], []), ([1, 2], [0, 1]), ([0, 3], [1]), ([0, 2, 1, 3], [1, 2, 3]), ([[0]], [])],
)
def test_rows_that_do_not_fit_are_refused(offsets, indices):
    with pytest.raises(ValueError, match="offsets"):
        Rows(np.array(offsets), np.array(indices))
    with pytest.raises(ValueError, match="3 rows"):
        Rows.from_assignment(np.array([3]), 3)


# split


@settings(deadline=None)
@given(
    size=st.integers(0, 10_000),
    shares=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).filter(lambda pair: sum(pair) < 1),
)
def test_part_sizes(size, shares):
    train, validation, test = (int(part[0]) for part in part_sizes(np.array([size]), *shares))
    assert train + validation + test == size
    assert min(validation, test) >= 0
    assert train >= min(size, 1)
    assert abs(test - shares[1] * size) <= 1
    assert abs(validation - shares[0] * size) <= 1.5


def test_half_an_example_is_rounded_up_and_one_is_always_trained_on():
    train, validation, test = part_sizes(np.array([0, 1, 2, 4, 5, 14, 15]), 0.1, 0.1)
    assert validation.tolist() == test.tolist() == [0, 0, 0, 0, 1, 1, 2]
    train, validation, test = part_sizes(np.array([1, 2]), 0.4, 0.5)
    assert (train.tolist(), validation.tolist(), test.tolist()) == ([1, 1], [0, 0], [0, 1])


def test_split_is_uniform_inside_each_client():
    """Each of a client's ten examples is its one test example with probability 1/10."""
    owner, draws = np.repeat([1, 0], 10), 2000
    chosen = np.zeros(20)
    for seed in range(draws):
        _, _, test = split(owner, 2, 0.2, 0.1, keyed.generator(seed, "test"))
        assert test.sizes.tolist() == [1, 1]
        chosen[test.indices] += 1
    assert np.all(np.abs(chosen / draws - 0.1) < 5 * np.sqrt(0.09 / draws))


# content hash


def partition(rows):
    """rows: three lists of lists."""
    return Partition(*(Rows(np.cumsum([0, *map(len, part)]), np.array([*chain(*part)], int)) for part in rows))


contents = st.integers(1, 3).flatmap(
    lambda n: st.tuples(*[st.lists(st.lists(st.integers(0, 3), max_size=2), min_size=n, max_size=n)] * 3)
)


@settings(max_examples=300, deadline=None)
@given(contents, contents)
def test_hash_changes_exactly_when_the_content_does(one, other):
    assert (partition(one).hash == partition(other).hash) == (one == other)


def test_hash_is_the_documented_one():
    """The first two would be one stream of numbers if the number of clients did not open it."""
    two, one = ([[0], [4]], [[], []], [[], []]), ([[2]], [[0, 0, 0, 0]], [[]])
    assert partition(two).hash != partition(one).hash
    stream = [2, 0, 1, 2, 0, 4, 0, 0, 0, 0, 0, 0]
    assert partition(two).hash == hashlib.sha256(struct.pack(f"<{len(stream)}q", *stream)).hexdigest()


def test_hash_ignores_how_the_content_is_held():
    offsets, indices = np.array([0, 2, 3]), np.array([4, 7, 1])
    plain = Rows(offsets, indices)
    other = Rows(offsets.astype(np.int32), np.repeat(indices, 2).astype(">i4")[::2])
    assert Partition(plain, plain, plain).hash == Partition(other, other, other).hash
    with pytest.raises(ValueError, match="one row per client"):
        Partition(plain, plain, Rows(np.array([0]), indices[:0]))


def test_assignment_and_split_are_drawn_with_their_own_keys():
    scheme, options = check(FILE, "test")
    owner = scheme.assign(Columns(LABELS), 7, options, keyed.generator(3, "partition"), 2)
    expected = split(owner, 7, 0.1, 0.1, keyed.generator(3, "client split"))
    assert Partition(*expected).hash == draw(FILE, LABELS, 3).hash


def test_the_split_does_not_move_examples_between_clients():
    """Other shares, same clients: the assignment and the split have separate keys."""
    held = [
        [sorted(np.concatenate(rows).tolist()) for rows in zip(*found.parts, strict=True)]
        for share in (0.0, 0.1, 0.3)
        for found in [draw(FILE.model_copy(update={"validation": share, "test": share}), LABELS, 0)]
    ]
    assert held[0] == held[1] == held[2]


# measurements


def test_one_class_per_client_is_as_far_away_as_can_be():
    """K clients with one of K balanced classes each: TV 1 - 1/K, one effective class, known divergence."""
    for k in (2, 5, 10):
        counts = np.eye(k, dtype=int) * 30
        assert heterogeneity.total_variation(counts) == pytest.approx(1 - 1 / k)
        assert heterogeneity.effective_classes(counts) == pytest.approx(1)
        # H of the middle: one class with (1 + 1/k)/2, the other k - 1 with 1/(2k)
        big, small = (1 + 1 / k) / 2, 1 / (2 * k)
        middle = -big * np.log2(big) - (k - 1) * small * np.log2(small)
        assert heterogeneity.jensen_shannon(counts) == pytest.approx(middle - np.log2(k) / 2)


def test_equal_clients_are_at_distance_zero():
    counts = np.tile([5, 0, 15, 20], (6, 1)) * np.arange(1, 7)[:, None]
    assert heterogeneity.total_variation(counts) == pytest.approx(0)
    assert heterogeneity.jensen_shannon(counts) == pytest.approx(0, abs=1e-12)
    assert heterogeneity.effective_classes(np.full((3, 4), 7)) == pytest.approx(4)


def test_divergence_agrees_with_scipy():
    from scipy.spatial.distance import jensenshannon

    counts = np.random.default_rng(0).integers(0, 20, (8, 5))
    whole = counts.sum(0)
    expected = [jensenshannon(row, whole, base=2) ** 2 for row in counts]  # scipy returns the square root
    assert heterogeneity.jensen_shannon(counts) == pytest.approx(expected)


def test_clients_without_examples_are_zeros_and_left_out_of_means():
    for counts in (np.array([[0, 0], [4, 0], [0, 4]]), np.zeros((3, 2), int)):
        measured = heterogeneity.measure(counts)
        assert all(np.all(np.isfinite(values)) and values[0] == 0 for values in measured.values())
        assert all(np.isfinite(value) for value in heterogeneity.summary(measured).values())
    summary = heterogeneity.summary(heterogeneity.measure(np.array([[0, 0], [4, 0], [0, 4]])))
    assert summary["label_total_variation_mean"] == pytest.approx(0.5)
    assert summary["empty_clients"] == 1


def test_gini_closed_forms():
    assert heterogeneity.gini(np.full(9, 4)) == pytest.approx(0)
    assert heterogeneity.gini(np.eye(8)[0]) == pytest.approx(1 - 1 / 8)
    assert heterogeneity.gini(np.zeros(3)) == 0
    x = np.random.default_rng(0).integers(0, 50, 30)
    assert heterogeneity.gini(x) == pytest.approx(np.abs(x[:, None] - x).mean() / (2 * x.mean()))


def test_label_counts_by_a_plain_loop():
    found = draw(FILE, LABELS, 0)
    expected = np.zeros((7, 10), int)
    for part in found.parts:
        for client, row in enumerate(part):
            for example in row:
                expected[client, LABELS[example]] += 1
    assert np.array_equal(heterogeneity.label_counts(found, LABELS, 10), expected)


def client_of(partition, examples):
    """The client of each example, by a plain loop; -1 for nobody."""
    owner = np.full(examples, -1)
    for part in partition.parts:
        for client, row in enumerate(part):
            owner[row] = client
    return owner


def naive_feature_distance(owner, x, clients):
    x = x.reshape(len(x), -1).astype(float)
    held = x[owner >= 0]
    varies = held.std(0) > 0
    standard = (x - held.mean(0))[:, varies] / held.std(0)[varies]
    means = [standard[owner == client].mean(0) if np.any(owner == client) else [0.0] for client in range(clients)]
    return [np.sqrt(np.mean(np.square(mean))) for mean in means]


@pytest.mark.parametrize("block", [1, 37, 400, 2**21])
def test_feature_distance_by_a_plain_loop(monkeypatch, block):
    """However much is held at once: with empty clients, examples of nobody, constant features and large offsets."""
    monkeypatch.setattr(heterogeneity, "BLOCK", block)
    generator = np.random.default_rng(0)
    where = generator.choice([-1, 0, 1, 2, 3, 9], 300, p=[0.1, 0.5, 0.2, 0.1, 0.05, 0.05])
    file = PartitionFile(title="", scheme="natural-key", clients=None, options={"key": "where"})
    found = draw(file, LABELS[:300], 0, attributes={"where": where})
    split_up = Partition(*(Rows(np.concatenate([[0], part.offsets]), part.indices) for part in found.parts))
    x = generator.normal(size=(300, 2, 3)) + where[:, None, None] * 0.3 + 1000
    x[:, 0, 1] = 7
    owner = client_of(split_up, 300)
    assert heterogeneity.feature_distance(split_up, x) == pytest.approx(naive_feature_distance(owner, x, 6))
    bytes_ = generator.integers(0, 256, (300, 4), np.uint8)
    expected = naive_feature_distance(owner, bytes_, 6)
    assert heterogeneity.feature_distance(split_up, bytes_) == pytest.approx(expected)
    assert heterogeneity.feature_distance(split_up, bytes_ * np.float32(0.1) - 3) == pytest.approx(expected, rel=1e-4)


def test_feature_distance_is_the_variance_between_clients():
    """One class a client, one value a class: all variance is between; without variance there is no distance."""
    file = PartitionFile(title="", scheme="k-classes", clients=10, options={"classes_per_client": 1})
    found = draw(file, LABELS, 0)
    shares = found.sizes / found.sizes.sum()
    assert shares @ heterogeneity.feature_distance(found, LABELS[:, None] ** 2) ** 2 == pytest.approx(1)
    assert heterogeneity.feature_distance(found, np.full((600, 3), 0.1)).tolist() == [0] * 10


def test_feature_distance_that_chance_makes():
    """IID: the mean of a random subset of n_i of n has variance (n - n_i) / (n_i (n - 1)) population variances."""
    file, draws = PartitionFile(title="", scheme="iid", clients=4), 400
    x = np.random.default_rng(1).exponential(size=(60, 5))
    squares = np.array([heterogeneity.feature_distance(draw(file, LABELS[:60], s), x) ** 2 for s in range(draws)])
    expected = (60 - 15) / (15 * 59)
    assert abs(squares.mean() - expected) < 5 * squares.mean(1).std() / np.sqrt(draws)


# storage


def test_what_is_stored_comes_back(project, made):
    for seed, manifest in enumerate(made):
        found, read = store.open_partition(project, "toy", "dirichlet-0.3", seed)
        drawn = draw(FILE, LABELS, seed)
        for one, other in zip(found.parts, drawn.parts, strict=True):
            assert np.array_equal(one.offsets, other.offsets)
            assert np.array_equal(one.indices, other.indices)
        assert read == manifest
        assert found.hash == drawn.hash == manifest["hash"]
        path = project.root / manifest["file"]
        assert path.name == f"dirichlet-0.3-{drawn.hash[:16]}.parquet"
        counts = heterogeneity.label_counts(drawn, LABELS, 10)
        assert np.array_equal(store.load_counts(path), counts)
        assert np.array_equal(store.load_measured(path)["effective_classes"], heterogeneity.effective_classes(counts))
    assert made[0]["hash"] != made[1]["hash"]
    assert json.loads(json.dumps(made)) == made
    assert not any(str(project.root) in str(value) for value in made[0].values())


def test_a_partition_is_written_once(project, made):
    path = project.root / made[0]["file"]
    before, content = path.stat(), path.read_bytes()
    assert store.make(project, "toy", "d" * 64, LABELS, 10, FILE, "dirichlet-0.3", [0]) == made[:1]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    path.unlink()
    store.make(project, "toy", "d" * 64, LABELS, 10, FILE, "dirichlet-0.3", [0])
    assert path.read_bytes() == content


def test_other_labels_under_the_same_rows_are_measured_again(project):
    """IID rows do not depend on labels, so a changed data set meets its old file."""
    plain = PartitionFile(title="", scheme="iid", clients=4)
    (old,) = store.make(project, "toy", "a" * 64, LABELS, 10, plain, "iid", [0])
    (new,) = store.make(project, "toy", "b" * 64, 9 - LABELS, 10, plain, "iid", [0])
    assert old["file"] == new["file"]
    assert store.load_counts(project.root / new["file"]).sum(0).tolist() == np.bincount(9 - LABELS).tolist()


def test_a_flipped_bit_is_never_believed(project, made):
    """Anywhere in the file: reading refuses it, or what is read is what was written."""
    path = project.root / made[0]["file"]
    whole = path.read_bytes()
    good, messages = store.load(path).hash, []
    for place in range(0, len(whole), max(len(whole) // 400, 1)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            assert store.load(path, made[0]["hash"]).hash == good
        except PartitionError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(str(path) in text and "make the partition again" in text for text in messages)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PartitionError, match="altered or damaged"):
        store.open_partition(project, "toy", "dirichlet-0.3", 0)
    store.make(project, "toy", "d" * 64, LABELS, 10, FILE, "dirichlet-0.3", [0])  # replaces what is damaged
    assert path.read_bytes() == whole


def test_another_content_under_the_name_is_refused(project, made):
    first, second = (project.root / manifest["file"] for manifest in made)
    first.write_bytes(second.read_bytes())
    for expected in (None, made[0]["hash"]):
        with pytest.raises(PartitionError, match=rf"expected content .*found {made[1]['hash']}"):
            store.load(first, expected)


def test_missing_and_broken_files_say_what_to_do(project, made):
    with pytest.raises(PartitionError, match=r"no such manifest; make partition dirichlet-0.3"):
        store.open_partition(project, "toy", "dirichlet-0.3", 9)
    (project.root / made[0]["file"]).unlink()
    with pytest.raises(PartitionError, match="no such partition; make it again"):
        store.open_partition(project, "toy", "dirichlet-0.3", 0)
    for broken in ("{", "[]", "{}"):
        project.partition_manifest("toy", "dirichlet-0.3", 1).write_text(broken)
        with pytest.raises(PartitionError, match="not a partition's manifest"):
            store.open_partition(project, "toy", "dirichlet-0.3", 1)


def test_errors_say_which_partition_of_what(project):
    impossible = FILE.model_copy(update={"minimum": 100})
    with pytest.raises(PartitionError, match=r"partition dir of toy, seed 3: dirichlet-by-class \(alpha=0.3\)"):
        store.make(project, "toy", "d", LABELS, 10, impossible, "dir", [3])
    with pytest.raises(PartitionError, match="label 9, but 5 classes"):
        store.make(project, "toy", "d", LABELS, 5, FILE, "dir", [3])
    assert not list(project.root.rglob("*.parquet"))


# the partitions of this repository


FILES = {name: load_file(REPOSITORY, "partitions", name, PartitionFile) for name in names(REPOSITORY, "partitions")}


@pytest.mark.parametrize("name", FILES)
def test_every_partition_file_can_be_drawn_from_digits(name):
    from sklearn.datasets import load_digits

    file = FILES[name]
    labels = load_digits().target[:1437]
    attributes = {}
    if key := file.options.get("key"):
        attributes[key] = np.arange(1437) % max(file.clients or 4, 4)
    for seed in range(5):
        assert draw(file, labels, seed, name, attributes).sizes.min() >= file.minimum
    assert file.reference
    assert file.title


def test_every_scheme_and_change_has_a_partition_file():
    assert {file.scheme for file in FILES.values()} == set(SCHEMES)
    assert {entry.change for file in FILES.values() for entry in file.changes} == set(CHANGES)
    titles = [file.title for file in FILES.values()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if "key" in file.options])
def test_natural_partitions_name_an_attribute_of_a_data_set(name):
    key = FILES[name].options["key"]
    uses = {
        attribute.use
        for dataset in names(REPOSITORY, "datasets")
        for attribute_name, attribute in load_dataset_file(REPOSITORY, dataset).attributes.items()
        if attribute_name == key
    }
    assert uses
    assert ("domain" in uses) == FILES[name].scheme.startswith("domain")


# pictures


@pytest.mark.parametrize("shape", [(1, 1), (7, 10), (40, 100), (41, 3), (500, 10)])
def test_pictures_are_deterministic_vector_graphics(tmp_path, shape):
    counts = np.random.default_rng(0).integers(0, 9, shape)
    counts[0] = 0
    for name in ("one", "two"):
        draw_picture(counts, "a title", tmp_path / f"{name}.svg")
    content = (tmp_path / "one.svg").read_bytes()
    assert content == (tmp_path / "two.svg").read_bytes()
    assert b"<svg" in content
    assert content.count(b"<image") == (shape == (40, 100))  # a colour bar is the one thing with pixels
    assert b"<dc:date>" not in content


@pytest.mark.parametrize(("clients", "stages"), [(10, 8), (60, 5)])
def test_pictures_of_what_else_clients_differ_in(tmp_path, clients, stages):
    generator = np.random.default_rng(0)
    staged = generator.integers(0, 9, (clients, stages, 4))
    beside = {"label noise": generator.random(clients), "rotation": generator.uniform(-30, 30, clients)}
    shown = {"beside": beside, "held_out": np.arange(clients) == 2, "stages": staged}
    plain, full, again = (tmp_path / f"{name}.svg" for name in ("plain", "full", "again"))
    draw_picture(staged.sum(1), "a title", plain)
    draw_picture(staged.sum(1), "a title", full, **shown)
    draw_picture(staged.sum(1), "a title", again, **shown)
    assert full.read_bytes() == again.read_bytes() != plain.read_bytes()
    text = full.read_text()
    for words in ("label noise", "rotation", "held out"):
        assert words in text
