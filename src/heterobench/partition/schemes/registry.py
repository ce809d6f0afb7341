"""What a scheme is, and the schemes by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from heterobench.config.schema import PartitionFile
from heterobench.config.strict import Strict, build, nearest
from heterobench.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class Columns:
    """What is known about the n examples: `labels` int [n], and `attributes`, name -> int64 [n] (-1: not known)."""

    labels: np.ndarray
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Scheme:
    name: str
    options: type[Strict]
    assign: Callable[[Columns, int | None, Strict, np.random.Generator, int], np.ndarray]
    natural: bool = False
    drops: bool = False


class NoOptions(Strict):
    pass


SCHEMES: dict[str, Scheme] = {}


def scheme(name: str, options: type[Strict], natural: bool = False, drops: bool = False):
    """Register the decorated function as the scheme `name`."""

    def register(function):
        if name in SCHEMES:
            raise ValueError(f"two schemes are called {name!r}")
        SCHEMES[name] = Scheme(name, options, function, natural, drops)
        return function

    return register


def check(file: PartitionFile, where: str, attributes: Iterable[str] | None = None) -> tuple[Scheme, Strict]:
    """The scheme of a partition file and its validated options.

    Raises ConfigurationError, opened by `where`, for an unknown scheme, an unknown option or a wrong value, and where
    the scheme needs an attribute that the data set, of which these are the `attributes`, does not have.
    """
    if file.scheme not in SCHEMES:
        raise ConfigurationError(f"{where}: scheme: no scheme {file.scheme!r}{nearest(file.scheme, SCHEMES)}")
    found = SCHEMES[file.scheme]
    if file.clients is None and not found.natural:
        raise ConfigurationError(f"{where}: clients: scheme {file.scheme!r} needs a number of clients")
    options = build(found.options, file.options, f"{where}: options")
    key = getattr(options, "key", None)
    if key is not None and attributes is not None and key not in attributes:
        raise ConfigurationError(
            f"{where}: options: key: the data set has no attribute {key!r}{nearest(key, attributes)}"
        )
    return found, options
