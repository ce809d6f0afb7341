"""Readers, one file each: from raw files to arrays in the official order.

A reader has `Options` (of the parameter file) and ``read(raw, options)``, which takes the folder of raw files and
returns ``{"train_x", "train_y", "test_x", "test_y"}``: x is [n, *shape] in the type of the set's kind
(`heterobench.data.schema.KINDS`), y is [n] as the files have it, numbers or names of classes in whatever type, which
`heterobench.data.labels` turns into numbers for all readers. For each attribute of the parameter file there are also
``train_<attribute>`` and ``test_<attribute>``, int64 [n] (-1: not known), and ``names_<attribute>``, the names of its
values 0, 1, ... Where raw files name their classes, ``classes`` holds the names in label order; they must be those of
the parameter file. Raw files have been verified before a reader sees them.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import numpy as np

from heterobench.config.strict import nearest
from heterobench.errors import ConfigurationError

Arrays = dict[str, np.ndarray]


def reader(name: str, where: str) -> ModuleType:
    """The module of a reader; `where` opens the message of the ConfigurationError for an unknown one."""
    known = sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
    if name not in known:
        raise ConfigurationError(f"{where}: no reader {name!r}{nearest(name, known)}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def module_name(name: str) -> str:
    """Of a reader, for the fingerprint of its code."""
    return f"{__name__}.{name.replace('-', '_')}"
