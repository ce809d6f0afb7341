"""UCI HAR, spoken digits and Shakespeare's roles: small files in the official formats, and the real ones."""

import io
import os
import tarfile
import time
import wave
import zipfile

import numpy as np
import pytest

from forms import real, same_bytes_again, stand_in
from heterobench.data.converters import fsdd_recordings, uci_har_archive, uci_har_planes
from heterobench.data.dataset import open_dataset
from heterobench.data.fetch import MIRROR, fetch
from heterobench.data.mel import filter_bank, log_mel, mel
from heterobench.data.prepare import prepare
from heterobench.data.readers import fsdd, tinyshakespeare, uci_har
from heterobench.errors import ConfigurationError, DataError
from heterobench.files import read_json

mirrored = pytest.mark.skipif(MIRROR not in os.environ, reason=f"{MIRROR} is not set: the real files are not at hand")
# Columns, order and split may never change: a result on one of these sets means these.
HASHES = {
    "uci-har": "81bbd85a243fb2b7cbe17676dc651b95ab28e5f49ffe8a99c3821d4095de8be2",
    "fsdd": "496390a683ea520edcc9914f1017c10d1026657ad3ae4477e5539888ceb8363d",
    "tinyshakespeare": "3aa8e04d8583201d9a76e8e540ac521dd15b43d90ec7576841965c4266807a29",
}


# --- UCI HAR

# Runs of overlapping windows: (class from 0, subject from 1, in the training part, number of windows).
RUNS = [(0, 1, True, 3), (5, 30, True, 1), (2, 2, False, 2), (0, 4, False, 1)]


def har_windows() -> dict[str, np.ndarray]:
    """`signal` float32 [9, samples], and of each window `start`, `y`, `subject`, `is_train`."""
    start, columns, samples = [], [], 0
    for label, subject, is_train, count in RUNS:
        start += [samples + 64 * k for k in range(count)]
        columns += [(label, subject, is_train)] * count
        samples += 64 * (count + 1)
    y, subject, is_train = (np.array(values) for values in zip(*columns, strict=True))
    signal = np.random.default_rng(4).normal(0, 1, (9, samples)).astype(np.float32)
    kinds = {"start": np.array(start, np.int32), "y": y.astype(np.uint8), "subject": subject.astype(np.uint8)}
    return kinds | {"signal": signal, "is_train": is_train}


def har_planes(**changes) -> bytes:
    """The re-encoded form."""
    har = har_windows()
    planes = np.moveaxis(har["signal"].view(np.uint8).reshape(9, -1, 4), 2, 0)
    target = io.BytesIO()
    np.savez_compressed(target, **(har | {"signal": planes} | changes))
    return target.getvalue()


def har_texts(order: dict[str, list[int]] | None = None) -> dict[str, str]:
    """Members of the official archive, in its number format; `order` permutes the windows of a split."""
    har, members = har_windows(), {"UCI HAR Dataset/README.txt": "text", "__MACOSX/._UCI HAR Dataset": "x"}
    for split in ("train", "test"):
        rows = np.flatnonzero(har["is_train"] == (split == "train"))
        rows = rows if order is None else rows[order[split]]
        for channel, name in enumerate(f"{s}_{a}" for s in ("body_acc", "body_gyro", "total_acc") for a in "xyz"):
            lines = []
            for start in har["start"][rows]:
                # Nine decimal digits tell every float32 from its neighbours; the official files have seven.
                lines.append("".join(f" {value:15.8e}" for value in har["signal"][channel, start : start + 128]))
            members[f"UCI HAR Dataset/{split}/Inertial Signals/{name}_{split}.txt"] = "\n".join(lines) + "\n"
        members[f"UCI HAR Dataset/{split}/y_{split}.txt"] = "".join(f"{v + 1}\n" for v in har["y"][rows])
        members[f"UCI HAR Dataset/{split}/subject_{split}.txt"] = "".join(f"{v}\n" for v in har["subject"][rows])
    return members


