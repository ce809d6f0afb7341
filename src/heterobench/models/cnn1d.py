"""1-D CNN for signals: blocks of a convolution along time, max-pooling and ReLU, then fully connected layers.

channels = [196], kernel = 16, pool = 4, hidden = [1024] is the CNN of Ignatov (Applied Soft Computing 62, 2018) as
Ek et al. (PerCom 2021, "196-16C_4M_1024D") train it federatedly: on the raw signals alone, without Ignatov's
statistical features. Deviation: no dropout. Inputs are [channels, time]; of [channels, ..., time] (log-mel: [1, mels,
frames]) everything before the time counts as channels.
"""

from __future__ import annotations

import math

from pydantic import Field

from heterobench.config.numbers import Count
from heterobench.config.strict import Strict

KINDS = ("signal",)


class Options(Strict):
    channels: list[Count] = Field([32, 64], min_length=1, max_length=20, description="of each convolution")
    kernel: Count = Field(5, description="length of every convolution, in samples")
    pool: Count = Field(4, description="window and stride of every max-pooling, in samples")
    hidden: list[Count] = Field([128], max_length=100, description="widths of the fully connected layers; may be empty")


def problem(shape, options):
    least = options.pool ** len(options.channels)
    if len(shape) < 2 or shape[-1] < least:
        return f"needs signals [channels, ..., time] of at least {least} samples (pool ** convolutions)"
    return None


def make(shape, classes, options):
    from torch import nn

    fan_in, length = math.prod(shape[:-1]), shape[-1]
    around = (options.kernel - 1) // 2, options.kernel // 2  # an even kernel has one sample more to come than behind
    layers = [nn.Flatten(1, -2)]
    for channels in options.channels:
        layers += [nn.ZeroPad1d(around), nn.Conv1d(fan_in, channels, options.kernel)]
        layers += [nn.MaxPool1d(options.pool), nn.ReLU()]  # in this order: the same function, on fewer numbers
        fan_in, length = channels, length // options.pool
    layers.append(nn.Flatten())
    fan_in *= length
    for width in options.hidden:
        layers += [nn.Linear(fan_in, width), nn.ReLU()]
        fan_in = width
    return nn.Sequential(*layers, nn.Linear(fan_in, classes))
