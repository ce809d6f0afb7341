"""Own data: labels, tables, folders of images and Parquet files, against pandas and Pillow reading the same files."""

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ruamel.yaml import YAML

from heterobench.data.dataset import open_dataset
from heterobench.data.fetch import MIRROR, fetch
from heterobench.data.labels import numbered
from heterobench.data.prepare import prepare
from heterobench.errors import ConfigurationError, DataError
from heterobench.files import file_digest
from heterobench.project import Project

COMMON = {"title": "Own", "licence": "own", "canonical": "none"}
TABLE = COMMON | {"kind": "table", "classes": ["yes", "no"], "shape": [4], "reader": "table"}
IMAGES = COMMON | {"classes": ["cat", "dog"], "shape": [3, 6, 8], "maximum": 255}
IMAGES |= {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """make(entries, files, **changes): the set "own" of these files, fetched; changes are those of the options."""
    monkeypatch.setenv(MIRROR, str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    project = Project(tmp_path / "project")
    (project.params / "datasets").mkdir(parents=True)

    def make(entries, files, **changes):
        downloads = []
        for name, content in files.items():
            file = tmp_path / "mirror" / name
            file.write_bytes(content)
            downloads.append({"path": name, "sha256": file_digest(file), "sources": [{"mirror": name}]})
        options = {key: value for key, value in (entries.get("options", {}) | changes).items() if value is not None}
        told = entries | {"options": options, "forms": [{"name": "own", "downloads": downloads}]}
        YAML().dump(told, project.params / "datasets" / "own.yaml")
        fetch(project, "own")
        return project

    return make


def opened(project):
    prepare(project, "own")
    return open_dataset(project, "own", verify=True)


# --- labels, of any reader


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (np.array([2, 0, 1], np.uint8), "abc", [2, 0, 1]),
        (np.array([2.0, 0.0, 1.0], np.float32), "abc", [2, 0, 1]),
        (np.array([True, False]), "ab", [1, 0]),
        (np.array(["b", "c", "b"]), "abc", [1, 2, 1]),
        (np.array([b"b", b"a"]), "abc", [1, 0]),
        (np.array(["2", "0"]), "abc", [2, 0]),
        (np.array([7, 1, 3]), "137", [2, 0, 1]),  # names that are numbers are names
        (np.array(["7", "1", "3"]), "137", [2, 0, 1]),
        (np.array([1, 0]), "10", [0, 1]),
        (np.array([1, 0, 2]), "1a0", [1, 0, 2]),  # not all are: numbers are places
        (np.array(["1", "0", "a"]), "1a0", [0, 2, 1]),  # and texts are names
        (np.array(["1", "0", "2"]), "1a0", [1, 0, 2]),  # unless they are not
        (np.array([0.5, 1.7, 0.5], np.float32), ["0.5", "1.7"], [0, 1, 0]),
    ],
)
def test_labels_are_names_of_classes_or_their_numbers(labels, classes, expected):
    found = numbered(labels, list(classes), "here")
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        (np.array([0.5, 1.7, 1.0, 0.5]), r"'0\.5' \(2 times\), '1\.7' \(1 times\)\. Found are 0\.5, 1, 1\.7"),
        (np.array([1, 3, 7, 7]), r"'3' \(1 times\), '7' \(2 times\)\. Found are 1, 3, 7"),
        (np.array([-1, 0, 1]), r"'-1' \(1 times\)"),
        (np.array(["cat", "dog"]), r"'cat' \(1 times\), 'dog' \(1 times\)"),
        (np.array([0.0, np.nan]), r"'nan' \(1 times\)"),
        (np.array([2**63, 0], np.uint64), r"'9223372036854775808' \(1 times\)"),
        (np.arange(20), r"'12' \(1 times\), \.\.\. \(17 in all\)"),
    ],
)
def test_other_labels_are_refused_with_what_was_found_and_what_is_allowed(labels, wrong):
    with pytest.raises(DataError, match=rf"here: labels that are not allowed: .*{wrong}") as error:
        numbered(labels, ["a", "b", "c"], "here")
    assert "allowed are the names in classes: a, b, c, or the numbers 0 to 2" in str(error.value)
    assert "What to do: write classes as the labels are" in str(error.value)


