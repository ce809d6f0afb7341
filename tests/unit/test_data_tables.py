"""Adult, COMPAS and German Credit: small files in the official formats, and the real ones where the mirror is set."""

import csv
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from forms import real, same_bytes_again, stand_in
from heterobench.data import table
from heterobench.data.dataset import open_dataset
from heterobench.data.fetch import MIRROR, fetch
from heterobench.data.holdout import divided, held_out_rows
from heterobench.data.prepare import moments, prepare
from heterobench.data.readers import adult, compas, german_credit
from heterobench.errors import DataError

mirrored = pytest.mark.skipif(MIRROR not in os.environ, reason=f"{MIRROR} is not set: the real files are not at hand")
# Columns, order and split may never change: a result on one of these sets means these.
HASHES = {
    "adult": "c37163bc2195eb771f4daabf131d20775ce7a2e85c7dd3dd38ec2fa92dc63621",
    "compas": "73f042de8b18b2b9795a9c5189e08439ec44130952047ad78ecfa8abdeab5a22",
    "german-credit": "9c46c0d28c5531931d72e611c19fbe135a2658c022ea681b188183a4452afef7",
}


# --- table


def test_a_table_is_numbers_and_indicators_in_the_order_of_its_columns():
    cells = {"colour": ["red", "blue", "red"], "unused": ["a", "b", "c"], "age": ["3", "4.5", "-1e2"]}
    x = table.encode(cells, {"age": None, "colour": ("blue", "green", "red")}, "here")
    assert x.dtype == np.float32
    assert x.tolist() == [[3, 0, 0, 1], [4.5, 1, 0, 0], [-100, 0, 0, 1]]


@pytest.mark.parametrize("text", ["", "three", "nan", "inf", "1,5"])
def test_what_is_not_a_finite_number_is_refused(text):
    with pytest.raises(DataError, match=r"file: column 'age': '.*' is not a number"):
        table.encode({"age": ["1", text]}, {"age": None}, "file")


def test_an_unknown_category_is_named_with_what_is_known():
    with pytest.raises(DataError, match=r"file: column 'sex': unknown value 'Femal'; did you mean 'Female'\? allowed"):
        table.encode({"sex": ["Male", "Femal"]}, {"sex": ("Female", "Male")}, "file")
    with pytest.raises(DataError, match=r"unknown value '\?'"):
        table.positions(["?"], ("a", "b"), "file")
    assert table.positions(["b", "?", "a"], ("a", "b"), "file", missing="?").tolist() == [1, -1, 0]


def test_indicators_keep_their_zeros_and_ones_and_numbers_do_not():
    x = np.array([[0, 2, 1, 0], [1, 4, 1, 0], [0, 6, 1, 0.5]], np.float32)
    mean, std = moments(x)
    assert mean == [0, 4, 0, pytest.approx(1 / 6)]
    assert std == [1, pytest.approx(np.sqrt(8 / 3)), 1, pytest.approx(np.sqrt(1 / 18))]


def test_dividing_keeps_rows_together_and_in_order():
    columns = {"x": np.arange(12).reshape(6, 2), "y": np.arange(6)}
    parts = divided(columns, np.array([0, 1, 0, 0, 1, 0], bool))
    assert parts["train_y"].tolist() == [0, 2, 3, 5]
    assert parts["test_y"].tolist() == [1, 4]
    assert parts["test_x"].tolist() == [[2, 3], [8, 9]]
    assert set(parts) == {"train_x", "train_y", "test_x", "test_y"}


# --- Adult

ADULT_ROW = "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40"
ADULT_ROWS = (
    f"{ADULT_ROW}, United-States, <=50K",
    "52, ?, 209642, HS-grad, 9, Married-civ-spouse, ?, Wife, Black, Female, 0, 1902, 45, ?, >50K",
    "28, Private, 1, Doctorate, 16, Divorced, Sales, Unmarried, Other, Female, 0, 0, 99, Trinadad&Tobago, >50K",
)
ADULT_TEST_ROWS = ("|1x3 Cross validator", *(f"{row}." for row in reversed(ADULT_ROWS)), "", "")


