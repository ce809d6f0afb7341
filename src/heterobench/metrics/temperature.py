"""Temperature scaling: one number that makes a classifier's probabilities less (or more) sharp.

Fit on validation examples: never on the test set, and not on the training set, whose loss a fitted network has driven
towards zero. With federated clients one temperature may be fitted on the pooled validation examples, or one for each
client; a report says which.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from heterobench.metrics.calibration import checked, log_softmax

BOUNDS = (-3.0, 3.0)  # of ln T


class Temperature(NamedTuple):
    """A fitted temperature: `value` T > 0; `bounded` where the loss still falls at the end of the interval.

    `before` and `after` are the negative log likelihoods, in nats, at T = 1 and at T on the examples of the fit.
    """

    value: float
    bounded: bool
    before: float
    after: float


def scaled_probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(`logits` [n, C] / `temperature`), float64 [n, C]; ValueError unless the temperature is positive."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: {temperature}, must be positive and finite")
    return np.exp(log_softmax(np.asarray(logits, dtype=np.float64) / temperature))


def fit_temperature(logits: np.ndarray, labels: np.ndarray, bounds: tuple[float, float] = BOUNDS) -> Temperature:
    """T that minimises the negative log likelihood of softmax(`logits` [n, C] / T) for `labels` int [n].

    The loss is convex in 1 / T; its derivative there, mean(E_p[logit] - logit of the label), only grows with 1 / T, so
    its one zero is bracketed on ln T in `bounds` and found by Brent's method: no start, step or stopping rule to tune.
    Without a zero inside (e.g. every label has the highest logit: T would go to 0) the better end is taken and
    `bounded` says so. Source: Guo et al., arXiv 1706.04599, section 4.2 (they minimise the same loss by descent).
    """
    from scipy.optimize import brentq

    logits, labels = checked(logits, labels, "logits")
    low, high = bounds
    if not low <= 0 <= high or low == high:
        raise ValueError(f"bounds: {bounds}, must hold ln T = 0 between them")
    rows = np.arange(len(labels))
    # differences to the label's logit: shifting an example's logits changes nothing, so large offsets cost no digits
    relative = logits - logits[rows, labels][:, None]

    def slope(log_t: float) -> float:
        return float((scaled_probabilities(relative, math.exp(log_t)) * relative).sum(axis=1).mean())

    def loss(t: float) -> float:
        return float(-log_softmax(relative / t)[rows, labels].mean())

    if not relative.any():  # constant logits: every temperature gives the same probabilities
        return Temperature(1.0, False, loss(1.0), loss(1.0))
    # a higher temperature moves the slope in 1 / T down
    bounded = slope(high) > 0 or slope(low) < 0
    log_t = (high if slope(high) > 0 else low) if bounded else brentq(slope, low, high, xtol=1e-13, rtol=1e-14)
    return Temperature(math.exp(log_t), bounded, loss(1.0), loss(math.exp(log_t)))


def fit_client_temperatures(
    logits: np.ndarray, labels: np.ndarray, sizes: np.ndarray, bounds: tuple[float, float] = BOUNDS
) -> np.ndarray:
    """A temperature for each client, float64 [clients]; NaN for a client without examples.

    `logits` [n, C] and `labels` [n] hold the examples of client 0, then of client 1, ...; `sizes` [clients] how many
    each has. A client with few examples gets a noisy temperature, often at a bound.
    """
    logits, labels = checked(logits, labels, "logits")
    if np.min(sizes) < 0 or np.sum(sizes) != len(labels):
        raise ValueError(f"sizes: sum {np.sum(sizes)}, must be at least 0 each and sum to the {len(labels)} examples")
    ends = np.cumsum(sizes)
    parts = (slice(end - size, end) for size, end in zip(sizes, ends, strict=True))
    return np.array(
        [
            fit_temperature(logits[part], labels[part], bounds).value if part.start < part.stop else math.nan
            for part in parts
        ]
    )
