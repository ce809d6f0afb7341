"""Floating point operations of a computation in torch, counted from the shapes of what it multiplies.

Counted are matrix products, convolutions and attention, an addition and a multiplication as two operations; what is
done element by element is not, as is usual. A linear layer costs 2 b in out forward, as much again for the gradient of
its weight, and as much for that of its input where one is needed: the first layer needs none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from torch import backends
from torch.utils._python_dispatch import TorchDispatchMode


class _Counter(TorchDispatchMode):
    """torch.utils.flop_counter.FlopCounterMode without its table by module, and without torch's compiler.

    The formulas are torch's. Entering its own mode imports the compiler, which takes some seconds.
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry

        super().__init__()
        self.total, self._formulas = 0, flop_registry

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if formula := self._formulas.get(func._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


@contextlib.contextmanager
def _unfused():
    """Recurrent layers as the products that they are made of: the fused ones have no formula."""
    libraries = (backends.mkldnn, backends.cudnn)
    before = [library.enabled for library in libraries]
    try:
        for library in libraries:
            library.enabled = False
        yield
    finally:
        for library, enabled in zip(libraries, before, strict=True):
            library.enabled = enabled


def counted(call: Callable[[], Any]) -> int:
    """Operations of what `call` does."""
    with _unfused(), _Counter() as counter:
        call()
    return int(counter.total)
