"""From names to fully resolved, validated jobs: what the Snakefile, the command line and the tests all ask for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from heterobench import measures, models, registry, search
from heterobench.config.algorithm_file import AlgorithmFile, Published, Range, Space
from heterobench.config.reading import check_name, load, names, read_yaml, shown
from heterobench.config.schema import (
    ArmEntry,
    BenchmarkFile,
    Budget,
    Config,
    ModelFile,
    PartitionFile,
    Preset,
    ScenarioGrid,
    ScheduleFile,
    Tuning,
)
from heterobench.config.strict import build, nearest
from heterobench.data.schema import load_dataset_file
from heterobench.errors import ConfigurationError
from heterobench.files import digest
from heterobench.partition import changes, schemes
from heterobench.project import Project


@dataclass(frozen=True)
class Arm:
    """A row of the table: an algorithm with a name and a title.

    `defaults` come from the algorithm's file, `settings` from the row itself; the latter have the last word.
    """

    name: str
    title: str
    algorithm: str
    defaults: dict[str, Any]
    settings: dict[str, Any]
    published: tuple[Published, ...] = ()
    search: dict[str, Space] = field(default_factory=dict)
    """What tuning may try; what the row sets is not searched."""


@dataclass(frozen=True)
class Scenario:
    """dataset x partition x model x schedule x budget."""

    dataset: str
    partition: str
    model: str
    schedule: str
    partition_file: PartitionFile
    model_file: ModelFile
    schedule_file: ScheduleFile
    budget: Budget
    settings: dict[str, Any]
    target: float | None

    @property
    def name(self) -> str:
        return f"{self.dataset}.{self.partition}.{self.model}.{self.schedule}"


@dataclass(frozen=True)
class Job:
    """What one training process computes: a scenario and an arm, for several seeds.

    `tuned` holds what tuning sets: the setting of trial number `trial`, or, without a number, the chosen one.
    `snapshots`: how many models each run keeps along its way.
    """

    project: Project
    benchmark: str
    preset: str
    scenario: Scenario
    arm: Arm
    where: str  # what its user wrote, for errors
    tuned: dict[str, Any] = field(default_factory=dict)
    trial: int | None = None
    snapshots: int = 0

    @cached_property
    def hyperparameters(self):
        """Frozen, validated hyper-parameters: defaults of the file < shared by the table < tuned < set by the row."""
        where = f"{self.where}: {self.arm.name} on {self.scenario.name}"
        if self.trial is not None:
            where += f", trial {self.trial}"
        model = registry.algorithm(self.arm.algorithm).HyperParameters
        shared = {k: v for k, v in self.scenario.settings.items() if k in model.model_fields}
        return build(model, self.arm.defaults | shared | self.tuned | self.arm.settings, where)

    def check(self) -> None:
        """An error unless the hyper-parameters are valid and the algorithm can train the model on the schedule."""
        tags = registry.algorithm(self.arm.algorithm).make(self.hyperparameters).tags
        where = f"{self.where}: {self.arm.name} on {self.scenario.name}: params"
        if "head-only" in tags:
            models.check_head_only(self.scenario.model_file, f"{where}/models/{self.scenario.model}.yaml")
        if "selective" in tags and (found := self.scenario.schedule_file.availability):
            raise ConfigurationError(
                f"{where}/schedules/{self.scenario.schedule}.yaml: availability: {found.pattern}: clients come by "
                "themselves there, but the method chooses whom to ask; allowed with it: participation"
            )

    @property
    def folder(self) -> Path:
        """Where the job's runs lie, each in a folder of its own."""
        place = (self.benchmark, self.preset, self.scenario.name, self.arm.name)
        return self.project.runs(*place) if self.trial is None else self.project.trial(*place, self.trial)

    def run_folder(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"

    def configuration(self) -> dict[str, Any]:
        """Everything that decides the bits of this job's runs, the seed and the data aside, as plain JSON."""
        return {
            "dataset": self.scenario.dataset,
            "partition": {"name": self.scenario.partition}
            | self.scenario.partition_file.model_dump(exclude={"title", "reference"}),
            "model": {"name": self.scenario.model}
            | self.scenario.model_file.model_dump(exclude={"title", "reference"}),
            "schedule": {"name": self.scenario.schedule} | self.scenario.schedule_file.model_dump(exclude={"title"}),
            "budget": self.scenario.budget.model_dump(),
            "algorithm": {
                "name": self.arm.algorithm,
                "arm": self.arm.name,
                "hyperparameters": self.hyperparameters.model_dump(),
            },
            # they change no bit of a run, but a run without them is not the one that was asked for
            **({"snapshots": self.snapshots} if self.snapshots else {}),
        }


@dataclass(frozen=True)
class Benchmark:
    """One table: scenarios x arms x seeds."""

    name: str
    preset: str
    title: str
    about: str
    scenarios: tuple[Scenario, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    project: Project
    tuning: Tuning | None = None
    metrics: tuple[str, ...] = ()
    snapshots: int = 0

    def job(self, scenario: str, arm: str) -> Job:
        """The job of a scenario and an arm, by their names."""
        where = f"params/benchmarks/{self.name}.yaml: presets.{self.preset}"
        scenarios = {s.name: s for s in self.scenarios}
        arms = {a.name: a for a in self.arms}
        for kind, name, known in (("scenario", scenario, scenarios), ("algorithm", arm, arms)):
            if name not in known:
                raise ConfigurationError(f"{where}: no {kind} {name!r}{nearest(name, known)}")
        place = (self.project, self.name, self.preset, scenarios[scenario], arms[arm], where)
        return Job(*place, snapshots=self.snapshots)

    def jobs(self) -> list[Job]:
        return [self.job(s.name, a.name) for s in self.scenarios for a in self.arms]

    def trials(self, scenario: str, arm: str) -> list[Job]:
        """The trials of an arm in a scenario, the defaults first, as far as they are known before anything runs.

        Of the second stage that is all but the shared hyper-parameters, which are at their defaults here. What Optuna
        will propose is not known. None in a table without tuning.
        """
        if self.tuning is None:
            return []
        job = self.job(scenario, arm)
        if self.tuning.design == "random":
            defaults = job.hyperparameters.model_dump()
            found = search.settings(job.arm.search, defaults, self.tuning.trials, self._searching(job))
        else:
            found = self.stage_one(job)
            found += self.stage_two(job, {}) if self.tuning.design == "two-stage" else []
        return [self.trial(job, number, setting) for number, setting in enumerate(found)]

    def trial(self, job: Job, number: int, setting: dict[str, Any]) -> Job:
        """Trial `number` of a job of the table."""
        return replace(job, tuned=setting, trial=number, snapshots=0)

    def stage_one(self, job: Job) -> list[dict[str, Any]]:
        """Settings of the first stage: the shared hyper-parameters."""
        of = self.tuning
        return search.stage_one(job.arm.search, of.shared, job.hyperparameters.model_dump(), of.trials)

    def stage_two(self, job: Job, base: dict[str, Any]) -> list[dict[str, Any]]:
        """Settings of the second stage: the method's own hyper-parameters, around `base`, the best of the first."""
        of, defaults = self.tuning, job.hyperparameters.model_dump()
        return search.stage_two(job.arm.search, of.shared, defaults, base, of.trials, self._searching(job))

    def _searching(self, job: Job) -> str:
        return f"{job.where}.tuning: params/algorithms/{job.arm.algorithm}.yaml"

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """Seeds of the table and of its tuning: those that partitions are drawn for."""
        return tuple(sorted({*self.seeds, *(self.tuning.seeds if self.tuning else ())}))


OVERRIDES = "HETEROBENCH_CONFIG"
"""Environment variable with overrides of params/config.yaml as JSON: how ``snakemake --config`` reaches the jobs."""


def config(project: Project, **overrides: Any) -> Config:
    """params/config.yaml, with overrides."""
    path = project.params / "config.yaml"
    values = read_yaml(path) or {}
    if isinstance(values, dict):  # anything else is refused by `build`
        values = values | _from_environment() | overrides
    return build(Config, values, shown(project, path))


def _from_environment() -> dict[str, Any]:
    text = os.environ.get(OVERRIDES, "{}")
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{OVERRIDES}={text}: expected a JSON object of keys of params/config.yaml")
    return values


def algorithm_files(project: Project) -> dict[str, AlgorithmFile]:
    """Parameter file of every algorithm; a source file without one is an error, and the other way round."""
    files = {}
    for name in names(project, "algorithms"):
        if name not in (known := registry.algorithms()):
            raise ConfigurationError(
                f"params/algorithms/{name}.yaml: no source file src/heterobench/algorithms/"
                f"{name.replace('-', '_')}.py{nearest(name, known)}"
            )
    for name in registry.algorithms():
        where = f"src/heterobench/algorithms/{name.replace('-', '_')}.py"
        files[name] = load(project, "algorithms", name, AlgorithmFile, where)
        module = registry.algorithm(name)
        fields = module.HyperParameters.model_fields
        path = f"params/algorithms/{name}.yaml"
        build(module.HyperParameters, files[name].defaults, f"{path}: defaults")
        for key, variant in files[name].variants.items():
            build(module.HyperParameters, files[name].defaults | variant.defaults, f"{path}: variants.{key}")
        for key, space in files[name].search.items():
            if key not in fields:
                raise ConfigurationError(f"{path}: search: unknown hyper-parameter {key!r}{nearest(key, fields)}")
            for value in (space.low, space.high) if isinstance(space, Range) else space:
                build(module.HyperParameters, files[name].defaults | {key: value}, f"{path}: search")
        check_published(project, files[name], fields, f"{path}: published")
    return files


def check_published(project: Project, file: AlgorithmFile, fields: Iterable[str], where: str) -> None:
    """Raise ConfigurationError, opened by `where`, unless all that published numbers name is there.

    Their hyper-parameters need not be allowed here, only known: a number that cannot be run is still worth showing.
    """
    for place, entry in enumerate(file.published):
        at = f"{where}.{place}"
        for kind in ("model", "schedule"):
            if (name := getattr(entry, kind)) is not None:
                check_name(project, f"{kind}s", name, f"{at}: {kind}")
        for index, number in enumerate(entry.numbers):
            of = f"{at}.numbers.{index}"
            check_name(project, "datasets", number.dataset, f"{of}: dataset")
            if number.variant is not None and number.variant not in file.variants:
                raise ConfigurationError(
                    f"{of}: variant: no variant {number.variant!r}{nearest(number.variant, file.variants)}"
                )
            for key in entry.settings_of(number):
                if key not in fields:
                    raise ConfigurationError(
                        f"{of}: hyperparameters: unknown hyper-parameter {key!r}{nearest(key, fields)}"
                    )
            if number.partition is not None:
                partition = entry.partition_of(number)
                schemes.check(partition, f"{of}: partition")
                changes.check(partition, f"{of}: partition")


def published_for(file: AlgorithmFile, variant: str | None) -> tuple[Published, ...]:
    """The published numbers of a variant, or of the algorithm itself; entries without any are left out."""
    found = []
    for entry in file.published:
        numbers = [number for number in entry.numbers if number.variant == variant]
        if numbers:
            found.append(entry.model_copy(update={"numbers": numbers}))
    return tuple(found)


def arm_names(files: dict[str, AlgorithmFile]) -> dict[str, tuple[str, str | None]]:
    """Every name that a benchmark may list -> (algorithm, variant or None)."""
    known: dict[str, tuple[str, str | None]] = {name: (name, None) for name in files}
    for name, file in files.items():
        for variant in file.variants:
            if variant in known:
                raise ConfigurationError(
                    f"params/algorithms/{name}.yaml: variants.{variant}: that name is taken "
                    f"by params/algorithms/{known[variant][0]}.yaml"
                )
            known[variant] = (name, variant)
    return known


def resolve_arm(files: dict[str, AlgorithmFile], entry: ArmEntry, where: str) -> Arm:
    known = arm_names(files)
    if entry.algorithm not in known:
        raise ConfigurationError(
            f"{where}: no algorithm or variant {entry.algorithm!r}{nearest(entry.algorithm, known)}"
        )
    algorithm, variant = known[entry.algorithm]
    file = files[algorithm]
    chosen = file.variants[variant] if variant else None
    return Arm(
        name=entry.name or entry.algorithm,
        title=entry.title or (chosen.title if chosen else file.title),
        algorithm=algorithm,
        defaults=file.defaults | (chosen.defaults if chosen else {}),
        settings=entry.hyperparameters,
        published=published_for(file, variant),
        search={key: space for key, space in file.search.items() if key not in entry.hyperparameters},
    )


def scenario(project: Project, parts: dict[str, str], budget: dict, settings: dict, target: float | None, where: str):
    """One scenario from the names of its parts, each of them checked."""
    data = load_dataset_file(project, parts["dataset"], where)
    partition = load(project, "partitions", parts["partition"], PartitionFile, where)
    file = f"params/partitions/{parts['partition']}.yaml"
    schemes.check(partition, file, data.attributes)
    changes.check(partition, file)
    model = load(project, "models", parts["model"], ModelFile, where)
    models.check(model, f"params/models/{parts['model']}.yaml")
    pair = f"params/models/{parts['model']}.yaml on params/datasets/{parts['dataset']}.yaml"
    models.check_inputs(model, data.kind, data.shape, f"{where}: {pair}")
    return Scenario(
        **parts,
        partition_file=partition,
        model_file=model,
        schedule_file=load(project, "schedules", parts["schedule"], ScheduleFile, where),
        budget=build(Budget, budget, f"{where}: budget"),
        settings=settings,
        target=target,
    )


def _scenarios(project: Project, preset: Preset, grid: ScenarioGrid, where: str) -> list[Scenario]:
    axes = {
        axis: [value] if isinstance(value := getattr(grid, axis), str) else value
        for axis in ("dataset", "partition", "model", "schedule")
    }
    return [
        scenario(
            project,
            dict(zip(axes, chosen, strict=True)),
            preset.budget | grid.budget,
            preset.hyperparameters | grid.hyperparameters,
            grid.target or preset.target,
            where,
        )
        for chosen in product(*axes.values())
    ]


def benchmark(project: Project, name: str, preset: str) -> Benchmark:
    """The table `name` in one of its presets, everything resolved and checked."""
    file = load(project, "benchmarks", name, BenchmarkFile, "params/config.yaml: benchmarks")
    path = f"params/benchmarks/{name}.yaml"
    if preset not in file.presets:
        raise ConfigurationError(f"{path}: presets: no preset {preset!r}{nearest(preset, file.presets)}")
    chosen, where = file.presets[preset], f"{path}: presets.{preset}"
    files = algorithm_files(project)
    arms = tuple(resolve_arm(files, entry, f"{where}.algorithms") for entry in chosen.algorithms)
    scenarios = tuple(
        s
        for index, grid in enumerate(chosen.scenarios)
        for s in _scenarios(project, chosen, grid, f"{where}.scenarios[{index}]")
    )
    for kind, values in (("scenario", [s.name for s in scenarios]), ("algorithm", [a.name for a in arms])):
        if twice := {value for value in values if values.count(value) > 1}:
            raise ConfigurationError(f"{where}: {kind} listed twice: {', '.join(sorted(twice))}")
    shared = {key for s in scenarios for key in s.settings}
    accepted = {key for a in arms for key in registry.algorithm(a.algorithm).HyperParameters.model_fields}
    if unknown := shared - accepted:
        key = sorted(unknown)[0]
        raise ConfigurationError(f"{where}: hyperparameters: no algorithm here takes {key!r}{nearest(key, accepted)}")
    result = Benchmark(
        name,
        preset,
        file.title,
        file.about,
        scenarios,
        arms,
        tuple(chosen.seeds),
        project,
        chosen.tuning,
        measures.check(chosen.metrics, f"{where}.metrics"),
        chosen.snapshots,
    )
    searched = {name for arm in arms for name in arm.search}
    if chosen.tuning and "shared" in chosen.tuning.model_fields_set and (unknown := {*chosen.tuning.shared} - searched):
        key = sorted(unknown)[0]
        raise ConfigurationError(f"{where}.tuning.shared: no algorithm here searches {key!r}{nearest(key, searched)}")
    for job in result.jobs():
        for each in (job, *result.trials(job.scenario.name, job.arm.name)):
            each.check()
    return result


def identity(configuration: dict[str, Any], **more: Any) -> str:
    """Identity of a run: 16 hexadecimal digits over everything that decides its bits."""
    return digest(configuration | more)[:16]
