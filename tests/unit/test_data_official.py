"""Sets for users' own machines: small files in the official formats go from the published archive to open arrays.

The parameter files are the repository's own, with the checksums of the small files in place of the published ones.
"""

import bz2
import gzip
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image
from ruamel.yaml import YAML

from forms import forget_sizes
from heterobench.config.reading import read_yaml
from heterobench.data import fetch as fetching
from heterobench.data.dataset import Dataset, open_dataset
from heterobench.data.fetch import MIRROR, fetch
from heterobench.data.prepare import prepare
from heterobench.data.schema import load_dataset_file
from heterobench.errors import ConfigurationError, DataError
from heterobench.project import Project

REPOSITORY = Project(Path(__file__).resolve().parents[2])
Content = dict[str, bytes]  # what an archive holds, by name
Arrays = dict[str, np.ndarray]
SIZES = {"train": 12, "test": 5}


# --- the official formats, small


def tar(members: Content, compression: str) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=f"w:{compression}") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def zipped(members: Content) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target.getvalue()


def idx(array: np.ndarray) -> bytes:
    header = b"\x00\x00\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def drawn(shape: list[int], classes: int) -> Arrays:
    """Random images in the form that training sees, and labels among which the largest occurs."""
    draw = np.random.default_rng(7)
    arrays = {}
    for split, count in SIZES.items():
        arrays[f"{split}_x"] = draw.integers(0, 256, (count, *shape), np.uint8)
        arrays[f"{split}_y"] = draw.integers(0, classes, count)
        arrays[f"{split}_y"][0] = classes - 1
    return arrays


def cifar100_members(arrays: Arrays) -> Content:
    classes = read_yaml(REPOSITORY.params / "datasets" / "cifar100.yaml")["classes"]
    members = {
        "fine_label_names.txt": "\n".join([*classes, ""]).encode(),
        "coarse_label_names.txt": "".join(f"group_{k}\n" for k in range(20)).encode(),
    }
    for split, count in SIZES.items():
        columns = [arrays[f"{split}_superclass"], arrays[f"{split}_y"]]
        labels = np.stack(columns, axis=1).astype(np.uint8)
        records = np.hstack([labels, arrays[f"{split}_x"].reshape(count, -1)])
        members[f"{split}.bin"] = records.tobytes()
    return {f"cifar-100-binary/{name}": data for name, data in members.items()}


def cifar100() -> tuple[Content, Arrays]:
    arrays = drawn([3, 32, 32], 100)
    for split in SIZES:
        arrays[f"{split}_superclass"] = arrays[f"{split}_y"] // 5
    return {"cifar-100-binary.tar.gz": tar(cifar100_members(arrays), "gz")}, arrays


def matlab(**variables: np.ndarray) -> bytes:
    target = io.BytesIO()
    scipy.io.savemat(target, variables, do_compression=True)
    return target.getvalue()


def svhn() -> tuple[Content, Arrays]:
    arrays = drawn([3, 32, 32], 10)
    files = {}
    for split in SIZES:
        x, y = arrays[f"{split}_x"], arrays[f"{split}_y"]
        y[1] = 0
        published = np.where(y == 0, 10, y).astype(np.uint8)[:, None]
        files[f"{split}_32x32.mat"] = matlab(X=x.transpose(2, 3, 1, 0), y=published)
    return files, arrays


def emnist_members(arrays: Arrays, name: str) -> Content:
    members = {"gzip/": b"", f"gzip/emnist-{name}-mapping.txt": b"0 48\n"}
    for split in SIZES:
        stored = arrays[f"{split}_x"][:, 0].transpose(0, 2, 1)  # mirrored along the diagonal
        members[f"gzip/emnist-{name}-{split}-images-idx3-ubyte.gz"] = idx(np.ascontiguousarray(stored))
        members[f"gzip/emnist-{name}-{split}-labels-idx1-ubyte.gz"] = idx(arrays[f"{split}_y"].astype(np.uint8))
    return members


def emnist(name: str, classes: int) -> tuple[Content, Arrays]:
    arrays = drawn([1, 28, 28], classes)
    return {"gzip.zip": zipped(emnist_members(arrays, name))}, arrays


WRITERS = ["f0001_41", "f0000_14", "f0500_00"]


