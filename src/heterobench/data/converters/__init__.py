"""Converters, one file each: from a published packing to raw files, where a set comes in more than one packing.

A converter has ``convert(downloads, target)``: it takes the folder of verified downloads and the folder to write to,
and returns what a reader of the data should know about this form, for ``source.json``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heterobench.config.strict import nearest
from heterobench.errors import ConfigurationError


def converter(name: str, where: str) -> Callable[[Path, Path], dict[str, Any]]:
    """The function of a converter; `where` opens the message of the ConfigurationError for an unknown one."""
    known = sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
    if name not in known:
        raise ConfigurationError(f"{where}: no converter {name!r}{nearest(name, known)}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").convert
