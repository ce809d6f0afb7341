"""What parameter files may hold, but those of algorithms. Field descriptions are the documentation of the keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from heterobench.config.names import Name, Title
from heterobench.config.numbers import (
    Clients,
    Count,
    ExamplesOrNone,
    Few,
    FewOrNone,
    NonNegative,
    Positive,
    PositiveShare,
    ProperShare,
    Seconds,
    Seed,
    SeedCount,
    Share,
    Spread,
)
from heterobench.config.strict import Strict

Names = Annotated[list[Name], Field(min_length=1)] | Name
Augmentation = Literal["none", "crops and flips"]
SHIFT = 4  # pixels that a crop may move an image by, up, down, left and right


class Config(Strict):
    """params/config.yaml: which benchmarks a plain ``snakemake`` reproduces, and how runs are computed."""

    preset: Name = Field("mini", description="preset of every benchmark: mini, or paper")
    benchmarks: list[Name] = Field(min_length=1, description="names of files in params/benchmarks/")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    runs_per_gpu: Few = Field(4, description="how many jobs may share one GPU")
    executor: Literal["auto", "loop", "vmap", "workers"] = Field(
        "auto", description="how a cohort is computed; auto: workers where there are several, else the loop"
    )
    workers: Few = Field(1, description="processes of one training job, for the executor of that name")
    ranks: Few = Field(1, description="ranks of one training job, started by torchrun on one machine")
    threads: Few = Field(1, description="CPU threads of each process; part of a run's identity")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: training's forward pass under autocast, for GPUs; part of a run's identity"
    )
    checkpoint_seconds: Seconds = Field(30, description="least time between two checkpoints of a run")
    checkpoint_megabytes: NonNegative = Field(
        100, description="largest checkpoint that a finished run keeps, for a longer one to go on from"
    )
    superseded: FewOrNone = Field(
        2, description="records of other runs that are kept beside the one which has taken their place"
    )
    failures: Literal["stop", "report"] = Field(
        "stop", description="report: a run that fails stands in the report as failed, and nothing stops for it"
    )

    @model_validator(mode="after")
    def _one_kind_of_parallelism(self):
        if self.workers > 1 and (self.threads > 1 or self.executor not in ("auto", "workers")):
            raise ValueError("workers > 1 goes with threads: 1 and executor: auto or workers")
        if self.ranks > 1 and (self.workers > 1 or self.executor != "auto"):
            raise ValueError("ranks > 1 goes with workers: 1 and executor: auto")
        return self


class ModelFile(Strict):
    title: Title
    architecture: str = Field(description="a file in src/heterobench/models/")
    options: dict[str, Any] = {}
    inputs: Literal["standardised", "unit interval"] = Field(
        "standardised", description="what the net sees: by the data set's mean and std, or pixels / maximum alone"
    )
    augmentation: Augmentation = Field(
        "none", description="of training images, anew in every mini-batch: see src/heterobench/augmentation.py"
    )
    reference: str = ""


class ChangeEntry(Strict):
    change: str = Field(description="a change of src/heterobench/partition/changes/")
    options: dict[str, Any] = {}


class PartitionFile(Strict):
    """A scheme with its options, what is changed afterwards, and how each client's examples are divided."""

    title: Title
    scheme: str = Field(description="a scheme of src/heterobench/partition/schemes/")
    clients: Clients | None = Field(None, description="left out: all, where the scheme finds clients in the data")
    options: dict[str, Any] = {}
    changes: list[ChangeEntry] = Field([], description="in the order in which they are made")
    minimum: ExamplesOrNone = Field(1, description="least number of examples a client may hold")
    validation: Share = Field(0.1, description="share of each client's examples kept for validation")
    test: Share = Field(0.1, description="share of each client's examples kept for its own test")
    reference: str = ""

    @model_validator(mode="after")
    def _something_left(self):
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave a share for training (less than 1)")
        return self


class LogNormal(Strict):
    """Positive numbers whose logarithms are normal: median x exp(sigma z)."""

    median: Positive
    sigma: Spread = Field(0.0, description="0: the same for every client")


