"""Character LSTM or GRU: embedding, recurrent layers, and the logits of the character after the sequence.

embedding = 8, layers = 2, units = 256 with an LSTM is the Shakespeare model of McMahan et al. (AISTATS 2017, section
3), LEAF (Caldas et al. 2018) and Reddi et al. (ICLR 2021): 820,522 parameters with 90 characters. Weights start as in
the code of the latter: inputs He normal, recurrence orthogonal, biases zero but the forget gate's, which is one.
Deviation: as in LEAF, only the character after the sequence is predicted, not that after each position.

    LSTM  i, f, o = sigmoid(.), g = tanh(.) of W x + R h + b;  c' = f c + i g;  h' = o tanh(c')
    GRU   r, z = sigmoid(W x + b + R h + d);  n = tanh(W x + b + r (R h + d));  h' = n + z (h - n)

The GRU is that of cuDNN, torch and Keras (the reset gate is applied after the recurrent product).

Torch's fused layers compute it, except under torch.func, whose vmap does not know them: there it is written out. The
two agree to rounding. Written out a gradient takes 1.3 to 9 times as long (one core of a CPU, sequences of 80).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from heterobench.config.numbers import Count, Few
from heterobench.config.strict import Strict

KINDS = ("tokens",)


class Options(Strict):
    cell: Literal["lstm", "gru"] = "lstm"
    embedding: Count = Field(8, description="numbers that stand for a character")
    layers: Few = Field(2, description="recurrent layers, each reading the one before")
    units: Count = Field(256, description="of every recurrent layer")


def problem(shape, options):
    return None if len(shape) == 1 else "needs sequences of tokens"


def make(shape, classes, options):
    import torch
    from torch import nn

    transformed = torch._C._functorch.is_functorch_wrapped_tensor
    units = options.units

    class Layer(nn.Module):
        """Inputs [B, T, in] -> states [B, T, units]."""

        gates: int

        def __init__(self, inputs: int):
            super().__init__()
            self.inputs = nn.Parameter(torch.empty(self.gates * units, inputs))
            self.recurrent = nn.Parameter(torch.empty(self.gates * units, units))
            self.bias = nn.Parameter(torch.zeros(self.gates * units))
            nn.init.kaiming_normal_(self.inputs, nonlinearity="relu")
            nn.init.orthogonal_(self.recurrent)

        def forward(self, x):
            # some CPUs have no fused bfloat16 cell, which they tell by an error
            reduced = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
            if transformed(x) or transformed(self.inputs) or reduced:
                drive = nn.functional.linear(x, self.inputs, self.bias)
                return torch.stack(self.steps(drive, torch.zeros_like(drive[:, 0, :units])), 1)
            return self.fused(x, x.new_zeros(1, len(x), units))

    class LSTM(Layer):
        gates = 4  # i, f, g, o

        def __init__(self, inputs: int):
            super().__init__(inputs)
            nn.init.ones_(self.bias[units : 2 * units])

        def fused(self, x, zero):
            weights = [self.inputs, self.recurrent, self.bias, torch.zeros_like(self.bias)]
            return torch.lstm(x, (zero, zero), weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)[0]

        def steps(self, drive, h):
            states, c = [], h
            for own in drive.unbind(1):
                i, f, g, o = (own + h @ self.recurrent.t()).chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
                states.append(h)
            return states

    class GRU(Layer):
        gates = 3  # r, z, n

        def __init__(self, inputs: int):
            super().__init__(inputs)
            self.recurrent_bias = nn.Parameter(torch.zeros(3 * units))

        def fused(self, x, zero):
            weights = [self.inputs, self.recurrent, self.bias, self.recurrent_bias]
            return torch.gru(x, zero, weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)[0]

        def steps(self, drive, h):
            states, two = [], 2 * units
            for own in drive.unbind(1):
                back = h @ self.recurrent.t() + self.recurrent_bias
                r, z = (own[:, :two] + back[:, :two]).sigmoid().chunk(2, 1)
                n = (own[:, two:] + r * back[:, two:]).tanh()
                h = n + z * (h - n)
                states.append(h)
            return states

    class CharRNN(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Parameter(torch.empty(classes, options.embedding).uniform_(-0.05, 0.05))
            cell = {"lstm": LSTM, "gru": GRU}[options.cell]
            widths = [options.embedding] + [units] * (options.layers - 1)
            self.layers = nn.Sequential(*[cell(width) for width in widths])
            self.head = nn.Linear(units, classes)
            nn.init.xavier_uniform_(self.head.weight)
            nn.init.zeros_(self.head.bias)

        def forward(self, x):
            return self.head(self.layers(nn.functional.embedding(x.long(), self.embedding))[:, -1])

    return CharRNN()
