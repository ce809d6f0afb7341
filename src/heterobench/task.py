"""A task: model function, loss and scores, over one flat vector of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from heterobench import keyed

CHUNK = 1024  # examples evaluated at once: fixed, so that the bits of a score never depend on the machine's memory


class Batch(NamedTuple):
    """x: float [B, *shape], normalised; y: int64 [B], classes."""

    x: Tensor
    y: Tensor


class Task(Protocol):
    """What engine and algorithms ask of a task; theta is a float tensor [P]."""

    def init(self, seed: int) -> Tensor:
        """Initial theta, the same for every method of a table."""

    def grad(self, theta: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradient [P] of the mean loss of a batch, and {"loss": that mean loss []}."""

    def scores(self, theta: Tensor, batches) -> dict[str, Tensor]:
        """Score name -> float [n], one number for each example of `batches`, in their order."""


@dataclass(frozen=True)
class Layout:
    """How theta [P] is cut into the parameters of a net: names and shapes, in the net's own order."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, net: nn.Module) -> Layout:
        names, parameters = zip(*net.named_parameters(), strict=True)
        return cls(names, tuple(p.shape for p in parameters))

    @property
    def sizes(self) -> list[int]:
        return [shape.numel() for shape in self.shapes]

    def split(self, theta: Tensor) -> dict[str, Tensor]:
        """Views of theta, by parameter name."""
        parts = theta.split(self.sizes)
        return {n: part.view(shape) for n, part, shape in zip(self.names, parts, self.shapes, strict=True)}


class Classification:
    """Cross-entropy classification with a torch net.

    The net's parameters are made views of theta, so a local step that updates theta in place needs no copy.
    """

    def __init__(self, build: Callable[[], nn.Module], device: torch.device | str = "cpu"):
        self._build = build
        with torch.random.fork_rng(devices=[]):
            self._net = build().to(device)
        self._net.eval()  # no dropout, no batch statistics: training and evaluation are the same function
        self.layout = Layout.of(self._net)
        self._parameters = list(self._net.parameters())
        self._bound: Tensor | None = None
        self.device = torch.device(device)

    def init(self, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed.integer(seed, "initial weights"))
            net = self._build()
        return torch.cat([p.detach().reshape(-1) for p in net.parameters()]).to(self.device)

    def _bind(self, theta: Tensor) -> nn.Module:
        if theta is not self._bound:
            for parameter, part in zip(self._parameters, self.layout.split(theta).values(), strict=True):
                parameter.data = part
            self._bound = theta
        return self._net

    def grad(self, theta: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss = functional.cross_entropy(self._bind(theta)(batch.x), batch.y)
        parts = torch.autograd.grad(loss, self._parameters)
        return torch.cat([part.reshape(-1) for part in parts]), {"loss": loss.detach()}

    @torch.no_grad()
    def scores(self, theta: Tensor, batches) -> dict[str, Tensor]:
        net = self._bind(theta)
        losses, hits = [], []
        for x, y in batches:
            logits = net(x)
            losses.append(functional.cross_entropy(logits, y, reduction="none"))
            hits.append((logits.argmax(1) == y).to(logits.dtype))
        empty = [theta.new_zeros(0)]
        return {"loss": torch.cat(losses or empty), "accuracy": torch.cat(hits or empty)}