class Clock(Strict):
    """How fast simulated devices are; the numbers declare a model (`heterobench.schedule` states it)."""

    examples_per_second: LogNormal = Field(description="gradients of single examples that a client computes")
    downlink_bytes_per_second: LogNormal
    uplink_bytes_per_second: LogNormal
    server_seconds: NonNegative = Field(0.0, description="the server's own time in a round")


class ByLabel(Strict):
    """Rates that follow the labels: clients with some classes come more often than those with others."""

    alpha: Positive = Field(description="of the Dirichlet draw of the classes' weights; small: few classes matter")
    minimum: PositiveShare = Field(description="least rate of a client")


class Availability(Strict):
    """Who is there, by a pattern over time (`heterobench.availability` states each)."""

    pattern: Literal["bernoulli", "markov", "cyclic"]
    mean: PositiveShare = Field(description="rate: the share of the rounds in which a client is there")
    by_label: ByLabel | None = Field(None, description="left out: every client has the rate `mean`")
    transition: PositiveShare | None = Field(None, description="markov: probability that an absent client comes")
    period: Count | None = Field(None, ge=2, description="cyclic: rounds of a cycle")

    @model_validator(mode="after")
    def _keys_of_the_pattern(self):
        for key, pattern in (("transition", "markov"), ("period", "cyclic")):
            value = getattr(self, key)
            if self.pattern == pattern and value is None:
                raise ValueError(f"{key}: pattern: {pattern} needs it")
            if self.pattern != pattern and value is not None:
                raise ValueError(f"{key}: allowed with pattern: {pattern} alone (found {value} with {self.pattern})")
        if self.by_label and self.by_label.minimum > self.mean:
            found = f"found {self.by_label.minimum:g} and {self.mean:g}"
            raise ValueError(f"by_label.minimum: must be at most mean ({found})")
        return self


class LocalWork(Strict):
    """Share of its local steps that a client does in a round: uniform from `min` to `max`, at least one step."""

    min: PositiveShare
    max: PositiveShare = 1.0

    @model_validator(mode="after")
    def _in_order(self):
        if self.min > self.max:
            raise ValueError(f"min must be at most max (found {self.min:g} and {self.max:g})")
        return self


class ScheduleFile(Strict):
    """Who takes part in a round, how much of the local work each client finishes, and how long that takes."""

    title: Title
    participation: PositiveShare = Field(1.0, description="share of the clients sampled each round")
    stragglers: Share = Field(
        0.0, description="share of a cohort that finishes a uniform number of epochs below the full one"
    )
    availability: Availability | None = Field(
        None, description="a pattern says who is there, and all who are there take part; not beside `participation`"
    )
    local_work: LocalWork | None = Field(None, description="left out: all steps; not beside `stragglers`")
    clock: Clock | None = Field(None, description="left out: nothing is said about time on real devices")

    @model_validator(mode="after")
    def _one_rule_each(self):
        if self.availability and self.participation < 1:
            raise ValueError(
                f"availability: allowed with participation: 1 alone, which samples nobody out "
                f"(found participation: {self.participation:g})"
            )
        if self.local_work and self.stragglers:
            raise ValueError(f"local_work: allowed with stragglers: 0 alone (found stragglers: {self.stragglers:g})")
        return self


class Budget(Strict):
    """What every method of a table may spend."""

    rounds: Count
    local_epochs: Count = 1
    batch_size: Count
    evaluate_every: Count = Field(1, description="rounds between two evaluations; the last is evaluated too")


class ScenarioGrid(Strict):
    """Every combination of the listed names is one scenario."""

    dataset: Names
    model: Names
    partition: Names
    schedule: Names = "full"
    budget: dict[str, Any] = Field({}, description="overrides of the preset's budget")
    hyperparameters: dict[str, Any] = Field({}, description="shared by all algorithms, here only")
    target: PositiveShare | None = Field(None, description="accuracy for rounds- and time-to-target")


class ArmEntry(Strict):
    """One row of the table, where the defaults of the algorithm's file are not enough."""

    algorithm: str
    name: Name | None = None
    title: Title | None = None
    hyperparameters: dict[str, Any] = {}


