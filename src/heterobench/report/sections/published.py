"""Published numbers beside our own, where both are of the same data set, partition and algorithm.

The rule of the verdict: a number is *reproduced* where the mean of our runs is within two of the published standard
deviations of the published mean, or within the tolerance that its entry states instead. Why not the usual interval of
the difference of means, |ours - theirs| <= 2 sqrt(s_theirs^2 / n_theirs + s_ours^2 / n_ours)? Because the tolerance
then depends on our runs: noisy ones would widen it until anything is reproduced, and many of them would narrow it
until rounding in another version of a library is a difference. Two published deviations are known before anything
runs. That interval is shown beside the verdict, not in its place.

What the rule means: with n_theirs and n_ours runs of one normal distribution, the difference over the published
deviation is sqrt(1 / n_theirs + 1 / n_ours) times a Student variable with n_theirs - 1 degrees of freedom. With three
published runs and five of ours, 89 % of honest repetitions pass (P(|T| <= t) = t / sqrt(2 + t^2) for two degrees of
freedom): one cell that differs is no alarm, many are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from heterobench.config.algorithm_file import Published, PublishedNumber
from heterobench.config.reading import load
from heterobench.config.schema import ModelFile, PartitionFile
from heterobench.data.schema import DatasetFile
from heterobench.partition import changes, schemes
from heterobench.project import Project
from heterobench.report import labels
from heterobench.report.metrics import METRICS
from heterobench.report.table import Cell, Column, Group, Row, Section, Source, Table
from heterobench.report.tables import mean_cell
from heterobench.resolve import Arm, Benchmark, Job, Scenario

if TYPE_CHECKING:
    from heterobench.report.data import ReportData

KEY, TITLE = "published", "Published numbers"
READING = (
    "What others have published for the same data set, partition and algorithm, beside our own runs. Their round is "
    "often the best one on the test set; ours is chosen as theirs was, here only.",
    "Reproduced: all that is known of the published setting agrees with ours, and our mean is within the tolerance, "
    "two of the published standard deviations. Differs: the setting agrees and the numbers do not, or runs of ours "
    "diverged. With three published runs about one honest repetition in nine falls outside, so one such cell is no "
    "alarm, and many are.",
    "Not comparable: the setting differs in what is named; in brackets stands what was published. In a tuned table the "
    "hyper-parameters differ by nature, and there is no verdict. Shown only: the number is no target, for the reason "
    "given.",
)
CAPTIONS: dict[str, str] = {}

REPRODUCED, DIFFERS = "reproduced", "differs"
NOT_COMPARABLE, NOT_RUN, SHOWN_ONLY = "not comparable", "not run", "shown only"
ROUND = {"oracle": "best round on the test set", "last": "last round", "validation": "best round on validation data"}
UNSTATED = "last"  # which of our rounds stands beside a number whose source does not say which of theirs it is of

COLUMNS = (
    Column("verdict", "Verdict", words=True),
    Column("ours", "Ours", unit="%", digits=2),
    Column("theirs", "Published", unit="%", digits=2),
    Column("difference", "Difference", unit="points", digits=2, signed=True),
    Column("tolerance", "Tolerance", unit="points", digits=2),
    Column("error", "2 s.e.", unit="points", digits=2),
    Column("because", "Because", words=True),
)


class Verdict(NamedTuple):
    word: str
    because: str = ""


def deviation(entry: Published, number: PublishedNumber) -> float:
    """The published standard deviation over seeds; NaN where none is, or where the printed spread is something else."""
    known = number.deviation is not None and entry.spread == "standard deviation over seeds"
    return number.deviation if known else math.nan


def tolerance(entry: Published, number: PublishedNumber) -> float:
    """Largest difference of means that counts as reproduced, in the unit of the number; NaN where none can be said."""
    return 2 * deviation(entry, number) if number.tolerance is None else number.tolerance


def two_errors(theirs: float, n_theirs: int | None, ours: float, n_ours: int) -> float:
    """Two standard errors of the difference of two means, from their standard deviations; NaN where one is missing."""
    if not n_theirs or not n_ours:
        return math.nan
    return 2 * math.sqrt(theirs**2 / n_theirs + ours**2 / n_ours)


def judge(
    reason: str, differences: list[str], ours: float, theirs: float, allowed: float, diverged: int = 0
) -> Verdict:
    """The verdict on our mean and theirs, in one unit; the first of the rules that applies.

    `reason`: why the number is no target. `differences`: where our setting is another. `ours` NaN: no run has a value.
    `diverged`: runs of ours without a value for that: the mean over the others is not what was published.
    The tolerance counts as kept up to rounding.
    """
    if reason:
        return Verdict(SHOWN_ONLY, reason)
    if differences:
        return Verdict(NOT_COMPARABLE, "; ".join(differences))
    if diverged:
        return Verdict(DIFFERS, f"{diverged} run{'s' * (diverged > 1)} of ours diverged")
    if not math.isfinite(ours):
        return Verdict(NOT_RUN)
    return Verdict(REPRODUCED if abs(ours - theirs) <= allowed + 1e-9 else DIFFERS)


def procedure(file: PartitionFile) -> tuple:
    """What a partition file does, without names: equal procedures draw from the same distribution.

    The number of clients stands for itself, and shares for validation and test belong to the use of the examples.
    """
    scheme, options = schemes.check(file, file.title)
    changed = [(change.name, of.model_dump()) for change, of in changes.check(file, file.title)]
    return scheme.name, options.model_dump(), changed


def matching(scenario: Scenario, arm: Arm) -> Iterator[tuple[Published, PublishedNumber]]:
    """Published numbers of the algorithm on the data set and partition of a scenario, whatever else may differ."""
    for entry in arm.published:
        if entry.clients not in (None, scenario.partition_file.clients):
            continue
        for number in entry.numbers:
            if number.dataset != scenario.dataset or number.partition is None:
                continue
            if procedure(entry.partition_of(number)) == procedure(scenario.partition_file):
                yield entry, number


def setting_differences(
    job: Job, entry: Published, number: PublishedNumber, inputs: str, tuned: dict[str, Any] | None
) -> list[str]:
    """Where our setting is not the published one, as "rounds 30 (50)", theirs in brackets.

    What the source does not state is not compared.

    `inputs`: what our nets see (`our_inputs`). `tuned`: the hyper-parameters that tuning chose, {} without tuning and
    None where it has not chosen yet.
    """
    scenario = job.scenario
    file, budget = scenario.partition_file, scenario.budget
    pairs: list[tuple[str, Any, Any]] = [
        ("net", *_nets(job, entry)),
        ("schedule", scenario.schedule, entry.schedule),
        ("training share", 1 - file.validation - file.test, entry.training),
        ("inputs", inputs, entry.inputs),
        ("augmentation", scenario.model_file.augmentation, entry.augmentation_of(number)),
        ("rounds", budget.rounds, getattr(entry.budget, "rounds", None)),
        ("local epochs", budget.local_epochs, getattr(entry.budget, "local_epochs", None)),
        ("batch size", budget.batch_size, getattr(entry.budget, "batch_size", None)),
        ("rounds between evaluations", budget.evaluate_every, 1 if entry.selection == "oracle" else None),
    ]
    found = [_difference(*pair) for pair in pairs if pair[2] is not None and not _same(*pair[1:])]
    found += _hyperparameters(job, entry.settings_of(number), tuned)
    return found + [f"not offered here: {lacking}" for lacking in (*entry.lacking, *number.lacking)]


def _nets(job: Job, entry: Published) -> tuple[str, str | None]:
    """Names of our net and of the published one: the same word where they differ in what they see alone."""
    if entry.model is None:
        return job.scenario.model, None
    ours, theirs = job.scenario.model_file, load(job.project, "models", entry.model, ModelFile)
    same = (ours.architecture, ours.options) == (theirs.architecture, theirs.options)
    return (entry.model if same else job.scenario.model), entry.model


def our_inputs(project: Project, scenario: Scenario) -> str:
    """What the net of a scenario sees, in the words of `Published.inputs`."""
    if (inputs := scenario.model_file.inputs) != "standardised":
        return inputs
    file = load(project, "datasets", scenario.dataset, DatasetFile)
    return "unit interval" if set(file.mean) == {0} and set(file.std) == {1} else "standardised"


def _hyperparameters(job: Job, theirs: dict[str, Any], tuned: dict[str, Any] | None) -> list[str]:
    if tuned is None:
        return ["hyper-parameters: not tuned yet"]
    ours = replace(job, tuned=tuned).hyperparameters.model_dump()
    usual = type(job.hyperparameters)(**job.arm.defaults).model_dump()
    found = []
    for name, value in ours.items():
        wanted = theirs.get(name, usual[name])
        if not any(_same(value, one) for one in (wanted if isinstance(wanted, list) else [wanted])):
            found.append(_difference(f"tuned {name}" if name in tuned else name, value, wanted))
    return found


def _difference(what: str, ours: Any, theirs: Any) -> str:
    return f"{what} {_shown(ours)} ({_shown(theirs)})"


def _same(a: Any, b: Any) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
    return math.isclose(a, b, rel_tol=1e-9) if numbers else a == b


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"one of {', '.join(map(_shown, value))}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ("published",)


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def figures(data: ReportData) -> dict[str, Any]:
    return {}


def tables(data: ReportData) -> list[Table]:
    benchmark = data.benchmark
    marks: dict[tuple[str, str], str] = {}
    footnotes: list[tuple[str, str]] = []
    sections = []
    for scenario in benchmark.scenarios:
        found = [(arm, *pair) for arm in benchmark.arms for pair in matching(scenario, arm)]
        seen = our_inputs(benchmark.project, scenario) if found else ""
        rows: dict[tuple[str, str], list[Row]] = {}
        for place, (arm, entry, number) in enumerate(found):
            key = (entry.source, entry.setting)
            if key not in marks:
                marks[key] = str(len(marks) + 1)
                footnotes.append((marks[key], about(entry)))
            cells = _cells(data, scenario, arm, entry, number, seen)
            rows.setdefault(key, []).append(Row(f"{arm.name}-{place}", arm.title, cells, (marks[key],)))
        for key, of in rows.items():
            title = f"{labels.title(benchmark, scenario)}: {key[0]}"
            sections.append(Section(f"{scenario.name}-{marks[key]}", title, (Group("", tuple(of)),)))
    notes = (
        "Reproduced: the setting agrees, and the means differ by no more than the tolerance, two published standard "
        "deviations. Not comparable: the setting differs in what is named; in brackets what was published.",
        f"Mean ± standard deviation, no interval; ours over {len(benchmark.seeds)} runs. Difference: ours minus "
        "published. 2 s.e.: two standard errors of that difference, from both deviations; for information.",
    )
    return [
        Table(
            "published",
            "Published numbers and ours",
            ", ".join(labels.common(benchmark)),
            COLUMNS,
            tuple(sections),
            tuple(footnotes),
            notes if sections else (),
            protocol="Round: chosen as in the published number." if sections else "",
            empty="No published number that is stored beside the algorithms is of a data set and partition of this "
            "benchmark.",
        )
    ]


def about(entry: Published) -> str:
    """The footnote on an entry."""
    which = f"theirs and ours at the {ROUND[entry.selection]}" if entry.selection else "not said; ours the last"
    runs = f" Runs: {entry.seeds}." if entry.seeds else ""
    text = f"{entry.setting}.{runs} Round: {which}. Evidence: {entry.evidence}."
    return " ".join(filter(None, (text, entry.note)))


def _cells(
    data: ReportData, scenario: Scenario, arm: Arm, entry: Published, number: PublishedNumber, inputs: str
) -> tuple[Cell, ...]:
    source = Source(scenario.name, arm.name, entry.selection or UNSTATED, entry.metric)
    scale = METRICS[entry.metric].scale
    found = data.cells.get(source, {"mean": math.nan, "std": math.nan, "n_finite": 0})
    ours, std, n = found["mean"] * scale, found["std"] * scale, found["n_finite"]
    tuned = {} if data.benchmark.tuning is None else _chosen(data, scenario, arm)
    job = data.benchmark.job(scenario.name, arm.name)
    differences = setting_differences(job, entry, number, inputs, tuned)
    runs = entry.seeds or 0
    spread, allowed = deviation(entry, number), tolerance(entry, number)
    verdict = judge(entry.reason_of(number), differences, ours, number.value, allowed, _diverged(data, source))
    return (
        Cell(text=verdict.word),
        replace(mean_cell(data, source), half=std, bold=False),
        Cell(number.value, half=spread, std=spread, n=runs, n_finite=runs, n_expected=runs),
        Cell(ours - number.value, of=(source,)),
        Cell(allowed),
        Cell(two_errors(spread, entry.seeds, std, n)),
        Cell(text=verdict.because),
    )


def _diverged(data: ReportData, source: Source) -> int:
    """Runs that have diverged and have no value."""
    diverged, found = data.diverged.get((source.scenario, source.arm), ()), data.values.get(source, {})
    return sum(not math.isfinite(found.get(seed, math.nan)) for seed in diverged)


def _chosen(data: ReportData, scenario: Scenario, arm: Arm) -> dict[str, Any] | None:
    found = data.tuning.get((scenario.name, arm.name))
    return None if found is None else found["hyperparameters"]