def write_adult(folder: Path, train=(*ADULT_ROWS, ""), test=ADULT_TEST_ROWS) -> None:
    (folder / "adult.data").write_text("\n".join(train) + "\n")
    (folder / "adult.test").write_text("\n".join(test) + "\n")


def ones(row: np.ndarray, columns: table.Columns) -> dict[str, float | str]:
    """What an encoded row says, column by column."""
    said, place = {}, 0
    for name, categories in columns.items():
        width = 1 if categories is None else len(categories)
        values, place = row[place : place + width], place + width
        if categories is None:
            said[name] = float(values[0])
        else:
            assert sorted(values.tolist()) == [0] * (width - 1) + [1]
            said[name] = categories[int(values.argmax())]
    assert place == len(row)
    return said


def test_adult_rows_become_what_they_say(tmp_path):
    write_adult(tmp_path)
    arrays = adult.read(tmp_path, adult.Options())
    rows = [dict(zip(adult.FIELDS, row.split(", "), strict=True)) for row in ADULT_ROWS]
    for split, order in (("train", [0, 1, 2]), ("test", [2, 1, 0])):
        x, y = arrays[f"{split}_x"], arrays[f"{split}_y"]
        assert (x.shape, x.dtype) == ((3, 106), np.float32)
        assert y.tolist() == [[0, 1, 1][i] for i in order]
        for said, i in zip(x, order, strict=True):
            for name, value in ones(said, adult.INPUTS).items():
                assert value == (float(rows[i][name]) if adult.INPUTS[name] is None else rows[i][name])
        for name in ("sex", "race", "workclass", "country"):
            names = [*arrays[f"names_{name}"].tolist(), "?"]  # -1 is the last one
            field = "native-country" if name == "country" else name
            assert [names[value] for value in arrays[f"{split}_{name}"]] == [rows[i][field] for i in order]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{ADULT_ROW}, <=50K", r"adult\.data: record 4 has 14 fields, expected 15"),
        (f"{ADULT_ROW}, United-States, 50K", r"adult\.data: column 'income': unknown value '50K'"),
        (f"{ADULT_ROW}, Unitd-States, <=50K", r"column 'native-country': unknown value .*did you mean 'United-States'"),
        (f"x{ADULT_ROW}, United-States, <=50K", r"adult\.data: column 'age': 'x39' is not a number"),
    ],
)
def test_a_damaged_adult_file_is_refused(tmp_path, row, message):
    write_adult(tmp_path, train=(*ADULT_ROWS, row))
    with pytest.raises(DataError, match=message):
        adult.read(tmp_path, adult.Options())


