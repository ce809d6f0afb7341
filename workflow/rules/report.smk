# Tables, figures and one self-contained page for each benchmark, from its evaluations.
for benchmark in BENCHMARKS.values():
    folder = here(PROJECT.benchmark(benchmark.name, benchmark.preset))

    rule:
        name:
            f"report_{benchmark.name}"
        input:
            [
                f"{folder}/{kind}/{s.name}.parquet"
                for s in benchmark.scenarios
                for kind in ("evaluation", "curves")
            ],
            [
                here(PROJECT.partition_picture(dataset, partition))
                for dataset, partition in {
                    (s.dataset, s.partition): None for s in benchmark.scenarios
                }
            ],
        output:
            [
                (
                    report(
                        here(path),
                        category=benchmark.title,
                        subcategory="Tables",
                        labels={"table": path.stem},
                        caption=f"../report/{path.stem}.rst",
                    )
                    if path.suffix == ".html"
                    else here(path)
                )
                for path in table_files(benchmark)
            ],
            [
                (
                    report(
                        here(path),
                        category=benchmark.title,
                        subcategory="Learning curves",
                        labels={"figure": path.stem},
                        caption="../report/curves.rst",
                    )
                    if path.suffix == ".svg"
                    else here(path)
                )
                for path in figure_files(benchmark)
            ],
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
            code=fingerprint(["heterobench.report.build"]),
        shell:
            "{PYTHON} report {params.names} > {log} 2>&1"
