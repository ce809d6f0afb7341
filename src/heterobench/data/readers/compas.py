"""COMPAS (ProPublica 2016): is a defendant charged with a new offence within two years?

The rows are those of ProPublica's own analysis of the score (Larson, Mattu, Kirchner, Angwin, "How We Analyzed the
COMPAS Recidivism Algorithm", 2016): the arrest within 30 days of the screening (days_b_screening_arrest; a row without
this number goes as well), a known outcome (is_recid is not -1), no ordinary traffic offence (c_charge_degree is not O)
and a score (score_text is not N/A); of 7,214 rows 6,172 stay. Inputs, 15 columns:

- numbers: age, juv_fel_count, juv_misd_count, juv_other_count, priors_count;
- indicators: sex (2), race (6), c_charge_degree (2: felony, misdemeanour).

Left out: the scores (decile_score, score_text, all v_...), which are another model's prediction; what became known
after the screening (is_recid, r_..., vr_..., violent_recid, two_year_recid, event, start, end, custody); numbers, names
and dates of a person or a case; age_cat, a coarser age; c_charge_desc, 390 different free texts. Sex and race are
inputs as well as attributes, as in most of the literature.

There is no published split. Ours is fixed for ever: of each class, a fifth (rounded) is test data, drawn with the key
(0, "compas split").
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data import table
from heterobench.data.holdout import divided, held_out_rows
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

FILE = "compas-scores-two-years.csv"
SEXES = ("Female", "Male")
RACES = ("African-American", "Asian", "Caucasian", "Hispanic", "Native American", "Other")
INPUTS: table.Columns = {
    "age": None,
    "juv_fel_count": None,
    "juv_misd_count": None,
    "juv_other_count": None,
    "priors_count": None,
    "sex": SEXES,
    "race": RACES,
    "c_charge_degree": ("F", "M"),
}
OUTCOME = "two_year_recid"
FILTERED_BY = ("days_b_screening_arrest", "is_recid", "c_charge_degree", "score_text")


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    where = str(raw / FILE)
    cells = columns(raw / FILE)
    examples = {
        "x": table.encode(cells, INPUTS, where),
        "y": table.positions(cells[OUTCOME], ("0", "1"), f"{where}: column {OUTCOME!r}"),
        "sex": table.positions(cells["sex"], SEXES, where),
        "race": table.positions(cells["race"], RACES, where),
    }
    arrays = divided(examples, held_out_rows(examples["y"], "compas split"))
    return arrays | {"names_sex": np.array(SEXES), "names_race": np.array(RACES)}


def columns(path: Path) -> dict[str, list[str]]:
    """Column -> texts of the rows that stay. Of two columns of one name (the file has such) the first counts."""
    with decoding(path), path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream)
        header = next(rows, [])
        records = list(rows)
    wanted = dict.fromkeys((*INPUTS, OUTCOME, *FILTERED_BY))
    if missing := [name for name in wanted if name not in header]:
        raise DataError(f"{path}: no column {', '.join(missing)}")
    for number, record in enumerate(records, 1):
        if len(record) != len(header):
            raise DataError(f"{path}: record {number} has {len(record)} fields, the header has {len(header)}")
    place = {name: header.index(name) for name in wanted}
    kept = [record for record in records if analysed(*(record[place[name]] for name in FILTERED_BY), str(path))]
    return {name: [record[place[name]] for record in kept] for name in wanted}


def analysed(days: str, is_recid: str, degree: str, score: str, where: str) -> bool:
    """Whether ProPublica's analysis keeps a row."""
    if days == "" or is_recid == "-1" or degree == "O" or score == "N/A":
        return False
    return abs(table.numbers([days], f"{where}: column 'days_b_screening_arrest'")[0]) <= 30
