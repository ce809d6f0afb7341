"""Answers to single test examples, pooled over scenarios and seeds, for rankings of methods by examples."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heterobench.errors import RunError
from heterobench.report import labels
from heterobench.report.missing import Filled
from heterobench.resolve import Arm

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from heterobench.report.data import ReportData


class Part(NamedTuple):
    """The answers of all methods in one scenario and seed: `patterns` int [n], places in `Answers.patterns`.

    `first` is the number of the first example: the same example has the same number in all scenarios of its data set.
    """

    scenario: str
    seed: int
    first: int
    patterns: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answers:
    """Which test examples the validation-selected models of M methods got right.

    arms      the methods; personal ones without a global model stand in `without`
    patterns  float [M, P], the different columns of right (1) and wrong (0) that occur
    parts     one for each scenario and seed of which any method has answers
    filled    runs that `missing.RULE` counts with all examples wrong
    """

    arms: tuple[Arm, ...]
    patterns: NDArray[np.float64]
    parts: tuple[Part, ...]
    examples: int
    filled: tuple[Filled, ...]
    left_out: tuple[tuple[str, int], ...]
    without: tuple[Arm, ...]

    def counts(self, parts: Collection[Part] | None = None) -> NDArray[np.float64]:
        """How often each pattern occurs [P], in all parts or in some."""
        counted = np.zeros(self.patterns.shape[1])
        for part in self.parts if parts is None else parts:
            counted += np.bincount(part.patterns, minlength=len(counted))
        return counted

    def by_example(self) -> csr_array:
        """How often each pattern occurs for each example [examples, P]: what one draws examples again from."""
        from scipy.sparse import csr_array

        rows = np.concatenate([part.first + np.arange(len(part.patterns)) for part in self.parts])
        columns = np.concatenate([part.patterns for part in self.parts])
        shape = (self.examples, self.patterns.shape[1])
        return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)

    def accuracy(self) -> NDArray[np.float64]:
        """Share of all answers that are right [M]."""
        counts = self.counts()
        return self.patterns @ counts / counts.sum()


def answers(data: ReportData) -> Answers:
    """All answers, with what is not there counted by `missing.RULE`: a run without answers has every example wrong.

    Raises RunError where two runs of one scenario and seed have answers to different numbers of examples.
    """
    found = dict(_found(data))
    have = {arm for _, arm, _ in found}
    methods = labels.methods(data.benchmark)
    without = tuple(a for a in methods if labels.is_personal(data.benchmark, a) and a.name not in have)
    arms = tuple(arm for arm in methods if arm not in without)
    columns, places, filled, left_out, starts, end = [], [], [], [], {}, 0
    for scenario in data.benchmark.scenarios:
        for seed in data.benchmark.seeds:
            own = [found.get((scenario.name, arm.name, seed)) for arm in arms]
            sizes = {len(correct) for correct in own if correct is not None}
            if len(sizes) > 1:
                raise RunError(
                    f"outcomes of {scenario.name}, seed {seed}: answers to {sorted(sizes)} examples; evaluate again"
                )
            if not sizes:
                left_out.append((scenario.name, seed))
                continue
            n = sizes.pop()
            key = (scenario.dataset, n)
            if key not in starts:
                starts[key], end = end, end + n
            columns.append(np.stack([np.zeros(n, bool) if correct is None else correct for correct in own]))
            places.append((scenario.name, seed, starts[key]))
            filled += [
                Filled(arm.name, scenario.name, seed, 0.0, _why(data, scenario.name, arm.name, seed))
                for arm, correct in zip(arms, own, strict=True)
                if correct is None
            ]
    patterns, which = _patterns(columns, len(arms))
    parts = tuple(Part(*place, pattern) for place, pattern in zip(places, which, strict=True))
    return Answers(arms, patterns, parts, end, tuple(filled), tuple(left_out), without)


def _found(data: ReportData) -> Iterator[tuple[tuple[str, str, int], NDArray[np.bool_]]]:
    for scenario in data.benchmark.scenarios:
        frame = data.outcomes[scenario.name]
        for arm, seed, correct in zip(frame["arm"], frame["seed"], frame["correct"], strict=True):
            yield (scenario.name, str(arm), int(seed)), np.asarray(correct, dtype=bool)


def _why(data: ReportData, scenario: str, arm: str, seed: int) -> str:
    status = data.runs[scenario, arm, seed]["status"]
    return "absent" if status == "finished" else status


def _patterns(columns: list[NDArray[np.bool_]], methods: int) -> tuple[NDArray[np.float64], list[NDArray[np.int64]]]:
    """The different columns [M, P], and the place [n] of each column of each part among them."""
    if not columns:
        return np.zeros((methods, 0)), []
    packed = np.packbits(np.concatenate(columns, axis=1), axis=0).T
    codes = np.ascontiguousarray(packed).view([("", packed.dtype)] * packed.shape[1]).ravel()
    different, which = np.unique(codes, return_inverse=True)
    bits = np.unpackbits(different.view(np.uint8).reshape(len(different), -1).T, axis=0)[:methods]
    return bits.astype(np.float64), np.split(which, np.cumsum([part.shape[1] for part in columns])[:-1])