class EarlyStopping(Strict):
    """Bad trials end early, by the same rule for every method: successive halving with one cut.

    After this share of the rounds the trials of a method are compared by what they have reached so far, and only the
    best of them go on (Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943).
    """

    after: ProperShare = Field(description="share of the rounds after which trials are compared")
    keep: ProperShare = Field(description="share of the trials that go on, rounded up")


class Optuna(Strict):
    """Settings of design: optuna."""

    pruner: Literal["none", "median", "successive-halving"] = Field(
        "median", description="ends bad trials early, by validation accuracy so far"
    )
    after: ProperShare = Field(0.2, description="share of the rounds before which no trial is ended")


class Tuning(Strict):
    """How hyper-parameters are chosen: the same number of trials for every method, scenario by scenario."""

    trials: Few = Field(description="settings that are tried, the defaults among them")
    seeds: list[Seed] = Field(
        min_length=1, max_length=1000, description="seeds of the trials; best none of the table's own"
    )
    rule: Literal["validation", "oracle"] = Field(
        "validation", description="oracle chooses by the test set and is marked: an upper bound, no fair answer"
    )
    design: Literal["two-stage", "random", "optuna"] = Field(
        "two-stage", description="how settings are found: see src/heterobench/search.py"
    )
    shared: list[str] = Field(
        ["lr"], description="hyper-parameters of the first stage, drawn alike for all methods; all others are their own"
    )
    early_stopping: EarlyStopping | None = None
    optuna: Optuna | None = Field(None, description="with design: optuna alone")

    @model_validator(mode="after")
    def _sensible(self):
        for key in ("seeds", "shared"):
            if len(set(getattr(self, key))) != len(getattr(self, key)):
                raise ValueError(f"{key}: none of them twice")
        if self.rule == "oracle" and self.early_stopping:
            raise ValueError("early_stopping: not with rule: oracle, which looks at last rounds alone")
        if self.design == "random" and "shared" in self.model_fields_set:
            raise ValueError("shared: not with design: random, which draws all hyper-parameters together")
        if self.design == "optuna" and self.early_stopping:
            raise ValueError("early_stopping: not with design: optuna, whose pruner ends bad trials (optuna.pruner)")
        if self.design != "optuna" and self.optuna:
            raise ValueError(f"optuna: allowed with design: optuna alone (found design: {self.design})")
        if self.rule == "oracle" and self.design == "optuna" and self.sampling.pruner != "none":
            raise ValueError("optuna.pruner: with rule: oracle, which looks at last rounds alone, it must be none")
        return self

    @property
    def sampling(self) -> Optuna:
        """The settings of design: optuna."""
        return self.optuna or Optuna()


class Preset(Strict):
    seeds: Annotated[list[Seed], Field(max_length=1000)] | SeedCount = Field(
        description="a list, or a count n for 0..n-1"
    )
    scenarios: list[ScenarioGrid] = Field(min_length=1)
    budget: dict[str, Any]
    hyperparameters: dict[str, Any] = Field({}, description="shared by all algorithms")
    algorithms: list[ArmEntry] = Field(min_length=1)
    target: PositiveShare | None = None
    tuning: Tuning | None = Field(None, description="left out: every method runs with its defaults")
    metrics: list[str] = Field(
        [], description="groups of metrics (src/heterobench/measures/) beside accuracy, clients and costs"
    )
    snapshots: FewOrNone = Field(
        0, description="models kept along each run, evenly spaced; 2 or more: the first, the last, and between"
    )

    @field_validator("algorithms", mode="before")
    @classmethod
    def _names_are_entries(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [{"algorithm": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator("snapshots")
    @classmethod
    def _both_ends(cls, value: int) -> int:
        if value == 1:
            raise ValueError("must be 0, or at least 2: the first and the last evaluated round")
        return value

    @field_validator("seeds")
    @classmethod
    def _count_is_range(cls, value: list[int] | int) -> list[int]:
        seeds = list(range(value)) if isinstance(value, int) else value
        if not seeds or len(set(seeds)) != len(seeds):
            raise ValueError("at least one seed, none of them twice")
        return seeds


class BenchmarkFile(Strict):
    """One file is one paper-style table."""

    title: Title
    about: str = ""
    presets: dict[Name, Preset] = Field(min_length=1)
