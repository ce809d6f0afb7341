"""Every algorithm and variant that is found, with the settings that its parameter file gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heterobench import registry
from heterobench.algorithms._local_sgd import LocalSGD
from heterobench.project import Project
from heterobench.resolve import algorithm_files

PROJECT = Project.find()
SMALL = {
    "ggeur": {"target": 6, "draws": 10},
    "fedlgd": {"per_class": 2, "server_per_class": 1, "warmup_steps": 2, "refresh_steps": 2, "distil_steps": 2},
}  # what takes long and changes nothing that is tested here


@dataclass(frozen=True)
class Case:
    name: str
    algorithm: str
    settings: dict[str, Any]

    def build(self, **more):
        """(algorithm, hyper-parameters) with `more` over the file's settings.

        What belongs to local SGD is left out where a method has none.
        """
        module = registry.algorithm(self.algorithm)
        if self.solves:
            more = {name: value for name, value in more.items() if name not in LocalSGD.model_fields}
        hp = module.HyperParameters(**self.settings | SMALL.get(self.algorithm, {}) | more)
        return module.make(hp), hp

    @property
    def solves(self) -> bool:
        """Whether the method takes no local steps, so that there is no step size."""
        return "lr" not in self.module.HyperParameters.model_fields

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
