"""Test labels of MNIST and CIFAR-10 as five people corrected them, beside the published ones.

For reporting only: never train or select with corrected labels. The candidates came from models, so errors that no
model suspected remain; differences under 0.15 points on MNIST and 0.54 on CIFAR-10 are inside what label errors can do.
Source: Northcutt, Athalye and Mueller, "Pervasive Label Errors in Test Sets Destabilize Machine Learning Benchmarks",
NeurIPS 2021 Datasets and Benchmarks, arXiv 2103.14749; votes: github.com/cleanlab/label-errors (Apache-2.0).
No corrections exist for Fashion-MNIST.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

DROPPED = -1  # in corrected labels: people found no single right class


class Corrections(NamedTuple):
    """`changed` maps a position in the official test order (from 0) to (published, corrected); `dropped` positions."""

    examples: int
    changed: dict[int, tuple[int, int]]
    dropped: tuple[int, ...]


MNIST = Corrections(
    10_000,
    {
        947: (8, 9), 1621: (0, 6), 1901: (9, 4), 2462: (2, 0), 2597: (5, 3),
        3558: (5, 0), 5937: (5, 3), 6651: (0, 6), 6783: (1, 6), 9729: (5, 6),
    },
    (2130, 2654, 3520, 8527, 9679),
)  # fmt: skip
CIFAR10 = Corrections(
    10_000,
    {
        1227: (3, 5), 1718: (0, 8), 2405: (3, 6), 2592: (2, 4), 2804: (3, 5), 4794: (4, 2),
        5191: (3, 5), 5468: (5, 3), 5632: (3, 5), 5690: (7, 4), 5960: (2, 3), 6877: (0, 8),
        6966: (0, 8), 7657: (2, 7), 7846: (6, 3), 8058: (4, 7), 9227: (1, 9), 9352: (1, 9),
    },
    (
        165, 792, 882, 1300, 1684, 1969, 2010, 2128, 2232, 2532, 2840, 2940, 3113, 3168, 3183, 3192, 3490, 3600,
        3753, 3977, 4055, 4198, 4614, 4643, 4910, 4965, 5166, 5211, 5882, 6522, 6792, 7311, 8296, 8620, 9643, 9793,
    ),
)  # fmt: skip
CORRECTIONS = {"mnist": MNIST, "cifar10": CIFAR10}


class CorrectedScores(NamedTuple):
    """Accuracies in [0, 1] of one model; NaN over no examples.

    `original` on all published labels, `corrected` on the examples that are kept with corrected labels;
    `errors_original` and `errors_corrected` on the examples whose label changed, against the published label (high: the
    model learned the noise) and against the corrected one.
    """

    original: float
    corrected: float
    errors_original: float
    errors_corrected: float


def judge(given: int, guessed: int, voters: int = 5, needed: int = 3) -> str:
    """What votes make of a suspected label: "valid", "changed" to the guess, or "dropped".

    `given` and `guessed` are the votes for the published and for the suspected class. Valid with `needed` votes for
    the published one; otherwise changed with `needed` for the guess (the strict variant of the source asks for all
    `voters` there), else dropped. ValueError for impossible votes.
    """
    if min(given, guessed) < 0 or given + guessed > voters:
        raise ValueError(f"given, guessed: {given}, {guessed}, must be at least 0 and sum to at most {voters}")
    if given >= needed:
        return "valid"
    return "changed" if guessed >= needed else "dropped"


def corrected_labels(original: np.ndarray, corrections: Corrections) -> np.ndarray:
    """Corrected labels int64 [n], `DROPPED` where an example leaves the set; `original` int [n] in official order.

    ValueError where a published label is not the one that the corrections start from: another order or another set.
    """
    original = np.asarray(original)
    if original.shape != (corrections.examples,):
        raise ValueError(f"original: shape {original.shape}, must be ({corrections.examples},)")
    wrong = [i for i, (old, _) in corrections.changed.items() if original[i] != old]
    if wrong:
        i = wrong[0]
        raise ValueError(
            f"original: label {original[i]} at position {i}, must be {corrections.changed[i][0]}; "
            f"{len(wrong)} of {len(corrections.changed)} positions differ, so this is not the official order"
        )
    made = original.astype(np.int64)
    for i, (_, new) in corrections.changed.items():
        made[i] = new
    made[list(corrections.dropped)] = DROPPED
    return made


def _checked(original: np.ndarray, corrected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    original, corrected = np.asarray(original), np.asarray(corrected)
    if original.ndim != 1 or not len(original):
        raise ValueError(f"original: shape {original.shape}, must be [examples] with at least one")
    if corrected.shape != original.shape:
        raise ValueError(f"corrected: shape {corrected.shape}, must be {original.shape} as original")
    return original, corrected


def _mean(right: np.ndarray) -> float:
    return float(right.mean()) if len(right) else math.nan


def corrected_scores(predictions: np.ndarray, original: np.ndarray, corrected: np.ndarray) -> CorrectedScores:
    """The four accuracies of a model; all arguments int [n], `corrected` with `DROPPED` where examples leave."""
    original, corrected = _checked(original, corrected)
    predictions = np.asarray(predictions)
    if predictions.shape != original.shape:
        raise ValueError(f"predictions: shape {predictions.shape}, must be {original.shape} as original")
    kept, changed = _kept_and_changed(original, corrected)
    return CorrectedScores(
        _mean(predictions == original),
        _mean((predictions == corrected)[kept]),
        _mean((predictions == original)[changed]),
        _mean((predictions == corrected)[changed]),
    )


def _kept_and_changed(original: np.ndarray, corrected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = corrected != DROPPED
    return kept, kept & (corrected != original)


def noise_prevalence(original: np.ndarray, corrected: np.ndarray) -> float:
    """Share of the kept examples whose published label was changed; NaN when none is kept."""
    kept, changed = _kept_and_changed(*_checked(original, corrected))
    return _mean(changed[kept])


def at_prevalence(
    original: np.ndarray, corrected: np.ndarray, prevalence: float, random: np.random.Generator
) -> np.ndarray:
    """Positions int64, ascending, of a test set in which a share `prevalence` of the labels was changed.

    All changed examples stay and a random part of the others is left out (the rule of the source), rounded to whole
    examples. ValueError where `prevalence` is below the natural one or above 1.
    """
    kept, changed = _kept_and_changed(*_checked(original, corrected))
    natural = _mean(changed[kept])
    if not (natural <= prevalence <= 1 and prevalence > 0):
        raise ValueError(f"prevalence: {prevalence}, must lie in [{natural}, 1] and be positive")
    clean = np.flatnonzero(kept & ~changed)
    number = min(len(clean), round(changed.sum() * (1 - prevalence) / prevalence))
    return np.sort(np.concatenate([np.flatnonzero(changed), random.choice(clean, number, replace=False)]))


def accuracy_at(prevalence: float, on_errors: float, on_clean: float) -> float:
    """Expected accuracy N a_err + (1 - N) a_clean at noise prevalence N, by corrected labels: linear in N."""
    return prevalence * on_errors + (1 - prevalence) * on_clean


def crossing(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Noise prevalence N* at which two models, each (accuracy on errors, accuracy on clean), score the same.

    N* = D_clean / (D_clean - D_err), D the differences first - second; outside [0, 1] one is always ahead. NaN when the
    lines are parallel. Compare it with `noise_prevalence`: where N* is close, the ranking hangs on label errors.
    """
    on_errors, on_clean = first[0] - second[0], first[1] - second[1]
    return math.nan if on_clean == on_errors else on_clean / (on_clean - on_errors)