def zipped(members: dict[str, str | bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target.getvalue()


def har_downloads(form: str, **options) -> dict[str, bytes]:
    if form == "re-encoded":
        return {"uci_har_inertial.npz": har_planes()}
    inner = zipped(har_texts(**options))
    return {"uci-har.zip": inner if "inner" in form else zipped({"UCI HAR Dataset.zip": inner, "a.names": "text"})}


@pytest.mark.parametrize("form", ["re-encoded", "official", "official, inner archive"])
def test_every_form_of_uci_har_gives_the_windows(tmp_path, monkeypatch, form):
    project = stand_in(tmp_path, "uci-har", form, har_downloads(form), monkeypatch)
    source = read_json(fetch(project, "uci-har"))
    assert source["form"] == form
    prepare(project, "uci-har")
    assert same_bytes_again(project, "uci-har")
    data, har = open_dataset(project, "uci-har", verify=True), har_windows()
    for split, train in (("train", True), ("test", False)):
        rows = np.flatnonzero(har["is_train"] == train)
        expected = np.stack([har["signal"][:, s : s + 128] for s in har["start"][rows]])
        assert getattr(data, f"{split}_x").dtype == np.float32
        assert np.array_equal(getattr(data, f"{split}_x"), expected)
        assert getattr(data, f"{split}_y").tolist() == har["y"][rows].tolist()
        names = data.manifest["attributes"]["subject"]["names"]
        assert [names[i] for i in getattr(data, split)["subject"]] == [str(s) for s in har["subject"][rows]]
    assert np.allclose(data.mean, np.asarray(data.train_x).mean((0, 2)), atol=1e-6)


def test_the_official_archive_keeps_its_order(tmp_path):
    reordered = tmp_path / "reordered"
    reordered.mkdir()
    order = {"train": [3, 1, 0, 2], "test": [2, 0, 1]}
    for folder, options in ((tmp_path, {}), (reordered, {"order": order})):
        (folder / "uci-har.zip").write_bytes(har_downloads("official", **options)["uci-har.zip"])
        assert uci_har_archive.convert(folder, folder) == {}
    for split, rows in order.items():
        for what in ("windows", "labels", "subjects"):
            one, two = (np.load(folder / f"{split}_{what}.npy") for folder in (tmp_path, reordered))
            assert np.array_equal(one[rows], two)


def without(members: dict[str, str], ending: str) -> dict[str, str]:
    return {name: text for name, text in members.items() if not name.endswith(ending)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: without(m, "body_gyro_z_test.txt"), r"uci-har\.zip: .*body_gyro_z_test\.txt"),
        (lambda m: m | {next(n for n in m if n.endswith("total_acc_y_train.txt")): "1 2 3\n" * 4}, "3 numbers a line"),
        (lambda m: m | {next(n for n in m if n.endswith("y_train.txt")): "1\ntwo\n1\n6\n"}, "total_acc|y_train|two"),
        (lambda m: m | {"UCI HAR Dataset/test/y_test.txt": "3\n3\n"}, r"different numbers of windows: \[2, 3\]"),
        (lambda m: m | {"UCI HAR Dataset/test/y_test.txt": "3\n3\n7\n"}, "labels are not all from 0 to 5"),
        (lambda m: m | {"UCI HAR Dataset/test/y_test.txt": "3\n3\n0\n"}, "labels are not all from 0 to 5"),
        (lambda m: m | {"UCI HAR Dataset/test/subject_test.txt": "2\n2\n31\n"}, "subjects are not all from 1 to 30"),
    ],
)
def test_a_damaged_official_archive_is_refused(tmp_path, change, message):
    (tmp_path / "uci-har.zip").write_bytes(zipped(change(har_texts())))
    with pytest.raises(DataError, match=message):
        uci_har_archive.convert(tmp_path, tmp_path)


@pytest.mark.parametrize("cut", [10, 2000])
def test_a_truncated_archive_is_refused(tmp_path, cut):
    for name, data, module in (
        ("uci-har.zip", har_downloads("official")["uci-har.zip"], uci_har_archive),
        ("uci_har_inertial.npz", har_planes(), uci_har_planes),
    ):
        (tmp_path / name).write_bytes(data[:-cut])
        with pytest.raises(DataError, match=name):
            module.convert(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": np.array([0, 64, 128, 256, 384, 448, 577], np.int32)}, "does not lie inside the 704 samples"),
        ({"start": np.array([-1, 64, 128, 256, 384, 448, 576], np.int32)}, "does not lie inside the 704 samples"),
        ({"start": np.zeros(6, np.int32)}, "not columns of one length"),
        ({"is_train": np.zeros(7, np.uint8)}, "the last of true and false"),
        ({"is_train": np.ones(7, bool)}, "split 'test': labels are not all"),
        ({"subject": np.zeros(7, np.uint8)}, "subjects are not all from 1 to 30"),
        ({"signal": np.zeros((4, 8, 704), np.uint8)}, r"signal is uint8 \[4, 8, 704\]"),
        ({"signal": np.zeros((4, 9, 704), np.float32)}, r"signal is float32"),
        ({"y": np.array([None] * 7)}, "uci_har_inertial"),  # would need pickle
    ],
)
def test_a_damaged_re_encoded_form_is_refused(tmp_path, changes, message):
    (tmp_path / "uci_har_inertial.npz").write_bytes(har_planes(**changes))
    with pytest.raises(DataError, match=message):
        uci_har_planes.convert(tmp_path, tmp_path)