def zipped(**members: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target.getvalue()


@pytest.mark.parametrize("form", ["published", "archive"])
def test_both_forms_of_adult_are_the_same_set(tmp_path, monkeypatch, form):
    write_adult(tmp_path)
    files = {name: (tmp_path / name).read_bytes() for name in ("adult.data", "adult.test")}
    downloads = files
    if form == "archive":
        downloads = {"adult.zip": zipped(**files, **{"Index": b"nobody needs it", "old/adult.data": b"nor this"})}
    project = stand_in(tmp_path, "adult", form, downloads, monkeypatch)
    source = fetch(project, "adult")
    assert {path.name: path.read_bytes() for path in source.parent.glob("adult.*")} == files
    assert f'"form": "{form}"' in source.read_text()
    prepare(project, "adult")
    assert same_bytes_again(project, "adult")
    data = open_dataset(project, "adult", verify=True)
    assert data.kind == "table"
    assert data.train_y.tolist() == [0, 1, 1]
    assert data.train["workclass"].tolist() == [5, -1, 0]


@pytest.mark.parametrize("damage", ["cut", "no zip"])
def test_a_damaged_archive_of_adult_is_refused(tmp_path, monkeypatch, damage):
    data = zipped(**{"adult.data": b"x" * 99, "adult.test": b"y" * 99})
    data = data[:-30] if damage == "cut" else b"<html>not found</html>"
    project = stand_in(tmp_path, "adult", "archive", {"adult.zip": data}, monkeypatch)
    with pytest.raises(DataError, match=r"adult\.zip"):
        fetch(project, "adult")
    assert not project.raw("adult").exists()


def test_an_archive_without_a_raw_file_is_refused(tmp_path, monkeypatch):
    project = stand_in(tmp_path, "adult", "archive", {"adult.zip": zipped(**{"adult.data": b"x"})}, monkeypatch)
    with pytest.raises(DataError, match=r"adult\.test, converted from verified downloads, is missing"):
        fetch(project, "adult")


@mirrored
def test_real_adult(tmp_path):
    project = real(tmp_path, "adult")
    data = open_dataset(project, "adult", verify=True)
    assert data.hash == HASHES["adult"]
    assert data.manifest["counts"] == {"train": [24_720, 7_841], "test": [12_435, 3_846]}
    names = {name: entry["names"] for name, entry in data.manifest["attributes"].items()}
    assert np.bincount(data.train["sex"]).tolist() == [10_771, 21_790]  # counts of adult.data
    assert (np.asarray(data.train["workclass"]) == -1).sum() == 1_836
    assert (np.asarray(data.train["country"]) == -1).sum() == 583
    assert np.bincount(data.train["race"])[names["race"].index("White")] == 27_816
    assert np.unique(data.train["country"]).tolist() == list(range(-1, 41))
    # Every column occurs, so that the vocabulary holds nothing that the data have not.
    assert (np.asarray(data.train_x) != 0).any(0).all()
    assert np.array_equal(np.asarray(data.train_x)[:, 4:].sum(1), np.full(32_561, 8))
    assert data.mean[4:] == (0,) * 102
    assert data.std[4:] == (1,) * 102
    assert same_bytes_again(project, "adult")


# --- COMPAS

COMPAS_HEADER = "id,name,sex,age,age_cat,race,juv_fel_count,decile_score,juv_misd_count,juv_other_count,priors_count,"
COMPAS_HEADER += "days_b_screening_arrest,c_charge_degree,is_recid,decile_score,score_text,priors_count,two_year_recid"
COMPAS_FIELDS = COMPAS_HEADER.split(",")
COMPAS_ROW = {
    "id": "1",
    "name": "somebody, else",  # a comma inside quotes, as in the real file
    "sex": "Male",
    "age": "69",
    "age_cat": "Greater than 45",
    "race": "Other",
    "juv_fel_count": "1",
    "decile_score": "7",
    "juv_misd_count": "2",
    "juv_other_count": "3",
    "priors_count": "4",
    "days_b_screening_arrest": "-1",
    "c_charge_degree": "F",
    "is_recid": "0",
    "score_text": "Low",
    "two_year_recid": "0",
}


def write_compas(folder: Path, rows: list[dict[str, str]], header=COMPAS_FIELDS) -> None:
    with (folder / compas.FILE).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([(COMPAS_ROW | row)[field] for field in header] for row in rows)


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({"days_b_screening_arrest": "30"}, True),
        ({"days_b_screening_arrest": "-30"}, True),
        ({"days_b_screening_arrest": "31"}, False),
        ({"days_b_screening_arrest": "-31"}, False),
        ({"days_b_screening_arrest": ""}, False),
        ({"is_recid": "1"}, True),
        ({"is_recid": "-1"}, False),
        ({"c_charge_degree": "M"}, True),
        ({"c_charge_degree": "O"}, False),
        ({"score_text": "High"}, True),
        ({"score_text": "N/A"}, False),
    ],
)
def test_rows_that_propublica_leaves_out_are_left_out(tmp_path, change, stays):
    write_compas(tmp_path, [{"age": "20"}, {"age": "33"} | change])
    assert compas.columns(tmp_path / compas.FILE)["age"] == (["20", "33"] if stays else ["20"])


