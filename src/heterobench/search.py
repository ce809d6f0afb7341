"""Which settings a tuned benchmark tries, paired between methods.

Draws are Latin hypercubes (McKay, Beckman and Conover, Technometrics 21, 1979): each hyper-parameter's few values are
spread over its whole range. A draw has the key (name of the hyper-parameter, number of draws), so two methods that
search the same step sizes try the same step sizes: neither has luck that the other has not.

two-stage    (`stage_one`, `stage_two`) First the defaults and draws of the shared hyper-parameters alone, a method's
             own ones at their defaults: the same for every method, whatever else it has. Then, at the best of these,
             one of the own ones is changed at a time. The best of the first stage stays a candidate. What own ones do
             not use up, all of it for a method without any, goes to further draws of the shared ones close to that
             best: every method has as many trials, and none a better search for its step size (docs/tuning.md).
random       (`settings`) The defaults and joint draws of all hyper-parameters: the protocol of Gulrajani and
             Lopez-Paz, "In Search of Lost Domain Generalization" (ICLR 2021, arXiv 2007.01434). With few trials it
             punishes methods for having more hyper-parameters.
optuna       (`heterobench.study`) The first stage, then Optuna's proposals.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from heterobench import keyed
from heterobench.config.algorithm_file import Range, Space
from heterobench.errors import ConfigurationError

ATTEMPTS = 1000  # hypercubes that are drawn until a trial differs from those before
NEAR = 0.1  # width in which the second stage draws shared values, in parts of the distance between the first one's
DIGITS = 3  # significant digits of a number that is drawn: what a table shows is what was run


def at(space: Space, u: float) -> Any:
    """The value of `space` at quantile u in [0, 1): uniform over a list, over a range or over its logarithm."""
    if isinstance(space, Range):
        if space.scale == "log":
            value = math.exp(math.log(space.low) + u * (math.log(space.high) - math.log(space.low)))
        else:
            value = space.low + u * (space.high - space.low)
        return rounded(space, value)
    return space[int(u * len(space))]


def rounded(space: Range, value: float) -> float:
    """`value` to few digits, and not outside of `space` for that."""
    return min(max(float(f"{value:.{DIGITS}g}"), space.low), space.high)


def quantile(space: Range, value: float) -> float:
    """Where a value lies in a range: the inverse of `at`, the nearest end for one outside."""
    low, high, at = (math.log(v) if space.scale == "log" else v for v in (space.low, space.high, max(value, space.low)))
    return min((at - low) / (high - low), 1.0)


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
    seen = {key({name: defaults[name] for name in search})}
    chosen: list[dict[str, Any]] = [{}]
    for trial in range(trials - 1):
        for attempt in range(ATTEMPTS):
            setting = {name: at(space, quantiles(name, trials - 1, attempt)[trial]) for name, space in search.items()}
            if key(setting) not in seen:
                break
        else:
            raise _too_small(search, trials, len(seen), where)
        seen.add(key(setting))
        chosen.append(setting)
    return chosen


def first_stage(trials: int) -> int:
    """How many of `trials` are the first stage's: two thirds, rounded up."""
    return math.ceil(2 * trials / 3)


def stage_one(
    search: Mapping[str, Space], shared: Collection[str], defaults: Mapping[str, Any], trials: int
) -> list[dict[str, Any]]:
    """Settings of the shared hyper-parameters among `search`: the defaults, then draws; fewer where there are no more.

    `trials` is the number of both stages together.
    """
    common = {name: space for name, space in search.items() if name in shared}
    draws = first_stage(trials) - 1
    found: list[dict[str, Any]] = [{}]
    seen = {key({name: defaults[name] for name in common})}
    for number in range(draws):
        for attempt in range(ATTEMPTS if common else 0):
            setting = {name: at(space, quantiles(name, draws, attempt)[number]) for name, space in common.items()}
            if key(setting) not in seen:
                seen.add(key(setting))
                found.append(setting)
                break
    return found


def stage_two(
    search: Mapping[str, Space],
    shared: Collection[str],
    defaults: Mapping[str, Any],
    base: Mapping[str, Any],
    trials: int,
    where: str,
) -> list[dict[str, Any]]:
    """Settings around `base`, the best of the first stage; `trials` is the number of both stages together.

    Each changes one hyper-parameter of the method's own, the others stay at their defaults. They take turns in the
    order of `search`; one whose values are used up passes. What is left over changes the shared ones a little.
    Raises ConfigurationError, which begins with `where`, for a space with too few settings.
    """
    first = stage_one(search, shared, defaults, trials)
    left = trials - len(first)
    own = [name for name in search if name not in shared]
    turns = {name: len(range(place, left, len(own))) for place, name in enumerate(own)}
    values = {name: _values(search[name], name, turns[name], defaults[name], left) for name in own}
    found: list[dict[str, Any]] = []
    while len(found) < left and any(values.values()):
        for name in own:
            if values[name] and len(found) < left:
                found.append({**base, name: values[name].pop(0)})
    ranges = {name: space for name, space in search.items() if name in shared and isinstance(space, Range)}
    middle = {name: quantile(space, base.get(name, defaults[name])) for name, space in ranges.items()}
    seen = {key(defaults | setting) for setting in (*first, *found)}
    draws = left - len(found)
    for draw in range(draws):
        for attempt in range(ATTEMPTS if ranges else 0):
            # wider where all numbers of so few digits have been tried there
            width = min(NEAR / max(first_stage(trials) - 1, 1) * 1.1**attempt, 1.0)
            near = {}
            for name, space in ranges.items():
                start = min(max(middle[name] - width / 2, 0.0), 1.0 - width)
                near[name] = at(space, start + width * quantiles(f"{name} near", draws, attempt)[draw])
            if key(defaults | base | near) not in seen:
                break
        else:
            raise _too_small(search, trials, len(first) + len(found), where)
        seen.add(key(defaults | base | near))
        found.append({**base, **near})
    return found


def _too_small(search: Mapping[str, Space], trials: int, there: int, where: str) -> ConfigurationError:
    what = f"only {there} different settings were found in it" if search else "there is none"
    return ConfigurationError(
        f"{where}: {trials} trials ask for a larger search space: {what}; "
        "add values or ranges under `search`, or ask for fewer trials"
    )


def _values(space: Space, name: str, draws: int, default: Any, most: int) -> list[Any]:
    """Values of one hyper-parameter, none twice and not its default: `draws` spread ones, then more, up to `most`."""
    seen, found = {repr(default)}, []
    for place in range(most):
        count, place = (draws, place) if place < draws else (most - draws, place - draws)
        for attempt in range(ATTEMPTS):
            value = at(space, quantiles(name, count, attempt)[place])
            if repr(value) not in seen:
                seen.add(repr(value))
                found.append(value)
                break
    return found


def key(setting: Mapping[str, Any]) -> tuple:
    """Equal for equal settings."""
    return tuple(sorted((name, repr(value)) for name, value in setting.items()))