def test_labels_that_are_absent_or_not_one_for_each_example():
    with pytest.raises(DataError, match="here: 1 of 3 examples have no label, the first in row 2"):
        numbered(np.array(["a", None, "b"], object), ["a", "b"], "here")
    for shape in ((0,), (3, 2)):
        with pytest.raises(DataError, match=r"here: labels of shape \["):
            numbered(np.zeros(shape), ["a", "b"], "here")


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0.5, 1.7], ["a", "b"], r"'0\.5' \(\d+ times\), '1\.7'"),
        ([1, 3, 7], ["a", "b", "c"], r"'3' \(\d+ times\), '7' \(\d+ times\).*Found are 1, 3, 7"),
        ([-1, 0, 1], ["a", "b", "c"], r"'-1' \(\d+ times\)"),
        (["ant", "bee"], ["cat", "dog"], r"'ant' \(\d+ times\), 'bee'.*allowed are the names in classes: cat, dog"),
    ],
)
def test_a_medmnist_file_with_other_labels_is_refused(make, labels, classes, message):
    draw = np.random.default_rng(0)
    parts = {"train": 40, "val": 20, "test": 30}
    arrays = {f"{part}_images": draw.integers(0, 256, (n, 6, 8, 3)).astype(np.uint8) for part, n in parts.items()}
    arrays |= {f"{part}_labels": draw.choice(np.array(labels), (n, 1)) for part, n in parts.items()}
    file = io.BytesIO()
    np.savez(file, **arrays)
    entries = IMAGES | {"classes": classes, "reader": "medmnist", "options": {"file": "own.npz"}}
    project = make(entries, {"own.npz": file.getvalue()})
    with pytest.raises(DataError, match=rf"params/datasets/own\.yaml: train data: labels .*{message}"):
        prepare(project, "own")


# --- tables


@pytest.fixture(scope="module")
def frame():
    """What pandas holds: two numbers, a category, a group that is not always known, a label, a part."""
    draw = np.random.default_rng(3)
    n = 60
    return pd.DataFrame(
        {
            "label": draw.choice(["yes", "no"], n),
            "height": draw.normal(170, 10, n).round(3),
            "colour": draw.choice(["red", "green, dark"], n),
            "age": draw.integers(0, 99, n),
            "clinic": draw.choice(["10", "9", None], n),
            "part": draw.choice(["a", "b", "c"], n),
            "free text": ["line\nbreak"] * n,
        }
    )


OPTIONS = {"label": "label", "inputs": {"age": "number", "colour": ["red", "green, dark"], "height": "number"}}
OPTIONS |= {"attributes": {"clinic": "clinic"}}
OWN_TABLE = TABLE | {"attributes": {"clinic": {"about": "where", "use": "client"}}, "options": OPTIONS}


def csv_of(frame):
    return frame.to_csv(index=False).encode()


def parquet_of(frame, **options):
    file = io.BytesIO()
    frame.to_parquet(file, **options)
    return file.getvalue()


def expected_x(frame):
    """The inputs, by pandas."""
    colours = [(frame.colour == colour).astype(float) for colour in ("red", "green, dark")]
    return np.stack([frame.age, *colours, frame.height], axis=1).astype(np.float32)


def check_part(x, y, clinic, frame):
    assert np.array_equal(x, expected_x(frame))
    assert y.tolist() == [["yes", "no"].index(label) for label in frame.label]
    assert clinic.tolist() == [{"9": 0, "10": 1}.get(value, -1) for value in frame.clinic]


@pytest.mark.parametrize("form", ["csv", "semicolons", "parquet", "categorical parquet"])
def test_a_table_is_what_pandas_reads(make, frame, form):
    content = {
        "csv": lambda: csv_of(frame),
        "semicolons": lambda: frame.to_csv(index=False, sep=";").encode(),
        "parquet": lambda: parquet_of(frame),
        "categorical parquet": lambda: parquet_of(frame.astype({"label": "category", "colour": "category"})),
    }[form]()
    name = "own.parquet" if "parquet" in form else "own.csv"
    delimiter = ";" if form == "semicolons" else None
    mark = {"column": "part", "values": ["b", "c"]}
    data = opened(make(OWN_TABLE, {name: content}, train=[name], test_rows=mark, delimiter=delimiter))
    train, test = frame[frame.part == "a"], frame[frame.part != "a"]
    check_part(data.train_x, data.train_y, data.train["clinic"], train)
    check_part(data.test_x, data.test_y, data.test["clinic"], test)
    assert data.manifest["attributes"]["clinic"]["names"] == ["9", "10"]  # numbers in their order
    ages = train.age.to_numpy(np.float64)
    assert data.mean[0] == pytest.approx(ages.mean())
    assert (data.mean[1], data.std[1]) == (0, 1)  # indicators stay


