"""What is measured of runs and saved models: one module for each group of metrics, each a pure function.

The names are here, light to import: a benchmark file is checked against them before anything runs. `groups` has the
functions.
"""

from __future__ import annotations

from collections.abc import Iterable

from heterobench.config.strict import nearest
from heterobench.errors import ConfigurationError

ALWAYS = ("accuracy", "clients", "costs")
CHOSEN = ("calibration", "fairness", "corrected-labels", "coherence", "landscape", "connectivity")


def check(names: Iterable[str], where: str) -> tuple[str, ...]:
    """The groups of `CHOSEN` among `names`, in their order there; those of `ALWAYS` may be named as well.

    Raises ConfigurationError, which begins with `where`, for a name that is none and for one that is given twice.
    """
    names = list(names)
    for name in names:
        if name not in (*ALWAYS, *CHOSEN):
            raise ConfigurationError(f"{where}: no group of metrics {name!r}{nearest(name, (*ALWAYS, *CHOSEN))}")
        if names.count(name) > 1:
            raise ConfigurationError(f"{where}: {name} is listed twice")
    return tuple(name for name in CHOSEN if name in names)
