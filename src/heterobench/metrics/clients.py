"""How a score is spread over clients."""

from __future__ import annotations

import math

import numpy as np


def means(scores: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Mean score of each client, float64 [clients]; NaN for a client without examples, or with a NaN among them.

    `scores` [n] holds the examples of client 0, then of client 1, ...; `sizes` [clients] how many each has.
    """
    owner = np.repeat(np.arange(len(sizes)), sizes)
    totals = np.bincount(owner, weights=np.asarray(scores, dtype=np.float64), minlength=len(sizes))
    return np.divide(totals, sizes, out=np.full(len(sizes), np.nan), where=np.asarray(sizes) > 0)


def worst_decile(values: np.ndarray) -> float:
    """Mean of the lowest max(1, ceil(K/10)) of K values (the worst 10 % of clients; q-FFL, arXiv 1905.10497)."""
    lowest = np.sort(values)[: max(1, math.ceil(len(values) / 10))]
    return float(lowest.mean())


def spread(scores: np.ndarray, sizes: np.ndarray) -> dict[str, float]:
    """Uniform mean, mean weighted by examples (= pooled), population std and worst decile over clients.

    Clients without examples do not count; with no client left, or a score that is NaN, every value is NaN.
    """
    values = means(scores, sizes)
    held = values[np.asarray(sizes) > 0]
    if not len(held) or np.isnan(held).any():
        return dict.fromkeys(("mean", "weighted", "std", "worst_decile"), math.nan)
    return {
        "mean": float(held.mean()),
        "weighted": float(np.average(values[sizes > 0], weights=sizes[sizes > 0])),
        "std": float(held.std()),
        "worst_decile": worst_decile(held),
    }


def held_out(scores: np.ndarray, sizes: np.ndarray, held: np.ndarray, judged: bool = True) -> dict[str, float]:
    """Accuracy on clients that never train (`held`, bool [clients]): mean over their examples, and the worst client.

    NaN where they are not `judged`, or have no example, or a score among theirs is NaN.
    """
    values = means(scores, sizes)[held & (np.asarray(sizes) > 0)]
    if not judged or not len(values):
        return dict.fromkeys(("held_out_accuracy", "held_out_accuracy_worst"), math.nan)
    return {
        "held_out_accuracy": float(np.asarray(scores, dtype=np.float64)[np.repeat(held, sizes)].mean()),
        "held_out_accuracy_worst": float(values.min()),
    }
