"""A known place of the package, broken on purpose, and the tests that must see it."""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """`text`, which `file` (its path inside the package) holds exactly once, becomes `other`."""

    file: str
    text: str
    other: str


class Mutation(NamedTuple):
    """`edits` that break the package; `tests`, arguments of pytest in tests/, are what judges it.

    One of these tests has to fail, in a line of pytest's summary that holds the words `told`. `given`: how far the
    benchmark of tests/recomputed/ is made without the edits, "trained" or "evaluated", which saves time where they
    change nothing of it.
    """

    what: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    told: str = ""
    given: str = ""

    def __str__(self) -> str:
        return f"{self.edits[0].file}: {self.what}"


def once(file: str, what: str, text: str, other: str, *tests: str) -> Mutation:
    return Mutation(what, (Edit(file, text, other),), tests)


def given(stage: str, mutations: list[Mutation]) -> list[Mutation]:
    return [mutation._replace(given=stage) for mutation in mutations]