def test_compas_rows_become_what_they_say_and_a_fifth_of_each_class_is_test_data(tmp_path, monkeypatch):
    draw = np.random.default_rng(2)
    rows = [
        {
            "age": str(18 + i),  # tells the rows apart
            "sex": str(draw.choice(compas.SEXES)),
            "race": str(draw.choice(compas.RACES)),
            "priors_count": str(draw.integers(0, 9)),
            "two_year_recid": str(int(i % 5 < 2)),
        }
        for i in range(50)
    ]
    write_compas(tmp_path, rows)
    data = (tmp_path / compas.FILE).read_bytes()
    project = stand_in(tmp_path, "compas", "published", {compas.FILE: data}, monkeypatch)
    fetch(project, "compas")
    prepare(project, "compas")
    assert same_bytes_again(project, "compas")
    opened = open_dataset(project, "compas", verify=True)
    assert opened.manifest["counts"] == {"train": [24, 16], "test": [6, 4]}
    seen = set()
    for split in ("train", "test"):
        x, attributes = getattr(opened, f"{split}_x"), getattr(opened, split)
        ages = [int(row[0]) - 18 for row in x]
        assert ages == sorted(ages)  # both parts in the order of the file
        seen |= set(ages)
        for row, label, sex, race, i in zip(
            x, getattr(opened, f"{split}_y"), attributes["sex"], attributes["race"], ages, strict=True
        ):
            said = ones(row, compas.INPUTS)
            assert (said["sex"], said["race"]) == (rows[i]["sex"], rows[i]["race"])
            assert (compas.SEXES[sex], compas.RACES[race]) == (said["sex"], said["race"])
            assert said["priors_count"] == float(rows[i]["priors_count"])
            assert [said[name] for name in ("juv_fel_count", "juv_misd_count", "juv_other_count")] == [1, 2, 3]
            assert label == int(rows[i]["two_year_recid"])
    assert seen == set(range(50))


def test_a_damaged_compas_file_is_refused(tmp_path):
    path = tmp_path / compas.FILE
    write_compas(tmp_path, [{}], header=[field for field in COMPAS_FIELDS if field not in ("race", "is_recid")])
    with pytest.raises(DataError, match="no column race, is_recid"):
        compas.read(tmp_path, compas.Options())
    write_compas(tmp_path, [{}, {"race": "Martian"}])
    with pytest.raises(DataError, match="column 'race': unknown value 'Martian'"):
        compas.read(tmp_path, compas.Options())
    write_compas(tmp_path, [{}, {"days_b_screening_arrest": "soon"}])
    with pytest.raises(DataError, match="column 'days_b_screening_arrest': 'soon' is not a number"):
        compas.read(tmp_path, compas.Options())
    write_compas(tmp_path, [{}, {}])
    path.write_text(path.read_text()[:-40])
    with pytest.raises(DataError, match=r"record 2 has .* fields, the header has 18"):
        compas.read(tmp_path, compas.Options())
    path.write_text("")
    with pytest.raises(DataError, match="no column"):
        compas.read(tmp_path, compas.Options())


@mirrored
def test_real_compas(tmp_path):
    project = real(tmp_path, "compas")
    data = open_dataset(project, "compas", verify=True)
    assert data.hash == HASHES["compas"]
    # ProPublica's notebook says 6,172 rows after its filter; 2,809 of them with a new offence.
    counts = np.array([data.manifest["counts"][split] for split in ("train", "test")])
    assert counts.sum(0).tolist() == [3_363, 2_809]
    assert counts[1].tolist() == [round(0.2 * 3_363), round(0.2 * 2_809)]
    assert counts.sum(1).tolist() == [4_937, 1_235]  # as the description says
    race = np.bincount(data.train["race"]) + np.bincount(data.test["race"], minlength=6)
    assert dict(zip(compas.RACES, race.tolist(), strict=True)) == {  # as that notebook counts them
        "African-American": 3_175,
        "Asian": 31,
        "Caucasian": 2_103,
        "Hispanic": 509,
        "Native American": 11,
        "Other": 343,
    }
    assert (np.bincount(data.train["sex"]) + np.bincount(data.test["sex"])).tolist() == [1_175, 4_997]
    assert same_bytes_again(project, "compas")


