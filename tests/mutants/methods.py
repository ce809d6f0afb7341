"""Methods, judged by their contract: corrections, proximal terms and normalisations with the wrong sign, or without."""

from __future__ import annotations

from mutants.mutation import Edit, Mutation

CORRECTION = 'return g + work["correction"], aux'
VARIATE = 'c = client["c"] - down["c"] - dy / done.lr_sum'
PULL = 'return g + hp.alpha * (work["theta"] - work["target"]), aux'
TARGET = '{"target": down["theta"] - client["h"]}'
NORMALISED = 'd = (work["theta"] - down["theta"]) / a'
PROXIMAL = 'return g + hp.mu * (work["theta"] - work["anchor"]), aux'
SPEED = 'return g + hp.alpha * (theta - work["target"]), aux'


def several(method: str, what: str, edits: tuple[tuple[str, str, str], ...]) -> Mutation:
    """`edits` of files in algorithms/, (file, text, other text); a contract test of this very method has to fail."""
    made = tuple(Edit(f"algorithms/{file}.py", text, other) for file, text, other in edits)
    return Mutation(f"{method}, {what}", made, ("contract/test_contract.py", "-k", method), f"{method}]")


def broken(method: str, what: str, text: str, other: str, file: str | None = None) -> Mutation:
    return several(method, what, ((file or method, text, other),))


MUTATIONS = [
    broken("scaffold", "correction has the other sign", CORRECTION, 'return g - work["correction"], aux'),
    broken("scaffold", "no correction", CORRECTION, "return g, aux"),
    broken(
        "scaffold",
        "client variate with the server's sign turned",
        VARIATE,
        VARIATE.replace('- down["c"]', '+ down["c"]'),
    ),
    broken("scaffold", "client variate without the server's", VARIATE, VARIATE.replace(' - down["c"]', "")),
    broken("scaffold", "client variate with the path's sign turned", VARIATE, VARIATE.replace("- dy", "+ dy")),
    broken("scaffold", "server variate is the cohort's", "/ info.population", "/ info.cohort"),
    broken("feddyn", "quadratic term has the other sign", PULL, PULL.replace("g +", "g -")),
    broken("feddyn", "neither quadratic nor linear term", PULL, "return g, aux"),
    several(
        "feddyn",
        "linear term alone",
        (
            ("feddyn", TARGET, '{"target": client["h"]}'),
            ("feddyn", PULL, 'return g + hp.alpha * work["target"], aux'),
        ),
    ),
    broken("feddyn", "quadratic term alone", TARGET, '{"target": down["theta"]}'),
    broken("fednova", "not normalised", NORMALISED, NORMALISED.removesuffix(" / a")),
    broken("fednova", "normaliser has the other sign", NORMALISED, NORMALISED.replace("/ a", "/ -a")),
    broken("fednova", "no effective number of steps", 'hp.server_lr * up["tau"] * up["d"]', 'hp.server_lr * up["d"]'),
    broken("fedprox", "proximal term has the other sign", PROXIMAL, PROXIMAL.replace("g +", "g -")),
    broken("fedprox", "no proximal term", PROXIMAL, "return g, aux"),
    broken(
        "fedprox",
        "norm instead of its square",
        PROXIMAL,
        'd = work["theta"] - work["anchor"]\n        return g + hp.mu * d / d.norm().clamp(min=1e-12), aux',
    ),
    broken("fedspeed", "correction has the other sign", TARGET, TARGET.replace("- client", "+ client"), "feddyn"),
    broken("fedspeed", "no correction", TARGET, '{"target": down["theta"]}', "feddyn"),
    broken("fedspeed", "proximal term and correction have the other sign", SPEED, SPEED.replace("g +", "g -")),
    broken("fedspeed", "neither proximal term nor correction", SPEED, "return g, aux"),
    broken("fedspeed", "step downhill", "theta + uphill(hp, here)", "theta - uphill(hp, here)"),
]
