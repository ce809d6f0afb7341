"""The command line: thin, over the same functions that the workflow's rules call.

Heavy libraries are imported by the command that needs them, so that `heterobench list` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import asdict
from pathlib import Path

from heterobench import __version__, resolve
from heterobench.account import ensure_account
from heterobench.addresses import Formatter
from heterobench.config.numbers import Count, Port, Process, Seed, argument
from heterobench.failure import explained
from heterobench.files import write_json
from heterobench.project import Project


def _list(project: Project, options: argparse.Namespace) -> None:
    from heterobench.commands.listing import show

    show(project, options.kind)


def _run(project: Project, options: argparse.Namespace) -> None:
    from heterobench.commands.single import run_single

    run_single(project, options)


def _watch(project: Project, options: argparse.Namespace) -> None:
    from heterobench.commands.watch import watch

    watch(project, once=options.once)


def _doctor(project: Project, options: argparse.Namespace) -> int:
    from heterobench.commands.doctor import doctor

    return 0 if doctor(project) else 1


def _ui(project: Project, options: argparse.Namespace) -> None:
    from heterobench.tracking.ui import ui

    ui(project, port=options.port, host=options.host)


def _obtain(project: Project, options: argparse.Namespace) -> None:
    from heterobench.data.versioned import obtain

    obtain(project, options.dataset)


def _document(project: Project, options: argparse.Namespace) -> None:
    from heterobench.data.page import write_pages

    for path in write_pages(project, Path(options.output)):
        print(path)


def _prepare(project: Project, options: argparse.Namespace) -> None:
    from heterobench.data.prepare import prepare

    print(prepare(project, options.dataset))


def _partition(project: Project, options: argparse.Namespace) -> None:
    from heterobench.commands.single import draw_partitions

    for manifest in draw_partitions(project, options.dataset, options.partition, options.seeds):
        print(manifest)


def _picture(project: Project, options: argparse.Namespace) -> None:
    from heterobench.commands.single import draw_pictures

    for path in draw_pictures(project, options.dataset, options.partitions, options.seed):
        print(path)


def _benchmark(project: Project, options: argparse.Namespace) -> resolve.Benchmark:
    return resolve.benchmark(project, options.benchmark, options.preset or resolve.config(project).preset)


def _train(project: Project, options: argparse.Namespace) -> None:
    from heterobench.training import run_job
    from heterobench.tuning import final_job

    benchmark = _benchmark(project, options)
    job = final_job(benchmark, options.scenario, options.algorithm)
    print(run_job(job, options.seeds or benchmark.seeds, resolve.config(project)))


def _tune(project: Project, options: argparse.Namespace) -> None:
    from heterobench.tuning import tune

    print(tune(_benchmark(project, options), options.scenario, options.algorithm, resolve.config(project)))


def _evaluate(project: Project, options: argparse.Namespace) -> int:
    from heterobench.evaluation import write_evaluation

    threads = resolve.config(project).threads
    paths, damaged = write_evaluation(_benchmark(project, options), options.scenario, threads)
    print("\n".join(map(str, paths)))
    for line in damaged:
        print(f"heterobench: {line}", file=sys.stderr)
    return 1 if damaged else 0


def _report(project: Project, options: argparse.Namespace) -> None:
    from heterobench.report.build import build

    benchmark = _benchmark(project, options)
    if options.evaluate:
        from heterobench.evaluation import write_evaluation

        for scenario in benchmark.scenarios:
            for line in write_evaluation(benchmark, scenario.name, resolve.config(project).threads)[1]:
                print(f"heterobench: {line}", file=sys.stderr)
    for path in build(benchmark):
        print(path)


def _keep(project: Project, options: argparse.Namespace) -> int:
    from heterobench.commands.keep import differences, keep

    benchmark, output = _benchmark(project, options), Path(options.output)
    if options.check:
        found = list(differences(benchmark, output))
        print("\n".join(found) or "every run is the kept one, bit for bit")
        return 1 if found else 0
    for path in keep(benchmark, options.tables, output):
        print(path)
    return 0


def _paper(project: Project, options: argparse.Namespace) -> None:
    from heterobench.report.paper import write_paper

    for path in write_paper(_benchmark(project, options)):
        print(path)


def _track(project: Project, options: argparse.Namespace) -> None:
    if options.follow:
        from heterobench.tracking.follow import follow

        follow(project, options.follow)
    else:
        from heterobench.tracking.importer import track

        summary = track(project)
        print(summary)
        if options.output:
            write_json(Path(options.output), asdict(summary))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="heterobench",
        description="Published comparisons of learning on unevenly split data, run again, fairly. "
        "`snakemake` reproduces all benchmarks; these commands do single steps of it.",
    )
    parser.add_argument("--version", action="version", version=f"heterobench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    def in_benchmark(sub: argparse.ArgumentParser, *, scenario: bool) -> None:
        sub.add_argument("--benchmark", required=True, help="a file in params/benchmarks/")
        sub.add_argument("--preset", help="default: preset of params/config.yaml")
        if scenario:
            sub.add_argument("--scenario", required=True, help="dataset.partition.model.schedule")

    sub = command("list", _list, "what there is, with a line about each")
    kinds = ["algorithms", "benchmarks", "datasets", "models", "partitions", "published", "schedules"]
    sub.add_argument("kind", choices=kinds)

    sub = command("run", _run, "one run without Snakemake: data, partition, training, scores")
    sub.add_argument("--dataset", default="digits")
    sub.add_argument("--partition", default="dirichlet-0.1")
    sub.add_argument("--model", default="mlp")
    sub.add_argument("--schedule", default="full")
    sub.add_argument("--algorithm", default="fedavg", help="an algorithm or a variant, as in `list algorithms`")
    sub.add_argument("--seed", type=argument(Seed), default=0)
    sub.add_argument("--rounds", type=argument(Count), default=20)
    sub.add_argument("--local-epochs", type=argument(Count), default=1)
    sub.add_argument("--batch-size", type=argument(Count), default=16)
    sub.add_argument("--evaluate-every", type=argument(Count), default=1)
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a hyper-parameter; repeatable")

    sub = command("watch", _watch, "progress of running jobs")
    sub.add_argument("--once", action="store_true", help="print the present state and end")

    command("doctor", _doctor, "what is installed and reachable, and what to do about what is not")

    sub = command("ui", _ui, "start the MLflow page on this project's runs")
    sub.add_argument("--port", type=argument(Port), default=5000)
    sub.add_argument("--host", default="127.0.0.1")

    sub = command("track", _track, "import finished runs into MLflow; importing again changes nothing")
    sub.add_argument("--follow", type=argument(Process), metavar="PID", help="go on importing until that process ends")

    sub.add_argument("--output", help="a .json file for the counts")

    sub = command("obtain", _obtain, "raw files of a data set: dvc pull, else its DVC stage")
    sub.add_argument("dataset")

    sub = command("prepare", _prepare, "raw files to memory-mapped arrays")
    sub.add_argument("dataset")

    sub = command("document", _document, "a page for each data set, from its parameter file")
    sub.add_argument("--output", default="docs/datasets", help="folder of the pages")

    sub = command("partition", _partition, "draw and store partitions")
    sub.add_argument("dataset")
    sub.add_argument("partition")
    sub.add_argument("--seeds", type=argument(Seed), nargs="+", default=[0])

    sub = command("picture", _picture, "pictures of stored partitions")
    sub.add_argument("dataset")
    sub.add_argument("partitions", nargs="+")
    sub.add_argument("--seed", type=argument(Seed), default=0)

    sub = command("tune", _tune, "the trials of one scenario and algorithm of a benchmark, and the best of them")
    in_benchmark(sub, scenario=True)
    sub.add_argument("--algorithm", required=True, help="a row of the benchmark")

    sub = command("train", _train, "all runs of one scenario and algorithm of a benchmark")
    in_benchmark(sub, scenario=True)
    sub.add_argument("--algorithm", required=True, help="a row of the benchmark")
    sub.add_argument("--seeds", type=argument(Seed), nargs="+", help="default: the preset's")

    sub = command("evaluate", _evaluate, "scores of all runs of a scenario, from records and saved models")
    in_benchmark(sub, scenario=True)

    sub = command("report", _report, "tables, figures and the page of a benchmark, from its evaluations")
    in_benchmark(sub, scenario=False)
    sub.add_argument("--evaluate", action="store_true", help="evaluate the runs that are there first")

    sub = command("keep", _keep, "copy tables of a report to docs/results, with the digests of its runs")
    in_benchmark(sub, scenario=False)
    sub.add_argument("--tables", nargs="+", default=["accuracy"], metavar="TABLE", help="names of files in tables/")
    sub.add_argument("--output", default="docs/results", help="folder of what is kept")
    sub.add_argument("--check", action="store_true", help="compare the runs at hand with what was kept instead")

    sub = command("paper", _paper, "the tables and figures of a report as a short PDF; needs LaTeX")
    in_benchmark(sub, scenario=False)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; whatever goes wrong is told without a traceback. Returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    ensure_account()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # tells of every letter that a figure uses
    project = None
    try:
        project = Project.find()
        return options.function(project, options) or 0
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("heterobench: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        print(f"heterobench: {explained(error, arguments, project)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