def test_several_files_are_one_table_in_the_order_of_their_names(make, frame):
    shards = {f"train-{k}.parquet": parquet_of(frame[20 * k : 20 * k + 20]) for k in (1, 0)}
    files = shards | {"test.csv": csv_of(frame[40:])}
    with pytest.raises(DataError, match="different columns"):  # an age is a number here and a text there
        prepare(make(OWN_TABLE, files, train=["train-*.parquet"], test=["test.csv"]), "own")
    files = shards | {"test.parquet": parquet_of(frame[40:])}
    data = opened(make(OWN_TABLE, files, train=["train-*.parquet"], test=["test.parquet"]))
    check_part(data.train_x, data.train_y, data.train["clinic"], frame[:40])
    check_part(data.test_x, data.test_y, data.test["clinic"], frame[40:])


def test_a_share_of_each_class_is_held_out_once_and_for_ever(make, frame):
    project = make(OWN_TABLE, {"own.csv": csv_of(frame)}, train=["own.csv"], holdout=0.3)
    data = opened(project)
    sizes = frame.label.value_counts()
    assert np.bincount(data.test_y).tolist() == [round(0.3 * sizes["yes"]), round(0.3 * sizes["no"])]
    together = np.concatenate([data.train_x, data.test_x])
    whole = expected_x(frame)
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, whole.tolist()))
    order = [whole.tolist().index(row) for row in data.test_x.tolist()]
    assert order == sorted(order)  # each part in the order of the file
    assert opened(project).hash == data.hash


def test_labels_of_a_table_may_be_numbers_of_the_file(make, frame):
    frame = frame.assign(label=np.where(frame.label == "yes", 3, 5))
    entries = OWN_TABLE | {"classes": ["5", "3"]}
    data = opened(make(entries, {"own.parquet": parquet_of(frame)}, train=["own.parquet"], holdout=0.2))
    assert sum(data.manifest["counts"][part][1] for part in ("train", "test")) == (frame.label == 3).sum()


TABLE_FAULTS = {
    "missing number": (
        "age",
        4,
        None,
        r"own\.csv: row 5 \(without the header\): column 'age' has no value, as in 1 of",
    ),
    "missing category": ("colour", 7, None, r"own\.csv: row 8 .*: column 'colour' has no value"),
    "missing label": ("label", 0, None, r"own\.csv: row 1 .*: column 'label' has no value"),
    "no number": ("height", 2, "tall", r"own\.csv: row 3 .*: column 'height': 'tall' is not a number"),
    "infinite": ("height", 2, "inf", r"own\.csv: row 3 .*: column 'height': 'inf' is not a number"),
    "category": ("colour", 9, "Red", r"own\.csv: row 10 .*: column 'colour': 'Red' is none .*did you mean 'red'"),
    "label": ("label", 9, "maybe", r"labels that are not allowed: 'maybe' \(1 times\).*classes: yes, no"),
}


@pytest.mark.parametrize("fault", TABLE_FAULTS)
def test_a_value_that_cannot_be_an_input_is_named_with_its_row_and_column(make, frame, fault):
    column, row, value, message = TABLE_FAULTS[fault]
    frame = frame.astype(object)
    frame.loc[row, column] = value
    project = make(OWN_TABLE, {"own.csv": csv_of(frame)}, train=["own.csv"], holdout=0.2)
    with pytest.raises(DataError, match=message):
        prepare(project, "own")


