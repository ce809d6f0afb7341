"""The part of a net that is never trained, sent or saved."""

from __future__ import annotations

from torch import Tensor, nn


class Frozen(nn.Module):
    """A module as a fixed function: its parameters and buffers are not those of the net around it.

    So theta, messages and saved models hold what is trained and nothing else. What is fixed moves with the net
    (``net.to(device)``, ``net.double()``), stays in evaluation mode, is the same tensor for all clients of a stacked
    executor, and is in the memory that worker processes share.
    """

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.__dict__["inner"] = inner.eval().requires_grad_(False)  # an assignment would make it a part of the net

    def _apply(self, fn, recurse: bool = True) -> Frozen:  # what moves and converts a module's tensors
        self.inner._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)
