"""The local optimiser that all methods share: SGD with optional heavy-ball momentum and weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from heterobench.algorithm import State, Step
from heterobench.config.numbers import Decay, NonNegative, Positive, PositiveShare
from heterobench.config.strict import Strict

if TYPE_CHECKING:
    from torch import Tensor


class LocalSGD(Strict):
    """eta_l in round t is ``lr * lr_decay**t``; momentum starts at zero in every round (clients are stateless)."""

    lr: Positive = Field(0.1, description="local step size eta_l")
    lr_decay: PositiveShare = Field(1.0, description="factor on the step size after each round")
    momentum: Decay = Field(0.0, description="rho of the local heavy-ball momentum")
    weight_decay: NonNegative = Field(0.0, description="lambda of lambda/2 ||theta||^2, added to the gradient")

    def rate(self, round: int) -> float:
        return self.lr * self.lr_decay**round

    def begin(self, theta: Tensor) -> State:
        """Working state: a copy of `theta` [P], and a zero momentum buffer [P] where there is momentum."""
        work = {"theta": theta.clone()}
        if self.momentum:
            work["momentum"] = theta.new_zeros(theta.shape)
        return work

    def step(self, work: State, g: Tensor, step: Step) -> State:
        """v <- rho v + (g + lambda theta); theta <- theta - eta_l v. In place: the working state is ours."""
        if self.weight_decay:
            g = g + self.weight_decay * work["theta"]
        if self.momentum:
            g = work["momentum"].mul_(self.momentum).add_(g)
        work["theta"].sub_(g, alpha=step.lr)
        return work
