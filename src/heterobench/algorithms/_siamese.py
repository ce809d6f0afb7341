"""Differentiable siamese augmentation: the same random change of all images of several batches.

Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021, arXiv 2102.08259: one of six
kinds of change is drawn, with parameters that all images share. Ranges are those of the authors' code (memory).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

KINDS = ("colour", "crop", "cutout", "flip", "scale", "rotate")


def drawn(generator: np.random.Generator, kind: str | None = None) -> Callable[[Tensor], Tensor]:
    """A change of images [B, channels, H, W], differentiable; what is no image stays as it is."""
    kind = KINDS[int(generator.integers(len(KINDS)))] if kind is None else kind
    first, second, third = generator.random(3)
    return lambda x: _changed(x, kind, first, second, third) if x.dim() == 4 else x


def _changed(x: Tensor, kind: str, first: float, second: float, third: float) -> Tensor:
    """`first` to `third` in [0, 1) choose the amount."""
    if kind == "colour":
        x = x + first - 0.5  # brightness
        grey = x.mean(1, keepdim=True)
        x = grey + 2 * second * (x - grey)  # saturation
        level = x.mean((1, 2, 3), keepdim=True)
        return level + (0.5 + third) * (x - level)  # contrast
    if kind == "flip":
        return x.flip(3) if first < 0.5 else x
    if kind == "scale":
        return _mapped(x, 1.2 ** (2 * first - 1), 1.2 ** (2 * second - 1), 0.0)
    if kind == "rotate":
        return _mapped(x, 1.0, 1.0, math.radians(15) * (2 * first - 1))
    return (_shifted if kind == "crop" else _cut)(x, first, second)


def _mapped(x: Tensor, wide: float, high: float, angle: float) -> Tensor:
    """Stretched by `wide` and `high` about the middle, and turned."""
    from torch.nn import functional

    cos, sin = math.cos(angle), math.sin(angle)
    theta = x.new_tensor([[wide * cos, -sin, 0.0], [sin, high * cos, 0.0]]).expand(len(x), 2, 3)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=True)
    return functional.grid_sample(x, grid, align_corners=True)


def _shifted(x: Tensor, down: float, right: float) -> Tensor:
    """By up to an eighth of the sides in either direction; what comes in is 0."""
    from torch.nn import functional

    sides = x.shape[2:]
    edges = [round(side / 8) for side in sides]
    top, left = (int(part * (2 * edge + 1)) for part, edge in zip((down, right), edges, strict=True))
    padded = functional.pad(x, (edges[1], edges[1], edges[0], edges[0]))
    return padded[:, :, top : top + sides[0], left : left + sides[1]]


def _cut(x: Tensor, down: float, right: float) -> Tensor:
    """A rectangle of half the sides is 0; it may reach over the edge."""
    keep = x.new_ones(x.shape[2:])
    rows, columns = (
        slice(max(int(part * side) - side // 4, 0), int(part * side) + side // 4)
        for part, side in zip((down, right), keep.shape, strict=True)
    )
    keep[rows, columns] = 0
    return x * keep
