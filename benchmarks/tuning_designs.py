"""Do designs of tuning punish methods for their hyper-parameters? A simulation with the project's own draws and rule.

Method A has a step size. Method B is A with `knobs` more hyper-parameters that gain nothing: at their defaults and
below they do nothing, above they harm. Accuracy in points is closed-form, and what tuning sees of it has normal noise:

    accuracy = 90 - 10 (log10 lr - best)^2 - 20 sum_k max(0, u_k - 1/3)^2        u_k in [0, 1): quantile of knob k

`best` is uniform over the range of lr (0.01 to 0.5, default 0.1). A table of five paired seeds with the same noise is
then made of what was chosen; methods that chose the same setting have the same runs where no knob acts. The design
"two-stage, wide" draws further shared values as far apart as the first stage's, not close to the best.

    python benchmarks/tuning_designs.py       # the table of docs/tuning.md, minutes
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from heterobench import keyed, search, tuning
from heterobench.config.algorithm_file import Range
from heterobench.config.schema import Tuning

LR = Range(low=0.01, high=0.5, scale="log")
KNOB = Range(low=0.0, high=1.0)
DEFAULT_LR, NEUTRAL = 0.1, 1 / 3
NEAR = search.NEAR
SEEDS, T = 5, 2.776  # runs of a table, and the quantile of its interval: t(0.975) with four degrees of freedom


@dataclass(frozen=True)
class Surface:
    """What the accuracy depends on, in one simulated scenario."""

    number: int
    knobs: int
    noise: float

    def accuracy(self, setting: dict) -> float:
        best = math.log10(search.at(LR, float(keyed.generator(self.number, "optimum").random())))
        harm = sum(max(0.0, setting[knob] - NEUTRAL) ** 2 for knob in self.names)
        return 90 - 10 * (math.log10(setting[self.lr]) - best) ** 2 - 20 * harm

    @property
    def lr(self) -> str:
        return f"lr {self.number}"  # draws have the name as their key: other draws in every scenario

    @property
    def names(self) -> list[str]:
        """Of the further hyper-parameters."""
        return [f"knob {knob} {self.number}" for knob in range(self.knobs)]

    def neutral(self, setting: dict) -> bool:
        """Whether no further hyper-parameter acts."""
        return all(setting[knob] <= NEUTRAL for knob in self.names)

    def seen(self, setting: dict) -> float:
        """With noise; the same setting is the same run."""
        words = repr([setting[self.lr], *(setting[knob] for knob in self.names if not self.neutral(setting))])
        return self.accuracy(setting) + self.noise * float(keyed.generator(self.number, words).normal())


def chosen(surface: Surface, design: str, trials: int) -> dict:
    """The setting that tuning chooses."""
    defaults = {surface.lr: DEFAULT_LR} | dict.fromkeys(surface.names, NEUTRAL)
    spaces = {surface.lr: LR} | dict.fromkeys(surface.names, KNOB)
    shared = [surface.lr]

    def best(settings: list[dict]) -> dict:
        scores = [tuning.Score(surface.seen(defaults | setting)) for setting in settings]
        return settings[tuning.best(scores, range(len(scores)))]

    if design == "random":
        return defaults | best(search.settings(spaces, defaults, trials, "here"))
    first = search.stage_one(spaces, shared, defaults, trials)
    search.NEAR = 1.0 if design == "two-stage, wide" else NEAR
    if design.startswith("two-stage"):
        base = best(first)
        return defaults | best([*first, *search.stage_two(spaces, shared, defaults, base, trials, "here")])
    from heterobench.study import Study

    study = Study(_trials(surface, spaces, defaults, trials), first)
    tried = []
    for _ in range(trials):
        tried.append(study.ask())
        study.tell(surface.seen(defaults | tried[-1]))
    return defaults | best(tried)


def _trials(surface: Surface, spaces: dict, defaults: dict, trials: int) -> SimpleNamespace:
    """As much of trials as Optuna's study asks for."""
    arm = SimpleNamespace(search=spaces, name=f"{surface.knobs} knobs")
    scenario = SimpleNamespace(name=str(surface.number), budget=SimpleNamespace(rounds=1))
    job = SimpleNamespace(arm=arm, scenario=scenario, hyperparameters=SimpleNamespace(model_dump=lambda: defaults))
    protocol = Tuning(trials=trials, seeds=[1], design="optuna")
    return SimpleNamespace(benchmark=SimpleNamespace(name="simulated"), job=job, tuning=protocol)


def compare(number: int, design: str, trials: int, knobs: int, noise: float) -> tuple[float, bool, bool]:
    """B minus A in one scenario: the true difference; whether the table's interval lies below, or above, zero."""
    a, b = Surface(number, 0, noise), Surface(number, knobs, noise)
    one, other = chosen(a, design, trials), chosen(b, design, trials)
    true = b.accuracy(other) - a.accuracy(one)
    same = one[a.lr] == other[b.lr] and b.neutral(other)
    runs = keyed.generator(number, "table").normal(size=(2, SEEDS)) * noise
    found = true + (np.zeros(SEEDS) if same else runs[1] - runs[0])
    half = T * found.std(ddof=1) / math.sqrt(SEEDS)
    return true, bool(found.mean() + half < 0), bool(found.mean() - half > 0)


def summary(design: str, trials: int, knobs: int, noise: float, scenarios: int) -> tuple[float, float, float, float]:
    """Mean true difference, its standard error, and the shares of tables that call B worse, and better."""
    found = np.array([compare(n, design, trials, knobs, noise) for n in range(scenarios)], dtype=float)
    return found[:, 0].mean(), found[:, 0].std(ddof=1) / math.sqrt(scenarios), found[:, 1].mean(), found[:, 2].mean()


def main() -> None:
    print("| design | trials | knobs | noise | B minus A | tables that call B worse | better |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for design, trials, knobs, noise in itertools.product(
        ("random", "two-stage", "two-stage, wide", "optuna"), (4, 8), (1, 3), (1.0, 0.3)
    ):
        mean, error, worse, better = summary(design, trials, knobs, noise, 300 if design == "optuna" else 2000)
        cells = (design, trials, knobs, noise, f"{mean:+.2f} ± {1.96 * error:.2f}", f"{worse:.1%}", f"{better:.1%}")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
