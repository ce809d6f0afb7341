"""Small pre-norm transformer: encoder over a signal or over tokens, or causal for the next character.

Vaswani et al. 2017 (arXiv 1706.03762) with the norm before each branch (Xiong et al. 2020, arXiv 2002.04745), GELU
and learned positions: x + attention(norm(x)), then x + mlp(norm(x)). Encoder: every position sees all others, and
the logits are those of the mean over positions. Causal: a position sees itself and what came before, and the logits
are those of the last position. Without dropout, so training and evaluation are one function.
"""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from heterobench.config.numbers import Count, Few
from heterobench.config.strict import Strict

KINDS = ("signal", "tokens")


class Options(Strict):
    width: Count = Field(64, description="of the residual stream")
    depth: Few = Field(2, description="blocks of attention and MLP")
    heads: Few = Field(4, description="of every attention")
    hidden: Count = Field(256, description="width of the MLP in every block")
    patch: Count = Field(1, description="samples of a signal that make one position; tokens: 1")
    causal: bool = False

    @model_validator(mode="after")
    def _divides(self):
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


def problem(shape, options):
    if len(shape) == 1 and options.patch > 1:
        return f"needs patch = 1 for tokens, found patch = {options.patch}"
    if shape[-1] % options.patch:
        return f"needs signals whose time is divisible by patch = {options.patch}"
    return None


def make(shape, classes, options):
    import torch
    from torch import nn

    width, heads, patch = options.width, options.heads, options.patch
    positions = shape[-1] // patch

    class Symbols(nn.Module):
        """Tokens [B, T] -> [B, T, width]: a learned vector each."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(0.02 * torch.randn(classes, width))

        def forward(self, x):
            return nn.functional.embedding(x.long(), self.weight)

    class Patches(nn.Module):
        """Signals [B, channels, ..., T * patch] -> [B, T, width]: a linear map of each patch."""

        def __init__(self):
            super().__init__()
            self.project = nn.Linear(math.prod(shape[:-1]) * patch, width)

        def forward(self, x):
            return self.project(x.flatten(1, -2).unflatten(2, (positions, patch)).transpose(1, 2).flatten(2))

    class Attention(nn.Module):
        """softmax(q k' / sqrt(d)) v in each head, written out: the fused kernels of GPUs are not deterministic."""

        def __init__(self):
            super().__init__()
            self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x):
            q, k, v = self.project(x).unflatten(2, (3, heads, width // heads)).permute(2, 0, 3, 1, 4)
            weight = q @ k.transpose(-1, -2) / math.sqrt(width // heads)  # [B, heads, T, T]
            if options.causal:
                later = torch.ones(positions, positions, dtype=torch.bool, device=x.device).triu(1)
                weight = weight.masked_fill(later, -math.inf)
            return self.join((weight.softmax(-1) @ v).transpose(1, 2).flatten(2))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.Sequential(nn.LayerNorm(width), Attention())
            self.mlp = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, options.hidden), nn.GELU(), nn.Linear(options.hidden, width)
            )

        def forward(self, x):
            x = x + self.attention(x)
            return x + self.mlp(x)

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = Symbols() if len(shape) == 1 else Patches()
            self.position = nn.Parameter(0.02 * torch.randn(positions, width))
            self.blocks = nn.Sequential(*[Block() for _ in range(options.depth)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

        def forward(self, x):
            x = self.norm(self.blocks(self.embed(x) + self.position))
            return self.head(x[:, -1] if options.causal else x.mean(1))

    return Transformer()
