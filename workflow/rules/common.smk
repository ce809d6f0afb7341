# What is to be made: read once from params/, checked before any job starts.
import json
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from heterobench import resolve
from heterobench.config.names import PART
from heterobench.data.readers import module_name as reader_module
from heterobench.data.schema import SOURCE, load_dataset_file
from heterobench.device import visible_gpus
from heterobench.errors import HeterobenchError
from heterobench.project import Project
from heterobench.records.provenance import fingerprint, training_code
from heterobench.report.outputs import (
    figure_files,
    report_file,
    score_folders,
    table_files,
)
from heterobench.tuning import chosen_file, protocol
from heterobench.workflow_lock import sign

try:
    PROJECT = Project.find(Path.cwd())
    if workflow.is_main_process:
        sign(PROJECT)
    os.environ[resolve.OVERRIDES] = json.dumps(config)  # jobs see what --config said
    CONFIG = resolve.config(PROJECT)
    BENCHMARKS = {
        name: resolve.benchmark(PROJECT, name, CONFIG.preset)
        for name in CONFIG.benchmarks
    }
    DATASETS = sorted({s.dataset for b in BENCHMARKS.values() for s in b.scenarios})
    DATASET_FILES = {name: load_dataset_file(PROJECT, name) for name in DATASETS}
except HeterobenchError as error:
    raise WorkflowError(str(error)) from None

GPUS = visible_gpus() if CONFIG.device != "cpu" else 0
# In shell commands these two are words already quoted; every other value has the format `:q`, which quotes it.
CLI = ["-m", "heterobench.cli"]
RANKS = ["-m", "heterobench.executor.launch", str(CONFIG.ranks)]
PYTHON = shlex.join([sys.executable, *CLI])
TRAIN = shlex.join([sys.executable, *(RANKS if CONFIG.ranks > 1 else []), *CLI])


wildcard_constraints:
    benchmark=PART,
    preset=PART,
    scenario=PART,
    arm=PART,
    dataset=PART,
    partition=PART,
    seed=r"\d+",


def here(path):
    """A path inside the project as Snakemake names files: relative to the working directory."""
    return str(Path(path).relative_to(PROJECT.root))


def job_of(wildcards):
    return BENCHMARKS[wildcards.benchmark].job(wildcards.scenario, wildcards.arm)


def runs_of(benchmark, scenario):
    """The manifests of all training jobs of a scenario."""
    return [
        here(
            PROJECT.runs(benchmark.name, benchmark.preset, scenario, arm.name)
            / "runs.json"
        )
        for arm in benchmark.arms
    ]


def reported(benchmark):
    """Everything that a reader of the benchmark opens."""
    paths = [*table_files(benchmark), *figure_files(benchmark), report_file(benchmark)]
    return [here(path) for path in paths]


def final_files():
    files = []
    for benchmark in BENCHMARKS.values():
        files += reported(benchmark)
        files += [here(path) for path in score_folders(benchmark)]
        files.append(
            here(PROJECT.benchmark(benchmark.name, benchmark.preset) / "tracked.json")
        )
    return files
