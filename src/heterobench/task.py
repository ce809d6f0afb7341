"""A task: model function, loss and scores, over one flat vector of parameters."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from heterobench import flops, keyed
from heterobench.algorithm import Head
from heterobench.chain import Chain
from heterobench.frozen import Frozen

CHUNK = 1024  # examples evaluated at once: fixed, so that the bits of a score never depend on the machine's memory

SMALL = 2**16  # parameters up to which the CPU judges several clients' models faster together than one by one, ...

LINEAR = (nn.Sequential, nn.Flatten, nn.Linear, nn.ReLU, Frozen)  # ... in nets of nothing but these


class Batch(NamedTuple):
    """x: float [B, *shape], normalised, or tokens, uint8; y: int64 [B]; weight: float [B], sum 1, or None for 1/B each.

    Weights are for executors that fill up batches of unequal size: what only fills up has weight 0.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None = None

    def weights(self, theta: Tensor) -> Tensor:
        """Weights [B] of the examples in a mean, whether or not they are given, in the precision of theta."""
        if self.weight is None:
            return theta.new_full((len(self.y),), 1 / len(self.y))
        return self.weight.to(theta.dtype)


class Outputs(NamedTuple):
    """What a net makes of a batch: features float [B, F], which its last linear layer reads, and logits [B, classes].

    weight: float [B], sum 1, of the examples in the mean loss; examples of weight 0 do not count.
    """

    features: Tensor
    logits: Tensor
    weight: Tensor


Term = Callable[[Outputs], Tensor]
"""A term of the loss of a batch [], of what the net makes of it."""

Net = Callable[[Tensor], Tensor]
"""x [B, *shape] -> logits [B, classes], with some parameters."""


