"""Keyed random draws: every draw is a function of (seed, purpose, ...key), never of what was drawn before.

Two methods that share a seed therefore see the same partition, the same initial weights, the same batches and
the same cohorts, whatever else they draw, in whichever process, in whichever order.
"""

from __future__ import annotations

import hashlib

import numpy as np


def sequence(seed: int, purpose: str, *key: int) -> np.random.SeedSequence:
    """Seed sequence of one draw. `purpose` is a word such as "batches"; `key` is e.g. (round, client)."""
    word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    return np.random.SeedSequence((seed, word, *key))


def generator(seed: int, purpose: str, *key: int) -> np.random.Generator:
    """NumPy generator of one draw (Philox, a counter-based generator: cheap to start anywhere)."""
    return np.random.Generator(np.random.Philox(sequence(seed, purpose, *key)))


def integer(seed: int, purpose: str, *key: int) -> int:
    """A 63-bit integer, for libraries that want a seed of their own."""
    return int(sequence(seed, purpose, *key).generate_state(1, np.uint64)[0] >> 1)
