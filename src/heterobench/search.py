"""Which settings a tuned benchmark tries: known before anything runs, and paired between methods.

Every method of a table gets the same number of trials: its defaults, then random draws from the search space of its
parameter file (the protocol of equal budgets: Gulrajani and Lopez-Paz, "In Search of Lost Domain Generalization", ICLR
2021, arXiv 2007.01434). The draws are a Latin hypercube (McKay, Beckman and Conover, Technometrics 21, 1979): each
hyper-parameter's few values are spread over its whole range. A draw has the key (name of the hyper-parameter, number
of trials), so two methods that search the same step sizes try the same step sizes: neither has luck that the other has
not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from heterobench import keyed
from heterobench.config.algorithm_file import Range, Space
from heterobench.errors import ConfigurationError

ATTEMPTS = 1000  # hypercubes that are drawn until a trial differs from those before
DIGITS = 3  # significant digits of a number that is drawn: what a table shows is what was run


def at(space: Space, u: float) -> Any:
    """The value of `space` at quantile u in [0, 1): uniform over a list, over a range or over its logarithm."""
    if isinstance(space, Range):
        if space.scale == "log":
            value = math.exp(math.log(space.low) + u * (math.log(space.high) - math.log(space.low)))
        else:
            value = space.low + u * (space.high - space.low)
        return min(max(float(f"{value:.{DIGITS}g}"), space.low), space.high)
    return space[int(u * len(space))]


@cache
def quantiles(name: str, draws: int, attempt: int = 0) -> tuple[float, ...]:
    """Quantiles in [0, 1), one for each of `draws`: one in each of as many equal parts, in random order."""
    generator = keyed.generator(0, f"tuning {name}", draws, attempt)
    order = generator.permutation(draws)
    return tuple(float((part + offset) / draws) for part, offset in zip(order, generator.random(draws), strict=True))


def settings(search: Mapping[str, Space], defaults: Mapping[str, Any], trials: int, where: str) -> list[dict[str, Any]]:
    """What `trials` trials set, beside everything that is not searched; the first one, the defaults, sets nothing.

    No setting is tried twice. Raises ConfigurationError, which begins with `where`, for a space with too few of them.
    """
    seen = {_key({name: defaults[name] for name in search})}
    chosen: list[dict[str, Any]] = [{}]
    for trial in range(trials - 1):
        for attempt in range(ATTEMPTS):
            setting = {name: at(space, quantiles(name, trials - 1, attempt)[trial]) for name, space in search.items()}
            if _key(setting) not in seen:
                break
        else:
            what = f"only {len(seen)} different settings were found in it" if search else "there is none"
            raise ConfigurationError(
                f"{where}: {trials} trials ask for a larger search space: {what}; "
                "add values or ranges under `search`, or ask for fewer trials"
            )
        seen.add(_key(setting))
        chosen.append(setting)
    return chosen


def _key(setting: Mapping[str, Any]) -> tuple:
    return tuple(sorted((name, repr(value)) for name, value in setting.items()))
