"""Softmax regression on random features: a fixed random layer that is never trained or sent, and a trained head.

fourier: z(x) = sqrt(2 / width) cos(W x + b), with b uniform on [0, 2 pi) and the rows of W normal with standard
deviation 1 / (bandwidth sqrt(d)), d the number of inputs. z(x) . z(y) estimates, without bias, the Gaussian kernel
exp(-|x - y|^2 / (2 bandwidth^2 d)) (Rahimi and Recht, NIPS 2007, section 3).

relu: z(x) = sqrt(2 / width) max(0, W x), with standard deviation 1 / sqrt(d). z(x) . z(y) estimates the arc-cosine
kernel of order 1, |x| |y| (sin t + (pi - t) cos t) / (pi d), t the angle between x and y (Cho and Saul, NIPS 2009).

The head starts at zero, and its loss is convex. What is random is drawn with `key`, not with a run's seed: all seeds
and clients share it.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from heterobench.config.numbers import Count, Positive, Seed
from heterobench.config.strict import Strict

KINDS = ("image", "signal", "table")
HEAD_ONLY = True


class Options(Strict):
    features: Literal["relu", "fourier"] = "relu"
    width: Count = Field(1000, description="number of features")
    bandwidth: Positive = Field(1.0, description="of the Gaussian kernel, in units of sqrt(number of inputs)")
    key: Seed = Field(0, description="decides what is drawn")

    @model_validator(mode="after")
    def _bandwidth_is_fouriers(self):
        if self.features == "relu" and "bandwidth" in self.model_fields_set:
            raise ValueError("bandwidth belongs to features: fourier")
        return self


def make(shape, classes, options):
    import torch
    from torch import nn

    from heterobench import keyed
    from heterobench.frozen import Frozen

    inputs, width = math.prod(shape), options.width
    fourier = options.features == "fourier"
    generator = keyed.generator(options.key, "random features")
    scale = 1 / ((options.bandwidth if fourier else 1) * math.sqrt(inputs))

    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.from_numpy(generator.normal(0, scale, (width, inputs))).float())
            self.register_buffer("bias", torch.from_numpy(generator.uniform(0, 2 * math.pi, width)).float())

        def forward(self, x):
            z = nn.functional.linear(x.flatten(1), self.weight)
            return ((z + self.bias).cos() if fourier else z.relu()) * math.sqrt(2 / width)

    head = nn.Linear(width, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(Frozen(Features()), head)
