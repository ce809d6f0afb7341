"""Design "optuna": the first stage's trials, then those that Optuna proposes; its pruner ends bad ones early.

Akiba, Sano, Yanase, Ohta and Koyama, "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019. The
sampler is its TPE (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011), with a seed from the
names of benchmark, scenario and arm and the seeds of the trials. The study is kept in memory: a job that was killed
asks and tells again in the same order, what it tells stands in the records of the runs, and so it proposes the same.
"""

from __future__ import annotations

import logging
import math
import warnings
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from heterobench import keyed, search
from heterobench.config.algorithm_file import Range, Space
from heterobench.config.schema import Optuna
from heterobench.executor.distributed import computed
from heterobench.training import snapshot_rounds

if TYPE_CHECKING:
    from heterobench.tuning import Trials

log = logging.getLogger(__name__)
ATTEMPTS = 100  # proposals of TPE until one is none that was tried before, then as many at random
CHECKS = 10  # rounds at which the pruner is asked, evenly spaced: each is a checkpoint of the run


def distribution(space: Space) -> BaseDistribution:
    if isinstance(space, Range):
        return FloatDistribution(space.low, space.high, log=space.scale == "log")
    return CategoricalDistribution(space)


def pruner(of: Optuna, rounds: int, startup: int) -> BasePruner:
    """The pruner of a table; the step that it sees is the round."""
    first = max(1, math.floor(of.after * rounds))
    if of.pruner == "median":
        return MedianPruner(n_startup_trials=startup, n_warmup_steps=first)
    if of.pruner == "successive-halving":
        return SuccessiveHalvingPruner(min_resource=first)
    return NopPruner()


class Study:
    """Optuna's study of the trials of one arm in one scenario. Only rank 0 asks and tells it."""

    def __init__(self, trials: Trials, first: list[dict[str, Any]]):
        names = " ".join((trials.benchmark.name, trials.job.scenario.name, trials.job.arm.name))
        seed = keyed.integer(0, f"optuna {names}", *trials.tuning.seeds) % 2**32
        startup, rounds = search.first_stage(trials.tuning.trials), trials.job.scenario.budget.rounds
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = trials.job.arm.search
        self.distributions = {name: distribution(space) for name, space in self.space.items()}
        self.defaults = trials.job.hyperparameters.model_dump()
        self.first, self.seen, self.asked = list(first), set(), None
        self.tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        self.random = optuna.samplers.RandomSampler(seed=seed)
        self.study = optuna.create_study(
            direction="maximize",
            sampler=self.tpe,
            pruner=pruner(trials.tuning.sampling, rounds, startup),
        )

    def ask(self) -> dict[str, Any] | None:
        """The next setting; None where only those that were tried are proposed."""
        for attempt in range(2 * ATTEMPTS):
            # among few values TPE insists on the best one
            self.study.sampler = self.tpe if attempt < ATTEMPTS else self.random
            setting = self._first(self.first.pop(0)) if self.first else self._proposed()
            whole = search.key({name: self.defaults[name] for name in self.space} | setting)
            if whole not in self.seen:
                self.seen.add(whole)
                return setting
            self.study.tell(self.asked, state=TrialState.FAIL)
        return None

    def _first(self, setting: dict[str, Any]) -> dict[str, Any]:
        """A setting of the first stage; its values outside of the search space are no matter of Optuna's."""
        values = {name: self.defaults[name] for name in self.space} | setting
        inside = {name: value for name, value in values.items() if _holds(self.space[name], value)}
        self.study.enqueue_trial(inside)
        self.asked = self.study.ask({name: self.distributions[name] for name in inside})
        return setting

    def _proposed(self) -> dict[str, Any]:
        self.asked = self.study.ask(self.distributions)
        found = {name: self.asked.params[name] for name in self.space}
        ranges = {name: space for name, space in self.space.items() if isinstance(space, Range)}
        return found | {name: search.rounded(space, found[name]) for name, space in ranges.items()}

    def bad(self, scores: dict[int, float]) -> bool:
        """Whether the pruner ends the trial that was asked for last, after these validation accuracies by round."""
        for round, value in scores.items():
            self.asked.report(value, round)
        return self.asked.should_prune()

    def tell(self, value: float) -> None:
        """What the trial that was asked for last has reached at its end; NaN where it failed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.study.tell(self.asked, *((value,) if math.isfinite(value) else (None, TrialState.FAIL)))

    def pruned(self) -> None:
        self.study.tell(self.asked, state=TrialState.PRUNED)


def _holds(space: Space, value: Any) -> bool:
    return space.low <= value <= space.high if isinstance(space, Range) else value in space


def explore(trials: Trials) -> None:
    """Run trials until there are as many as the table asks for, or Optuna proposes nothing new."""
    budget, first = trials.job.scenario.budget, trials.benchmark.stage_one(trials.job)
    pruned = trials.tuning.sampling.pruner != "none"
    checks = sorted(snapshot_rounds(budget, CHECKS) - {budget.rounds}) if pruned else []
    study = Study(trials, first)
    for number in range(trials.tuning.trials):
        setting = computed(study.ask)
        if setting is None:
            log.warning("%s: %d trials: nothing else is proposed", trials.job.where, number)
            break
        trials.add(setting, 1 if number < len(first) else 2)
        _run(trials, study, number, checks)


def _run(trials: Trials, study: Study, number: int, checks: list[int]) -> None:
    def bad(after: int, check: int) -> bool:
        rounds = [round for round in trials.evaluated(number) if after < round <= check]
        return study.bad({round: trials.validation(number, round).value for round in rounds})

    for after, check in pairwise([0, *checks]):
        trials.advance(number, check)
        if number not in trials.failed and computed(partial(bad, after, check)):
            trials.stopped.add(number)
            computed(study.pruned)
            return
    trials.advance(number)
    computed(lambda: study.tell(trials.ruling(number).value))
