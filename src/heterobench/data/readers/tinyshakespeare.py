"""Next character of what a speaking role says, as the Shakespeare set of LEAF frames it (Caldas et al. 2018,
arXiv:1812.01097, after McMahan et al. 2017, arXiv:1602.05629).

``input.txt`` is a sequence of speeches, parted by blank lines: the role and a colon on a line, then its text. A role's
text is all its speeches in the order of the file, each with the line end that closes it. An input is `length`
characters in a row of one role's text, uint8 [length]; its label is the character that follows. Characters are numbers
of `ALPHABET`.

The last fifth of each role's text is the test part. Inputs and labels lie wholly in one part: what straddles the cut is
left out, as LEAF does (it drops the length - 1 windows after the cut).

Deviations from LEAF: the file names no plays, so that roles of one name in different plays (such as "Messenger") are
one role; windows are `stride` characters apart instead of 1; nothing is padded at the start of a text.
"""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
from pydantic import Field

from heterobench.config.numbers import Count, ExamplesOrNone
from heterobench.config.strict import Strict
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

ALPHABET = "\n !$&',-.3:;?" + string.ascii_uppercase + string.ascii_lowercase
CHARACTERS = tuple({"\n": "newline", " ": "space"}.get(character, character) for character in ALPHABET)


class Options(Strict):
    """The default stride makes an epoch a tenth of LEAF's, in which neighbours share 79 of their 80 characters; the
    default least is what gives each role test windows at the default length: a fifth of it is 200 characters."""

    length: Count = Field(80, description="characters of an input")
    stride: Count = Field(10, description="characters from the start of an input to the start of the next")
    least: ExamplesOrNone = Field(1000, description="roles with fewer characters are left out")


def read(raw: Path, options: Options) -> Arrays:
    path = raw / "input.txt"
    texts = {role: text for role, text in roles(path).items() if len(text) >= options.least}
    parts: dict[str, list[np.ndarray]] = {}
    for number, (role, text) in enumerate(texts.items()):
        symbols = numbered(text, f"{path}: role {role!r}")
        cut = len(symbols) - len(symbols) // 5
        for split, part in (("train", symbols[:cut]), ("test", symbols[cut:])):
            x, y = windows(part, options.length, options.stride)
            for column, values in (("x", x), ("y", y), ("role", np.full(len(y), number, np.int64))):
                parts.setdefault(f"{split}_{column}", []).append(values)
    if not parts:
        raise DataError(f"{path}: no role has {options.least} characters or more (option least)")
    names = {"names_role": np.array(list(texts)), "classes": np.array(CHARACTERS)}
    return {key: np.concatenate(values) for key, values in parts.items()} | names


def roles(path: Path) -> dict[str, str]:
    """Role -> its text, in the order in which the roles first speak."""
    with decoding(path):
        blocks = path.read_text(encoding="ascii").split("\n\n")
    texts: dict[str, str] = {}
    for number, block in enumerate(blocks, 1):
        role, colon, speech = (block.strip("\n") + "\n").partition(":\n")
        if not colon or "\n" in role:
            raise DataError(f"{path}: speech {number} does not start with a role and a colon: {block[:40]!r}")
        texts[role] = texts.get(role, "") + speech
    return texts


def numbered(text: str, where: str) -> np.ndarray:
    """uint8 [n]: the number of each character in the alphabet. Raises DataError for others."""
    if unknown := set(text) - set(ALPHABET):
        raise DataError(f"{where}: characters {''.join(sorted(unknown))!r} are not in the alphabet")
    place = np.zeros(128, np.uint8)
    place[[ord(character) for character in ALPHABET]] = np.arange(len(ALPHABET))
    return place[np.frombuffer(text.encode("ascii"), np.uint8)]


def windows(symbols: np.ndarray, length: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs uint8 [m, length], `stride` apart, and what follows each, int64 [m]; m is 0 for too short a text."""
    if len(symbols) <= length:
        return np.empty((0, length), np.uint8), np.empty(0, np.int64)
    rows = np.lib.stride_tricks.sliding_window_view(symbols, length + 1)[::stride]
    return rows[:, :length], rows[:, length].astype(np.int64)
