"""What the functions of this package demand of their arguments; each error names the argument."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def array(values: ArrayLike, name: str, axes: int) -> np.ndarray:
    """`values` as float64 with `axes` axes and at least one entry; raises ValueError otherwise."""
    made = np.asarray(values, dtype=np.float64)
    if made.ndim != axes or made.size == 0:
        raise ValueError(f"{name}: must be a non-empty array with {axes} axes, has shape {made.shape}")
    return made


def share(value: float, name: str) -> float:
    """`value` if it lies strictly between 0 and 1; raises ValueError otherwise."""
    if not 0 < value < 1:
        raise ValueError(f"{name} {value!r}: must be between 0 and 1, ends excluded")
    return value


def choice(value: str, name: str, allowed: tuple[str, ...]) -> str:
    """`value` if it is one of `allowed`; raises ValueError otherwise."""
    if value not in allowed:
        raise ValueError(f"{name} {value!r}: must be one of {', '.join(allowed)}")
    return value


def losses(scores: np.ndarray, direction: str) -> np.ndarray:
    """Scores turned so that less is better, failed (not finite) ones at +inf; `direction` is "max" or "min"."""
    choice(direction, "direction", ("max", "min"))
    return np.where(np.isfinite(scores), -scores if direction == "max" else scores, np.inf)
