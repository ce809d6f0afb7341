"""Linear mode connectivity: does the loss stay low on the line between two models, as a whole and layer by layer?

`score` maps theta [P] to a loss (or an error, or several such criteria [k]) of fixed examples; a report says of which:
a barrier of the test loss is not one of the training loss. A point on the line is alpha first + (1 - alpha) second.
Nets with batch statistics would need them computed anew at each point; those of this project have none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from heterobench import keyed
from heterobench.task import Layout

Score = Callable[[Tensor], Tensor]

ALPHAS = tuple(alpha / 10 for alpha in range(11))


class Curve(NamedTuple):
    """Scores along a line: alphas [n], ascending from 0 to 1, and values float64 [n] or [n, k]."""

    alphas: np.ndarray
    values: np.ndarray

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Values at alpha = 1 (first model) and alpha = 0 (second model)."""
        return self.values[-1], self.values[0]


def curve(
    score: Score, first: Tensor, second: Tensor, part: Tensor | None = None, alphas: Sequence[float] = ALPHAS
) -> Curve:
    """Scores of the models between `first` and `second` [P], in float64.

    With `part` bool [P], of one or several layers: of `first` with only these parameters between the two models, so
    that alpha = 0 is `first` with the part of `second` (layer-wise connectivity: Adilova et al., arXiv 2307.06966).
    """
    alphas = np.asarray(alphas, dtype=np.float64)
    if len(alphas) < 2 or alphas[0] != 0 or alphas[-1] != 1 or (np.diff(alphas) <= 0).any():
        raise ValueError(f"alphas: {alphas.tolist()}, must ascend from 0 to 1")
    if first.shape != second.shape:
        raise ValueError(f"second: shape {tuple(second.shape)}, must be {tuple(first.shape)} as first")
    first, second = first.detach().double(), second.detach().double()
    far = second if part is None else torch.where(part, second, first)
    with torch.no_grad():
        # lerp(1) is `first` to the bit, and so is every point where both models agree
        values = [score(torch.lerp(far, first, float(alpha))).double().cpu().numpy() for alpha in alphas]
    return Curve(alphas, np.stack(values))


def barrier(line: Curve, ends: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """Largest excess over the straight line between the ends: max of L(alpha) - (alpha L(1) + (1 - alpha) L(0)).

    At least 0 with a curve's own ends; float64 [] or [k]. For a curve of some layers, `ends` are the scores (first,
    second) of the two whole models, so that it is measured over the models themselves. With 0-1 errors in place of
    losses it is the error barrier. Source: Entezari et al., arXiv 2110.06296, definition 1.
    """
    first, second = ends or line.ends
    share = line.alphas.reshape(-1, *[1] * (line.values.ndim - 1))
    # from the nearer end, so that at both ends, and between equal ones, nothing is rounded
    chord = np.where(share < 0.5, second + share * (first - second), first + (1 - share) * (second - first))
    return (line.values - chord).max(axis=0)


def barrier_over_mean(line: Curve, ends: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """Largest value less the mean of the ends, the instability of Frankle et al., arXiv 1912.05671, section 2.

    Not less than half the difference between the ends (with a curve's own ends); float64 [] or [k].
    """
    first, second = ends or line.ends
    return line.values.max(axis=0) - (first + second) / 2


def layers(layout: Layout) -> dict[str, Tensor]:
    """Name of a layer -> bool [P], in the net's order: a module's weights and biases together.

    Layers inside one recurrent module of torch ("weight_ih_l0") are layers of their own; a parameter that stands alone
    gives the layer its name.
    """
    names = [_layer(name) for name in layout.names]
    owner = np.repeat(np.arange(len(names)), layout.sizes)
    numbers = {name: [i for i, other in enumerate(names) if other == name] for name in dict.fromkeys(names)}
    return {name: torch.from_numpy(np.isin(owner, own)) for name, own in numbers.items()}


def _layer(parameter: str) -> str:
    module, _, own = parameter.rpartition(".")
    level = re.search(r"_(l\d+)", own)
    return ".".join(filter(None, (module, level[1] if level else ""))) or own


def layer_groups(
    names: Sequence[str], order: Literal["shallow", "deep", "random"] = "shallow", seed: int = 0
) -> list[tuple[str, ...]]:
    """Growing groups of layers, of 1 to all: from the input on ("shallow"), from the output on ("deep"), or random.

    At random, group k is the first k layers of a keyed random order: each set of k layers is as likely.
    """
    names = list(names)
    if order == "deep":
        names.reverse()
    elif order == "random":
        names = [names[i] for i in keyed.generator(seed, "layer groups").permutation(len(names))]
    elif order != "shallow":
        raise ValueError(f"order: {order!r}, must be shallow, deep or random")
    return [tuple(names[: size + 1]) for size in range(len(names))]


def layer_curves(
    score: Score,
    first: Tensor,
    second: Tensor,
    parts: Mapping[str, Tensor],
    groups: Sequence[tuple[str, ...]] | None = None,
    alphas: Sequence[float] = ALPHAS,
) -> dict[tuple[str, ...], Curve]:
    """Group of layers -> the curve of `first` with only these layers between the models; without groups, each layer.

    `barrier(c, curve(score, first, second).ends)` is its barrier against the two whole models, `barrier(c)` that
    against its own ends, which are `first` and `first` with these layers of `second`.
    """
    groups = [(name,) for name in parts] if groups is None else groups
    joined = {group: torch.stack([parts[name] for name in group]).any(0).to(first.device) for group in groups}
    return {group: curve(score, first, second, part, alphas) for group, part in joined.items()}
