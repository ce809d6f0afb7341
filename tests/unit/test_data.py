"""Data sets: what is fetched is verified, what is prepared is repeatable, every refusal says what to do."""

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from heterobench.config.reading import names
from heterobench.data.converters import cifar10_archive, cifar10_strips
from heterobench.data.dataset import open_dataset
from heterobench.data.fetch import MIRROR, fetch, main
from heterobench.data.prepare import content_hash, prepare
from heterobench.data.readers import cifar_binary, digits
from heterobench.data.readers.idx import idx_array
from heterobench.data.schema import DatasetFile, load_dataset_file
from heterobench.data.versioned import stage_of, staged
from heterobench.errors import ConfigurationError, DataError
from heterobench.federation import Examples
from heterobench.files import file_digest
from heterobench.project import Project

REPOSITORY = Project(Path(__file__).resolve().parents[2])
IDX_FILES = {
    "train-images-idx3-ubyte.gz": (30, 4, 5),
    "train-labels-idx1-ubyte.gz": (30,),
    "t10k-images-idx3-ubyte.gz": (8, 4, 5),
    "t10k-labels-idx1-ubyte.gz": (8,),
}


def idx_bytes(array: np.ndarray) -> bytes:
    header = b"\x00\x00\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def write_dataset(project: Project, name: str, **entries) -> None:
    path = project.params / "datasets" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    YAML().dump(entries, path)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    """One data set, `tiny`, in the form of MNIST; each file has two sources, a mirror and a package."""
    project = Project(tmp_path / "project")
    project.params.mkdir(parents=True)
    (project.params / "config.yaml").touch()
    draw = np.random.default_rng(3)
    mirror = tmp_path / "mirror" / "tiny"
    package = tmp_path / "site" / "tinypackage"
    for folder in (mirror, package):
        folder.mkdir(parents=True)
    (package / "__init__.py").touch()
    downloads = []
    for path, shape in IDX_FILES.items():
        (mirror / path).write_bytes(idx_bytes(draw.integers(0, 3, shape, np.uint8)))
        shutil.copy(mirror / path, package)
        sources = [{"mirror": f"tiny/{path}"}, {"package": "tinypackage", "path": path}]
        size = (mirror / path).stat().st_size
        downloads.append({"path": path, "sha256": file_digest(mirror / path), "bytes": size, "sources": sources})
    write_dataset(
        project,
        "tiny",
        title="Tiny",
        licence="none",
        canonical="nowhere",
        classes=["a", "b", "c"],
        shape=[1, 4, 5],
        maximum=2,
        mean=[0.5],
        std=[0.5],
        reader="idx",
        forms=[{"name": "published", "downloads": downloads}],
    )
    monkeypatch.setenv(MIRROR, str(tmp_path / "mirror"))
    return project


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """Makes the second source of `tiny` importable."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site" / "tinypackage"


def edit(project: Project, **entries) -> None:
    path = project.params / "datasets" / "tiny.yaml"
    YAML().dump(YAML().load(path) | entries, path)


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# --- parameter files


def test_each_data_set_has_one_line_in_dvc_yaml_and_the_lock_knows_no_others():
    assert staged(REPOSITORY) == names(REPOSITORY, "datasets")  # both sorted: a missing, extra or double line differs
    locked = YAML(typ="safe").load(REPOSITORY.root / "dvc.lock")["stages"]
    assert set(locked) <= {stage_of(name) for name in names(REPOSITORY, "datasets")}


@pytest.mark.parametrize("name", names(REPOSITORY, "datasets"))
def test_the_repositorys_data_sets_are_valid_and_what_dvc_lock_records_is_up_to_date(name):
    dataset = load_dataset_file(REPOSITORY, name)
    lock = YAML(typ="safe").load(REPOSITORY.root / "dvc.lock")["stages"].get(stage_of(name))
    if lock is None:
        return  # not in the mirror that the lock was made with: users' own machines fetch it
    assert [(out["path"], out["nfiles"]) for out in lock["outs"]] == [(f"data/raw/{name}", len(dataset.raw_paths) + 1)]
    recorded = lock["params"][f"params/datasets/{name}.yaml"]["forms"]
    assert DatasetFile.model_validate({**dataset.model_dump(), "forms": recorded}).forms == dataset.forms


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reder": "idx"}, "unknown key 'reder'; did you mean 'reader'"),
        ({"mean": [0.1, 0.2]}, "a mean and a std for each channel"),
        ({"std": [0.0]}, "std.0: .*greater than 0"),
        ({"classes": ["a"]}, "classes"),
        ({"forms": []}, "forms"),
    ],
)
def test_a_wrong_parameter_file_is_named_with_its_key(project, change, message):
    edit(project, **change)
    with pytest.raises(ConfigurationError, match=f"params/datasets/tiny.yaml.*{message}"):
        load_dataset_file(project, "tiny")


@pytest.mark.parametrize("source", [{}, {"package": "p"}, {"url": "u", "mirror": "m"}, {"mirror": "/etc/passwd"}])
def test_a_source_is_exactly_one_place(project, source):
    form = {"path": "f", "sha256": "0" * 64, "bytes": 1, "sources": [source]}
    edit(project, forms=[{"name": "published", "downloads": [form]}])
    with pytest.raises(ConfigurationError, match=r"forms\.0\.downloads\.0\.sources\.0"):
        load_dataset_file(project, "tiny")


# --- fetch


def test_fetch_takes_the_first_good_source_and_records_the_checksums(project, tmp_path):
    source = json.loads(fetch(project, "tiny").read_text())
    assert files_below(project.root / "data") == sorted([*IDX_FILES, "source.json"])
    assert source["form"] == "published"
    for path in IDX_FILES:
        copy = project.raw("tiny") / path
        assert copy.read_bytes() == (tmp_path / "mirror" / "tiny" / path).read_bytes()
        assert source["files"][path] == {"sha256": file_digest(copy), "bytes": copy.stat().st_size}


def test_fetch_is_repeatable_whatever_the_source(project, package, monkeypatch):
    first = fetch(project, "tiny").read_bytes()
    monkeypatch.delenv(MIRROR)
    assert fetch(project, "tiny").read_bytes() == first


def test_the_mirror_can_be_an_address(project, tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR, (tmp_path / "mirror").as_uri() + "/")
    assert fetch(project, "tiny").is_file()


@pytest.mark.parametrize("fault", ["missing", "truncated", "altered", "too long"])
def test_a_faulty_mirror_without_another_source_stops_and_leaves_nothing(project, tmp_path, fault):
    file = tmp_path / "mirror" / "tiny" / "t10k-labels-idx1-ubyte.gz"  # the last one: the others are there by then
    expected, data = file_digest(file), file.read_bytes()
    if fault == "missing":
        file.unlink()
    elif fault == "truncated":
        file.write_bytes(data[:-3])
    elif fault == "too long":
        file.write_bytes(data + b"more")
    else:
        flip(file)
    with pytest.raises(DataError) as error:
        fetch(project, "tiny")
    message = str(error.value)
    assert file.name in message
    assert expected in message
    assert f"set {MIRROR} to a folder" in message
    assert ("No such file" if fault == "missing" else fault) in message
    if fault in ("truncated", "altered"):
        assert f"{file_digest(file)}" in message
    assert "tinypackage is not installed" in message  # every source is listed with its reason
    assert files_below(project.root / "data") == []


def test_a_failed_fetch_leaves_the_files_of_an_earlier_one_alone(project, tmp_path):
    before = fetch(project, "tiny").read_bytes()
    flip(tmp_path / "mirror" / "tiny" / "train-images-idx3-ubyte.gz")
    with pytest.raises(DataError):
        fetch(project, "tiny")
    assert files_below(project.root / "data") == sorted([*IDX_FILES, "source.json"])
    assert (project.raw("tiny") / "source.json").read_bytes() == before
    prepare(project, "tiny")


def test_a_second_source_helps_out_and_the_bad_one_is_reported(project, tmp_path, package, capsys):
    bad = tmp_path / "mirror" / "tiny" / "train-labels-idx1-ubyte.gz"
    flip(bad)
    fetch(project, "tiny")
    warning = capsys.readouterr().err
    assert "warning: train-labels-idx1-ubyte.gz from mirror tiny/train-labels-idx1-ubyte.gz: altered" in warning
    assert file_digest(bad) in warning
    assert file_digest(project.raw("tiny") / bad.name) == file_digest(package / bad.name)


def test_what_a_killed_fetch_left_is_swept_away(project):
    leftover = project.raw("tiny").parent / ".tiny.partial" / "t10k-labels-idx1-ubyte.gz"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    fetch(project, "tiny")
    assert not leftover.parent.exists()


def test_without_any_source_the_command_says_why_and_fails(project, monkeypatch, capsys):
    monkeypatch.delenv(MIRROR)
    monkeypatch.chdir(project.root)
    assert main(["tiny"]) == 1
    assert f"{MIRROR} is not set" in capsys.readouterr().err
    assert main(["tinny"]) == 1
    assert "did you mean 'tiny'" in capsys.readouterr().err
    assert main([]) == 2


# --- prepare and open


def test_prepared_arrays_are_what_the_files_hold(project):
    fetch(project, "tiny")
    prepare(project, "tiny")
    data = open_dataset(project, "tiny", verify=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        x, y = getattr(data, f"{split}_x"), getattr(data, f"{split}_y")
        raw = gzip.decompress((project.raw("tiny") / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
        assert x.tobytes() == raw[16:]
        assert x.shape[1:] == data.shape == (1, 4, 5)
        raw = gzip.decompress((project.raw("tiny") / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
        assert y.tolist() == list(raw[8:])
        assert (x.dtype, y.dtype) == (np.uint8, np.int64)
        assert isinstance(x, np.memmap)
        assert not x.flags.writeable
        assert data.manifest["counts"][split] == [y.tolist().count(label) for label in range(3)]


def test_a_net_may_ask_for_pixels_in_the_unit_interval(project):
    fetch(project, "tiny")
    prepare(project, "tiny")
    data = open_dataset(project, "tiny")
    assert data.seen("standardised") is data
    raw = data.seen("unit interval")
    seen = Examples.normalised(raw.train_x, raw.train_y, raw.mean, raw.std, raw.maximum, "cpu").x
    np.testing.assert_allclose(seen, np.array(data.train_x, np.float32) / 2, rtol=1e-6)
    assert raw.hash == data.hash
    with pytest.raises(ConfigurationError, match=r"tiny: inputs: 'unit interval' .* kind tokens .* 'standardised'"):
        replace(data, kind="tokens", maximum=None).seen("unit interval")


def test_prepare_twice_gives_the_same_bytes(project):
    fetch(project, "tiny")
    folder = prepare(project, "tiny").parent
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    prepare(project, "tiny")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert set(first) == {"manifest.json", "train_x.npy", "train_y.npy", "test_x.npy", "test_y.npy"}


def test_the_hash_follows_the_classes_and_not_the_title(project):
    fetch(project, "tiny")
    prepare(project, "tiny")
    first = open_dataset(project, "tiny").hash
    edit(project, title="Another")
    prepare(project, "tiny")
    assert open_dataset(project, "tiny").hash == first
    edit(project, classes=["a", "b", "d"])
    prepare(project, "tiny")
    assert open_dataset(project, "tiny").hash != first


@pytest.mark.parametrize("fault", ["missing", "truncated", "altered"])
def test_prepare_refuses_a_damaged_raw_file(project, fault):
    fetch(project, "tiny")
    file = project.raw("tiny") / "train-images-idx3-ubyte.gz"
    expected = file_digest(file)
    if fault == "missing":
        file.unlink()
    elif fault == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        flip(file)
    with pytest.raises(DataError) as error:
        prepare(project, "tiny")
    message = str(error.value)
    assert message.startswith(f"data/raw/tiny/train-images-idx3-ubyte.gz: {fault}: expected")
    assert expected in message
    assert ("found no file" if fault == "missing" else file_digest(file)) in message
    assert "What to do: `heterobench obtain tiny`, which restores or fetches it" in message
    assert not project.prepared("tiny").exists()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"form": "unknown", "files": {}}'])
def test_prepare_refuses_a_set_without_a_usable_source_record(project, text):
    path = fetch(project, "tiny")
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=r"data/raw/tiny/source\.json: .* What to do"):
        prepare(project, "tiny")


def test_a_checksum_that_is_only_recorded_is_checked_too(project, tmp_path):
    archive = tmp_path / "mirror" / "tiny" / "cifar-10-binary.tar.gz"
    write_cifar_archive(archive, images=4)
    download = {"path": archive.name, "sha256": file_digest(archive), "bytes": archive.stat().st_size}
    download["sources"] = [{"mirror": f"tiny/{archive.name}"}]
    form = {"name": "official", "downloads": [download], "converter": "cifar10-archive"}
    form["outputs"] = [{"path": "train.bin"}, {"path": "test.bin"}]
    edit(
        project,
        forms=[form],
        reader="cifar-binary",
        shape=[3, 32, 32],
        mean=[0] * 3,
        std=[1] * 3,
        maximum=255,
    )
    fetch(project, "tiny")
    assert files_below(project.root / "data") == ["source.json", "test.bin", "train.bin"]
    prepare(project, "tiny")
    flip(project.raw("tiny") / "test.bin")
    with pytest.raises(DataError, match=r"data/raw/tiny/test\.bin: altered: expected sha256"):
        prepare(project, "tiny")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"reader": "idy"}, ConfigurationError, "no reader 'idy'; did you mean 'idx'"),
        ({"shape": [1, 5, 4]}, DataError, r"train data: shape: expected \[1, 5, 4\], found \[1, 4, 5\]"),
        ({"classes": ["a", "b"]}, DataError, r"train data: labels that are not allowed: '2' \(\d+ times\)"),
        ({"maximum": 1}, DataError, "largest pixel: expected at most 1, found 2"),
    ],
)
def test_prepare_refuses_data_that_the_parameter_file_does_not_describe(project, change, error, message):
    fetch(project, "tiny")
    edit(project, **change)
    with pytest.raises(error, match=message):
        prepare(project, "tiny")


def test_opening_says_what_is_missing(project):
    with pytest.raises(DataError, match=r"not prepared\. What to do: run `snakemake`, or `heterobench prepare tiny`"):
        open_dataset(project, "tiny")
    with pytest.raises(ConfigurationError, match="did you mean 'tiny'"):
        open_dataset(project, "tinny")
    fetch(project, "tiny")
    folder = prepare(project, "tiny").parent
    flip(folder / "train_x.npy")
    open_dataset(project, "tiny")  # sizes only
    with pytest.raises(DataError, match=r"data/prepared/tiny/train_x\.npy: altered"):
        open_dataset(project, "tiny", verify=True)
    (folder / "train_x.npy").write_bytes(b"short")
    with pytest.raises(DataError, match=r"data/prepared/tiny/train_x\.npy: truncated"):
        open_dataset(project, "tiny")
    (folder / "train_x.npy").unlink()
    with pytest.raises(DataError, match=r"data/prepared/tiny/train_x\.npy: missing"):
        open_dataset(project, "tiny")


def test_a_killed_prepare_leaves_no_manifest(project, monkeypatch):
    fetch(project, "tiny")
    prepare(project, "tiny")
    calls = []
    save = np.save

    def die(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        save(*arguments, **options)

    monkeypatch.setattr("heterobench.data.prepare.np.save", die)
    with pytest.raises(KeyboardInterrupt):
        prepare(project, "tiny")
    assert "manifest.json" not in files_below(project.prepared("tiny"))
    assert all(name.startswith(("train_", "test_")) for name in files_below(project.prepared("tiny")))
    with pytest.raises(DataError, match="not prepared"):
        open_dataset(project, "tiny")


# --- readers and converters


def test_idx_refuses_other_types_and_wrong_lengths(tmp_path):
    path = tmp_path / "f.gz"
    path.write_bytes(gzip.compress(b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00\x00\x00\x00"))
    with pytest.raises(DataError, match="not an IDX file of unsigned bytes"):
        idx_array(path)
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x05abc"))
    with pytest.raises(DataError, match=r"shape \[5\] needs 5 bytes, found 3"):
        idx_array(path)


def test_digits_are_those_of_scikit_learn_with_a_fixed_split_and_the_stated_moments(tmp_path):
    from sklearn.datasets import load_digits

    project = Project(tmp_path)
    shutil.copytree(REPOSITORY.params / "datasets", project.params / "datasets")
    arrays = digits.read(fetch(project, "digits").parent, digits.Options())
    bunch = load_digits()
    rows = {image.tobytes(): label for image, label in zip(bunch.images.astype(np.uint8), bunch.target, strict=True)}
    assert len(rows) == 1797  # no image twice, so train and test cannot share one
    seen = set()
    for split in ("train", "test"):
        for image, label in zip(arrays[f"{split}_x"][:, 0], arrays[f"{split}_y"], strict=True):
            assert rows[image.tobytes()] == label
            seen.add(image.tobytes())
    assert len(seen) == 1797
    assert np.bincount(arrays["test_y"]).tolist() == [round(0.2 * n) for n in np.bincount(bunch.target)]
    dataset = load_dataset_file(project, "digits")
    assert content_hash(arrays, dataset) == DIGITS_HASH
    pixels = arrays["train_x"] / dataset.maximum
    assert round(pixels.mean(), 4) == dataset.mean[0]
    assert round(pixels.std(), 4) == dataset.std[0]


# The split may never change: a result on digits means this one.
DIGITS_HASH = "eaa356c9e5f2b0b91fd3f46c66ea9cc1c03fcf845319f2e4a34f703e08ae6ada"


def write_cifar_archive(path: Path, images: int) -> dict[str, bytes]:
    """A small archive in the official layout; every image is another one. Returns the members."""
    draw = np.random.default_rng(5)
    members = {}
    with tarfile.open(path, "w:gz") as archive:
        # The official archive lists its batches in no useful order.
        for batch in ("data_batch_4", "readme", "test_batch", *(f"data_batch_{k}" for k in (3, 1, 2, 5))):
            records = draw.integers(0, 256, (images, 3073), np.uint8)
            records[:, 0] %= 3
            members[batch] = records.tobytes()
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{batch}.bin")
            entry.size = len(members[batch])
            archive.addfile(entry, io.BytesIO(members[batch]))
    return members


def test_the_official_archive_gives_the_batches_in_order(tmp_path):
    members = write_cifar_archive(tmp_path / "cifar-10-binary.tar.gz", images=2)
    assert cifar10_archive.convert(tmp_path, tmp_path) == {}
    assert (tmp_path / "train.bin").read_bytes() == b"".join(members[f"data_batch_{k}"] for k in range(1, 6))
    assert (tmp_path / "test.bin").read_bytes() == members["test_batch"]
    arrays = cifar_binary.read(tmp_path, cifar_binary.Options())
    record = np.frombuffer(members["data_batch_1"], np.uint8)[3073:]
    assert arrays["train_y"][1] == record[0]
    assert arrays["train_x"][1].tobytes() == record[1:].tobytes()
    with (tmp_path / "test.bin").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(DataError, match="6147 bytes are not a whole number of 3073-byte records"):
        cifar_binary.read(tmp_path, cifar_binary.Options())


def test_the_re_encoded_form_gives_the_same_records(tmp_path):
    draw = np.random.default_rng(6)
    strip = draw.integers(0, 256, (100, 32, 32, 3), np.uint8)  # one strip, used everywhere: the test stays quick
    encoded = io.BytesIO()
    Image.fromarray(strip.reshape(3200, 32, 3)).save(encoded, "WEBP", lossless=True, method=0, exact=True)
    with zipfile.ZipFile(tmp_path / "cifar10_images.zip", "w") as archive:
        for batch in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
            for number in range(100):
                archive.writestr(f"{batch}/{number:02d}.webp", encoded.getvalue())
    train, test = draw.integers(0, 10, 50000), draw.integers(0, 10, 10000)
    index = {"train_jpeg_index": [410, 507], "test_jpeg_index": [7]}
    np.savez(tmp_path / "cifar10_labels.npz", train_labels=train, test_labels=test, **index)
    remarks = cifar10_strips.convert(tmp_path, tmp_path)
    assert remarks == {"stand_ins": {"train": [410, 507], "test": [7]}}
    arrays = cifar_binary.read(tmp_path, cifar_binary.Options())
    assert arrays["train_y"].tolist() == train.tolist()
    assert arrays["test_y"].tolist() == test.tolist()
    for row in (0, 199, 9999):
        assert np.array_equal(arrays["test_x"][row], strip[row % 100].transpose(2, 0, 1))