def test_a_row_is_counted_in_its_own_file(make, frame):
    bad = frame[10:].reset_index(drop=True).astype(object)
    bad.loc[3, "age"] = None
    project = make(
        OWN_TABLE, {"a.csv": csv_of(frame[:10]), "b.csv": csv_of(bad)}, train=["a.csv", "b.csv"], holdout=0.2
    )
    with pytest.raises(DataError, match=r"b\.csv: row 4 "):
        prepare(project, "own")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": ["own.cvs"]}, DataError, r"no file 'own\.cvs'; did you mean 'own\.csv'"),
        ({"label": "Label"}, DataError, r"own\.csv: no column 'Label'; did you mean 'label'"),
        ({"holdout": None}, ConfigurationError, "exactly one of: test, test_rows, holdout"),
        ({"test": ["own.csv"]}, ConfigurationError, "exactly one of: test, test_rows, holdout"),
        ({"holdout": None, "test": ["own.csv"]}, DataError, r"own\.csv is named by train and by test"),
        ({"holdout": 1.5}, ConfigurationError, r"options: holdout: .*less than 1 \(found 1\.5\)"),
        ({"inputs": {"age": "numbers"}}, ConfigurationError, "options: inputs"),
        ({"attributes": {"clinik": "clinic"}}, ConfigurationError, "none called 'clinic'; did you mean 'clinik'"),
        (
            {"holdout": None, "test_rows": {"column": "part", "values": ["d"]}},
            DataError,
            "0 of 60 rows are test data, those of d; values found: a, b, c",
        ),
        ({"inputs": {"age": "number"}}, DataError, r"shape: expected \[4\], found \[1\]"),
    ],
)
def test_options_that_do_not_fit_the_files(make, frame, changes, error, message):
    options = {"train": ["own.csv"], "holdout": 0.2} | changes
    project = make(OWN_TABLE, {"own.csv": csv_of(frame)}, **options)
    with pytest.raises(error, match=message):
        prepare(project, "own")


# --- images


def encoded(pixels, form="PNG", mode=None):
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, form)
    return file.getvalue()


@pytest.fixture(scope="module")
def pictures():
    """(class, bytes of a PNG, pixels): the pixels are what was encoded."""
    draw = np.random.default_rng(5)
    pixels = [draw.integers(0, 256, (6, 8, 3)).astype(np.uint8) for _ in range(20)]
    return [(("cat", "dog")[k % 2], encoded(array), array) for k, array in enumerate(pixels)]


def archive(pictures, root="", more=()):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for number, (label, data, _) in enumerate(pictures):
            packed.writestr(f"{root}{label}/{number:03}.png", data)
        for name, data in more:
            packed.writestr(name, data)
    return file.getvalue()


FOLDERS = IMAGES | {"reader": "image-folders", "options": {"file": "own.zip", "colours": "rgb"}}


def in_order(pictures):
    """As folders list them: classes by name, images by name."""
    return sorted(pictures, key=lambda picture: picture[0])


def test_a_folder_for_each_class(make, pictures):
    litter = [("pets/train/.DS_Store", b"x"), ("__MACOSX/pets/train/cat/._000.png", b"x"), ("pets/about.txt", b"x")]
    both = [archive(pictures[:14], "pets/train/", litter), archive(pictures[14:], "pets/test/")]
    merged = io.BytesIO()
    with zipfile.ZipFile(merged, "w") as packed:
        for part in both:
            with zipfile.ZipFile(io.BytesIO(part)) as one:
                for name in one.namelist():
                    packed.writestr(name, one.read(name))
    data = opened(make(FOLDERS, {"own.zip": merged.getvalue()}, train="pets/train", test="pets/test"))
    for x, y, part in ((data.train_x, data.train_y, pictures[:14]), (data.test_x, data.test_y, pictures[14:])):
        assert np.array_equal(x, [pixels.transpose(2, 0, 1) for _, _, pixels in in_order(part)])
        assert y.tolist() == [["cat", "dog"].index(label) for label, _, _ in in_order(part)]


def test_images_are_resized_and_become_grey_where_the_file_says_so(make, pictures):
    large = [("cat", encoded(np.full((20, 30, 3), 7, np.uint8)), None), *pictures]
    entries = FOLDERS | {"shape": [1, 5, 4], "mean": [0.5], "std": [0.5]}
    project = make(entries, {"own.zip": archive(large)}, colours="grey", height=5, width=4, holdout=0.5)
    data = opened(project)
    expected = [
        np.asarray(Image.open(io.BytesIO(content)).convert("L").resize((4, 5), Image.Resampling.BILINEAR))
        for _, content, _ in in_order(large)
    ]
    found = np.concatenate([data.train_x, data.test_x])[:, 0]
    assert sorted(map(np.ndarray.tolist, found)) == sorted(map(np.ndarray.tolist, expected))


