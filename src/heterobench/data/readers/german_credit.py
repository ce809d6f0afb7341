"""German Credit (Statlog, UCI): is a credit that a bank gave good or bad?

`german.data` has 20 attributes, separated by spaces, and the outcome: 1 good, 2 bad. Inputs, 61 columns, in the file's
order, under the names of its documentation:

- numbers: 2 duration (months), 5 credit amount, 8 instalment rate (per cent of income), 11 years of residence, 13 age,
  16 credits at this bank, 18 people to maintain;
- indicators of the codes that occur: 1 checking account (4), 3 credit history (5), 4 purpose (10), 6 savings (5),
  7 years of employment (5), 9 personal status and sex (4), 10 other debtors (3), 12 property (4), 14 other instalment
  plans (3), 15 housing (3), 17 job (4), 19 telephone (2), 20 foreign worker (2).

Nothing is left out and nothing is missing in this set ("none" and "unknown" are codes). Sex is read off attribute 9
(A92: female) as the documentation of the file says; age has two groups, up to and above 25 years (Kamiran and Calders,
"Classifying without discriminating", 2009). Both are inputs as well, as in most of the literature. Groemping ("South
German Credit Data: Correcting a Widely Used Data Set", 2019) found several code meanings to be wrong: A92 also stands
for single men, so that sex cannot in truth be told from attribute 9. Results by sex only compare with others on this
file.

There is no published split. Ours is fixed for ever: of each class, a fifth is test data, drawn with the key
(0, "german-credit split").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heterobench.config.strict import Strict
from heterobench.data import table
from heterobench.data.holdout import divided, held_out_rows
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

FILE = "german.data"
FIELDS = 21
CODES = {1: "1 2 3 4", 3: "0 1 2 3 4", 4: "0 1 2 3 4 5 6 8 9 10", 6: "1 2 3 4 5", 7: "1 2 3 4 5", 9: "1 2 3 4"}
CODES |= {10: "1 2 3", 12: "1 2 3 4", 14: "1 2 3", 15: "1 2 3", 17: "1 2 3 4", 19: "1 2", 20: "1 2"}
INPUTS: table.Columns = {
    str(field): tuple(f"A{field}{code}" for code in CODES[field].split()) if field in CODES else None
    for field in range(1, FIELDS)
}
STATUS, AGE, OUTCOME = "9", "13", "21"
WOMEN = ("A92",)
YOUNG = 25  # years, the last that count as young


class Options(Strict):
    pass


def read(raw: Path, options: Options) -> Arrays:
    where = str(raw / FILE)
    cells = columns(raw / FILE)
    age = table.numbers(cells[AGE], f"{where}: column {AGE!r}")
    examples = {
        "x": table.encode(cells, INPUTS, where),
        "y": table.positions(cells[OUTCOME], ("1", "2"), f"{where}: column {OUTCOME!r}"),
        "sex": np.array([code not in WOMEN for code in cells[STATUS]], np.int64),
        "age_group": (age > YOUNG).astype(np.int64),
    }
    arrays = divided(examples, held_out_rows(examples["y"], "german-credit split"))
    names = {"sex": ("female", "male"), "age_group": (f"up to {YOUNG}", f"above {YOUNG}")}
    return arrays | {f"names_{name}": np.array(values) for name, values in names.items()}


def columns(path: Path) -> dict[str, list[str]]:
    """Number of the attribute, as text -> its texts."""
    with decoding(path):
        records = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    for number, record in enumerate(records, 1):
        if len(record) != FIELDS:
            raise DataError(f"{path}: line {number} has {len(record)} fields, expected {FIELDS}")
    return {str(place + 1): [record[place] for record in records] for place in range(FIELDS)}
