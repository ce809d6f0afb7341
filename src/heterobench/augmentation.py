"""Random views of training images: crops and flips, drawn anew for every example of every mini-batch.

The usual recipe for small photographs (He et al., CVPR 2016, section 4.2, with zeros at the edges; NIID-Bench and
Flower's niid_bench mirror the image there, as is done here): four pixels are added on every side, a part of the
image's own size is cut out, and half of the parts are flipped from left to right.

There are V = 2 (2 SHIFT + 1)^2 views of an image, all equally likely. A view is a number below V, so that what an
executor passes around stays a number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heterobench.config.schema import SHIFT


@dataclass(frozen=True, eq=False)
class Views:
    """pixels int64 [V, height * width]: which pixel of the image stands in each pixel of a view, row after row."""

    pixels: Tensor

    @classmethod
    def crops_and_flips(cls, height: int, width: int, device: torch.device | str = "cpu") -> Views:
        """Every crop of an image with mirrored edges, as it is and flipped. Both sides are longer than SHIFT."""
        down, right = _shifted(height), _shifted(width)
        across = torch.cat([right, right.flip(1)])
        pixels = down[:, None, :, None] * width + across[None, :, None, :]
        return cls(pixels.reshape(-1, height * width).to(device))

    def __len__(self) -> int:
        return len(self.pixels)

    def of(self, images: Tensor, view: Tensor) -> Tensor:
        """Each of `images` [B, C, height, width], of any type, under its `view`, int64 [B]: a new tensor like them."""
        pixels = self.pixels.index_select(0, view)[:, None, :].expand(-1, images.shape[1], -1)
        return images.flatten(2).gather(2, pixels).view_as(images)


def _shifted(length: int) -> Tensor:
    """[2 SHIFT + 1, length]: positions in a line that goes on mirrored at its ends, which do not come twice."""
    wanted = torch.arange(2 * SHIFT + 1)[:, None] - SHIFT + torch.arange(length)
    return (length - 1) - (length - 1 - wanted.abs()).abs()
