"""Image and domain data sets: small files in the published formats, made here; the real files where a mirror is set."""

import bz2
import gzip
import os
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from ruamel.yaml import YAML

from forms import forget_sizes
from heterobench.data import usps as usps_raw
from heterobench.data.converters import usps_hdf5, usps_libsvm
from heterobench.data.dataset import Dataset, open_dataset
from heterobench.data.fetch import LARGEST, MIRROR, copy_at_most, fetch
from heterobench.data.holdout import held_out_rows
from heterobench.data.prepare import moments, prepare
from heterobench.data.readers import digits_domains, medmnist, mnist_by_writer, office_caltech10_surf, usps
from heterobench.data.schema import load_dataset_file
from heterobench.errors import DataError
from heterobench.files import file_digest, read_json
from heterobench.project import Project

REPOSITORY = Project(Path(__file__).resolve().parents[2])
NAMES = ("mnist-by-writer", "digits-domains", "usps", "pneumoniamnist", "office-caltech10-surf")
mirrored = pytest.mark.skipif(not os.environ.get(MIRROR), reason=f"{MIRROR} is not set: the real files are not at hand")


# --- files in the published formats


def idx_bytes(array: np.ndarray) -> bytes:
    kind = {"uint8": 8, "int32": 12}[array.dtype.name]
    header = bytes([0, 0, kind, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.astype(array.dtype.newbyteorder(">")).tobytes(), mtime=0)


def write_mnist(folder: Path, train: int = 12, test: int = 5) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(5)
    arrays = {}
    for prefix, count in (("train", train), ("t10k", test)):
        arrays[f"{prefix}-images-idx3-ubyte.gz"] = draw.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{prefix}-labels-idx1-ubyte.gz"] = draw.integers(0, 10, count, np.uint8)
    for path, array in arrays.items():
        (folder / path).write_bytes(idx_bytes(array))
    return arrays


WRITERS = {"train": [30, 7, 30, 30, 2349, 7, 7, 30, 2349, 7, 30, 7], "test": [2599, 326, 2599, 326, 11, 30, 8]}


def write_qmnist(folder: Path, mnist: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Writers 2000 and above are students; the last two test rows describe images that MNIST has not."""
    tables = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        labels = mnist[f"{prefix}-labels-idx1-ubyte.gz"]
        table = np.zeros((len(WRITERS[split]), 8), np.int32)
        table[: len(labels), 0], table[len(labels) :, 0] = labels, 9
        table[:, 2] = WRITERS[split]
        table[:, 1] = np.where(table[:, 2] >= 2000, 4, 0)
        tables[split] = table
        (folder / f"qmnist-{split}-labels-idx2-int.gz").write_bytes(idx_bytes(table))
    return tables


def write_usps(folder: Path, form: str, train: int = 9, test: int = 4) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Thousandths from -1000 to 1000, int64 [n, 256], and digits, int64 [n], of both splits; zeros are among them."""
    draw = np.random.default_rng(7)
    content = {}
    for split, count in (("train", train), ("test", test)):
        thousandths = draw.choice([-1000, 1000, 0, -631, 862, *draw.integers(-1000, 1001, 20)], (count, 256))
        content[split] = thousandths, draw.integers(0, 10, count)
    if form == "hdf5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(folder / "usps.h5", "w") as file:
            for split, (thousandths, labels) in content.items():
                file[f"{split}/data"] = ((thousandths + 1000) / 2000).astype(np.float32)
                file[f"{split}/target"] = labels.astype(np.int32)
    else:
        for split, path in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
            (folder / path).write_bytes(bz2.compress(libsvm_lines(*content[split]).encode()))
    return content


def libsvm_lines(thousandths: np.ndarray, labels: np.ndarray) -> str:
    """As the format has it: indices from 1, and nothing for a value of 0."""
    lines = []
    for row, label in zip(thousandths.tolist(), labels.tolist(), strict=True):
        lines.append(" ".join([str(label + 1), *(f"{at}:{v / 1000:g}" for at, v in enumerate(row, 1) if v)]))
    return "\n".join(lines) + "\n"


def write_digits(folder: Path) -> np.ndarray:
    table = np.random.default_rng(9).integers(0, 17, (40, 65))
    table[:, 64] = np.arange(40) % 10
    (folder / "digits.csv.gz").write_bytes(gzip.compress("\n".join(",".join(map(str, row)) for row in table).encode()))
    return table


def write_medmnist(folder: Path, channels: tuple[int, ...] = (), **changes: np.ndarray) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(11)
    arrays = {}
    for part, count in (("train", 7), ("val", 3), ("test", 4)):
        arrays[f"{part}_images"] = draw.integers(0, 256, (count, 28, 28, *channels), np.uint8)
        arrays[f"{part}_labels"] = draw.integers(0, 2, (count, 1), np.uint8)
    arrays |= changes
    np.savez(folder / "pneumoniamnist.npz", **{key: value for key, value in arrays.items() if value is not None})
    return arrays


def write_office(folder: Path, **changes: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    draw = np.random.default_rng(13)
    content = {}
    for domain, each in (("amazon", 11), ("Caltech10", 12), ("dslr", 5), ("webcam", 8)):
        counts = draw.poisson(0.2, (10 * each, 800)).astype(np.uint8)
        content[domain] = {"fts": counts, "labels": np.repeat(np.arange(1, 11), each).astype(np.uint8)[:, None]}
        scipy.io.savemat(folder / f"{domain}_SURF_L10.mat", content[domain] | changes.get(domain, {}))
    return content


WRITE = {
    "mnist-by-writer": lambda folder: write_qmnist(folder, write_mnist(folder)),
    "usps": lambda folder: write_usps(folder, "libsvm"),
    "digits-domains": lambda folder: (write_usps(folder, "libsvm"), write_mnist(folder), write_digits(folder)),
    "pneumoniamnist": write_medmnist,
    "office-caltech10-surf": write_office,
}


def stand_in(root: Path, name: str, files: Path) -> Project:
    """A project with the repository's parameter file, whose downloads are the small `files` instead."""
    project = Project(root)
    entries = YAML(typ="safe").load(REPOSITORY.params / "datasets" / f"{name}.yaml")
    for form in entries["forms"]:
        for download in form["downloads"]:
            file = files / download["path"]
            if file.is_file():
                download |= {"sha256": file_digest(file), "bytes": file.stat().st_size}
            download["sources"] = [{"mirror": file.name}]
        form["outputs"] = [{"path": output["path"]} for output in form.get("outputs", [])]
    (project.params / "datasets").mkdir(parents=True)
    forget_sizes(entries)
    YAML().dump(entries, project.params / "datasets" / f"{name}.yaml")
    return project


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def damage(path: Path) -> None:
    """Keep the first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# --- every set, from its parameter file to arrays


@pytest.mark.parametrize("name", NAMES)
def test_published_files_become_the_set_and_preparing_again_gives_the_same_bytes(name, raw, tmp_path, monkeypatch):
    WRITE[name](raw)
    monkeypatch.setenv(MIRROR, str(raw))
    project = stand_in(tmp_path / "project", name, raw)
    fetch(project, name)
    assert sorted(path.name for path in project.raw(name).iterdir()) == sorted(
        [*load_dataset_file(project, name).raw_paths, "source.json"]
    )
    folder = prepare(project, name).parent
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    data = open_dataset(project, name, verify=True)
    for split in ("train", "test"):
        assert len(getattr(data, f"{split}_y")) == len(getattr(data, f"{split}_x")) > 0
        assert set(getattr(data, split)) == set(load_dataset_file(project, name).attributes)
    shutil.rmtree(folder)
    prepare(project, name)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


# --- MNIST by writer


def test_every_digit_gets_its_writer_and_population(raw):
    mnist = write_mnist(raw)
    write_qmnist(raw, mnist)
    arrays = mnist_by_writer.read(raw, mnist_by_writer.Options())
    # writer 8 only wrote an image that MNIST has not; 11 and 30 come from test rows of MNIST, too
    assert arrays["names_writer"].tolist() == ["7", "11", "30", "326", "2349", "2599"]
    assert arrays["names_series"].tolist() == ["census staff", "high-school students"]
    for split, prefix in (("train", "train"), ("test", "t10k")):
        count = len(arrays[f"{split}_y"])
        assert arrays["names_writer"][arrays[f"{split}_writer"]].astype(int).tolist() == WRITERS[split][:count]
        assert arrays[f"{split}_series"].tolist() == [int(writer >= 2000) for writer in WRITERS[split][:count]]
        assert np.array_equal(arrays[f"{split}_x"][:, 0], mnist[f"{prefix}-images-idx3-ubyte.gz"])
        assert arrays[f"{split}_y"].tolist() == mnist[f"{prefix}-labels-idx1-ubyte.gz"].tolist()


def other_class(table):
    table[3, 0] = (table[3, 0] + 1) % 10
    return table


def other_series(table):
    table[4, 1] = 3
    return table


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_class, r"row 3 is of class \d, but that image of MNIST has label \d \(1 such rows\)"),
        (other_series, r"NIST series \[3\] among the rows of MNIST, expected \[0, 4\]"),
        (lambda table: table[:4], r"expected at least \d+ rows of 8 numbers, found \[4, 8\]"),
        (lambda table: table[:, :7], r"expected at least \d+ rows of 8 numbers, found \[\d+, 7\]"),
        (lambda table: table[:, 0].copy(), "expected at least"),
    ],
)
def test_labels_that_do_not_describe_the_images_are_refused(raw, split, change, message):
    table = write_qmnist(raw, write_mnist(raw))[split]
    (raw / f"qmnist-{split}-labels-idx2-int.gz").write_bytes(idx_bytes(change(table)))
    with pytest.raises(DataError, match=f"qmnist-{split}-labels-idx2-int.gz: {message}"):
        mnist_by_writer.read(raw, mnist_by_writer.Options())


# --- USPS


@pytest.mark.parametrize(("form", "module"), [("hdf5", usps_hdf5), ("libsvm", usps_libsvm)])
def test_both_forms_of_usps_give_the_published_levels(raw, tmp_path, form, module):
    content = write_usps(raw, form)
    assert module.convert(raw, tmp_path) == {}
    for split, (thousandths, labels) in content.items():
        levels, digits = usps_raw.read(tmp_path, split)
        assert np.array_equal(levels, thousandths + 1000)
        assert np.array_equal(digits, labels)


def test_a_level_becomes_the_nearest_pixel(raw):
    levels = np.zeros((8, 256), np.uint16)
    levels.reshape(-1)[:2001] = np.arange(2001)
    for split in ("train", "test"):
        usps_raw.write(raw, split, levels / 2000, np.arange(8))
    arrays = usps.read(raw, usps.Options())
    pixels = arrays["train_x"].reshape(-1)[:2001].tolist()
    for level, pixel in enumerate(pixels):
        off = Fraction(pixel, 255) - Fraction(level, 2000)
        assert -Fraction(1, 510) < off <= Fraction(1, 510)
    assert (pixels[0], pixels[200], pixels[2000]) == (0, 26, 255)  # 200 is exactly 25.5
    assert arrays["test_x"].shape == (8, 1, 16, 16)
    assert arrays["test_y"].tolist() == list(range(8))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3 1:-1 2", "after 1 good lines"),
        ("3 0:-1", "0 is not a pixel from 1 to 256"),
        ("3 257:-1", "257 is not a pixel from 1 to 256"),
        ("3 1:ink", "after 1 good lines: could not convert"),
        ("three 1:-1", "after 1 good lines: invalid literal"),
        ("", "after 1 good lines"),
        ("11 1:-1", "labels go from 1 to 10"),
        ("0 1:-1", "labels go from -1 to 1"),
        ("3 1:1.001", "not all multiples"),
        ("3 1:-0.5005", "not all multiples"),
        ("3 1:nan", "not all multiples"),
    ],
)
def test_a_line_that_is_not_an_image_is_refused(raw, tmp_path, line, message):
    (raw / "usps.bz2").write_bytes(bz2.compress(f"2 1:0.5\n{line}\n".encode()))
    with pytest.raises(DataError, match=message):
        usps_libsvm.convert(raw, tmp_path)


@pytest.mark.parametrize("fault", ["truncated", "not compressed", "empty"])
def test_a_damaged_libsvm_file_is_refused(raw, tmp_path, fault):
    write_usps(raw, "libsvm")
    path = raw / "usps.t.bz2"
    if fault == "truncated":
        damage(path)
    else:
        path.write_bytes(bz2.compress(b"") if fault == "empty" else b"2 1:0.5\n")
    with pytest.raises(DataError, match=r"usps\.t\.bz2"):
        usps_libsvm.convert(raw, tmp_path)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated", "no readable train/data"),
        ("no test group", "no readable test/data and test/target"),
        ("other width", r"expected \[n, 256\] values and \[n\] labels, found \(4, 255\)"),
        ("fewer labels", r"found \(4, 256\) and \(3,\)"),
        ("not thousandths", "not all multiples of 1/2000"),
        ("label 10", "labels go from 0 to 10"),
    ],
)
def test_a_damaged_hdf5_file_is_refused(raw, tmp_path, fault, message):
    write_usps(raw, "hdf5")
    import h5py

    path = raw / "usps.h5"
    if fault == "truncated":
        damage(path)
    else:
        with h5py.File(path, "a") as file:
            ink = file["test/data"][:]
            del file["test"]
            if fault == "other width":
                ink = ink[:, :255]
            elif fault == "not thousandths":
                ink[0, 0] = 0.50013
            labels = np.array([0, 1, 2, 10 if fault == "label 10" else 3])
            if fault != "no test group":
                file["test/data"], file["test/target"] = ink, labels[:3] if fault == "fewer labels" else labels
    with pytest.raises(DataError, match=message):
        usps_hdf5.convert(raw, tmp_path)


def test_without_h5py_the_official_files_are_taken(raw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (raw / "usps.h5").write_bytes(b"whatever it holds")
    with pytest.raises(DataError, match=r"usps\.h5 needs the Python package h5py"):
        usps_hdf5.convert(raw, tmp_path)
    write_usps(raw, "libsvm")
    monkeypatch.setenv(MIRROR, str(raw))
    project = stand_in(tmp_path / "project", "usps", raw)
    assert read_json(fetch(project, "usps"))["form"] == "official"


def test_both_forms_of_usps_give_the_same_raw_files(raw, tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR, str(raw))
    files = []
    for form in ("libsvm", "hdf5"):  # where both are at hand, the first form of the parameter file wins
        write_usps(raw, form)
        project = stand_in(tmp_path / form, "usps", raw)
        source = read_json(fetch(project, "usps"))
        assert source["form"] == {"libsvm": "official", "hdf5": "hdf5"}[form]
        files.append(source["files"])
    assert files[0] == files[1]


@pytest.mark.parametrize("part", ["levels", "labels"])
@pytest.mark.parametrize("fault", ["truncated", "empty", "not an array", "other type", "other shape"])
def test_raw_files_of_usps_that_are_none_are_refused(raw, part, fault):
    for split in ("train", "test"):
        usps_raw.write(raw, split, np.zeros((4, 256)), np.zeros(4, int))
    path = raw / f"usps-test-{part}.npy"
    if fault == "truncated":
        damage(path)
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "not an array":
        path.write_bytes(b"ink and paper")
    elif fault == "other type":
        np.save(path, np.load(path).astype(np.int64))
    else:
        np.save(path, np.load(path)[..., None])
    with pytest.raises(DataError, match=f"usps-test-{part}.npy: "):
        usps.read(raw, usps.Options())


# --- a download of unknown size


def test_a_download_of_unknown_size_is_judged_by_its_checksum_alone(raw, tmp_path, monkeypatch):
    write_usps(raw, "libsvm")
    monkeypatch.setenv(MIRROR, str(raw))
    project = stand_in(tmp_path / "project", "usps", raw)
    path = project.params / "datasets" / "usps.yaml"
    entries = YAML(typ="safe").load(path)
    del entries["forms"][0]
    for download in entries["forms"][0]["downloads"]:
        del download["bytes"]
    YAML().dump(entries, path)
    assert fetch(project, "usps").is_file()
    damage(raw / "usps.bz2")
    with pytest.raises(DataError, match=r"usps\.bz2 \(expected sha256 [0-9a-f]{64}\) was not found:\n.*altered"):
        fetch(project, "usps")


def test_a_stream_without_end_stops_at_the_limit(tmp_path):
    with Path("/dev/zero").open("rb") as stream:
        copy_at_most(stream, tmp_path / "file", 3_000_000)
    assert (tmp_path / "file").stat().st_size == 3_000_000 < LARGEST


# --- three sources of digits


def triangle(n: int, m: int) -> np.ndarray:
    """Weights [m, n] of a triangle filter as wide as the coarser of the two grids: bilinear where n < m."""
    scale = n / m
    centres = (np.arange(m) + 0.5) * scale
    weights = 1 - np.abs(np.arange(n) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = np.maximum(weights, 0)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("size", "maximum"), [(28, 255), (8, 16)])
def test_resizing_is_the_triangle_filter(size, maximum):
    x = np.random.default_rng(1).integers(0, maximum + 1, (20, 1, size, size), np.uint8)
    found = digits_domains.common(x, maximum)[:, 0]
    full = (np.array(x[:, 0] * Fraction(255, maximum) + Fraction(1, 2)) // 1).astype(np.uint8)
    alone = [np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR)) for image in full]
    assert np.array_equal(found, alone)
    weights = triangle(size, 16)
    expected = np.einsum("ai,nij,bj->nab", weights, x[:, 0] * (255 / maximum), weights)
    assert found.shape == (20, 16, 16)
    assert np.abs(found - expected).max() <= 1.5  # rounded before, between and after two passes: half a step each
    assert abs(float((found - expected).mean())) < 0.05
    for value in range(maximum + 1):
        flat = digits_domains.common(np.full((1, 1, size, size), value, np.uint8), maximum)
        assert set(flat.reshape(-1).tolist()) == {int(Fraction(255 * value, maximum) + Fraction(1, 2))}


def test_three_sources_follow_each_other_with_their_own_splits(raw, tmp_path):
    mnist, table = write_mnist(raw), write_digits(raw)
    write_usps(tmp_path, "libsvm")
    usps_libsvm.convert(tmp_path, raw)
    alone = usps.read(raw, usps.Options())
    arrays = digits_domains.read(raw, digits_domains.Options())
    assert arrays["names_domain"].tolist() == ["usps", "mnist", "digits"]
    assert np.bincount(arrays["train_domain"]).tolist() == [9, 12, 30]  # of 4 digits a class, one is a fifth
    assert np.bincount(arrays["test_domain"]).tolist() == [4, 5, 10]
    for split, prefix in (("train", "train"), ("test", "t10k")):
        x, y, domain = (arrays[f"{split}_{column}"] for column in ("x", "y", "domain"))
        assert (np.diff(domain) >= 0).all()
        assert x.shape == (len(y), 1, 16, 16)
        assert (x.dtype, y.dtype, domain.dtype) == (np.uint8, np.int64, np.int64)
        assert np.array_equal(x[domain == 0], alone[f"{split}_x"])
        assert y[domain == 0].tolist() == alone[f"{split}_y"].tolist()
        assert y[domain == 1].tolist() == mnist[f"{prefix}-labels-idx1-ubyte.gz"].tolist()
        images = mnist[f"{prefix}-images-idx3-ubyte.gz"]
        assert np.array_equal(x[domain == 1], digits_domains.common(images[:, None], 255))
        expected = digits_domains.common(table[:, :64].astype(np.uint8).reshape(-1, 1, 8, 8), 16)
        rows = [np.flatnonzero((expected == image).all((1, 2, 3))).item() for image in x[domain == 2]]
        assert y[domain == 2].tolist() == table[rows, 64].tolist()


# --- PneumoniaMNIST


def test_validation_images_follow_the_training_images(raw):
    content = write_medmnist(raw)
    arrays = medmnist.read(raw, medmnist.Options(file="pneumoniamnist.npz"))
    train = np.concatenate([content["train_images"], content["val_images"]])
    assert np.array_equal(arrays["train_x"], train[:, None])
    assert arrays["train_y"].tolist() == [*content["train_labels"][:, 0], *content["val_labels"][:, 0]]
    assert np.array_equal(arrays["test_x"], content["test_images"][:, None])
    assert arrays["test_y"].tolist() == content["test_labels"][:, 0].tolist()


def test_colour_images_of_medmnist_get_their_channels_first(raw):
    content = write_medmnist(raw, channels=(3,))
    arrays = medmnist.read(raw, medmnist.Options(file="pneumoniamnist.npz"))
    for channel in range(3):
        assert np.array_equal(arrays["test_x"][:, channel], content["test_images"][..., channel])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_images": None}, "not a MedMNIST file: .*val_images"),
        ({"test_labels": np.zeros((4, 14), np.uint8)}, r"test: images \(4, 28, 28\), labels \(4, 14\)"),
        ({"test_labels": np.zeros(4, np.uint8)}, "expected one label each"),
        ({"train_labels": np.zeros((6, 1), np.uint8)}, "expected one label each"),
        ({"train_images": np.zeros((7, 784), np.uint8)}, r"train: images \(7, 784\)"),
        ({"train_images": np.array([{}] * 7)}, "not a MedMNIST file: Object arrays"),
    ],
)
def test_an_archive_that_is_no_medmnist_is_refused(raw, changes, message):
    write_medmnist(raw, **changes)
    with pytest.raises(DataError, match=message):
        medmnist.read(raw, medmnist.Options(file="pneumoniamnist.npz"))


@pytest.mark.parametrize("fault", ["truncated", "empty", "no archive"])
def test_a_damaged_medmnist_file_is_refused(raw, fault):
    write_medmnist(raw)
    path = raw / "pneumoniamnist.npz"
    if fault == "truncated":
        damage(path)
    else:
        path.write_bytes(b"" if fault == "empty" else b"no archive")
    with pytest.raises(DataError, match=r"pneumoniamnist\.npz: not a MedMNIST file"):
        medmnist.read(raw, medmnist.Options(file="pneumoniamnist.npz"))


# --- Office-Caltech10


def test_words_become_shares_and_every_row_is_kept_once(raw):
    content = write_office(raw)
    arrays = office_caltech10_surf.read(raw, office_caltech10_surf.Options())
    assert arrays["names_domain"].tolist() == ["amazon", "caltech", "dslr", "webcam"]
    for number, (domain, each) in enumerate((("amazon", 11), ("Caltech10", 12), ("dslr", 5), ("webcam", 8))):
        counts = content[domain]["fts"].astype(np.float64)
        shares = (counts / counts.sum(1, keepdims=True)).astype(np.float32)
        place = {row.tobytes(): at for at, row in enumerate(shares)}
        seen = []
        for split, of_each in (("train", each - round(each / 5)), ("test", round(each / 5))):
            mine = arrays[f"{split}_domain"] == number
            y = arrays[f"{split}_y"][mine].astype(np.int64)
            assert (y == arrays[f"{split}_y"][mine]).all()
            assert np.bincount(y).tolist() == [of_each] * 10
            rows = [place[row.tobytes()] for row in arrays[f"{split}_x"][mine]]
            assert rows == sorted(rows)  # the order of the file
            assert (content[domain]["labels"].ravel()[rows] - 1).tolist() == y.tolist()
            seen += rows
        assert sorted(seen) == list(range(10 * each))
    assert arrays["train_x"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fts": np.ones((50, 799), np.uint8)}, r"expected fts \[n, 800\] and n labels, found \(50, 799\)"),
        ({"labels": np.ones((49, 1), np.uint8)}, r"found \(50, 800\) and \(49,\)"),
        ({"fts": np.tile(np.arange(50)[:, None], 800)}, "at least one word"),
        ({"fts": np.where(np.eye(50, 800), -1, 1).astype(np.int8)}, "none below 0"),
        ({"fts": np.zeros((0, 800)), "labels": np.zeros((0, 1))}, "not counts"),
    ],
)
def test_a_domain_that_is_no_bag_of_words_is_refused(raw, change, message):
    write_office(raw, dslr=change)
    with pytest.raises(DataError, match=rf"dslr_SURF_L10\.mat: .*{message}"):
        office_caltech10_surf.read(raw, office_caltech10_surf.Options())


@pytest.mark.parametrize("fault", ["truncated", "empty", "no MATLAB file", "other names"])
def test_a_damaged_domain_is_refused(raw, fault):
    write_office(raw)
    path = raw / "webcam_SURF_L10.mat"
    if fault == "truncated":
        damage(path)
    elif fault == "other names":
        scipy.io.savemat(path, {"features": np.ones((4, 800))})
    else:
        path.write_bytes(b"" if fault == "empty" else b"no MATLAB file, but long enough" * 20)
    with pytest.raises(DataError, match=r"webcam_SURF_L10\.mat: not a MATLAB file with fts and labels"):
        office_caltech10_surf.read(raw, office_caltech10_surf.Options())


def test_the_fixed_split_takes_a_fifth_of_each_stratum():
    strata = np.random.default_rng(2).choice(7, 400, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.04, 0.01])
    chosen = held_out_rows(strata, "a purpose")
    for stratum in range(7):
        assert chosen[strata == stratum].sum() == round(0.2 * (strata == stratum).sum())
    assert np.array_equal(chosen, held_out_rows(strata, "a purpose"))
    assert not np.array_equal(chosen, held_out_rows(strata, "another purpose"))


# --- the real files


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Opens a set of the repository, fetched from the mirror and prepared in a project of its own."""
    project = Project(tmp_path_factory.mktemp("project"))
    shutil.copytree(REPOSITORY.params / "datasets", project.params / "datasets")

    def opened(name: str) -> Dataset:
        fetch(project, name)
        prepare(project, name)
        data = open_dataset(project, name)
        if data.kind == "image":  # what the parameter file says of the training images, to four digits
            mean, std = moments(data.train_x)
            assert np.allclose(np.array(mean) / data.maximum, data.mean, rtol=0, atol=0.5001e-4)
            assert np.allclose(np.array(std) / data.maximum, data.std, rtol=0, atol=0.5001e-4)
        return data

    return opened


@mirrored
def test_real_mnist_by_writer(real):
    data = real("mnist-by-writer")
    assert (len(data.train_y), len(data.test_y)) == (60_000, 10_000)
    train, test = np.bincount(data.train["writer"]), np.bincount(data.test["writer"])
    assert ((train > 0).sum(), (test > 0).sum()) == (539, 297)
    assert (train[train > 0].min(), train.max(), np.median(train[train > 0])) == (19, 131, 116)
    assert not set(data.train["writer"].tolist()) & set(data.test["writer"].tolist())
    assert len(data.manifest["attributes"]["writer"]["names"]) == 836
    assert np.bincount(data.train["series"]).tolist() == [30_950, 29_050]
    assert np.bincount(data.test["series"]).tolist() == [4_999, 5_001]
    for split in (data.train, data.test):  # a writer belongs to one population
        assert len(np.unique(2 * split["writer"] + split["series"])) == len(np.unique(split["writer"]))


@mirrored
def test_real_usps(real):
    pytest.importorskip("h5py")
    data = real("usps")
    assert data.manifest["counts"] == {
        "train": [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644],
        "test": [359, 264, 198, 166, 200, 160, 170, 147, 166, 177],
    }
    # the first line of the published training file: a six; its first row of pixels, from -1 to 1
    row = [-1, -1, -1, -1, -1, -1, -1, -0.631, 0.862, -0.167, -1, -1, -1, -1, -1, -1]
    assert data.train_y[0] == 6
    assert data.train_x[0, 0, 0].tolist() == [int((value + 1) / 2 * 255 + 0.5) for value in row]


@mirrored
def test_real_digits_domains(real):
    pytest.importorskip("h5py")
    data = real("digits-domains")
    assert np.bincount(data.train["domain"]).tolist() == [7_291, 60_000, 1_438]
    assert np.bincount(data.test["domain"]).tolist() == [2_007, 10_000, 359]
    assert data.train_x.shape == (68_729, 1, 16, 16)


@mirrored
def test_real_pneumoniamnist(real):
    data = real("pneumoniamnist")
    assert data.manifest["counts"] == {"train": [1_214 + 135, 3_494 + 389], "test": [234, 390]}


@mirrored
def test_real_office_caltech10_surf(real):
    data = real("office-caltech10-surf")
    train, test = np.bincount(data.train["domain"]), np.bincount(data.test["domain"])
    assert (train + test).tolist() == [958, 1_123, 157, 295]
    cells_train = np.bincount(10 * data.train["domain"] + data.train_y, minlength=40)
    cells_test = np.bincount(10 * data.test["domain"] + data.test_y, minlength=40)
    assert np.array_equal(cells_test, np.round(0.2 * (cells_train + cells_test)))
    assert np.allclose(data.train_x.sum(1), 1, atol=1e-5)
