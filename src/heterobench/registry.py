"""Algorithms found by file name: ``src/heterobench/algorithms/local_only.py`` is `local-only`."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import heterobench.algorithms as folder
from heterobench.config.strict import nearest
from heterobench.errors import ConfigurationError


def algorithms() -> list[str]:
    """Names of all algorithms, sorted."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(folder.__path__) if m.name[0] != "_")


def algorithm(name: str) -> ModuleType:
    """The module of an algorithm: `HyperParameters`, `make(hp)` and, where one exists, `NEUTRAL`."""
    if name not in (known := algorithms()):
        raise ConfigurationError(f"no algorithm {name!r}{nearest(name, known)}")
    return importlib.import_module(f"{folder.__name__}.{name.replace('-', '_')}")
