"""Disparity as information: what predictions tell about the group, over all clients and within them.

A joint table is float or int [clients, groups, predictions] >= 0, counts or probabilities (it is divided by its sum):
the client S, the sensitive group Z and the prediction. All results are in bits. Global disparity is I(Z; prediction),
local disparity I(Z; prediction | S), a mean over clients that a small unfair client hardly moves.
Source: Hamman and Dutta, "Demystifying Local and Global Fairness Trade-offs in Federated Learning Using Partial
Information Decomposition", ICLR 2024, arXiv 2307.11333.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ACCURACY = 1e-9  # nats: how far the minimum that the decomposition needs may be missed
NEWTON_STEPS = 200  # of one barrier; tables of clients need about ten


class Decomposition(NamedTuple):
    """The parts of global and local disparity, in bits.

    `global_` = unique + redundant, `local` = unique + masked: `unique` what the prediction tells of the group whatever
    the client, `redundant` what the client tells of it as well, `masked` what shows only within clients (synergy).
    """

    global_: float
    local: float
    unique: float
    redundant: float
    masked: float


def probabilities(joint: np.ndarray) -> np.ndarray:
    """`joint` divided by its sum, float64; ValueError unless it is a table of three axes with a positive sum."""
    joint = np.asarray(joint, dtype=np.float64)
    if joint.ndim != 3 or not joint.size:
        raise ValueError(f"joint: shape {joint.shape}, must be [clients, groups, predictions]")
    if not np.isfinite(joint).all() or joint.min() < 0 or joint.sum() <= 0:
        raise ValueError("joint: must be finite and at least 0, with a positive sum")
    return joint / joint.sum()


def _negative_entropy(p: np.ndarray) -> float:
    """sum p log2 p, with 0 log 0 = 0."""
    p = p[p > 0]
    return float((p * np.log2(p)).sum())


def global_disparity(joint: np.ndarray) -> float:
    """I(Z; prediction), in bits, of a table [clients, groups, predictions]."""
    p = probabilities(joint).sum(axis=0)
    return _negative_entropy(p) - _negative_entropy(p.sum(axis=1)) - _negative_entropy(p.sum(axis=0))


def local_disparity(joint: np.ndarray) -> float:
    """I(Z; prediction | S), in bits, of a table [clients, groups, predictions]."""
    p = probabilities(joint)
    margins = _negative_entropy(p.sum(axis=2)) + _negative_entropy(p.sum(axis=1))
    return _negative_entropy(p) + _negative_entropy(p.sum(axis=(1, 2))) - margins


def parity_differences(joint: np.ndarray) -> tuple[float, np.ndarray]:
    """P(1 | Z = 1) - P(1 | Z = 0) of a table [clients, 2, 2]: over all clients, and in each float64 [clients].

    NaN where a group has no members.
    """
    p = probabilities(joint)
    if p.shape[1:] != (2, 2):
        raise ValueError(f"joint: shape {p.shape}, must be [clients, 2, 2]")
    tables = np.concatenate([p.sum(axis=0)[None], p])
    members = tables.sum(axis=2)
    rates = np.divide(tables[:, :, 1], members, out=np.full(members.shape, np.nan), where=members > 0)
    difference = rates[:, 1] - rates[:, 0]
    return float(difference[0]), difference[1:]


def decompose(joint: np.ndarray) -> Decomposition:
    """Unique, redundant and masked disparity of a table [clients, groups, predictions], in bits.

    Unique information after Bertschinger, Rauh, Olbrich, Jost and Ay (Entropy 16 (2014), 2161): the least
    I_Q(Z; prediction | S) over all tables Q with the margins (Z, prediction) and (Z, S) of the given one. The parts
    are accurate to about 1e-8 bits, so one that is zero may come out that much below it.
    """
    p = probabilities(joint)
    unique = _least_conditional_information(p)
    global_, local = global_disparity(p), local_disparity(p)
    return Decomposition(global_, local, unique, global_ - unique, local - unique)


def _least_conditional_information(p: np.ndarray) -> float:
    """Minimum of I_Q(Z; prediction | S), in bits, over Q with the margins (Z, prediction) and (Z, S) of `p`.

    With the margin (Z, S) fixed this minimises sum q ln(q / m), m the margin (S, prediction) of q: convex. Newton's
    method on a logarithmic barrier; at weight `barrier` its minimum is at most (cells * barrier) from the true one
    (Boyd and Vandenberghe, Convex Optimization, section 11.2.2).
    """
    with_prediction, with_client = p.sum(axis=0), p.sum(axis=2).T  # [Z, prediction], [Z, S]
    in_group = p.sum(axis=(0, 2))
    product = np.divide(
        with_prediction[:, :, None] * with_client[:, None, :],
        in_group[:, None, None],
        out=np.zeros((*with_prediction.shape, len(p))),
        where=in_group[:, None, None] > 0,
    )
    # a margin of zero forces its cells to zero; in all others the product is positive, hence strictly feasible
    z, prediction, s = np.nonzero(product)
    q = product[z, prediction, s]
    together = (prediction[:, None] == prediction) & (s[:, None] == s)
    margins = _independent_margins(z, prediction, s)
    targets = margins @ q
    barrier = 0.1
    while True:
        q = _centred(q, together, margins, targets, barrier)
        if len(q) * barrier < ACCURACY:
            break
        barrier /= 10
    least = float((q * np.log2(q / (together @ q))).sum())
    return least - (_negative_entropy(with_client) - _negative_entropy(with_client.sum(axis=0)))


def _independent_margins(z: np.ndarray, prediction: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Rows of 0 and 1 that sum the cells of each margin (z, prediction) and (z, s), less one of the latter per z.

    Within a z both kinds sum to the same, so one row follows from the others.
    """
    rows = []
    for value in np.unique(z):
        inside = z == value
        rows += [inside & (prediction == each) for each in np.unique(prediction[inside])]
        rows += [inside & (s == each) for each in np.unique(s[inside])[1:]]
    return np.array(rows, dtype=np.float64)


def _centred(
    q: np.ndarray, together: np.ndarray, margins: np.ndarray, targets: np.ndarray, barrier: float
) -> np.ndarray:
    """The q > 0 with margins @ q = targets that minimises sum q ln(q / m) - barrier sum ln q, from a feasible one."""

    def value(x: np.ndarray) -> float:
        return float((x * np.log(x / (together @ x))).sum() - barrier * np.log(x).sum())

    cells, rows = len(q), len(margins)
    for _ in range(NEWTON_STEPS):
        m = together @ q
        # in units of q itself: steps d = q * x keep the system well scaled where cells go to zero
        gradient = q * np.log(q / m) - barrier
        hessian = np.diag(q + barrier) - together * np.outer(q, q) / m
        scaled = margins * q
        system = np.block([[hessian, scaled.T], [scaled, np.zeros((rows, rows))]])
        step = np.linalg.solve(system, np.concatenate([-gradient, targets - margins @ q]))[:cells]
        decrement = -float(gradient @ step)
        if decrement < ACCURACY / 100:
            return q
        length = min(1.0, 0.99 / max(1e-300, -step.min()))
        while value(q * (1 + length * step)) > value(q) - 0.1 * length * decrement and length > 1e-12:
            length /= 2
        q = q * (1 + length * step)
    raise RuntimeError(f"the decomposition did not converge in {NEWTON_STEPS} steps at barrier {barrier:g}")
