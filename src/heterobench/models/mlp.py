"""Multi-layer perceptron with ReLU. hidden = [200, 200] is the 2NN of McMahan et al. 2017 (199,210 parameters)."""

from __future__ import annotations

import math
from itertools import pairwise

from pydantic import Field

from heterobench.config.numbers import Count
from heterobench.config.strict import Strict

KINDS = ("image", "signal", "table")


class Options(Strict):
    hidden: list[Count] = Field([200], min_length=1, max_length=100, description="widths of the hidden layers")


def make(shape, classes, options):
    from torch import nn

    widths = [math.prod(shape), *options.hidden]
    layers = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))