def test_damaged_raw_files_of_uci_har_are_refused(tmp_path):
    (tmp_path / "uci_har_inertial.npz").write_bytes(har_planes())
    uci_har_planes.convert(tmp_path, tmp_path)
    uci_har.read(tmp_path, uci_har.Options())
    path = tmp_path / "test_windows.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"test_windows\.npy"):
        uci_har.read(tmp_path, uci_har.Options())
    np.save(tmp_path / "train_subjects.npy", np.array([0], np.uint8))
    with pytest.raises(DataError, match=r"train_subjects\.npy: expected numbers from 1 to 30"):
        uci_har.read(tmp_path, uci_har.Options())


@mirrored
def test_real_uci_har(tmp_path):
    project = real(tmp_path, "uci-har")
    begin = time.perf_counter()
    data = open_dataset(project, "uci-har")
    assert data.hash == HASHES["uci-har"]
    assert time.perf_counter() - begin < 0.5
    assert (len(data.train_y), len(data.test_y)) == (7_352, 2_947)
    assert data.manifest["counts"] == {  # windows of each activity in the official split
        "train": [1_226, 1_073, 986, 1_286, 1_374, 1_407],
        "test": [496, 471, 420, 491, 532, 537],
    }
    subjects = [np.unique(getattr(data, split)["subject"]) for split in ("train", "test")]
    assert [len(found) for found in subjects] == [21, 9]
    assert not set(subjects[0]) & set(subjects[1])
    each = np.bincount(np.concatenate([data.train["subject"], data.test["subject"]]))
    assert (len(each), each.min(), each.max()) == (30, 281, 409)
    # Total acceleration is body acceleration plus gravity: of a lying phone's three means, the square sum is 1 g.
    assert data.manifest["form"] == "re-encoded"
    gravity = np.asarray(data.train_x)[:, 6:9] - np.asarray(data.train_x)[:, 0:3]
    assert np.median(np.linalg.norm(gravity.mean(2), axis=1)) == pytest.approx(1, abs=0.05)


# --- log-mel features


def test_mel_filters_share_every_frequency_between_the_first_and_the_last_centre():
    bank = filter_bank(32, 256, 8000)
    assert bank.shape == (32, 129)
    assert (bank.sum(1) > 0).all()  # no empty filter
    assert bank.min() == 0
    assert bank.max() <= 1
    places = mel(np.arange(129) * 8000 / 256)
    spacing = mel(4000) / 33
    inside = (places >= spacing) & (places <= 32 * spacing)
    assert inside.sum() > 100
    assert np.allclose(bank[:, inside].sum(0), 1)
    assert mel(1000) == pytest.approx(1000, abs=0.1)  # the scale is made so
    assert mel(0) == 0


def test_log_mel_is_the_logarithm_of_the_filtered_power_of_each_frame():
    sound = np.random.default_rng(8).uniform(-1, 1, 300)
    bank = filter_bank(5, 32, 8000)
    found = log_mel(sound, bank, window=32, hop=20, frames=12, offset=1e-3)
    assert (found.shape, found.dtype) == ((5, 12), np.float32)
    for frame in (0, 3, 11):
        piece = np.array([sound[frame * 20 + k] * np.sin(np.pi * k / 32) ** 2 for k in range(32)])
        power = [abs(sum(piece[k] * np.exp(-2j * np.pi * k * f / 32) for k in range(32))) ** 2 for f in range(17)]
        expected = np.log(1e-3 + bank @ np.array(power))
        assert np.abs(found[:, frame] - expected).max() <= 0.5 / 1024 + 1e-6
    assert np.array_equal(found * 1024, np.round(found * 1024))  # the rounding that makes bytes repeatable


def test_a_tone_is_loudest_in_the_filter_around_its_frequency():
    bank = filter_bank(32, 256, 8000)
    for filter_number in (3, 15, 30):
        frequency = 700 * (10 ** ((filter_number + 1) * float(mel(4000)) / 33 / 2595) - 1)  # its centre
        tone = 0.5 * np.sin(2 * np.pi * frequency * np.arange(6272) / 8000)
        assert (log_mel(tone, bank, 256, 128, 48, 1e-6).argmax(0) == filter_number).all()


def test_longer_sounds_are_cut_and_shorter_ones_end_in_silence():
    bank = filter_bank(4, 16, 8000)
    sound = np.random.default_rng(1).uniform(-1, 1, 100)
    whole = log_mel(sound, bank, 16, 8, 5, 1e-6)  # 48 samples count
    assert np.array_equal(whole, log_mel(sound[:48], bank, 16, 8, 5, 1e-6))
    assert not np.array_equal(whole, log_mel(sound[:47], bank, 16, 8, 5, 1e-6))
    short = log_mel(sound[:20], bank, 16, 8, 5, 1e-6)
    assert np.array_equal(short[:, 0], whole[:, 0])
    silence = np.float32(np.round(1024 * np.log(1e-6)) / 1024)
    assert (short[:, 3:] == silence).all()
    assert (short[:, :3] > silence).all()


# --- FSDD


def wav(samples: np.ndarray, rate=8000, channels=1, width=2) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(samples.astype(f"<i{width}").tobytes())
    return target.getvalue()


def recordings() -> dict[str, bytes]:
    """Two speakers, two digits, indices around the border of the test part and one of two digits."""
    draw = np.random.default_rng(12)
    return {
        f"{digit}_{speaker}_{index}.wav": wav(draw.integers(-9000, 9000, 500 + 700 * digit))
        for digit in (0, 7)
        for speaker in ("theo", "george")
        for index in (0, 4, 5, 10, 9)
    }


def tarred(members: dict[str, bytes], compression: str = "xz") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=f"w:{compression}") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.uname = len(data), 12345, "somebody"
            archive.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def fsdd_downloads(form: str) -> dict[str, bytes]:
    files = recordings()
    if form == "repacked":
        return {"fsdd-recordings.tar.xz": tarred({f"recordings/{name}": data for name, data in files.items()})}
    top = "free-spoken-digit-dataset-1.0.10"
    members = {f"{top}/": b"", f"{top}/README.md": b"text", f"{top}/recordings/": b"", f"{top}/utils/a.wav": b"no"}
    return {"fsdd.zip": zipped(members | {f"{top}/recordings/{name}": data for name, data in reversed(files.items())})}


def test_both_forms_of_fsdd_give_the_same_raw_file_and_the_recordings(tmp_path, monkeypatch):
    raw = []
    for form in ("repacked", "official"):
        project = stand_in(tmp_path / form, "fsdd", form, fsdd_downloads(form), monkeypatch)
        assert read_json(fetch(project, "fsdd"))["form"] == form
        raw.append((project.raw("fsdd") / "recordings.tar").read_bytes())
    assert raw[0] == raw[1]
    prepare(project, "fsdd")
    assert same_bytes_again(project, "fsdd")
    data = open_dataset(project, "fsdd", verify=True)
    assert data.manifest["attributes"]["speaker"]["names"] == ["george", "theo"]
    bank = filter_bank(32, 256, 8000)
    for split, indices in (("train", (5, 9, 10)), ("test", (0, 4))):
        keys = [(d, s, i) for d in (0, 7) for s in ("george", "theo") for i in indices]
        assert getattr(data, f"{split}_y").tolist() == [digit for digit, _, _ in keys]
        assert getattr(data, split)["speaker"].tolist() == [["george", "theo"].index(s) for _, s, _ in keys]
        for x, (digit, speaker, index) in zip(getattr(data, f"{split}_x"), keys, strict=True):
            samples = np.frombuffer(recordings()[f"{digit}_{speaker}_{index}.wav"][44:], "<i2") / 32768
            assert np.array_equal(x[0], log_mel(samples, bank, 256, 128, 48, 1e-6))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("7_theo_0.wav", wav(np.zeros(9), rate=16000), "1 channels of 16 bits at 16000 Hz, expected 1 of 16 at 8000"),
        ("7_theo_0.wav", wav(np.zeros(10), channels=2), "2 channels of 16 bits"),
        ("7_theo_0.wav", wav(np.zeros(9), width=4), "1 channels of 32 bits"),
        ("7_theo_0.wav", b"RIFFnothing", r"7_theo_0\.wav: not a wav file"),
        ("7_theo_0.wav", wav(np.zeros(99))[:-20], "the header says 99 samples, found 89"),
        ("seven_theo_0.wav", wav(np.zeros(9)), "is not recordings/<digit>_<speaker>_<index>.wav"),
    ],
)
def test_a_damaged_recording_is_named(tmp_path, name, data, message):
    (tmp_path / "recordings.tar").write_bytes(tarred({f"recordings/{name}": data}, ""))
    with pytest.raises(DataError, match=message):
        fsdd.read(tmp_path, fsdd.Options())