def femnist_file(x: np.ndarray, y: np.ndarray, writers: np.ndarray) -> bytes:
    """HDF5 as TensorFlow Federated writes it: a group a writer with float pixels and 32-bit labels."""
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        for number in np.unique(writers):
            group = file.create_group(f"examples/{sorted(WRITERS)[number]}")
            pixels = x[writers == number][:, 0].astype(np.float32) / np.float32(255)
            group["pixels"] = np.nextafter(pixels, np.float32(0))  # as far off as another way to divide may leave them
            group["label"] = y[writers == number].astype(np.int32)
    return target.getvalue()


def femnist_members(arrays: Arrays) -> Content:
    return {
        f"fed_emnist_{split}.h5": femnist_file(*(arrays[f"{split}_{key}"] for key in ("x", "y", "writer")))
        for split in SIZES
    }


def femnist() -> tuple[Content, Arrays]:
    arrays = drawn([1, 28, 28], 62)
    arrays["train_writer"] = np.repeat([0, 1, 2], 4)
    arrays["test_writer"] = np.array([0, 0, 2, 2, 2])  # of one writer, nothing is kept for testing
    return {"fed_emnist.tar.bz2": tar(femnist_members(arrays), "bz2")}, arrays


def jpeg(colour: tuple[int, int, int] | int, side: int = 64) -> bytes:
    """An image of one colour; a number is a grey one."""
    target = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", (side, side), colour).save(target, "JPEG", quality=95)
    return target.getvalue()


