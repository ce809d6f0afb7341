"""AdamW as the local optimiser of methods that are made for it, with SGD as the other choice.

Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv 1711.05101, Algorithm 2, as in torch:
epsilon is added to the square root of the bias-corrected second moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from heterobench.algorithm import State, Step
from heterobench.algorithms import fedavg
from heterobench.config.numbers import Decay, Positive

if TYPE_CHECKING:
    from torch import Tensor

MOMENTS = ("m", "v", "count")
"""First and second moment [P], and the number of steps that they have seen []."""


class LocalAdamW(fedavg.HyperParameters):
    optimiser: Literal["sgd", "adamw"] = Field("sgd", description="local optimiser")
    beta1: Decay = Field(0.9, description="decay of AdamW's first moment")
    beta2: Decay = Field(0.999, description="decay of AdamW's second moment")
    epsilon: Positive = Field(1e-8, description="added to the square root of AdamW's second moment")

    @model_validator(mode="after")
    def _one_momentum(self):
        if self.optimiser == "adamw" and self.momentum:
            raise ValueError("momentum belongs to optimiser: sgd; AdamW's is beta1")
        return self

    def begin(self, theta: Tensor) -> State:
        work = super().begin(theta)
        if self.optimiser == "adamw":
            zero = theta.new_zeros(theta.shape)
            work |= {"m": zero, "v": zero.clone(), "count": theta.new_zeros(())}
        return work

    def step(self, work: State, g: Tensor, step: Step) -> State:
        return self.adamw(work, g, step.lr) if self.optimiser == "adamw" else super().step(work, g, step)

    def adamw(self, work: State, g: Tensor, lr: float | Tensor) -> State:
        """theta <- (1 - lr lambda) theta - lr m^ / (sqrt(v^) + epsilon). In place: the working state is ours."""
        count = work["count"].add_(1)
        m = work["m"].mul_(self.beta1).add_((1 - self.beta1) * g)
        v = work["v"].mul_(self.beta2).add_((1 - self.beta2) * g * g)
        m, v = m / (1 - self.beta1**count), v / (1 - self.beta2**count)
        theta = work["theta"]
        theta.sub_(lr * (self.weight_decay * theta + m / (v.sqrt() + self.epsilon)))
        return work
