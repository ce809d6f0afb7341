"""What is easy first, and more of it as time goes on: of a client's examples, or of the clients.

Sources: the pacing families of Wu, Dyer, Neyshabur (ICLR 2021, arXiv 2012.03107), in the form of the authors' code of
Vahidian et al. (ICCV 2023, arXiv 2212.12712).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

GROWTH = {
    "linear": lambda u: u,
    "quadratic": lambda u: u**2,
    "root": lambda u: u**0.5,
    "step": math.floor,
    "exponential": lambda u: math.expm1(10 * u) / math.expm1(10),
    "logarithmic": lambda u: 1 + 0.1 * math.log(u + math.exp(-10)),
}
"""Pacing family -> share of those beyond b N that is reached at u = s/(a T), u in [0, 1]."""


def pace(hp: Any, step: int, steps: int, count: int) -> int:
    """How many of `count` are reached in a step of `steps`: from the share hp.b, and all after the share hp.a."""
    first = hp.b * count
    share = GROWTH[hp.pacing](min(1.0, step / (hp.a * steps)))
    return int(min(max(first + (count - first) * share, 1), count))


def ordered(hp: Any, losses: np.ndarray) -> np.ndarray:
    """From easy to hard, for hp.order "anti" reversed: numbers of the `losses` [N]; equal ones in their own order."""
    order = np.argsort(losses, kind="stable")
    return order[::-1] if hp.order == "anti" else order
