"""Labels as raw files have them (numbers or names) to the numbers of classes; whatever is neither is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heterobench.errors import DataError

SHOWN = 10  # of the values found, the first ones


def numbered(labels: np.ndarray, classes: Sequence[str], where: str) -> np.ndarray:
    """int64 [n], the place of each label in `classes`. `labels`, [n], are of any type; `where` opens the message.

    A whole number k, as a number or as text, is class k; where all names of classes are whole numbers themselves, as
    in [1, 3, 7], it is the class of that name. Anything else has to be the name of a class. Nothing is rounded.

    Raises DataError that shows the labels found, how often, what is allowed and what to do.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0:
        raise DataError(f"{where}: labels of shape {list(labels.shape)}; expected one for each example, and an example")
    if labels.dtype == object and (absent := np.array([label is None for label in labels])).any():
        raise DataError(
            f"{where}: {int(absent.sum())} of {len(labels)} examples have no label, the first in row "
            f"{int(absent.argmax()) + 1}. What to do: leave them out, or give them a class"
        )
    values, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    names = [text(value) for value in values]
    named = {name: at for at, name in enumerate(classes)}
    indices = {} if all(map(whole, classes)) else {str(k): k for k in range(len(classes))}
    are_names = not all(map(whole, names)) or (labels.dtype.kind in "SUO" and named.keys() >= set(names))
    known = indices | named if are_names else named | indices
    numbers = [known.get(str(int(name)) if whole(name) else name, -1) for name in names]
    if -1 in numbers:
        wrong = [f"{name!r} ({count} times)" for name, k, count in zip(names, numbers, counts, strict=True) if k < 0]
        raise DataError(
            f"{where}: labels that are not allowed: {listed(wrong)}. Found are {listed(names)}; allowed are the "
            f"names in classes: {listed(classes)}, or the numbers 0 to {len(classes) - 1} for them, in this order. "
            "What to do: write classes as the labels are, or correct the labels"
        )
    return np.array(numbers, np.int64)[place.ravel()]


def whole(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit()


def text(label: object) -> str:
    """A label as people write it: 3 for 3.0, 0.5, cat."""
    if isinstance(label, (float, np.floating)):
        return np.format_float_positional(label, trim="-")
    if isinstance(label, bytes):
        return label.decode(errors="replace")
    return str(int(label)) if isinstance(label, (bool, np.bool_)) else str(label)


def listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:SHOWN]) + (f", ... ({len(parts)} in all)" if len(parts) > SHOWN else "")
