"""Feature skew: clients see transformed inputs. Nothing moves; only how strongly each client is transformed is said."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from heterobench.config.numbers import Positive, Real
from heterobench.config.strict import Strict
from heterobench.partition.changes.registry import View, change, exactly_one


class FeatureNoise(Strict):
    sigma: Positive = Field(description="noise of the last client, as a standard deviation of the normalised input")


@change("feature-noise", FeatureNoise)
def feature_noise(view: View, options: FeatureNoise, generator: np.random.Generator) -> View:
    """Client i = 1 ... N sees its inputs with Gaussian noise of standard deviation sigma * i / N.

    Source: Li et al., arXiv 2102.02079, "noise-based feature imbalance" (Gau(sigma * i / N)). Deviations: the text
    calls sigma * i / N a variance, NIID-Bench's experiments.py a standard deviation, sigma * i / (N - 1) from i = 0; we
    take the standard deviation with the text's i / N, so no client is without noise. Theirs is added to pixels in
    [0, 1] before they are normalised, ours afterwards: sigma there is sigma / (standard deviation of a pixel) here.
    """
    return view.transformed("noise", options.sigma * np.arange(1, view.clients + 1) / view.clients)


class Strengths(Strict):
    values: list[Real] | None = Field(
        None, min_length=1, description="one each for equally many clients, who are drawn"
    )
    maximum: Positive | None = Field(None, description="uniform in [-maximum, maximum], drawn for each client")

    @model_validator(mode="after")
    def _one_rule(self):
        return exactly_one(self, "values", "maximum")


def _strengths(clients: int, options: Strengths, generator: np.random.Generator) -> np.ndarray:
    if options.values is None:
        return generator.uniform(-options.maximum, options.maximum, clients)
    return generator.permutation(np.resize(options.values, clients))


@change("rotation", Strengths)
def rotation(view: View, options: Strengths, generator: np.random.Generator) -> View:
    """Client i sees its inputs rotated by so many degrees, counter-clockwise.

    Source: Ghosh et al., "An Efficient Framework for Clustered Federated Learning" (IFCA), arXiv 2006.04088: rotated
    MNIST with 0, 90, 180 and 270 degrees for a quarter of the clients each. Deviation: none in the angles.
    """
    return view.transformed("rotation", _strengths(view.clients, options, generator))


@change("colour", Strengths)
def colour(view: View, options: Strengths, generator: np.random.Generator) -> View:
    """Client i sees its inputs in other colours: RGB with the hue shifted by so many degrees, grey brighter or darker.

    Of grey inputs the strength is the factor of the intensity minus one: -0.5 is half as bright.

    Source: the hue shift is the colour jitter of common augmentation, fixed for a client; there is no reference
    procedure for a client's colours that we follow.
    """
    return view.transformed("colour", _strengths(view.clients, options, generator))
