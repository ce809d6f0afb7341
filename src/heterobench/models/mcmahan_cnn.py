"""The CNN of McMahan et al. 2017, section 3: 5x5 convolutions of 32 and 64 channels, 512 units.

"Same" padding, each convolution followed by 2x2 max-pooling: 1,663,370 parameters on 28x28 grey images, 10 classes.
"""

from __future__ import annotations

from heterobench.config.strict import Strict
from heterobench.models import too_small

KINDS = ("image", "signal")


class Options(Strict):
    pass


def problem(shape, options):
    return too_small(shape, 8)


def make(shape, classes, options):
    from torch import nn

    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.MaxPool2d(2),  # before the ReLU: the same function, on a quarter of the numbers
        nn.ReLU(),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.MaxPool2d(2),  # before the ReLU: the same function, on a quarter of the numbers
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 512),
        nn.ReLU(),
        nn.Linear(512, classes),
    )
