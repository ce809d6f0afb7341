"""Equal clients, and quantity skew: clients differ in how much they hold, not in what."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from heterobench.config.numbers import Positive, PositiveSpread
from heterobench.config.strict import Strict
from heterobench.partition.schemes.drawing import cut, enough, equal, hand_out, search
from heterobench.partition.schemes.registry import NoOptions, scheme


@scheme("iid", NoOptions)
def iid(columns, clients, options, generator, minimum):
    """Shuffled examples in equal parts: sizes differ by at most one, the first clients hold the larger."""
    return _any_examples(enough("iid", options, equal(len(columns), clients), minimum), generator)


class QuantityDirichlet(Strict):
    alpha: Positive = Field(description="concentration; small: few clients hold nearly everything")


@scheme("quantity-dirichlet", QuantityDirichlet)
def quantity_dirichlet(columns, clients, options, generator, minimum):
    """Client sizes in proportions q ~ Dir(alpha, ..., alpha); who holds which examples is a plain shuffle.

    The shuffled examples are cut at floor(cumulative q * n); q is drawn again until everyone has `minimum`.

    Source: Li et al., arXiv 2102.02079 (q ~ Dir(beta)); NIID-Bench's utils.py, partition
    "iid-diff-quantity". Difference: the reference compares q_i * n with its minimum of 10, here the size
    after rounding is compared, so a client that reaches the minimum only by rounding is kept.
    """

    def draw():
        q = generator.dirichlet(np.full(clients, options.alpha))
        return cut(np.cumsum(q), len(columns))[None]

    return _any_examples(search("quantity-dirichlet", options, draw, len(columns), clients, minimum)[0], generator)


class QuantityLogNormal(Strict):
    sigma: PositiveSpread = Field(description="standard deviation of the logarithm of a client's size")


@scheme("quantity-log-normal", QuantityLogNormal)
def quantity_log_normal(columns, clients, options, generator, minimum):
    """Client sizes proportional to exp(sigma * z_i), z_i ~ N(0, 1); who holds which examples is a plain shuffle.

    The mean of the logarithm has no say, as sizes are scaled to the number of examples. The logarithms of the sizes'
    ratios have variance 2 sigma^2. Sizes are drawn again until everyone has `minimum`.

    Sources: Acar et al., arXiv 2111.04263, and FedDyn's utils_dataset.py (unbalanced_sgm, 0.3 in its README). The
    synthetic data of Li et al., "Federated Optimization in Heterogeneous Networks" (FedProx), arXiv 1812.06127, are
    said to follow a power law; their code draws log-normal sizes with sigma 2, plus 50. Different here: sizes are cut
    at cumulative shares, where FedDyn rounds each down and gives the remainder to one client.
    """

    def draw():
        return log_normal_sizes(len(columns), clients, options.sigma, generator)[None]

    return _any_examples(search("quantity-log-normal", options, draw, len(columns), clients, minimum)[0], generator)


def log_normal_sizes(examples: int, clients: int, sigma: float, generator: np.random.Generator) -> np.ndarray:
    """int [clients] with sum `examples`, proportional to log-normal draws up to rounding."""
    logarithms = sigma * generator.standard_normal(clients)
    return cut(np.cumsum(np.exp(logarithms - logarithms.max())), examples)


class QuantityPowerLaw(Strict):
    exponent: PositiveSpread = Field(description="of the size's decay with the rank; 1 is Zipf's law")


@scheme("quantity-power-law", QuantityPowerLaw)
def quantity_power_law(columns, clients, options, generator, minimum):
    """Client i holds a share proportional to (i + 1)^-exponent; who holds which examples is a plain shuffle.

    Sizes are no draw: client 0 is always the largest, and every seed has the same sizes. The shuffled examples are cut
    at floor(cumulative share * n).

    Source: the rank-size form of a power law (Zipf 1949). "Power law" sizes are named by many papers of the field,
    first by Li et al., arXiv 1812.06127, and defined by few; where their code draws log-normal sizes, that is
    `quantity_log_normal`. Deviation: none to name, as there is no reference procedure.
    """
    shares = np.arange(1, clients + 1, dtype=float) ** -options.exponent
    sizes = cut(np.cumsum(shares), len(columns))
    return _any_examples(enough("quantity-power-law", options, sizes, minimum), generator)


def _any_examples(sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Owners when client i gets sizes[i] random examples."""
    return hand_out(np.zeros(sizes.sum(), int), sizes[None], generator)
