"""Softmax regression: one linear layer; its loss is convex."""

from __future__ import annotations

import math

from heterobench.config.strict import Strict

KINDS = ("image", "signal", "table")
HEAD_ONLY = True


class Options(Strict):
    pass


def make(shape, classes, options):
    from torch import nn

    net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    return net
