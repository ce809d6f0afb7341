"""Small nets, one file each: `Options` (checked early, without torch) and `make(shape, classes, options)`.

A net maps a float tensor [B, *shape] to logits [B, classes]. Nets have no buffers (GroupNorm or no norm): what is
averaged is then exactly what is trained.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING

from heterobench.config.schema import ModelFile
from heterobench.config.strict import build as build_options
from heterobench.config.strict import nearest
from heterobench.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import nn


def architectures() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def architecture(name: str, where: str) -> ModuleType:
    if name not in (known := architectures()):
        raise ConfigurationError(f"{where}: architecture: no architecture {name!r}{nearest(name, known)}")
    return importlib.import_module(f"{__name__}.{name}")


def check(file: ModelFile, where: str):
    """The validated options of a model file."""
    return build_options(architecture(file.architecture, where).Options, file.options, f"{where}: options")


def build(file: ModelFile, shape: tuple[int, ...], classes: int, where: str) -> nn.Module:
    """The net for inputs of `shape` (channels, height, width); torch's global generator sets its weights."""
    module = architecture(file.architecture, where)
    net = module.make(tuple(shape), classes, check(file, where))
    if any(True for _ in net.buffers()):
        raise ConfigurationError(f"{where}: architecture {file.architecture!r} has buffers; use GroupNorm or no norm")
    return net


def require_images(shape: tuple[int, ...], least: int, name: str) -> None:
    if len(shape) != 3 or min(shape[1:]) < least:
        raise ConfigurationError(f"{name} needs images of at least {least}x{least} pixels, found shape {list(shape)}")