def test_a_damaged_archive_of_recordings_is_refused(tmp_path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for form in ("repacked", "official"):
        ((name, data),) = fsdd_downloads(form).items()
        for damaged in (data[: len(data) // 2], b"<html>"):
            (downloads / name).write_bytes(damaged)
            with pytest.raises(DataError, match=name):
                fsdd_recordings.convert(downloads, tmp_path)
        (downloads / name).unlink()
    (downloads / "fsdd.zip").write_bytes(zipped({"top/utils/7_theo_0.wav": b"x"}))
    with pytest.raises(DataError, match="no file recordings/"):
        fsdd_recordings.convert(downloads, tmp_path)
    for content, message in ((b"", r"recordings\.tar"), (tarred({}, ""), "no recordings")):
        (tmp_path / "recordings.tar").write_bytes(content)
        with pytest.raises(DataError, match=message):
            fsdd.read(tmp_path, fsdd.Options())


def test_wrong_options_of_fsdd_are_refused(tmp_path, monkeypatch):
    project = stand_in(tmp_path, "fsdd", "official", fsdd_downloads("official"), monkeypatch)
    fetch(project, "fsdd")
    path = project.params / "datasets" / "fsdd.yaml"
    text = path.read_text()
    path.write_text(text.replace("frames:", "frame:"))
    with pytest.raises(ConfigurationError, match=r"fsdd\.yaml: options: unknown key 'frame'; did you mean 'frames'"):
        prepare(project, "fsdd")
    path.write_text(text.replace("frames: 48", "frames: 47"))
    with pytest.raises(DataError, match=r"shape: expected \[1, 32, 48\], found \[1, 32, 47\]"):
        prepare(project, "fsdd")


@mirrored
def test_real_fsdd(tmp_path):
    project = real(tmp_path, "fsdd")
    data = open_dataset(project, "fsdd", verify=True)
    assert data.hash == HASHES["fsdd"]
    assert data.manifest["counts"] == {"train": [270] * 10, "test": [30] * 10}
    names = data.manifest["attributes"]["speaker"]["names"]
    assert names == ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
    assert np.bincount(data.train["speaker"]).tolist() == [450] * 6
    assert np.bincount(data.test["speaker"]).tolist() == [50] * 6
    with tarfile.open(project.raw("fsdd") / "recordings.tar") as archive:
        lengths = [(member.size - 44) // 2 for member in archive]
    assert f"{np.mean(np.array(lengths) <= 6272):.1%}" == "97.7%"  # as the description says
    assert same_bytes_again(project, "fsdd")


# --- Tiny Shakespeare

PLAY = "First Citizen:\nSpeak, speak.\nNow.\n\nAll:\n\nFirst Citizen:\nYes: no!\n\n\nROMEO:\nAy me.\n"


def test_a_roles_text_is_all_its_speeches(tmp_path):
    (tmp_path / "input.txt").write_text(PLAY)
    assert tinyshakespeare.roles(tmp_path / "input.txt") == {
        "First Citizen": "Speak, speak.\nNow.\nYes: no!\n",
        "All": "",
        "ROMEO": "Ay me.\n",
    }


def said(symbols: np.ndarray) -> str:
    return "".join(tinyshakespeare.ALPHABET[i] for i in symbols)


def test_windows_follow_the_text_and_never_straddle_the_cut(tmp_path, monkeypatch):
    draw = np.random.default_rng(3)

    def speech(role: str) -> str:
        return "\n".join([f"{role}:", *("".join(draw.choice(list("ab cd:e!"), 29)) for _ in range(9))])

    blocks = [speech(role) for _ in range(5) for role in ("HAMLET", "OPHELIA")] + ["GHOST:\nMark me."]
    text = "\n\n".join(blocks) + "\n"
    project = stand_in(tmp_path, "tinyshakespeare", "published", {"input.txt": text.encode()}, monkeypatch)
    fetch(project, "tinyshakespeare")
    prepare(project, "tinyshakespeare")
    assert same_bytes_again(project, "tinyshakespeare")
    data = open_dataset(project, "tinyshakespeare", verify=True)
    assert data.manifest["attributes"]["role"]["names"] == ["HAMLET", "OPHELIA"]  # the ghost says too little
    assert (data.train_x.dtype, data.mean) == (np.uint8, ())
    texts = tinyshakespeare.roles(project.raw("tinyshakespeare") / "input.txt")
    for number, role in enumerate(("HAMLET", "OPHELIA")):
        whole = texts[role]
        cut = len(whole) - len(whole) // 5
        for split, part in (("train", whole[:cut]), ("test", whole[cut:])):
            rows = np.flatnonzero(np.asarray(getattr(data, split)["role"]) == number)
            x, y = getattr(data, f"{split}_x")[rows], getattr(data, f"{split}_y")[rows]
            expected = [(part[i : i + 80], part[i + 80]) for i in range(0, len(part) - 80, 10)]
            assert [(said(row), said([label])) for row, label in zip(x, y, strict=True)] == expected


@pytest.mark.parametrize(("length", "stride", "count"), [(3, 1, 7), (3, 2, 4), (9, 1, 1), (10, 1, 0), (3, 100, 1)])
def test_number_of_windows(length, stride, count):
    x, y = tinyshakespeare.windows(np.arange(10, dtype=np.uint8), length, stride)
    assert (x.shape, x.dtype, y.dtype) == ((count, length), np.uint8, np.int64)
    assert y.tolist() == [stride * i + length for i in range(count)]
    assert x[:, 0].tolist() == [stride * i for i in range(count)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HAMLET:\nTo be\n\nor not to be\n", "speech 2 does not start with a role and a colon: 'or not to be"),
        ("HAMLET:\nTo be\n\nor not\nHAMLET:\nto be\n", "speech 2 does not start with a role"),
        ("HAMLET:\nTo be 2\n", "role 'HAMLET': characters '2' are not in the alphabet"),
        ("", "speech 1 does not start with a role"),
    ],
)
def test_a_damaged_text_is_refused(tmp_path, text, message):
    (tmp_path / "input.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        tinyshakespeare.read(tmp_path, tinyshakespeare.Options(least=0))


def test_a_text_that_is_not_ascii_or_too_small_is_refused(tmp_path):
    (tmp_path / "input.txt").write_text("HAMLET:\nÊtre\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"input\.txt"):
        tinyshakespeare.read(tmp_path, tinyshakespeare.Options())
    (tmp_path / "input.txt").write_text("HAMLET:\nTo be\n")
    with pytest.raises(DataError, match="no role has 1000 characters or more"):
        tinyshakespeare.read(tmp_path, tinyshakespeare.Options())


@mirrored
def test_real_tinyshakespeare(tmp_path):
    project = real(tmp_path, "tinyshakespeare")
    data = open_dataset(project, "tinyshakespeare", verify=True)
    assert data.hash == HASHES["tinyshakespeare"]
    path = project.raw("tinyshakespeare") / "input.txt"
    lengths = [len(text) for text in tinyshakespeare.roles(path).values()]
    assert (len(lengths), sum(n >= 2000 for n in lengths), sum(n >= 1000 for n in lengths)) == (309, 99, 141)
    assert "".join(sorted(set(path.read_text()))) == tinyshakespeare.ALPHABET
    assert len(data.manifest["attributes"]["role"]["names"]) == 141
    for split in ("train", "test"):  # every role that is kept has windows in both parts
        assert np.unique(getattr(data, split)["role"]).tolist() == list(range(141))
    assert same_bytes_again(project, "tinyshakespeare")