def hugging_face(pictures, labels, names=None):
    """A shard as the library `datasets` writes it: structures of bytes and path, and its notes in the metadata."""
    images = pa.array(
        [{"bytes": data, "path": f"{k}.png"} for k, (_, data, _) in enumerate(pictures)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    sites = pa.array([f"site {k % 3}" for k in range(len(pictures))]).dictionary_encode()
    table = pa.table({"image": images, "label": pa.array(labels), "site": sites})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


PARQUET = IMAGES | {
    "reader": "image-parquet",
    "attributes": {"site": {"about": "where", "use": "client"}},
    "options": {"label": "label", "colours": "rgb", "attributes": {"site": "site"}},
}
SHARDS = {"train": ["train-*.parquet"], "test": ["test.parquet"]}


@pytest.mark.parametrize("kind", ["numbers", "numbers with names", "texts"])
def test_a_hugging_face_set(make, pictures, kind):
    def shard(part):
        labels = [label if kind == "texts" else ["cat", "dog"].index(label) for label, _, _ in part]
        return hugging_face(part, labels, ["cat", "dog"] if kind == "numbers with names" else None)

    files = {"train-1.parquet": shard(pictures[7:14]), "train-0.parquet": shard(pictures[:7])}
    data = opened(make(PARQUET, files | {"test.parquet": shard(pictures[14:])}, **SHARDS))
    for x, y, part in ((data.train_x, data.train_y, pictures[:14]), (data.test_x, data.test_y, pictures[14:])):
        assert np.array_equal(x, [pixels.transpose(2, 0, 1) for _, _, pixels in part])
        assert y.tolist() == [["cat", "dog"].index(label) for label, _, _ in part]
    assert data.train["site"].tolist() == [k % 3 for k in range(7)] * 2


def test_names_of_classes_in_another_order_than_in_the_files_are_refused(make, pictures):
    content = hugging_face(pictures, [k % 2 for k in range(20)], ["dog", "cat"])
    project = make(PARQUET, {"own.parquet": content}, train=["own.parquet"], holdout=0.2)
    with pytest.raises(DataError, match="class 0 is 'cat', in the raw files 'dog'"):
        prepare(project, "own")


DEEP = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000
IMAGE_FAULTS = {
    "size": (
        ("cat/x.png", encoded(np.zeros((5, 8, 3), np.uint8))),
        r"cat/x\.png: 5 x 8 pixels .*: height and width",
    ),
    "no image": (("cat/notes.txt", b"about cats"), r"cat/notes\.txt: cannot be decoded: cannot identify image"),
    "cut off": (("cat/x.png", encoded(np.zeros((6, 8, 3), np.uint8))[:-30]), r"cat/x\.png: cannot be decoded"),
    "16 bits": (("cat/x.png", encoded(DEEP)), r"cat/x\.png: pixels of mode I;16, allowed are 8 bits"),
    "deeper": (("cat/kittens/x.png", b""), r"cat/kittens/x\.png: expected \./<class>/<image>"),
    "class": (("cow/x.png", encoded(np.zeros((6, 8, 3), np.uint8))), r"not allowed: 'cow' \(1 times\)"),
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
def test_what_is_no_image_of_a_class_is_named(make, pictures, fault):
    more, message = IMAGE_FAULTS[fault]
    project = make(FOLDERS, {"own.zip": archive(pictures, more=[more])}, holdout=0.2)
    with pytest.raises(DataError, match=message):
        prepare(project, "own")


def test_a_folder_that_is_not_in_the_archive(make, pictures):
    project = make(FOLDERS, {"own.zip": archive(pictures, "pets/")}, train="pet", holdout=0.2)
    with pytest.raises(DataError, match="nothing below 'pet'; at its root are pets"):
        prepare(project, "own")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([None, b"x"]), "own.parquet: row 1 .*: column 'image' has no value"),
        (pa.array(["a.png", "b.png"]), "column 'image' holds string, expected binary"),
        (
            pa.array([{"bytes": b"x", "path": ""}, {"bytes": None, "path": "b"}]),
            "row 2 .*the path of an image, not its",
        ),
    ],
)
def test_columns_that_hold_no_images(make, column, message):
    file = io.BytesIO()
    pq.write_table(pa.table({"image": column, "label": ["cat", "dog"], "site": ["a", "b"]}), file)
    project = make(PARQUET, {"own.parquet": file.getvalue()}, train=["own.parquet"], holdout=0.5)
    with pytest.raises(DataError, match=message):
        prepare(project, "own")


def test_a_height_without_a_width_is_refused(make, pictures):
    project = make(FOLDERS, {"own.zip": archive(pictures)}, holdout=0.2, height=5)
    with pytest.raises(ConfigurationError, match="options: height and width belong together"):
        prepare(project, "own")