class Task(Protocol):
    """What engine and algorithms ask of a task; theta is a float tensor [P].

    sizes: how theta is cut into the tensors of the net, their numbers of entries in order; they add up to P. shapes:
    those of these tensors.
    """

    sizes: tuple[int, ...]
    shapes: tuple[torch.Size, ...]

    @property
    def head(self) -> Head:
        """Where the net's last linear layer lies in theta; its input are the `features`."""

    def init(self, seed: int) -> Tensor:
        """Initial theta, the same for every method of a table."""

    def grad(self, theta: Tensor, batch: Batch, term: Term | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradient [P] of the mean loss of a batch plus `term`, and {"loss": that mean loss [], without the term}."""

    def features(self, theta: Tensor, batch: Batch) -> Tensor:
        """The representation [B, F] of a batch, see `Outputs`; without a gradient."""

    def head_grad(self, theta: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """`grad` for the last linear layer alone, of a batch of its inputs x [B, F]; every other entry is 0."""

    def represent(self, theta: Tensor, x: Tensor) -> Tensor:
        """The representation [B, F] of x [B, *shape], differentiable in theta and x."""

    def mean_loss(self, theta: Tensor, batch: Batch) -> Tensor:
        """Mean loss [] of a batch, differentiable in theta and batch.x, any number of times."""

    def functional(self) -> Task:
        """This task with `grad` and `features` that torch.func.vmap can map, and a `grad` that obeys batch.weight."""

    def scores(self, theta: Tensor, batches) -> dict[str, Tensor]:
        """Score name -> float [n], one number for each example of `batches`, in their order.

        "accuracy" is 1 or 0; NaN for all of them where the model has diverged, for then it has no answers (`hits`).
        """


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


def _as(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype) if values.is_floating_point() else values  # tokens stay whole numbers


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the class with the highest logit is the label: 1 or 0, [..., n], of logits [..., n, classes].

    NaN for all n where one of the logits is not finite: `argmax` of NaN is class 0, which nobody has predicted.
    """
    right = (logits.argmax(-1) == labels).to(logits.dtype)
    finite = logits.isfinite().flatten(-2).all(-1, keepdim=True)
    return torch.where(finite, right, torch.nan)


def _finite(theta: Tensor, logits: Tensor) -> Tensor:
    """The logits [..., n, classes] of models theta [..., P]; NaN for a model with a parameter that is not finite.

    Not every such parameter shows: behind a ReLU a bias of minus infinity is a unit that is off.
    """
    return torch.where(theta.isfinite().all(-1)[..., None, None], logits, torch.nan)


def _mean_loss(logits: Tensor, batch: Batch) -> Tensor:
    """[] of logits [B, classes], under batch.weight where there is one."""
    if batch.weight is None:
        return functional.cross_entropy(logits, batch.y)
    return functional.cross_entropy(logits, batch.y, reduction="none") @ _as(batch.weight, logits.dtype)


def head_gradient(head: Head, theta: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradient [P] of the mean cross-entropy of inputs x [B, F] of the last layer, and {"loss": that mean loss []}.

    In closed form: (softmax - one-hot)^T x, which needs no graph and which torch.func.vmap maps.
    """
    logits = functional.linear(batch.x, *head.read(theta))
    truth = batch.y[:, None] == torch.arange(head.classes, device=theta.device)
    apart = (logits.softmax(1) - truth.to(theta.dtype)) * batch.weights(theta)[:, None]
    g = head.written(torch.zeros_like(theta), apart.t() @ batch.x, apart.sum(0))
    return g, {"loss": _mean_loss(logits, batch)}


class Classification:
    """Cross-entropy classification with a torch net.

    The net's parameters are made views of theta, so a local step that updates theta in place needs no copy.
    `precision` "bfloat16" computes the forward pass of training under torch.autocast; theta, gradients and scores
    stay as they are.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        device: torch.device | str = "cpu",
        precision: Literal["float32", "bfloat16"] = "float32",
    ):
        self._build = build
        self._reduced = precision == "bfloat16"
        with torch.random.fork_rng(devices=[]):
            self._net = build().to(device)
        self._net.eval()  # no dropout, no batch statistics: training and evaluation are the same function
        self.layout = Layout.of(self._net)
        self.sizes, self.shapes = tuple(self.layout.sizes), self.layout.shapes
        self._parameters = list(self._net.parameters())
        self._bound: Tensor | None = None
        self._parts: list[Tensor] = []
        self._chains: dict[tuple[int, ...], Chain | None] = {}
        self._copies: dict[torch.dtype, nn.Module] = {}
        self._flops: dict[tuple[int, ...], int] = {}
        self.device = torch.device(device)
        self._head = next((n for n, m in reversed([*self._net.named_modules()]) if isinstance(m, nn.Linear)), None)
        linear = all(isinstance(module, LINEAR) for module in self._net.modules())
        if self.device.type == "cpu" and (not linear or sum(self.layout.sizes) > SMALL):
            self.scores_many = None  # measured: one call per client is faster

    @property
    def head(self) -> Head:
        layer = self._net.get_submodule(self._last())
        place = self.layout.names.index(f"{self._head}.weight")
        return Head(sum(self.sizes[:place]), layer.out_features, layer.in_features, layer.bias is not None)

    def _last(self) -> str:
        """Name of the last linear layer."""
        if self._head is None:
            raise ValueError("the net has no linear layer, whose input its features could be")
        return self._head

    def init(self, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed.integer(seed, "initial weights"))
            net = self._build()
        return torch.cat([p.detach().reshape(-1) for p in net.parameters()]).to(self.device)

    def _bind(self, theta: Tensor) -> nn.Module:
        if theta is not self._bound:
            self._parts = list(self.layout.split(theta).values())
            for parameter, part in zip(self._parameters, self._parts, strict=True):
                parameter.data = part
            self._bound = theta
        return self._net

    def _chain(self, x: Tensor) -> Chain | None:
        """The net as a chain of hand-derived layers, where it can be one (on the CPU, where that is faster)."""
        shape = tuple(x.shape[1:])
        if shape not in self._chains:
            plain = self.device.type == "cpu" and not self._reduced
            self._chains[shape] = Chain.of(self._net, shape) if plain else None
        return self._chains[shape]

    def grad(self, theta: Tensor, batch: Batch, term: Term | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        self._bind(theta)
        if term is None and (chain := self._chain(batch.x)):
            g = torch.empty_like(theta)
            loss = chain.gradient(self._parts, list(self.layout.split(g).values()), batch.x, batch.y)
            return g, {"loss": loss}
        return self._autograd(theta, batch, term)

    def _autograd(self, theta: Tensor, batch: Batch, term: Term | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """`grad` by autograd."""
        total, loss = self.losses(self._bind(theta), theta, batch, term)
        parts = torch.autograd.grad(total, self._parameters)
        return torch.cat([part.reshape(-1) for part in parts]), {"loss": loss.detach()}

    def head_grad(self, theta: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return head_gradient(self.head, theta, batch)

    def represent(self, theta: Tensor, x: Tensor) -> Tensor:
        nobody = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return self.outputs(partial(self.logits, theta), theta, Batch(x, nobody)).features

    def flops(self, x: Tensor) -> int:
        """Floating point operations of `grad` for one example like those of x [B, *shape]; counted once per shape.

        Those of autograd, whichever way it is computed here: the same number on every device.
        """
        shape = tuple(x.shape[1:])
        if shape not in self._flops:
            theta = torch.zeros(sum(self.layout.sizes), dtype=self._parameters[0].dtype, device=self.device)
            one = Batch(x[:1], torch.zeros(1, dtype=torch.int64, device=self.device))
            self._flops[shape] = flops.counted(lambda: self._autograd(theta, one))
        return self._flops[shape]

    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        """Logits [B, classes] of x [B, *shape], differentiable in theta any number of times, in theta's precision."""
        logits = torch.func.functional_call(self._in(theta.dtype), self.layout.split(theta), (_as(x, theta.dtype),))
        return logits.to(theta.dtype)

    def mean_loss(self, theta: Tensor, batch: Batch) -> Tensor:
        """Mean loss [] of a batch, in nats, under batch.weight where there is one; differentiable like `logits`."""
        return self.losses(partial(self.logits, theta), theta, batch)[1]

    def losses(self, net: Net, theta: Tensor, batch: Batch, term: Term | None = None) -> tuple[Tensor, Tensor]:
        """Mean loss plus `term`, and mean loss, both [], of a `net` with parameters theta, in theta's precision."""
        if term is None:
            with self.autocast():
                logits = net(batch.x)
            loss = _mean_loss(logits.to(theta.dtype), batch)
            return loss, loss
        outputs = self.outputs(net, theta, batch)
        loss = _mean_loss(outputs.logits, batch)
        return loss + term(outputs), loss

    def outputs(self, net: Net, theta: Tensor, batch: Batch) -> Outputs:
        """What a `net` with parameters theta makes of a batch, in theta's precision."""
        read: list[Tensor] = []
        head = self._in(theta.dtype).get_submodule(self._last())
        handle = head.register_forward_pre_hook(lambda module, given: read.append(given[0]))
        try:
            with self.autocast():
                logits = net(batch.x)
        finally:
            handle.remove()
        return Outputs(read[-1].to(theta.dtype), logits.to(theta.dtype), batch.weights(theta))

    @torch.no_grad()
    def features(self, theta: Tensor, batch: Batch) -> Tensor:
        return self.outputs(self._bind(theta), theta, batch).features

    def _in(self, dtype: torch.dtype) -> nn.Module:
        """The net, or a copy whose tensors outside theta (`Frozen`) have another precision."""
        if dtype == self._parameters[0].dtype:
            return self._net
        if dtype not in self._copies:
            self._copies[dtype] = copy.deepcopy(self._net).to(dtype)
        return self._copies[dtype]

    def autocast(self) -> contextlib.AbstractContextManager:
        """Reduced precision where it was asked for; without the cache of casts, which a CUDA graph would outlive."""
        if not self._reduced:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    def functional(self) -> Task:
        return _Functional(self)

    @torch.no_grad()
    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        """Logits [B, classes] of x [B, *shape] as `scores` judges them, without a graph; NaN of a diverged model."""
        net = self._bind(theta)
        chain = self._chain(x)
        return _finite(theta, chain(self._parts, x) if chain else net(x))

    def scores(self, theta: Tensor, batches) -> dict[str, Tensor]:
        losses, right = [], []
        for x, y, _ in batches:
            logits = self.forward(theta, x)
            losses.append(functional.cross_entropy(logits, y, reduction="none"))
            right.append(hits(logits, y))
        empty = [theta.new_zeros(0)]
        accuracy = torch.cat(right or empty)
        accuracy = torch.where(accuracy.isfinite().all(), accuracy, torch.nan)
        return {"loss": torch.cat(losses or empty), "accuracy": accuracy}

    @torch.no_grad()
    def scores_many(self, thetas: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`scores` of clients with models of their own, in one call: thetas [n, P]; x [n, B, *shape], y [n, B].

        Score name -> float [n, B]; equal to one call per client but for rounding.
        """
        from torch.func import functional_call, vmap

        logits = vmap(lambda theta, own: functional_call(self._net, self.layout.split(theta), (own,)))(thetas, batch.x)
        logits = _finite(thetas, logits)
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.y.flatten(), reduction="none")
        return {"loss": loss.view(batch.y.shape), "accuracy": hits(logits, batch.y)}


class _Functional:
    """A `Classification` whose gradient binds nothing to the net and writes nothing in place."""

    def __init__(self, task: Classification):
        self._task = task

    def __getattr__(self, name: str):
        return getattr(self._task, name)

    def grad(self, theta: Tensor, batch: Batch, term: Term | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        def losses(theta: Tensor) -> tuple[Tensor, Tensor]:
            return self._task.losses(partial(self._task.logits, theta), theta, batch, term)

        g, loss = torch.func.grad(losses, has_aux=True)(theta)
        return g, {"loss": loss}

    @torch.no_grad()
    def features(self, theta: Tensor, batch: Batch) -> Tensor:
        return self._task.outputs(partial(self._task.logits, theta), theta, batch).features
