"""Residual net for small images (He et al., CVPR 2016, section 4.2) with GroupNorm instead of BatchNorm.

A 3x3 stem, then stages of basic blocks; the first block of every stage but the first halves the image and doubles
the channels, with a 1x1 projection on the shortcut. Depth is 2 * sum(blocks) + 2: [1, 1, 1] is ResNet-8,
[3, 3, 3] ResNet-20. GroupNorm: Wu and He, ECCV 2018; under heterogeneity: Hsieh et al., ICML 2020.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from heterobench.config.numbers import Count, Few
from heterobench.config.strict import Strict
from heterobench.models import too_small

KINDS = ("image", "signal")


class Options(Strict):
    blocks: list[Few] = Field([1, 1, 1], min_length=1, max_length=20, description="basic blocks of each stage")
    width: Count = Field(16, description="channels of the first stage")
    groups: Count = Field(2, description="groups of every GroupNorm")

    @model_validator(mode="after")
    def _divides(self):
        if self.width % self.groups:
            raise ValueError(f"groups ({self.groups}) must divide width ({self.width})")
        return self


def problem(shape, options):
    return too_small(shape, 2 ** len(options.blocks))


def make(shape, classes, options):
    from torch import nn

    class Block(nn.Module):
        def __init__(self, fan_in: int, fan_out: int, stride: int):
            super().__init__()
            norm = lambda: nn.GroupNorm(options.groups, fan_out)  # noqa: E731
            self.residual = nn.Sequential(
                nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False),
                norm(),
                nn.ReLU(),
                nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False),
                norm(),
            )
            same = stride == 1 and fan_in == fan_out
            self.shortcut = (
                nn.Identity() if same else nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), norm())
            )

        def forward(self, x):
            return nn.functional.relu(self.residual(x) + self.shortcut(x))

    width = options.width
    layers = [nn.Conv2d(shape[0], width, 3, 1, 1, bias=False), nn.GroupNorm(options.groups, width), nn.ReLU()]
    for stage, depth in enumerate(options.blocks):
        for index in range(depth):
            down = stage > 0 and index == 0
            layers.append(Block(width, width * 2 if down else width, 2 if down else 1))
            width = width * 2 if down else width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
