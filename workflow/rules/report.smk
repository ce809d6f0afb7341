# Tables, figures and one self-contained page for each benchmark, from its evaluations; on demand, a short PDF of them.
import heterobench.report
from heterobench.files import file_digest
from heterobench.report import paper as article
from heterobench.report.outputs import paper_file

CAPTIONS = Path(workflow.basedir) / "workflow" / "report"
TEMPLATES = sorted((Path(heterobench.report.__file__).parent / "templates").iterdir())


def caption_of(name, otherwise):
    """What Snakemake's own report says of a file: its caption, or that of its kind."""
    named = [name, *(["curves"] if name.startswith("curve") else []), otherwise]
    known = next(each for each in named if (CAPTIONS / f"{each}.rst").is_file())
    return f"../report/{known}.rst"


def in_report(benchmark, path):
    """A table or figure as Snakemake's own report shows it, in one of its forms."""
    kind = {".html": "table", ".svg": "figure"}.get(path.suffix)
    if kind is None:
        return here(path)
    return report(
        here(path),
        category=benchmark.title,
        subcategory=f"{kind.capitalize()}s",
        labels={kind: path.stem},
        caption=caption_of(path.stem, kind),
    )


def evaluated(benchmark):
    """What a report is made from, the pictures of the partitions aside."""
    folder = here(PROJECT.benchmark(benchmark.name, benchmark.preset))
    tables = [
        f"{folder}/{kind}/{s.name}.parquet"
        for s in benchmark.scenarios
        for kind in ("evaluation", "curves", "ledger", "outcomes")
    ]
    tuned = [
        here(chosen_file(benchmark, s.name, arm.name))
        for s in benchmark.scenarios
        for arm in benchmark.arms
        if benchmark.tuning
    ]
    digests = [f"{folder}/evaluated/{s.name}.json" for s in benchmark.scenarios]
    return tables + digests + tuned


for benchmark in BENCHMARKS.values():

    rule:
        name:
            f"report_{benchmark.name}"
        input:
            evaluated(benchmark),
            [
                here(PROJECT.partition_picture(dataset, partition))
                for dataset, partition in {
                    (s.dataset, s.partition): None for s in benchmark.scenarios
                }
            ],
        output:
            [in_report(benchmark, path) for path in table_files(benchmark)],
            [in_report(benchmark, path) for path in figure_files(benchmark)],
            report(
                here(report_file(benchmark)),
                category=benchmark.title,
                labels={"page": "everything on one page"},
                caption="../report/page.rst",
            ),
            [directory(here(path)) for path in score_folders(benchmark)],
        log:
            f"results/logs/{benchmark.name}/{benchmark.preset}/report.log",
        localrule: True
        params:
            names=["--benchmark", benchmark.name, "--preset", benchmark.preset],
            rows=[(arm.name, arm.title) for arm in benchmark.arms],
            about=[benchmark.title, benchmark.about],
            code=[fingerprint(["heterobench.report.build"])]
            + [file_digest(path) for path in TEMPLATES],
        shell:
            "{PYTHON} report {params.names:q} > {log:q} 2>&1"


def typeset_from(wildcards):
    """Tables and figures of a benchmark; where nothing can typeset them, the end before anything has begun."""
    try:
        article.engine()
    except HeterobenchError as error:
        raise WorkflowError(str(error)) from None
    benchmark = BENCHMARKS[wildcards.benchmark]
    files = [*table_files(benchmark), *figure_files(benchmark)]
    return [here(path) for path in files if path.suffix in (".tex", ".pdf")]


rule typeset:
    input:
        typeset_from,
    output:
        tex="results/{benchmark}/{preset}/paper.tex",
        pdf="results/{benchmark}/{preset}/paper.pdf",
    log:
        "results/logs/{benchmark}/{preset}/paper.log",
    localrule: True
    params:
        code=[fingerprint(["heterobench.report.paper"])]
        + [file_digest(path) for path in TEMPLATES if path.suffix == ".tex"],
    shell:
        "{PYTHON} paper --benchmark {wildcards.benchmark:q} --preset {wildcards.preset:q} > {log:q} 2>&1"


rule paper:
    input:
        [here(paper_file(benchmark)) for benchmark in BENCHMARKS.values()],
    localrule: True
