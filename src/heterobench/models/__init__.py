"""Small nets, one file each, and what inputs they take.

A file says `KINDS` (the kinds of data sets that it takes, of `heterobench.data.schema.KINDS`), `Options`, where not
every shape will do `problem(shape, options)` (what is wrong with inputs of that shape, or None), `HEAD_ONLY = True`
where the last linear layer is all that is trained, and `make(shape, classes, options)`. All but `make` do without
torch, so that mistakes are told early.

A net maps x [B, *shape] (float; tokens are uint8) to logits [B, classes]. Nets have no buffers (GroupNorm or no
norm): what is averaged is then exactly what is trained. What is fixed beside it is a `heterobench.frozen.Frozen`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING

from heterobench.config.schema import SHIFT, ModelFile
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


def check_head_only(file: ModelFile, where: str) -> None:
    """An error, which begins with `where`, unless the last linear layer is all that is trained."""
    allowed = [name for name in architectures() if getattr(architecture(name, where), "HEAD_ONLY", False)]
    if file.architecture not in allowed:
        raise ConfigurationError(
            f"{where}: architecture: {file.architecture} trains more than its last linear layer; "
            f"allowed here: {', '.join(allowed)}"
        )


def check_inputs(file: ModelFile, kind: str, shape: tuple[int, ...], where: str) -> None:
    """An error, which begins with `where`, unless the file's net and augmentation take this kind and shape."""
    kinds = architecture(file.architecture, where).KINDS
    if kind not in kinds:
        raise ConfigurationError(
            f"{where}: architecture {file.architecture} takes inputs of kind {' or '.join(kinds)}, not {kind}"
        )
    _check_shape(file, tuple(shape), where)
    if file.augmentation != "none" and (kind != "image" or min(shape[1:]) <= SHIFT):
        raise ConfigurationError(
            f"{where}: augmentation: {file.augmentation!r} takes images of more than {SHIFT}x{SHIFT} pixels, found "
            f"inputs of kind {kind} and shape {list(shape)}; allowed here: 'none'"
        )


def _check_shape(file: ModelFile, shape: tuple[int, ...], where: str) -> None:
    problem = getattr(architecture(file.architecture, where), "problem", None)
    if problem and (found := problem(shape, check(file, where))):
        raise ConfigurationError(f"{where}: {file.architecture} {found}, found shape {list(shape)}")


def build(file: ModelFile, shape: tuple[int, ...], classes: int, where: str) -> nn.Module:
    """The net for inputs of `shape` (images: channels, height, width); torch's global generator sets its weights."""
    module, shape = architecture(file.architecture, where), tuple(shape)
    _check_shape(file, shape, where)
    options = check(file, where)
    try:
        net = module.make(shape, classes, options)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    if any(True for _ in net.buffers()):
        raise ConfigurationError(f"{where}: architecture {file.architecture!r} has buffers; use GroupNorm or no norm")
    return net


def too_small(shape: tuple[int, ...], least: int) -> str | None:
    """What is wrong with images, or signals of their shape, of fewer than `least` rows or columns; None: nothing."""
    if len(shape) != 3 or min(shape[1:]) < least:
        return f"needs images of at least {least}x{least} pixels"
    return None
