"""Group fairness of binary predictions: from counts per group, over all clients and within each of them.

The global gaps come from the pooled counts and cannot be had from the gaps of clients: P(prediction = 1 | group) mixes
clients with weights that depend on the group, so gaps of zero in every client may go with any global gap, and the
reverse (Ezzeldin et al., arXiv 2110.00857; Hamman and Dutta, arXiv 2307.11333). Sum counts, never average gaps.

Counts: int [..., groups, 2, 2], the last axes label (0, 1) and prediction (0, 1). All functions work on the leading
axes, none (one table) or [clients]. Rates that nothing defines (no member of the group, no positive among them, ...)
are NaN, never zero, and are counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Gaps(NamedTuple):
    """The largest less the smallest rate over groups, in [0, 1], float [...]; NaN where under two groups have a rate.

    `undefined` int [...]: how many groups had no rate there.
    """

    value: np.ndarray
    undefined: np.ndarray


class Local(NamedTuple):
    """Gaps of clients in short: the weighted mean and the largest over the `defined` clients (NaN for none)."""

    mean: float
    largest: float
    defined: int
    undefined: int


def _codes(values: np.ndarray, name: str, number: int, length: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (length,):
        raise ValueError(f"{name}: shape {values.shape}, must be ({length},)")
    if values.dtype != bool and not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name}: dtype {values.dtype}, must be integers")
    if length and (values.min() < 0 or values.max() >= number):
        raise ValueError(f"{name}: from {values.min()} to {values.max()}, must lie in 0..{number - 1}")
    return values.astype(np.int64)


def cross_counts(columns: dict[str, tuple[np.ndarray, int]]) -> np.ndarray:
    """How often each combination occurs, int64 with one axis for each column, in the order given.

    `columns` maps a name, for errors, to (codes int [n], number of values); codes lie in 0..number - 1.
    """
    numbers = tuple(number for _, number in columns.values())
    length = len(next(iter(columns.values()))[0])
    codes = [_codes(values, name, number, length) for name, (values, number) in columns.items()]
    cells = np.ravel_multi_index(codes, numbers)
    return np.bincount(cells, minlength=int(np.prod(numbers))).reshape(numbers)


def group_counts(
    client: np.ndarray, group: np.ndarray, label: np.ndarray, prediction: np.ndarray, clients: int, groups: int
) -> np.ndarray:
    """Counts int64 [clients, groups, 2, 2] of n examples; the four arrays are int [n]. Sum axis 0 for global counts."""
    return cross_counts({
        "client": (client, clients),
        "group": (group, groups),
        "label": (label, 2),
        "prediction": (prediction, 2),
    })  # fmt: skip


def _checked(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.ndim < 3 or counts.shape[-2:] != (2, 2):
        raise ValueError(f"counts: shape {counts.shape}, must be [..., groups, 2, 2]")
    if counts.size and counts.min() < 0:
        raise ValueError("counts: must be at least 0")
    return counts


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def positive_rates(counts: np.ndarray) -> np.ndarray:
    """P(prediction = 1 | group), float64 [..., groups]; NaN for a group without members."""
    counts = _checked(counts)
    return _ratio(counts[..., 1].sum(axis=-1), counts.sum(axis=(-2, -1)))


def true_positive_rates(counts: np.ndarray) -> np.ndarray:
    """P(prediction = 1 | group, label 1), float64 [..., groups]; NaN for a group without positives."""
    counts = _checked(counts)
    return _ratio(counts[..., 1, 1], counts[..., 1, :].sum(axis=-1))


def false_positive_rates(counts: np.ndarray) -> np.ndarray:
    """P(prediction = 1 | group, label 0), float64 [..., groups]; NaN for a group without negatives."""
    counts = _checked(counts)
    return _ratio(counts[..., 0, 1], counts[..., 0, :].sum(axis=-1))


def accuracies(counts: np.ndarray) -> np.ndarray:
    """P(prediction = label | group), float64 [..., groups]; NaN for a group without members."""
    counts = _checked(counts)
    return _ratio(counts[..., 0, 0] + counts[..., 1, 1], counts.sum(axis=(-2, -1)))


def gaps(rates: np.ndarray) -> Gaps:
    """Largest less smallest of `rates` [..., groups] over the groups that have one."""
    rates = np.asarray(rates, dtype=np.float64)
    missing = np.isnan(rates)
    highest = np.where(missing, -np.inf, rates).max(axis=-1)
    lowest = np.where(missing, np.inf, rates).min(axis=-1)
    undefined = missing.sum(axis=-1)
    return Gaps(np.where(rates.shape[-1] - undefined >= 2, highest - lowest, np.nan), undefined)


def demographic_parity(counts: np.ndarray) -> Gaps:
    """Gap of P(prediction = 1 | group) over groups; 0: the prediction does not tell the group."""
    return gaps(positive_rates(counts))


def equal_opportunity(counts: np.ndarray) -> Gaps:
    """Gap of the true positive rate over groups (Hardt, Price and Srebro, arXiv 1610.02413)."""
    return gaps(true_positive_rates(counts))


def equalised_odds(counts: np.ndarray) -> Gaps:
    """The larger of the gaps of true and of false positive rates (arXiv 1610.02413); NaN where either is.

    `undefined` counts the groups where at least one of the two rates is missing.
    """
    true, false = true_positive_rates(counts), false_positive_rates(counts)
    value = np.maximum(gaps(true).value, gaps(false).value)  # np.maximum keeps NaN
    return Gaps(value, (np.isnan(true) | np.isnan(false)).sum(axis=-1))


def accuracy_parity(counts: np.ndarray) -> Gaps:
    """Gap of the accuracy over groups."""
    return gaps(accuracies(counts))


def worst_group_accuracy(counts: np.ndarray) -> np.ndarray:
    """Lowest accuracy over the groups with members, float64 [...]; NaN where no group has any."""
    rates = accuracies(counts)
    lowest = np.where(np.isnan(rates), np.inf, rates).min(axis=-1)
    return np.where(np.isinf(lowest), np.nan, lowest)


def signed_difference(counts: np.ndarray) -> np.ndarray:
    """P(prediction = 1 | group 1) - P(prediction = 1 | group 0) of two groups, float64 [...]; NaN where undefined."""
    rates = positive_rates(counts)
    if rates.shape[-1] != 2:
        raise ValueError(f"counts: {rates.shape[-1]} groups, a signed difference needs two")
    return rates[..., 1] - rates[..., 0]


def local(gap: Gaps, weights: np.ndarray) -> Local:
    """Gaps [clients] in short; `weights` float [clients] >= 0, e.g. examples. Those without a gap are counted only."""
    values, weights = np.asarray(gap.value), np.asarray(weights, dtype=np.float64)
    if values.ndim != 1 or weights.shape != values.shape:
        raise ValueError(f"weights: shape {weights.shape}, must be {values.shape}, one for each client")
    if len(weights) and weights.min() < 0:
        raise ValueError("weights: must be at least 0")
    held = ~np.isnan(values)
    defined = int(held.sum())
    mean = np.average(values[held], weights=weights[held]) if weights[held].sum() > 0 else np.nan
    return Local(float(mean), float(values[held].max()) if defined else np.nan, defined, len(values) - defined)


def demographic_parity_of_classes(
    group: np.ndarray, prediction: np.ndarray, groups: int, classes: int
) -> tuple[float, float, int]:
    """Mean and largest gap over classes c of P(prediction = c | group), and the number of groups without members.

    `group` and `prediction` int [n]. Both gaps are NaN where fewer than two groups have members.
    """
    table = cross_counts({"group": (group, groups), "prediction": (prediction, classes)})
    members = np.broadcast_to(table.sum(axis=1, keepdims=True), table.shape)
    made = gaps(_ratio(table, members).T)
    return float(made.value.mean()), float(made.value.max()), int(made.undefined[0])
