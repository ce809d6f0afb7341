"""LeNet-like CNN: two 5x5 convolutions of 6 and 16 channels with max-pooling, then 120-84 units.

The small CNN of NIID-Bench (Li et al., ICDE 2022, arXiv 2102.02079), without padding: 44,426 parameters on 28x28
grey, 62,006 on 32x32 colour images with 10 classes.
"""

from __future__ import annotations

from heterobench.config.strict import Strict
from heterobench.models import too_small

KINDS = ("image", "signal")


class Options(Strict):
    pass


def problem(shape, options):
    return too_small(shape, 16)


def make(shape, classes, options):
    from torch import nn

    channels, height, width = shape
    side = lambda n: ((n - 4) // 2 - 4) // 2  # noqa: E731  two unpadded 5x5 convolutions, each halved
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5),
        nn.MaxPool2d(2),  # before the ReLU: the same function, on a quarter of the numbers
        nn.ReLU(),
        nn.Conv2d(6, 16, 5),
        nn.MaxPool2d(2),  # before the ReLU: the same function, on a quarter of the numbers
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * side(height) * side(width), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )
