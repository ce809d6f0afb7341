"""Small sets of examples that do to a net what large ones do: what is matched, and how they are found."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from heterobench.algorithms._siamese import drawn
from heterobench.algorithms._similarity import cosine

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from heterobench.algorithm import OwnData


class Descent(NamedTuple):
    """SGD on examples: number of steps, step size and heavy-ball momentum."""

    steps: int
    lr: float
    momentum: float

    def __call__(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """x after the steps on `loss` [], which may be another one in each."""
        from torch import autograd, zeros_like

        velocity = zeros_like(x)
        for _ in range(self.steps):
            leaf = x.detach().requires_grad_()
            (g,) = autograd.grad(loss(leaf), leaf)
            velocity = self.momentum * velocity + g
            x = leaf.detach() - self.lr * velocity
        return x


def distribution_loss(
    represent: Callable[[Tensor], Tensor], real: list[Tensor], made: list[Tensor], generator: np.random.Generator
) -> Tensor:
    """Distribution matching (Zhao and Bilen, WACV 2023, arXiv 2110.04181), []: for each class the squared distance of
    the mean representations of `real` [n, *shape] and `made` [m, *shape], under one siamese augmentation for both.
    """
    from torch import cat, no_grad

    change = drawn(generator)
    with no_grad():
        goals = represent(change(cat(real))).split([len(x) for x in real])
    found = represent(change(cat(made))).split([len(x) for x in made])
    return sum(((z.mean(0) - goal.mean(0)) ** 2).sum() for z, goal in zip(found, goals, strict=True))


def gradient_loss(g: Tensor, goal: Tensor, shapes) -> Tensor:
    """Gradient matching (Zhao, Mopuri and Bilen, ICLR 2021, arXiv 2006.05929), []: 1 - cosine, summed over the rows of
    every tensor that `shapes` cut g [P] and goal [P] into. A row is what leads to one output; biases do not count.
    """
    sizes = [math.prod(shape) for shape in shapes]
    rows = [
        (part.reshape(shape[0], -1), aim.reshape(shape[0], -1))
        for part, aim, shape in zip(g.split(sizes), goal.split(sizes), shapes, strict=True)
        if len(shape) > 1
    ]
    return sum((1 - cosine(part, aim)).sum() for part, aim in rows)


def statistics(own: OwnData, classes: int) -> dict[str, Tensor]:
    """mean, std [classes, channels] of the examples, and which classes are `held` [classes], 1 or 0."""
    from torch import stack, zeros_like

    channels = own.x.transpose(0, 1).flatten(1)  # [channels, n ...]
    each = channels.shape[1] // len(own.y)
    parts = [channels[:, (own.y == c).repeat_interleave(each)] for c in range(classes)]
    nothing = zeros_like(channels[:, 0])
    mean = stack([part.mean(1) if part.numel() else nothing for part in parts])
    std = stack([part.std(1, correction=0) if part.numel() else nothing for part in parts])
    return {"mean": mean, "std": std, "held": mean.new_tensor([float(part.numel() > 0) for part in parts])}


def noise(found: dict[str, Tensor], like: Tensor, generator) -> Tensor:
    """Examples like `like` [classes, m, channels, ...]: normal, with mean and deviation of class and channel."""
    from torch import from_numpy

    shape = (len(like), 1, like.shape[2]) + (1,) * (like.dim() - 3)
    mean, std = found["mean"].view(shape), found["std"].view(shape)
    return mean + std * from_numpy(generator.standard_normal(tuple(like.shape))).to(like)


def labelled(images: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """The examples x [m, *shape] and classes y [m] of images [classes, n, *shape] whose class is held."""
    classes = held.nonzero()[:, 0]
    return images[classes].flatten(0, 1), classes.repeat_interleave(images.shape[1])


def matched(
    images: Tensor, own: OwnData, theta: Tensor | None, batch: int, descent: Descent, generator: np.random.Generator
) -> Tensor:
    """Images [classes, m, *shape] after distribution matching with at most `batch` real examples of each class.

    Representations are those under theta; without one, under a new random net in each step.
    """
    classes = sorted(set(own.y.tolist()))
    rows = [(own.y == c).nonzero()[:, 0] for c in classes]

    def loss(made: Tensor) -> Tensor:
        net = own.task.init(int(generator.integers(2**31))) if theta is None else theta
        real = [own.x[of[generator.permutation(len(of))[:batch]]] for of in rows]
        return distribution_loss(partial(own.task.represent, net), real, [made[c] for c in classes], generator)

    return descent(images, loss)


def distilled(images: Tensor, known: Tensor, theta: Tensor, change: Tensor, task, descent: Descent) -> Tensor:
    """Images [classes, m, *shape] after matching the gradient of those of `known` classes at theta [P] to `change`."""
    from torch import autograd

    from heterobench.task import Batch

    def loss(made: Tensor) -> Tensor:
        at = theta.detach().requires_grad_()
        (g,) = autograd.grad(task.mean_loss(at, Batch(*labelled(made, known))), at, create_graph=True)
        return gradient_loss(g, change, task.shapes)

    return descent(images, loss)