# --- German Credit

GERMAN_ROWS = (
    "A11 6 A34 A43 1169 A65 A75 4 A93 A101 4 A121 67 A143 A152 2 A173 1 A192 A201 1",
    "A12 48 A32 A410 5951 A61 A73 2 A92 A101 2 A121 22 A143 A152 1 A173 1 A191 A201 2",
    "A14 12 A34 A46 2096 A61 A74 2 A91 A101 3 A121 25 A143 A152 1 A172 2 A191 A202 1",
    "A14 12 A34 A46 2096 A61 A74 2 A94 A101 3 A121 26 A143 A152 1 A172 2 A191 A202 1",
)


def test_german_rows_become_what_they_say(tmp_path, monkeypatch):
    lines = [GERMAN_ROWS[i % 4] for i in range(40)]
    data = ("\n".join(lines) + "\n").encode()
    opened = []
    for form, downloads in (
        ("published", {"german.data": data}),
        ("archive", {"german-credit.zip": zipped(**{"german.data": data, "german.doc": b"text"})}),
    ):
        project = stand_in(tmp_path / form, "german-credit", form, downloads, monkeypatch)
        fetch(project, "german-credit")
        prepare(project, "german-credit")
        opened.append(open_dataset(project, "german-credit", verify=True))
    assert opened[0].hash == opened[1].hash
    is_test = held_out_rows(np.array([i % 4 == 1 for i in range(40)], int), "german-credit split")
    for split, rows in (("train", np.flatnonzero(~is_test)), ("test", np.flatnonzero(is_test))):
        kinds = rows % 4
        assert getattr(opened[0], f"{split}_y").tolist() == (kinds == 1).astype(int).tolist()
        attributes = getattr(opened[0], split)
        assert attributes["sex"].tolist() == (kinds != 1).astype(int).tolist()
        assert attributes["age_group"].tolist() == [[1, 0, 0, 1][kind] for kind in kinds]
        for row, kind in zip(getattr(opened[0], f"{split}_x"), kinds, strict=True):
            said = ones(row, german_credit.INPUTS)
            for field, text in enumerate(GERMAN_ROWS[kind].split()[:-1], 1):
                assert said[str(field)] == (text if text.startswith("A") else float(text))
    assert opened[0].manifest["attributes"]["age_group"]["names"] == ["up to 25", "above 25"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GERMAN_ROWS[0][:-2], "line 5 has 20 fields, expected 21"),
        (GERMAN_ROWS[0][:-1] + "3", "column '21': unknown value '3'"),
        (GERMAN_ROWS[0].replace("A43", "A47"), "column '4': unknown value 'A47'"),
        (GERMAN_ROWS[0].replace("1169", "A43"), "column '5': 'A43' is not a number"),
    ],
)
def test_a_damaged_german_file_is_refused(tmp_path, line, message):
    (tmp_path / "german.data").write_text("\n".join((*GERMAN_ROWS, line)))
    with pytest.raises(DataError, match=message):
        german_credit.read(tmp_path, german_credit.Options())


@mirrored
def test_real_german_credit(tmp_path):
    project = real(tmp_path, "german-credit")
    data = open_dataset(project, "german-credit", verify=True)
    assert data.hash == HASHES["german-credit"]
    assert data.manifest["counts"] == {"train": [560, 240], "test": [140, 60]}
    sex = np.bincount(data.train["sex"]) + np.bincount(data.test["sex"])
    assert sex.tolist() == [310, 690]  # A92 stands 310 times in german.data
    age = np.bincount(data.train["age_group"]) + np.bincount(data.test["age_group"])
    assert age.tolist() == [190, 810]  # young and aged of Kamiran and Calders
    assert (np.vstack([data.train_x, data.test_x]) != 0).any(0).all()
    assert same_bytes_again(project, "german-credit")
