"""What names, relative paths, addresses and titles may look like, wherever a file or a command gives one.

Names become folders, parts of shell commands, labels of tables and keys of a tracker: none of them has a character
that any of these reads as more than a letter.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

from heterobench.errors import short

PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
LONGEST = 50  # characters of a name; four of them and an ending make a file name of at most 255 bytes
LONGEST_PATH = 200
LONGEST_TITLE = 200
TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # turn the direction of what follows
RESERVED = ("logs", "partitions", "report.html", "single")  # what results/ holds beside a folder for each benchmark


def name_problem(name: str) -> str | None:
    """What is wrong with the name of a thing; None: nothing."""
    if len(name) <= LONGEST and re.fullmatch(PART, name):
        return None
    return (
        f"{short(name)} is no name: allowed are at most {LONGEST} characters of A-Z, a-z, 0-9, '.', '_' and '-', "
        "the first a letter or digit"
    )


def path_problem(path: str) -> str | None:
    """What is wrong with a relative path that must stay below its folder; None: nothing."""
    parts = path.split("/")
    if len(path) <= LONGEST_PATH and all(re.fullmatch(PART, part) for part in parts):
        return None
    return (
        f"{short(path)} is no relative path: allowed are at most {LONGEST_PATH} characters, between each '/' and the "
        "next A-Z, a-z, 0-9, '.', '_' and '-', the first a letter or digit (so no '..')"
    )


def file_problem(name: str) -> str | None:
    """What is wrong with the name of a file inside a folder; None: nothing."""
    return f"{short(name)} has a '/': allowed is the name of a file" if "/" in name else path_problem(name)


def package_problem(name: str) -> str | None:
    """What is wrong with the name of an installed package; a dot would import what is before it."""
    return None if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else f"{short(name)} is no name of a Python package"


def address_problem(url: str) -> str | None:
    """What is wrong with the address of a file; None: nothing. Whether a file: address may be read is asked later."""
    if re.fullmatch(r"(https?|ftp)://[^\s/]\S*|file:///\S+", url) and url.isprintable():
        return None
    return f"{short(url)} is no address: allowed are https://, http:// and ftp://, and file:/// below the project"


def title_problem(text: str) -> str | None:
    """What is wrong with a title, which stands in one line of tables and figures; None: nothing."""
    if len(text) > LONGEST_TITLE:
        return f"a title has at most {LONGEST_TITLE} characters (found {len(text)}: {text[:40]!r}...)"
    for letter in text:
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in TURNING:
            return f"a title is one line of printable characters (found {letter!r} in {text!r})"
    return None


def _checked(problem: Callable[[str], str | None]) -> AfterValidator:
    def check(value: str) -> str:
        if found := problem(value):
            raise ValueError(found)
        return value

    return AfterValidator(check)


Name = Annotated[str, _checked(name_problem)]
FileName = Annotated[str, _checked(file_problem)]
RelativePath = Annotated[str, _checked(path_problem)]
Package = Annotated[str, _checked(package_problem)]
Address = Annotated[str, _checked(address_problem)]
Title = Annotated[str, _checked(title_problem)]
