# One job draws a partition for all seeds. Files are stored under their content hash; the manifests name them, and
# as long as a manifest stays the same nothing below it runs again.
def partitions():
    """(dataset, partition) -> its seeds and its file, over all benchmarks."""
    found = {}
    for benchmark in BENCHMARKS.values():
        for scenario in benchmark.scenarios:
            seeds, _ = found.get((scenario.dataset, scenario.partition), (set(), None))
            found[scenario.dataset, scenario.partition] = (seeds | set(benchmark.seeds), scenario.partition_file)
    return found


def picture_of(dataset, partition):
    return here(PROJECT.results / "partitions" / dataset / f"{partition}.svg")


for (dataset, partition), (seeds, file) in partitions().items():

    rule:
        name:
            f"partition_{dataset}_{partition}"
        input:
            prepared(dataset),
        output:
            [here(PROJECT.partition_manifest(dataset, partition, seed)) for seed in sorted(seeds)],
        log:
            f"results/logs/partition/{dataset}-{partition}.log",
        params:
            names=[dataset, partition],
            seeds=sorted(seeds),
            options=file.model_dump(exclude={"title", "reference"}),
            code=fingerprint(["heterobench.partition.store"]),
        shell:
            "{PYTHON} partition {params.names} --seeds {params.seeds} > {log} 2>&1"

    rule:
        name:
            f"picture_{dataset}_{partition}"
        input:
            here(PROJECT.partition_manifest(dataset, partition, min(seeds))),
        output:
            report(
                picture_of(dataset, partition),
                category="Partitions",
                subcategory=dataset,
                labels={"partition": file.title, "seed": str(min(seeds))},
                caption="../report/partition.rst",
            ),
        log:
            f"results/logs/partition/picture-{dataset}-{partition}.log",
        params:
            names=[dataset, partition],
            seed=min(seeds),
        shell:
            "{PYTHON} picture {params.names} --seed {params.seed} --output {output} > {log} 2>&1"
