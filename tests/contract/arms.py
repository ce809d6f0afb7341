"""Every algorithm and variant that is found, with the settings that its parameter file gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heterobench import registry
from heterobench.project import Project
from heterobench.resolve import algorithm_files

PROJECT = Project.find()


@dataclass(frozen=True)
class Case:
    name: str
    algorithm: str
    settings: dict[str, Any]

    def build(self, **more):
        """(algorithm, hyper-parameters) with `more` over the file's settings."""
        module = registry.algorithm(self.algorithm)
        hp = module.HyperParameters(**self.settings | more)
        return module.make(hp), hp

    @property
    def module(self):
        return registry.algorithm(self.algorithm)

    def __str__(self) -> str:
        return self.name


def cases() -> list[Case]:
    found = []
    for name, file in algorithm_files(PROJECT).items():
        found.append(Case(name, name, file.defaults))
        found += [Case(key, name, file.defaults | variant.defaults) for key, variant in file.variants.items()]
    return found


CASES = cases()
