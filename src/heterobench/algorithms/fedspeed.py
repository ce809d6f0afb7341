"""FedSpeed: FedDyn's correction of the proximal term, with gradients taken after a step uphill.

Sun, Shen, Huang, Ding, Tao, "FedSpeed: Larger Local Interval, Less Communication Round, and Higher Generalization
Accuracy", ICLR 2023, arXiv 2302.10429, in the variables of the authors' code, where prox-correction term and proximal
term are FedDyn's (see feddyn): h_i = -(the paper's g^_i)/alpha.

Symbols: alpha = 1/lambda of the paper (not its alpha, which is `merge` here); g1 = grad f_i(y), g2 = grad f_i(y + e) on
the same batch; e = rho g1/(||g1|| + 1e-7), one norm over all parameters (the code: rho is a length), or e = rho g1
(the paper: rho is a step size); direction (1 - merge) g1 + merge g2 + alpha (y - x + h_i).
Code and paper differ under partial participation: to the mean of the cohort's y_i the code adds the mean over ALL N
clients of h_i, the paper the mean over the cohort. The code's form is followed; it evaluates x.
Deviation: the code's clipping of gradients to norm 10 and its relaxed initialisation are not used. Local momentum is
refused, as in feddyn. The reported loss is f_i at y, before the step uphill.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from heterobench.algorithm import Algorithm
from heterobench.algorithms import fedavg, feddyn
from heterobench.config.numbers import NonNegative, Share


class HyperParameters(feddyn.HyperParameters):
    alpha: NonNegative = Field(0.1, description="strength of the proximal term, 1/lambda")
    rho: NonNegative = Field(0.1, description="length (normalised) or step size (plain) of the step uphill")
    merge: Share = Field(1.0, description="share of the gradient that is taken after the step uphill")
    ascent: Literal["normalised", "plain"] = Field("normalised", description="is the step uphill of length rho?")


EXCEPTIONS = feddyn.EXCEPTIONS


def uphill(hp: HyperParameters, g):
    """The step e [P] along the gradient `g` [P]."""
    return hp.rho * g / (g.norm() + 1e-7) if hp.ascent == "normalised" else hp.rho * g


def make(hp: HyperParameters) -> Algorithm:
    base, plain = feddyn.make(hp), fedavg.make(hp)

    def grad(work, batch, task):
        theta = work["theta"]
        here, aux = plain.grad(work, batch, task)
        above, _ = task.grad(theta + uphill(hp, here), batch)  # a new vector: y itself is not touched
        g = (1 - hp.merge) * here + hp.merge * above
        return g + hp.alpha * (theta - work["target"]), aux

    return replace(base, grad=grad, model=lambda server: server["theta"])
