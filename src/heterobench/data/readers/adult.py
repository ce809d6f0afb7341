"""Adult, also called Census Income (UCI): does a person earn more than 50,000 dollars a year?

`adult.data` is the training part, `adult.test` the test part. Both are read whole: rows with missing values ("?") stay,
and missing is a category of its own. Inputs, 106 columns:

- numbers: age, capital-gain, capital-loss, hours-per-week;
- indicators: workclass (8 and missing), education (16), marital-status (7), occupation (14 and missing),
  relationship (6), race (5), sex (2), native-country (41 and missing).

Left out: fnlwgt, the number of people whom the census says a row stands for, which is not about the person;
education-num, which numbers the levels of education. Sex and race are inputs as well as attributes, as in most of
the literature.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data import table
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

MISSING = "?"
WORKCLASSES = ("Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov")
WORKCLASSES += ("Without-pay", "Never-worked")
EDUCATIONS = ("Preschool", "1st-4th", "5th-6th", "7th-8th", "9th", "10th", "11th", "12th", "HS-grad", "Some-college")
EDUCATIONS += ("Assoc-voc", "Assoc-acdm", "Bachelors", "Masters", "Prof-school", "Doctorate")
MARITAL_STATUSES = ("Married-civ-spouse", "Divorced", "Never-married", "Separated", "Widowed")
MARITAL_STATUSES += ("Married-spouse-absent", "Married-AF-spouse")
OCCUPATIONS = ("Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial", "Prof-specialty")
OCCUPATIONS += ("Handlers-cleaners", "Machine-op-inspct", "Adm-clerical", "Farming-fishing", "Transport-moving")
OCCUPATIONS += ("Priv-house-serv", "Protective-serv", "Armed-Forces")
RELATIONSHIPS = ("Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried")
RACES = ("White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black")
SEXES = ("Female", "Male")
COUNTRIES = ("United-States", "Cambodia", "England", "Puerto-Rico", "Canada", "Germany", "Outlying-US(Guam-USVI-etc)")
COUNTRIES += ("India", "Japan", "Greece", "South", "China", "Cuba", "Iran", "Honduras", "Philippines", "Italy")
COUNTRIES += ("Poland", "Jamaica", "Vietnam", "Mexico", "Portugal", "Ireland", "France", "Dominican-Republic", "Laos")
COUNTRIES += ("Ecuador", "Taiwan", "Haiti", "Columbia", "Hungary", "Guatemala", "Nicaragua", "Scotland", "Thailand")
COUNTRIES += ("Yugoslavia", "El-Salvador", "Trinadad&Tobago", "Peru", "Hong", "Holand-Netherlands")
INCOMES = ("<=50K", ">50K")

FIELDS = ("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship")
FIELDS += ("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income")
INPUTS: table.Columns = {
    "age": None,
    "capital-gain": None,
    "capital-loss": None,
    "hours-per-week": None,
    "workclass": (*WORKCLASSES, MISSING),
    "education": EDUCATIONS,
    "marital-status": MARITAL_STATUSES,
    "occupation": (*OCCUPATIONS, MISSING),
    "relationship": RELATIONSHIPS,
    "race": RACES,
    "sex": SEXES,
    "native-country": (*COUNTRIES, MISSING),
}
ATTRIBUTES = {
    "sex": ("sex", SEXES),
    "race": ("race", RACES),
    "workclass": ("workclass", WORKCLASSES),
    "country": ("native-country", COUNTRIES),
}


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    arrays = {f"names_{name}": np.array(values) for name, (_, values) in ATTRIBUTES.items()}
    arrays["classes"] = np.array(INCOMES)
    for split, file in (("train", "adult.data"), ("test", "adult.test")):
        cells, where = columns(raw / file), str(raw / file)
        arrays[f"{split}_x"] = table.encode(cells, INPUTS, where)
        incomes = [text.removesuffix(".") for text in cells["income"]]  # in the test file it ends with a full stop
        arrays[f"{split}_y"] = table.positions(incomes, INCOMES, f"{where}: column 'income'")
        for name, (field, values) in ATTRIBUTES.items():
            place = f"{where}: column {field!r}"
            arrays[f"{split}_{name}"] = table.positions(cells[field], values, place, missing=MISSING)
    return arrays


def columns(path: Path) -> dict[str, list[str]]:
    """Field -> texts. Blank lines and lines that start with "|", which are comments, are skipped."""
    with decoding(path), path.open(encoding="ascii", newline="") as stream:
        rows = csv.reader((line for line in stream if line.strip() and not line.startswith("|")), skipinitialspace=True)
        records = list(rows)
    for number, record in enumerate(records, 1):
        if len(record) != len(FIELDS):
            raise DataError(f"{path}: record {number} has {len(record)} fields, expected {len(FIELDS)}")
    return {field: [record[place] for record in records] for place, field in enumerate(FIELDS)}
