"""The gradient of a chain of simple layers, derived by hand.

On small nets most of a training step in eager torch is not arithmetic: recording the graph, walking it back, a
max-pooling that costs as much as the convolution before it, and a first convolution of grey images at a tenth of the
speed of a matrix product. For a chain of Linear, Conv2d, ReLU, 2x2 MaxPool2d and Flatten under cross-entropy the
reverse pass is short enough to write down. It calls the same kernels as autograd where they are the fast ones, so
that the two agree to rounding; nets of other layers keep autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

aten = torch.ops.aten


class _Linear:
    """y = x W^T + b, with x [B, in], W [out, in]."""

    def __init__(self, layer: nn.Linear):
        self.parameters = 1 if layer.bias is None else 2

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None):
        return (x @ w.t() if b is None else torch.addmm(b, x, w.t())), x

    def backward(self, g: Tensor, x: Tensor, parameters, gradients, needed: bool) -> Tensor | None:
        torch.mm(g.t(), x, out=gradients[0])
        if self.parameters == 2:
            torch.sum(g, 0, out=gradients[1])
        return g @ parameters[0] if needed else None


class _Conv:
    def __init__(self, layer: nn.Conv2d):
        self.parameters = 1 if layer.bias is None else 2
        self.shape = (list(layer.stride), list(layer.padding), list(layer.dilation), False, [0, 0], layer.groups)

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None):
        return aten.convolution(x, w, b, *self.shape), x

    def backward(self, g: Tensor, x: Tensor, parameters, gradients, needed: bool) -> Tensor | None:
        bias = [len(g[0])] if self.parameters == 2 else None
        mask = [needed, True, self.parameters == 2]
        gx, *found = aten.convolution_backward(g, x, parameters[0], bias, *self.shape, mask)
        for gradient, value in zip(gradients, found, strict=False):
            gradient.copy_(value)
        return gx


def _at_least(first: Tensor, second: Tensor) -> Tensor:
    """1 where `first` is at least `second`, else 0, as numbers: booleans are four times as slow to multiply with.

    Of equal values in a window the first one counts, as in torch.
    """
    return torch.ge(first, second, out=first.new_empty(first.shape))


class _GreyPooledConv:
    """A convolution of stride 1 on one channel and the 2x2 max-pooling behind it, as matrix products.

    The four outputs that are pooled together see overlapping windows. They are one window, larger by one row and
    column, under four kernels, the original one in each corner: a third of the windows' numbers for a few more
    products with 0. The batch is last inside, so that windows are copied in runs of B numbers.
    """

    def __init__(self, layer: nn.Conv2d):
        self.parameters = 1 if layer.bias is None else 2
        self.kernel, self.padding = layer.kernel_size, layer.padding

    def _corners(self, kernels: Tensor) -> list[Tensor]:
        """Of kernels [4, out, kh + 1, kw + 1] where each has the original one: the corners in the pooling's order."""
        kh, kw = self.kernel
        return [kernels[2 * i + j, :, i : i + kh, j : j + kw] for i in (0, 1) for j in (0, 1)]

    def _windows(self, x: Tensor) -> tuple[Tensor, int, int]:
        """The windows [(kh + 1) (kw + 1), h w B] of x [B, 1, H, W], each two pixels after the last; and h, w."""
        vertical, horizontal = self.padding
        x = functional.pad(x[:, 0], (horizontal, horizontal, vertical, vertical)).permute(1, 2, 0).contiguous()
        (height, width, examples), kh, kw = x.shape, self.kernel[0] + 1, self.kernel[1] + 1
        h, w = (height - kh) // 2 + 1, (width - kw) // 2 + 1
        row, column, _ = x.stride()
        view = x.as_strided((kh, kw, h, w, examples), (row, column, 2 * row, 2 * column, 1))
        return view.reshape(kh * kw, -1), h, w

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None):
        windows, height, width = self._windows(x)
        kernels = w.new_zeros(4, len(w), self.kernel[0] + 1, self.kernel[1] + 1)
        for corner in self._corners(kernels):
            corner.copy_(w[:, 0])
        four = (kernels.view(4 * len(w), -1) @ windows).view(4, len(w), -1)
        upper, lower = torch.maximum(four[0], four[1]), torch.maximum(four[2], four[3])
        y = torch.maximum(upper, lower)
        if b is not None:
            y += b[:, None]
        y = y.view(len(w), height, width, -1).permute(3, 0, 1, 2).contiguous()
        return y, (windows, kernels.shape, four, upper, lower)

    def backward(self, g: Tensor, saved, parameters, gradients, needed: bool) -> None:
        windows, kernels, four, upper, lower = saved
        g = g.permute(1, 2, 3, 0).reshape(upper.shape)
        if self.parameters == 2:
            torch.sum(g, 1, out=gradients[1])
        by_output = torch.empty_like(four)
        above = _at_least(upper, lower).mul_(g)
        for half, part in ((above, 0), (g - above, 2)):
            torch.mul(half, _at_least(four[part], four[part + 1]), out=by_output[part])
            torch.sub(half, by_output[part], out=by_output[part + 1])
        found = (by_output.flatten(0, 1) @ windows.t()).view(kernels)
        torch.sum(torch.stack(self._corners(found)), 0, keepdim=True, out=gradients[0].transpose(0, 1))