def tiny_imagenet_members() -> tuple[Content, Arrays]:
    """One image of every class, three of the first; the archive lists them in no useful order."""
    wnids = sorted(read_yaml(REPOSITORY.params / "datasets" / "tiny-imagenet.yaml")["classes"])
    files, colours, labels = {"wnids.txt": "\n".join(reversed(wnids)).encode()}, [], []
    for label, wnid in enumerate(wnids):
        for number in (0, 2, 10) if label == 0 else (7,):
            colours.append((label, number * 20, 255 - label))
            labels.append(label)
            files[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = jpeg(colours[-1])
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"file\t0\t0\t63\t63\n"
    shown = [(5, (10, 200, 30)), (199, 77), (0, (250, 0, 250))]
    lines = [f"val_{k}.JPEG\t{wnids[label]}\t0\t32\t44\t62\n" for k, (label, _) in enumerate(shown)]
    files["val/val_annotations.txt"] = "".join(lines).encode()
    files |= {f"val/images/val_{k}.JPEG": jpeg(colour) for k, (_, colour) in enumerate(shown)}
    files |= {"test/images/test_0.JPEG": jpeg(1)}
    names = sorted(files, key=lambda name: hashlib.sha256(name.encode()).digest())
    grey = [colour if isinstance(colour, tuple) else (colour,) * 3 for _, colour in shown]
    arrays = {"train_x": flat(colours), "train_y": np.array(labels), "test_x": flat(grey)}
    arrays["test_y"] = np.array([label for label, _ in shown])
    return {f"tiny-imagenet-200/{name}": files[name] for name in names}, arrays


def flat(colours: list[tuple[int, int, int]]) -> np.ndarray:
    return np.broadcast_to(np.array(colours, np.uint8)[:, :, None, None], (len(colours), 3, 64, 64))


def tiny_imagenet() -> tuple[Content, Arrays]:
    members, arrays = tiny_imagenet_members()
    return {"tiny-imagenet-200.zip": zipped(members)}, arrays


def medmnist_parts(arrays: Arrays) -> Arrays:
    """The last four training examples are MedMNIST's validation part."""
    rows = {"train": ("train", slice(0, -4)), "val": ("train", slice(-4, None)), "test": ("test", slice(None))}
    parts = {}
    for part, (split, chosen) in rows.items():
        images = arrays[f"{split}_x"][chosen]
        parts[f"{part}_images"] = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
        parts[f"{part}_labels"] = arrays[f"{split}_y"][chosen].astype(np.uint8)[:, None]
    return parts


def npz(**arrays: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, **arrays)
    return target.getvalue()


def medmnist(name: str, channels: int, classes: int) -> tuple[Content, Arrays]:
    arrays = drawn([channels, 28, 28], classes)
    return {f"{name}.npz": npz(**medmnist_parts(arrays))}, arrays


OFFICIAL: dict[str, Callable[[], tuple[Content, Arrays]]] = {
    "cifar100": cifar100,
    "svhn": svhn,
    "emnist-balanced": partial(emnist, "balanced", 47),
    "emnist-byclass": partial(emnist, "byclass", 62),
    "femnist": femnist,
    "tiny-imagenet": tiny_imagenet,
    "pathmnist": partial(medmnist, "pathmnist", 3, 9),
    "dermamnist": partial(medmnist, "dermamnist", 3, 7),
    "bloodmnist": partial(medmnist, "bloodmnist", 3, 8),
    "organamnist": partial(medmnist, "organamnist", 1, 11),
}


# --- a project with the repository's parameter file, and a mirror that holds the small files


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    project = Project(tmp_path / "project")
    (project.params / "datasets").mkdir(parents=True)
    (project.params / "config.yaml").touch()
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv(MIRROR, str(tmp_path / "mirror"))
    return project


@pytest.fixture
def web(tmp_path, monkeypatch):
    """The mirror, served over HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "mirror")))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv(MIRROR, f"http://127.0.0.1:{server.server_address[1]}")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def publish(project: Project, name: str, files: Content) -> None:
    """Put the files on the mirror, where the parameter file looks for them, and their checksums into a copy of it."""
    path = REPOSITORY.params / "datasets" / f"{name}.yaml"
    entry = YAML().load(path)
    (form,) = entry["forms"]
    for download in form["downloads"]:
        data = files[download["path"]]
        download["sources"] = [source for source in download["sources"] if "mirror" in source]
        target = mirrored(project, download)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        for algorithm in ("md5", "sha256"):
            if algorithm in download:
                download[algorithm] = hashlib.new(algorithm, data).hexdigest()
        if "bytes" in download:
            download["bytes"] = len(data)
    for output in form.get("outputs", ()):
        output.pop("bytes", None)
    forget_sizes(entry)
    YAML().dump(entry, project.params / "datasets" / f"{name}.yaml")


def mirrored(project: Project, download: dict) -> Path:
    return project.root.parent / "mirror" / download["sources"][0]["mirror"]


def obtain(project: Project, name: str) -> Dataset:
    fetch(project, name)
    prepare(project, name)
    return open_dataset(project, name, verify=True)


# --- what comes out is what went in


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_files_become_the_arrays_that_they_hold(project, web, name):
    files, expected = OFFICIAL[name]()
    publish(project, name, files)
    data = obtain(project, name)
    # A JPEG of one colour is off by the rounding of its colour space, and by nothing else.
    tolerance = 3 if name == "tiny-imagenet" else 0
    for split in SIZES:
        x, y = getattr(data, f"{split}_x"), getattr(data, f"{split}_y")
        assert x.shape == expected[f"{split}_x"].shape
        assert np.abs(x.astype(int) - expected[f"{split}_x"]).max() <= tolerance
        assert y.tolist() == expected[f"{split}_y"].tolist()
        for attribute, column in getattr(data, split).items():
            assert column.tolist() == expected[f"{split}_{attribute}"].tolist()
    recorded = json.loads((project.raw(name) / "source.json").read_text())["files"]
    assert set(recorded) == set(load_dataset_file(REPOSITORY, name).raw_paths)
    for path, entry in recorded.items():
        raw = (project.raw(name) / path).read_bytes()
        assert entry == {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}


def test_attributes_carry_the_names_of_their_values(project):
    publish(project, "cifar100", cifar100()[0])
    superclass = obtain(project, "cifar100").manifest["attributes"]["superclass"]
    assert superclass["names"] == [f"group_{k}" for k in range(20)]
    assert superclass["use"] == "population"
    publish(project, "femnist", femnist()[0])
    writer = obtain(project, "femnist").manifest["attributes"]["writer"]
    assert writer["names"] == sorted(WRITERS)
    assert writer["use"] == "client"


def test_bytes_of_femnist_survive_the_floats_and_the_record_says_how_well(project):
    publish(project, "femnist", femnist()[0])
    record = json.loads(fetch(project, "femnist").read_text())
    assert record["rounding"] <= 255 * np.finfo(np.float32).eps


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_download_has_an_official_address_and_a_published_checksum(name):
    (form,) = load_dataset_file(REPOSITORY, name).forms
    for file in form.downloads:
        assert any(source.url and source.url.endswith(f"/{file.path}") for source in file.sources)
        assert file.sha256 or file.md5


def test_class_names_are_complete():
    classes = {name: load_dataset_file(REPOSITORY, name).classes for name in OFFICIAL}
    assert all(len(set(names)) == len(names) for names in classes.values())
    counts = {"cifar100": 100, "svhn": 10, "emnist-balanced": 47, "emnist-byclass": 62, "femnist": 62}
    counts |= {"tiny-imagenet": 200, "pathmnist": 9, "dermamnist": 7, "bloodmnist": 8, "organamnist": 11}
    assert {name: len(names) for name, names in classes.items()} == counts
    # ByMerge and Balanced drop the small letters that look like their capitals (Cohen et al. 2017, section II).
    assert "".join(classes["emnist-byclass"]) == "".join(map(chr, [*range(48, 58), *range(65, 91), *range(97, 123)]))
    merged = set("cijklmopsuvwxyz")
    assert classes["emnist-balanced"] == tuple(c for c in classes["emnist-byclass"] if c not in merged)


# --- what is wrong with a file is said, and the file is named


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_wrong_checksum_stops_the_fetch(project, name):
    files, _ = OFFICIAL[name]()
    publish(project, name, files)
    (form,) = read_yaml(project.params / "datasets" / f"{name}.yaml")["forms"]
    download = form["downloads"][0]
    target = mirrored(project, download)
    target.write_bytes(target.read_bytes()[:-1] + b"?")
    algorithm = "sha256" if "sha256" in download else "md5"
    found = hashlib.new(algorithm, target.read_bytes()).hexdigest()
    with pytest.raises(DataError) as error:
        fetch(project, name)
    message = str(error.value)
    assert f"{download['path']} (expected {algorithm} {download[algorithm]}" in message
    assert f"altered: expected {algorithm} {download[algorithm]}, found {found}" in message
    assert not project.raw(name).exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", OFFICIAL)
def test_a_truncated_file_with_a_right_checksum_is_refused_by_name(project, name, share):
    files, _ = OFFICIAL[name]()
    first = next(iter(files))
    files[first] = files[first][: int(share * len(files[first]))] or b"<html>moved</html>"
    publish(project, name, files)
    with pytest.raises(DataError, match=first.replace(".", r"\.")):
        obtain(project, name)
    assert not project.prepared(name).exists()


def without(members: Content, name: str) -> Content:
    assert name in members
    return {key: data for key, data in members.items() if key != name}


def cifar100_with(arrays: dict | None = None, **members: bytes) -> Content:
    _, original = cifar100()
    for key, value in (arrays or {}).items():
        original[key][:] = value
    content = cifar100_members(original) | {f"cifar-100-binary/{key}.txt": data for key, data in members.items()}
    return {"cifar-100-binary.tar.gz": tar(content, "gz")}


def svhn_with(x: np.ndarray, y: np.ndarray) -> Content:
    return svhn()[0] | {"train_32x32.mat": matlab(X=x, y=y)}


def emnist_with(change: Callable[[Content, Arrays], Content]) -> Content:
    _, arrays = emnist("balanced", 47)
    return {"gzip.zip": zipped(change(emnist_members(arrays, "balanced"), arrays))}


def femnist_with(change: Callable[[h5py.File], None]) -> Content:
    members = femnist_members(femnist()[1])
    target = io.BytesIO(members["fed_emnist_test.h5"])
    with h5py.File(target, "r+") as file:
        change(file)
    return {"fed_emnist.tar.bz2": tar(members | {"fed_emnist_test.h5": target.getvalue()}, "bz2")}


def assign(key: str, value: float) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[f"examples/f0500_00/{key}"][1] = value

    return change


def delete(key: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]

    return change


def tiny_with(change: Callable[[Content], Content]) -> Content:
    members, _ = tiny_imagenet_members()
    return {"tiny-imagenet-200.zip": zipped(change(members))}


def medmnist_with(**changes: np.ndarray | None) -> Content:
    parts = medmnist_parts(medmnist("bloodmnist", 3, 8)[1]) | changes
    return {"bloodmnist.npz": npz(**{key: value for key, value in parts.items() if value is not None})}


TINY = "tiny-imagenet-200"
X = np.zeros((32, 32, 3, 4), np.uint8)
LABELS = "gzip/emnist-balanced-test-labels-idx1-ubyte.gz"
IMAGES = "gzip/emnist-balanced-test-images-idx3-ubyte.gz"
FAULTS = {
    "cifar100: no names": (
        "cifar100",
        lambda: {
            "cifar-100-binary.tar.gz": tar(
                without(cifar100_members(cifar100()[1]), "cifar-100-binary/fine_label_names.txt"), "gz"
            )
        },
        r"cifar-100-binary\.tar\.gz: .*fine_label_names\.txt",
    ),
    "cifar100: fine label": (
        "cifar100",
        lambda: cifar100_with({"train_y": 100}),
        r"cifar100/train\.bin: fine label 100 in a set of 100",
    ),
    "cifar100: coarse label": (
        "cifar100",
        lambda: cifar100_with({"test_superclass": 20}),
        r"cifar100/test\.bin: coarse label 20 in a set of 20",
    ),
    "cifar100: other classes": (
        "cifar100",
        lambda: cifar100_with(fine_label_names="\n".join(["pear"] * 100).encode()),
        r"params/datasets/cifar100\.yaml: class 0 is 'apple', in the raw files 'pear'",
    ),
    "cifar100: too few classes": (
        "cifar100",
        lambda: cifar100_with({"train_y": 0, "test_y": 0}, fine_label_names=b"apple\n"),
        r"class 1 is 'aquarium_fish', in the raw files None",
    ),
    "cifar100: no text": (
        "cifar100",
        lambda: cifar100_with(coarse_label_names=b"\xff\xfe"),
        r"cifar100/coarse_label_names\.txt: cannot be decoded",
    ),
    "svhn: three bytes": ("svhn", lambda: svhn()[0] | {"test_32x32.mat": b"MAT"}, r"svhn/test_32x32\.mat: cannot be"),
    "svhn: altered": (
        "svhn",
        lambda: svhn()[0] | {"test_32x32.mat": matlab(X=X)[:128] + b"\x05" + matlab(X=X)[129:]},
        r"svhn/test_32x32\.mat: cannot be decoded: .*miMATRIX",
    ),
    "svhn: no y": ("svhn", lambda: svhn()[0] | {"test_32x32.mat": matlab(X=X)}, r"svhn/test_32x32\.mat: .*y"),
    "svhn: label 0": ("svhn", lambda: svhn_with(X, np.array([[1], [2], [0], [10]])), r"train_32x32\.mat: y must hold"),
    "svhn: label 11": ("svhn", lambda: svhn_with(X, np.array([[1], [2], [11], [9]])), r"train_32x32\.mat: y must hold"),
    "svhn: images first": (
        "svhn",
        lambda: svhn_with(X.transpose(3, 0, 1, 2), np.ones((4, 1))),
        r"train_32x32\.mat: X is uint8 \[4, 32, 32, 3\] instead of",
    ),
    "svhn: fewer labels": ("svhn", lambda: svhn_with(X, np.ones((3, 1))), "train data: number of labels: .*4.*3"),
    "emnist: no labels": (
        "emnist-balanced",
        lambda: emnist_with(lambda members, _: without(members, LABELS)),
        rf"emnist-balanced/gzip\.zip: .*{LABELS}",
    ),
    "emnist: label": (
        "emnist-balanced",
        lambda: emnist_with(lambda members, _: members | {LABELS: idx(np.array([47, 1, 2, 3, 4], np.uint8))}),
        r"params/datasets/emnist-balanced\.yaml: test data: labels that are not allowed: '47' \(1 times\)",
    ),
    "emnist: not gzipped": (
        "emnist-balanced",
        lambda: emnist_with(lambda members, _: members | {LABELS: b"no gzip"}),
        r"emnist-balanced/gzip\.zip: cannot be decoded: .*gzip",
    ),
    "emnist: altered": (
        "emnist-balanced",
        lambda: emnist_with(lambda members, _: members | {LABELS: members[LABELS][:10] + b"\xff" * 20}),
        r"emnist-balanced/gzip\.zip: cannot be decoded: .*block type",
    ),
    "emnist: short": (
        "emnist-balanced",
        lambda: emnist_with(
            lambda members, _: members | {IMAGES: gzip.compress(gzip.decompress(members[IMAGES])[:-1])}
        ),
        rf"gzip\.zip: {IMAGES}: shape \[5, 28, 28\] needs 3920 bytes, found 3919",
    ),
    "emnist: labels as images": (
        "emnist-balanced",
        lambda: emnist_with(lambda members, _: members | {IMAGES: members[LABELS]}),
        rf"gzip\.zip: {IMAGES}: 1 dimensions instead of 3",
    ),
    "femnist: no test file": (
        "femnist",
        lambda: {"fed_emnist.tar.bz2": tar(without(femnist_members(femnist()[1]), "fed_emnist_test.h5"), "bz2")},
        r"fed_emnist\.tar\.bz2: no fed_emnist_test\.h5 in it",
    ),
    "femnist: no pixels": (
        "femnist",
        lambda: femnist_with(delete("examples/f0500_00/pixels")),
        r"fed_emnist_test\.h5: cannot be decoded: .*pixels",
    ),
    "femnist: no examples": ("femnist", lambda: femnist_with(delete("examples")), r"fed_emnist_test\.h5: .*examples"),
    "femnist: label": (
        "femnist",
        lambda: femnist_with(assign("label", 62)),
        r"fed_emnist_test\.h5: writer f0500_00 has",
    ),
    "femnist: negative label": ("femnist", lambda: femnist_with(assign("label", -1)), "labels outside 0 to 61"),
    "femnist: pixel": ("femnist", lambda: femnist_with(assign("pixels", 1.5)), "f0500_00 has pixels outside 0 to 1"),
    "femnist: no number": ("femnist", lambda: femnist_with(assign("pixels", np.nan)), "has pixels outside 0 to 1"),
    "femnist: not bzip2 of HDF5": (
        "femnist",
        lambda: {
            "fed_emnist.tar.bz2": tar(femnist_members(femnist()[1]) | {"fed_emnist_test.h5": b"<html>moved"}, "bz2")
        },
        r"fed_emnist_test\.h5: cannot be decoded",
    ),
    "femnist: not a tar": (
        "femnist",
        lambda: {"fed_emnist.tar.bz2": bz2.compress(b"<html>moved</html>")},
        r"fed_emnist\.tar\.bz2: cannot be decoded",
    ),
    "tiny: no wnids": (
        "tiny-imagenet",
        lambda: tiny_with(lambda members: without(members, f"{TINY}/wnids.txt")),
        r"tiny-imagenet-200\.zip: .*wnids\.txt",
    ),
    "tiny: other classes": (
        "tiny-imagenet",
        lambda: tiny_with(
            lambda members: {
                key.replace("n01443537", "n00000001"): data.replace(b"n01443537", b"n00000001")
                for key, data in members.items()
            }
        ),
        r"class 0 is 'n01443537', in the raw files 'n00000001'",
    ),
    "tiny: class without images": (
        "tiny-imagenet",
        lambda: tiny_with(lambda members: without(members, f"{TINY}/train/n01629819/images/n01629819_7.JPEG")),
        r"tiny-imagenet-200\.zip: no training images of n01629819 \(1 classes\)",
    ),
    "tiny: image in a wrong folder": (
        "tiny-imagenet",
        lambda: tiny_with(lambda members: members | {f"{TINY}/train/n01629819/images/n01443537_1.JPEG": jpeg(0)}),
        r"train/n01629819/images/n01443537_1\.JPEG: not <wnid>_<number>",
    ),
    "tiny: no annotations": (
        "tiny-imagenet",
        lambda: tiny_with(lambda members: without(members, f"{TINY}/val/val_annotations.txt")),
        r"tiny-imagenet-200\.zip: .*val_annotations\.txt",
    ),
    "tiny: unknown label": (
        "tiny-imagenet",
        lambda: tiny_with(
            lambda members: members | {f"{TINY}/val/val_annotations.txt": b"val_0.JPEG\tn00000001\t0\t0\t9\t9\n"}
        ),
        r"tiny-imagenet-200\.zip: .*val_annotations\.txt, line 1: class 'n00000001' is not in wnids",
    ),
    "tiny: no image": (
        "tiny-imagenet",
        lambda: tiny_with(lambda members: without(members, f"{TINY}/val/images/val_1.JPEG")),
        r"tiny-imagenet-200\.zip.*val_1\.JPEG",
    ),
    "tiny: broken image": (
        "tiny-imagenet",
        lambda: tiny_with(lambda members: members | {f"{TINY}/val/images/val_1.JPEG": jpeg(9)[:-300]}),
        r"val/images/val_1\.JPEG: cannot be decoded",
    ),
    "tiny: size": (
        "tiny-imagenet",
        lambda: tiny_with(lambda members: members | {f"{TINY}/val/images/val_1.JPEG": jpeg(9, side=32)}),
        r"val/images/val_1\.JPEG: 32 x 32 pixels instead of 64 x 64",
    ),
    "medmnist: no validation labels": (
        "bloodmnist",
        lambda: medmnist_with(val_labels=None),
        r"bloodmnist/bloodmnist\.npz: .*val_labels",
    ),
    "medmnist: label": (
        "bloodmnist",
        lambda: medmnist_with(test_labels=np.full((5, 1), 8, np.uint8)),
        r"params/datasets/bloodmnist\.yaml: test data: labels that are not allowed: '8' \(5 times\)",
    ),
    "medmnist: several labels": (
        "bloodmnist",
        lambda: medmnist_with(test_labels=np.zeros((5, 14), np.uint8)),
        r"bloodmnist\.npz: test: images .* expected one label each",
    ),
    "medmnist: pickled": (
        "bloodmnist",
        lambda: medmnist_with(test_images=np.array([print, {}], dtype=object)),
        r"bloodmnist\.npz: .*allow_pickle=False",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_missing_members_and_wrong_values_are_named(project, fault):
    name, files, message = FAULTS[fault]
    publish(project, name, files())
    with pytest.raises(DataError, match=message):
        obtain(project, name)
    assert not project.prepared(name).exists()


# --- md5 where no sha256 is published, and no size


def change_download(project: Project, name: str, **entries) -> None:
    path = project.params / "datasets" / f"{name}.yaml"
    entry = YAML().load(path)
    download = entry["forms"][0]["downloads"][0]
    for key, value in entries.items():
        download.pop(key, None)
        if value is not None:
            download[key] = value
    YAML().dump(entry, path)


def test_a_download_needs_one_checksum(project):
    publish(project, "bloodmnist", OFFICIAL["bloodmnist"]()[0])
    change_download(project, "bloodmnist", md5=None)
    with pytest.raises(ConfigurationError, match=r"forms\.0\.downloads\.0: give sha256, or md5"):
        load_dataset_file(project, "bloodmnist")
    change_download(project, "bloodmnist", md5="abc")
    with pytest.raises(ConfigurationError, match=r"forms\.0\.downloads\.0\.md5"):
        load_dataset_file(project, "bloodmnist")


def test_sha256_decides_where_both_are_given(project):
    files, _ = OFFICIAL["bloodmnist"]()
    publish(project, "bloodmnist", files)
    sha256 = hashlib.sha256(files["bloodmnist.npz"]).hexdigest()
    change_download(project, "bloodmnist", sha256=sha256, md5="0" * 32)
    obtain(project, "bloodmnist")
    change_download(project, "bloodmnist", sha256="0" * 64, md5=hashlib.md5(files["bloodmnist.npz"]).hexdigest())
    with pytest.raises(DataError, match=f"altered: expected sha256 {'0' * 64}, found {sha256}"):
        prepare(project, "bloodmnist")
    with pytest.raises(DataError, match=f"altered: expected sha256 {'0' * 64}, found {sha256}"):
        fetch(project, "bloodmnist")


def test_md5_is_checked_again_before_preparing(project):
    files, _ = OFFICIAL["bloodmnist"]()
    publish(project, "bloodmnist", files)
    path = fetch(project, "bloodmnist")
    raw = project.raw("bloodmnist") / "bloodmnist.npz"
    raw.write_bytes(files["bloodmnist.npz"][:-1] + b"?")
    md5 = hashlib.md5(files["bloodmnist.npz"]).hexdigest()
    with pytest.raises(DataError, match=rf"^data/raw/bloodmnist/bloodmnist\.npz: altered: expected md5 {md5}, found"):
        prepare(project, "bloodmnist")
    # The record cannot vouch for another file: the parameter file is the authority.
    record = json.loads(path.read_text())
    record["files"]["bloodmnist.npz"]["sha256"] = hashlib.sha256(raw.read_bytes()).hexdigest()
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=f"expected md5 {md5}"):
        prepare(project, "bloodmnist")


def test_a_file_of_unknown_size_cannot_fill_the_disk(project, monkeypatch):
    files, _ = OFFICIAL["bloodmnist"]()
    size = len(files["bloodmnist.npz"])
    publish(project, "bloodmnist", files)
    monkeypatch.setattr(fetching, "LARGEST", size)
    fetch(project, "bloodmnist")
    monkeypatch.setattr(fetching, "LARGEST", size - 1)
    with pytest.raises(DataError, match=rf"bloodmnist\.npz.*\n.*too long: at most {size - 1} bytes are read"):
        fetch(project, "bloodmnist")
