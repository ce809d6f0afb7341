"""What the rows and columns of a benchmark are called, and which rows are references."""

from __future__ import annotations

from functools import cache

from heterobench import registry
from heterobench.resolve import Arm, Benchmark, Scenario

REFERENCE_TAGS = {"pooled", "silent"}  # no method that federated learning could use: shown, never ranked


@cache
def _tags(algorithm: str, hyperparameters) -> frozenset[str]:
    return registry.algorithm(algorithm).make(hyperparameters).tags


def tags(benchmark: Benchmark, arm: Arm) -> frozenset[str]:
    return _tags(arm.algorithm, benchmark.job(benchmark.scenarios[0].name, arm.name).hyperparameters)


def is_reference(benchmark: Benchmark, arm: Arm) -> bool:
    """True for training on pooled data and for training without any collaboration."""
    return bool(tags(benchmark, arm) & REFERENCE_TAGS)


def is_personal(benchmark: Benchmark, arm: Arm) -> bool:
    """True where each client has a model of its own and there is no global one."""
    return "personalised" in tags(benchmark, arm)


def methods(benchmark: Benchmark) -> list[Arm]:
    return [arm for arm in benchmark.arms if not is_reference(benchmark, arm)]


def references(benchmark: Benchmark) -> list[Arm]:
    return [arm for arm in benchmark.arms if is_reference(benchmark, arm)]


def baseline(benchmark: Benchmark) -> Arm:
    """The arm that differences are taken to: FedAvg, or the first arm of a table without it."""
    named = [arm for arm in benchmark.arms if arm.name == "fedavg"]
    same = [arm for arm in benchmark.arms if arm.algorithm == "fedavg"]
    return (named or same or list(benchmark.arms))[0]


def _parts(scenario: Scenario) -> dict[str, str]:
    return {
        "dataset": scenario.dataset,
        "model": scenario.model_file.title,
        "schedule": scenario.schedule_file.title,
    }


def common(benchmark: Benchmark) -> list[str]:
    """What all scenarios share, e.g. ["digits", "MLP", "full participation", "30 rounds", ...]."""
    every = [_parts(scenario) for scenario in benchmark.scenarios]
    shared = [value for key, value in every[0].items() if all(parts[key] == value for parts in every)]
    budgets = [scenario.budget for scenario in benchmark.scenarios]
    names = {"rounds": "{} rounds", "local_epochs": "{} local epochs", "batch_size": "batch size {}"}
    for key, text in names.items():
        if len(values := {getattr(budget, key) for budget in budgets}) == 1:
            value = values.pop()
            text = text.format(value)
            shared.append(text[:-1] if value == 1 and text.endswith("s") else text)
    return shared


def group(benchmark: Benchmark, scenario: Scenario) -> str:
    """What a scenario has that not all have of data set, model and schedule; often nothing."""
    every = [_parts(other) for other in benchmark.scenarios]
    return " · ".join(value for key, value in _parts(scenario).items() if any(parts[key] != value for parts in every))


def title(benchmark: Benchmark, scenario: Scenario) -> str:
    """Partition, and whatever else varies."""
    return " · ".join(filter(None, (group(benchmark, scenario), scenario.partition_file.title)))


def parts(scenario: Scenario) -> list[str]:
    """Data set, partition, model and schedule."""
    of = _parts(scenario)
    return [of["dataset"], scenario.partition_file.title, of["model"], of["schedule"]]


def tuning(benchmark: Benchmark) -> str:
    """One sentence: where the hyper-parameters come from, by which rule and with which budget."""
    if (of := benchmark.tuning) is None:
        return "Hyper-parameters: each method's defaults; nothing is tuned."
    rule = {
        "validation": "chosen by validation accuracy",
        "oracle": "chosen by test accuracy after the last round (an oracle: nobody could have chosen so)",
    }[of.rule]
    seeds = f"seed{'s' * (len(of.seeds) > 1)} {', '.join(map(str, of.seeds))}"
    early = of.early_stopping
    cut = f"; after {early.after:.0%} of the rounds the best {early.keep:.0%} of them go on" if early else ""
    trials = f"{of.trials} trial{'s' * (of.trials > 1)} for each method and scenario"
    return f"Hyper-parameters: {trials} ({seeds}{cut}), {rule}; {DESIGNS[of.design]}."


DESIGNS = {
    "two-stage": "first the same shared draws for all methods, then each method's own values around the best of them",
    "random": "all hyper-parameters drawn together, so that methods with more of them have fewer tries for each",
    "optuna": "first the same shared draws for all methods, then Optuna's proposals",
}