class _ReLU:
    parameters = 0

    def forward(self, x: Tensor):
        y = x.relu_()  # x is the fresh output of the layer before
        return y, y

    def backward(self, g: Tensor, y: Tensor, parameters, gradients, needed: bool) -> Tensor:
        return aten.threshold_backward(g, y, 0)


class _MaxPool:
    """2x2 windows as two steps of pairwise maxima; of equal values the first of the window counts, as in torch."""

    parameters = 0

    def forward(self, x: Tensor):
        b, c, h, w = x.shape
        window = x.view(b, c, h // 2, 2, w // 2, 2)
        rows = torch.maximum(window[..., 0], window[..., 1])
        return torch.maximum(rows[:, :, :, 0], rows[:, :, :, 1]), (window, rows)

    def backward(self, g: Tensor, saved, parameters, gradients, needed: bool) -> Tensor:
        window, rows = saved
        upper = rows[:, :, :, 0] >= rows[:, :, :, 1]
        by_row = torch.empty_like(rows)
        torch.mul(g, upper, out=by_row[:, :, :, 0])
        torch.mul(g, ~upper, out=by_row[:, :, :, 1])
        left = window[..., 0] >= window[..., 1]
        result = torch.empty_like(window)
        torch.mul(by_row, left, out=result[..., 0])
        torch.mul(by_row, ~left, out=result[..., 1])
        b, c, h, _, w, _ = window.shape
        return result.view(b, c, 2 * h, 2 * w)


class _Flatten:
    parameters = 0

    def forward(self, x: Tensor):
        return x.flatten(1), x.shape

    def backward(self, g: Tensor, shape, parameters, gradients, needed: bool) -> Tensor:
        return g.view(shape)


def _layer(layer: nn.Module) -> Any:
    """The hand-written form of a layer, or None."""
    if isinstance(layer, nn.Linear):
        return _Linear(layer)
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return _Conv(layer)
    if isinstance(layer, nn.MaxPool2d):
        plain = layer.kernel_size == 2 and layer.stride == 2 and layer.padding == 0 and layer.dilation == 1
        return _MaxPool() if plain else None
    if isinstance(layer, nn.ReLU):
        return _ReLU()
    return _Flatten() if isinstance(layer, nn.Flatten) else None


def _joined(net: nn.Sequential, layers: Sequence[Any]) -> list[Any]:
    """The layers, with a first convolution of one channel and the pooling behind it as one."""
    if len(layers) > 1 and isinstance(layers[0], _Conv) and isinstance(layers[1], _MaxPool):
        first = net[0]
        if first.in_channels == 1 and first.stride == first.dilation == (1, 1):
            return [_GreyPooledConv(first), *layers[2:]]
    return list(layers)


class Chain:
    """A net as a chain of hand-derived layers."""

    def __init__(self, layers: Sequence[Any]):
        self.layers = layers

    @classmethod
    def of(cls, net: nn.Module, shape: tuple[int, ...]) -> Chain | None:
        """The chain that computes `net` on inputs of `shape`, or None where it cannot be one.

        A ReLU works in place, so it has to follow a layer that makes a new tensor; pooling needs even sides.
        """
        if not isinstance(net, nn.Sequential):
            return None
        layers = [_layer(layer) for layer in net]
        if any(layer is None for layer in layers):
            return None
        for before, layer in zip([None, *layers], layers, strict=False):
            if isinstance(layer, _ReLU) and not isinstance(before, _Linear | _Conv | _MaxPool):
                return None
        with torch.no_grad():
            x = next(net.parameters()).new_zeros(1, *shape)
            for layer in net:
                if isinstance(layer, nn.MaxPool2d) and (x.shape[-1] % 2 or x.shape[-2] % 2):
                    return None
                x = layer(x)
        return cls(_joined(net, layers))

    def _forward(self, parameters: Sequence[Tensor], x: Tensor):
        saved, first = [], 0
        for layer in self.layers:
            own = parameters[first : first + layer.parameters]
            x, kept = layer.forward(x, *own)
            saved.append((layer, kept, first))
            first += layer.parameters
        return x, saved

    @torch.no_grad()
    def __call__(self, parameters: Sequence[Tensor], x: Tensor) -> Tensor:
        """Logits [B, classes] of inputs x [B, *shape]."""
        return self._forward(parameters, x)[0]

    @torch.no_grad()
    def gradient(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Write the gradients of the mean cross-entropy into `gradients`; returns that loss [].

        `parameters` and `gradients` are tensors of the layers' shapes, in the net's order (views of theta and g).
        """
        logits, saved = self._forward(parameters, x)
        logs = torch.log_softmax(logits, 1)
        loss, weight = aten.nll_loss_forward(logs, y, None, 1, -100)
        g = aten.nll_loss_backward(torch.ones_like(loss), logs, y, None, 1, -100, weight)
        g = aten._log_softmax_backward_data(g, logs, 1, logs.dtype)
        lowest = next(i for i, layer in enumerate(self.layers) if layer.parameters)
        for position in range(len(saved) - 1, lowest - 1, -1):
            layer, kept, first = saved[position]
            own = slice(first, first + layer.parameters)
            g = layer.backward(g, kept, parameters[own], gradients[own], position > lowest)
        return loss
