"""What a file in params/algorithms/ may hold. Field descriptions are the documentation of the keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from heterobench.config.names import Name, Title
from heterobench.config.numbers import Clients, Count, NonNegative, Positive, Real, Share
from heterobench.config.schema import Augmentation, ChangeEntry, PartitionFile
from heterobench.config.strict import Strict


class Variant(Strict):
    title: Title
    defaults: dict[str, Any]
    sources: dict[str, str] = {}


class PublishedPartition(Strict):
    """How the examples were given to the clients, in the words of a partition file.

    Compared by what it does and not by a name: "Dirichlet" alone means several procedures.
    """

    scheme: str = Field(description="a scheme of src/heterobench/partition/schemes/")
    options: dict[str, Any] = {}
    changes: list[ChangeEntry] = []


class PublishedBudget(Strict):
    rounds: Count
    local_epochs: Count
    batch_size: Count


class _Target(Strict):
    target: bool = Field(True, description="false: shown beside our numbers, but no verdict is drawn from it")
    reason: str = Field("", description="why it is no target")

    @model_validator(mode="after")
    def _reasoned(self):
        if self.target == bool(self.reason):
            raise ValueError("target: false needs a reason, and a reason needs target: false")
        return self


class PublishedNumber(_Target):
    """One cell of a published table: what is special to it."""

    dataset: str
    partition: PublishedPartition | None = Field(None, description="left out: none of ours; see `lacking`")
    variant: str | None = Field(None, description="variant of the algorithm; left out: the algorithm itself")
    hyperparameters: dict[str, Any] = Field({}, description="beside those of the whole entry")
    value: Real
    deviation: NonNegative | None = Field(None, description="the printed spread; `spread` says what it is")
    tolerance: Positive | None = Field(None, description="largest difference, instead of two standard deviations")
    augmentation: Augmentation | None = Field(None, description="instead of the whole entry's")
    lacking: list[str] = Field([], description="as in the whole entry")


class Published(_Target):
    """Numbers from one source under one setting, with how far they may be trusted.

    What the source does not state is left out; such numbers are no targets. The rule that compares a target with our
    runs stands in `heterobench.report.sections.published`.
    """

    setting: str = Field(description="the setting in a few words, for people")
    source: str = Field(description="public repository and file, or address")
    evidence: Literal["official code", "third-party code", "web page", "abstract", "memory"]
    note: str = ""
    model: str | None = Field(None, description="a file in params/models/")
    clients: Clients | None = Field(None)
    schedule: str | None = Field(None, description="a file in params/schedules/")
    training: Share | None = Field(None, description="share of each client's examples that it trains on")
    inputs: Literal["unit interval", "standardised"] | None = Field(
        None, description="pixels / maximum; or these minus their mean, divided by their standard deviation"
    )
    augmentation: Augmentation | None = Field(None, description="of training images, as in a model's file")
    lacking: list[str] = Field([], description="parts of their setting that do not exist here: never comparable")
    budget: PublishedBudget | None = None
    hyperparameters: dict[str, Any] = Field(
        {}, description="a list: the best of these was published. What is left out is at the algorithm's defaults"
    )
    seeds: Count | None = Field(None, description="runs behind each number")
    selection: Literal["oracle", "last", "validation"] | None = Field(
        None, description="which round counts; oracle: the best on the test set"
    )
    metric: Literal["test_accuracy"] = "test_accuracy"
    unit: Literal["%"] = "%"
    spread: Literal["standard deviation over seeds", "half an interval"] | None = None
    numbers: list[PublishedNumber] = Field(min_length=1)

    @model_validator(mode="after")
    def _targets_are_known(self):
        for place, number in enumerate(self.numbers):
            if problem := self._not_a_target(number):
                raise ValueError(f"numbers.{place}: {problem}; say target: false and the reason")
        return self

    def _not_a_target(self, number: PublishedNumber) -> str:
        """What is wrong with a number that calls itself a target; empty where nothing is."""
        if self.reason_of(number):
            return ""
        if self.evidence == "memory":
            return "evidence: a number from memory is never a target"
        stated = ("clients", "schedule", "training", "inputs", "augmentation", "budget", "seeds", "selection")
        known = {key: getattr(self, key) for key in stated} | {"augmentation": self.augmentation_of(number)}
        if missing := [key for key in stated if known[key] is None]:
            return f"{', '.join(missing)}: a target needs what is not stated here"
        lacking = [*self.lacking, *number.lacking]
        missing = [key for key, of in (("model", self), ("partition", number)) if getattr(of, key) is None]
        if missing and not lacking:
            return f"{', '.join(missing)}: a target needs it, or `lacking` with what it is"
        if number.tolerance is None and not (self.spread == "standard deviation over seeds" and number.deviation):
            return "a target needs a deviation above 0 that is a standard deviation over seeds, or a tolerance"
        return ""

    def reason_of(self, number: PublishedNumber) -> str:
        """Why a number of this entry is no target; empty where it is one."""
        return number.reason or self.reason

    def augmentation_of(self, number: PublishedNumber) -> str | None:
        """What its training made of images; None where that is not stated."""
        return number.augmentation or self.augmentation

    def settings_of(self, number: PublishedNumber) -> dict[str, Any]:
        """Its hyper-parameters."""
        return self.hyperparameters | number.hyperparameters

    def partition_of(self, number: PublishedNumber) -> PartitionFile:
        """Its partition, which has to be known, like one of params/partitions/; of one client where that is unknown."""
        return PartitionFile(title=self.setting, clients=self.clients or 1, **dict(number.partition))


class Range(Strict):
    """Numbers from `low` to `high`, uniform on a linear or on a logarithmic scale."""

    low: Real
    high: Real
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _in_order(self):
        if self.low >= self.high:
            raise ValueError(f"low must be less than high (found {self.low:g} and {self.high:g})")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low must be above 0 on a logarithmic scale (found {self.low:g})")
        return self


Space = Annotated[list[Any], Field(min_length=1)] | Range


class AlgorithmFile(Strict):
    """Defaults with their sources, search space and published numbers of one source file."""

    title: Title
    reference: str
    defaults: dict[str, Any] = {}
    sources: dict[str, str] = Field({}, description="where each default comes from")
    search: dict[str, Space] = Field({}, description="what tuning may try: a list of values, or a range of numbers")
    variants: dict[Name, Variant] = Field({}, description="named settings, usable like an algorithm")
    published: list[Published] = []
