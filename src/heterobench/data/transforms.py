"""What clients see of their inputs: transformations, applied once, when a run opens its data.

Their order is fixed: "colour" and "rotation" change pixels; then the data set's normalisation; then "noise" and, last,
"permutation" change what a model would get. All are pure functions of arrays. A strength of 0 changes nothing, to the
bit. Inputs become float32, so that a transformed data set needs four bytes for each entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from heterobench import keyed
from heterobench.errors import ConfigurationError

KINDS = {
    "colour": ("image",),
    "rotation": ("image",),
    "noise": ("image", "signal"),
    "permutation": ("image", "signal"),
}
"""Which kinds of data (`heterobench.data.schema.KINDS`) a transformation is for."""

PER_STAGE = ("permutation",)  # these depend on the stage of an example, not on its client


def check(names, per_stage, kind: str, where: str) -> None:
    """Raise ConfigurationError, opened by `where`, unless data of this kind can be transformed like that."""
    for name in (*names, *per_stage):
        if name not in KINDS:
            raise ConfigurationError(f"{where}: no transformation {name!r}; there are: {', '.join(KINDS)}")
        if (name in PER_STAGE) != (name in per_stage):
            what = "stage to stage" if name in PER_STAGE else "client to client"
            raise ConfigurationError(f"{where}: transformation {name!r} differs from {what} only")
        if kind not in KINDS[name]:
            raise ConfigurationError(
                f"{where}: transformation {name!r} is for data of kind {' or '.join(KINDS[name])}, and this is {kind!r}"
            )


def normalisation(mean, std, maximum: float | None, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """scale and shift, float32 [channels, 1, ...], with x * scale + shift = (x / maximum - mean) / std.

    `dimensions` counts those of one input; `maximum` None stands for 1.
    """
    mean, std = (np.array(v, np.float32).reshape(-1, *[1] * (dimensions - 1)) for v in (mean, std))
    return 1 / (np.float32(maximum or 1) * std), -mean / std


def transformed(
    x: np.ndarray,
    mean,
    std,
    maximum: float | None,
    strengths: Mapping[str, np.ndarray],
    stages: np.ndarray | None,
    seed: int,
) -> np.ndarray:
    """Normalised inputs, float32 [n, *shape], as their owners see them.

    strengths: name of a transformation -> [n], its strength for each example, in the unit that its function tells.
    stages: int [n], the stage of each example, where inputs are permuted.
    """
    x = np.asarray(x).astype(np.float32)
    if "colour" in strengths:
        x = colour(x, strengths["colour"], maximum)
    if "rotation" in strengths:
        x = rotation(x, strengths["rotation"])
    scale, shift = normalisation(mean, std, maximum, x.ndim - 1)
    x = np.add(np.multiply(x, scale, out=x), shift, out=x)
    if "noise" in strengths:
        x = noise(x, strengths["noise"], seed)
    return x if stages is None else permutation(x, stages, seed)


def noise(x: np.ndarray, deviations: np.ndarray, seed: int) -> np.ndarray:
    """x [n, ...] + Gaussian noise of standard deviation `deviations` [n], in units of the normalised input.

    The noise of example i is drawn by (seed, i) alone: it does not depend on who holds it, nor on other examples.
    Source of the setting: Li et al., "Federated Learning on Non-IID Data Silos", arXiv 2102.02079, section IV-B
    (noise-based feature imbalance; there the level grows with the client's number).
    """
    x = x.copy()
    for i in np.flatnonzero(deviations):
        drawn = keyed.generator(seed, "input noise", int(i)).standard_normal(x[i].shape, dtype=np.float32)
        x[i] += np.float32(deviations[i]) * drawn
    return x


def rotation(x: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Images [n, channels, height, width], turned counter-clockwise about their centre by `degrees` [n].

    Bilinear, at the size they have; what comes from outside the image is 0. Source of the setting: Ghosh et al., "An
    Efficient Framework for Clustered Federated Learning", arXiv 2006.04088, section 6 (rotated MNIST).
    """
    from scipy import ndimage  # only here: most runs turn nothing, and need not load it

    def turned(images: np.ndarray, angle: float) -> np.ndarray:
        return ndimage.rotate(images, angle, axes=(2, 3), reshape=False, order=1, mode="constant", cval=0.0)

    return _by_value(x, degrees, turned)


def colour(x: np.ndarray, values: np.ndarray, maximum: float) -> np.ndarray:
    """Images [n, channels, height, width] of pixels 0..maximum in other colours, by `values` [n].

    RGB: the hue is shifted by so many degrees, saturation and value stay as they are. Grey: the intensity is
    multiplied by 1 + value and cut off at 0 and `maximum`. Raises ConfigurationError for other numbers of channels.
    """
    if x.shape[1] not in (1, 3):
        raise ConfigurationError(f"transformation 'colour' needs 1 or 3 channels, and the images have {x.shape[1]}")
    if x.shape[1] == 3:
        return _by_value(x, values, _with_hue_shifted)
    return _by_value(x, values, lambda grey, value: np.clip(grey * np.float32(1 + value), 0, np.float32(maximum)))


def _with_hue_shifted(rgb: np.ndarray, degrees: float) -> np.ndarray:
    """rgb [n, 3, height, width], by way of HSV: Smith, "Color Gamut Transform Pairs", SIGGRAPH 1978.

    A channel is V - C max(0, min(k, 4 - k, 1)) with chroma C, hue H in sixths of the circle, k = (offset + H) mod 6
    and offset 5, 3, 1 for red, green, blue.
    """
    value = rgb.max(1)
    chroma = value - rgb.min(1)
    red, green, blue = rgb.swapaxes(0, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        sixths = [(green - blue) / chroma, (blue - red) / chroma + 2, (red - green) / chroma + 4]
    hue = np.where(chroma > 0, np.choose(rgb.argmax(1), sixths), 0) + np.float32(degrees / 60)
    k = (np.array([5, 3, 1], np.float32)[:, None, None] + hue[:, None]) % 6
    return value[:, None] - chroma[:, None] * np.clip(np.minimum(k, 4 - k), 0, 1)


def permutation(x: np.ndarray, stages: np.ndarray, seed: int) -> np.ndarray:
    """x [n, ...] with the entries of each input in the fixed order of its stage (`stages` int [n], from 0).

    Stage 0 sees inputs as they are; the order of stage k is drawn by (seed, k). Examples of no stage (-1) stay as they
    are. Source of the setting: permuted MNIST, Goodfellow et al., arXiv 1312.6211, section 4.1.
    """

    def ordered(inputs: np.ndarray, stage: int) -> np.ndarray:
        flat = inputs.reshape(len(inputs), -1)
        order = keyed.generator(seed, "permutation", int(stage)).permutation(flat.shape[1])
        return flat[:, order].reshape(inputs.shape)

    return _by_value(x, np.maximum(stages, 0), ordered)


def _by_value(x: np.ndarray, values: np.ndarray, change: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
    """`change` applied to all examples of a value together; those with value 0 stay as they are."""
    result = x.copy()
    for value, rows in _groups(values):
        if value:
            result[rows] = change(x[rows], value)
    return result


def _groups(values: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Each distinct value with the ascending indices of its examples."""
    order = np.argsort(values, kind="stable")
    found, first = np.unique(values[order], return_index=True)
    return zip(found, np.split(order, first[1:]), strict=True)
