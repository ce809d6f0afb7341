# One job draws a partition for all seeds. Files are stored under their content hash; the manifests name them, and
# as long as a manifest stays the same nothing below it runs again.
def partitions():
    """(dataset, partition) -> its seeds, those of the tables, and its file, over all benchmarks."""
    found = {}
    for benchmark in BENCHMARKS.values():
        for scenario in benchmark.scenarios:
            seeds, shown, _ = found.get(
                (scenario.dataset, scenario.partition), (set(), set(), None)
            )
            found[scenario.dataset, scenario.partition] = (
                seeds | set(benchmark.all_seeds),
                shown | set(benchmark.seeds),
                scenario.partition_file,
            )
    return found


PARTITIONS = partitions()

for (dataset, partition), (seeds, _, file) in PARTITIONS.items():

    rule:
        name:
            f"partition_{dataset}+{partition}"
        input:
            prepared(dataset),
        output:
            [
                here(PROJECT.partition_manifest(dataset, partition, seed))
                for seed in sorted(seeds)
            ],
        log:
            f"results/logs/partition/{dataset}/{partition}.log",
        localrule: True
        params:
            names=[dataset, partition],
            seeds=sorted(seeds),
            options=file.model_dump(exclude={"title", "reference"}),
            code=fingerprint(["heterobench.partition.store"]),
        shell:
            "{PYTHON} partition {params.names:q} --seeds {params.seeds:q} > {log:q} 2>&1"


for dataset in DATASETS:
    drawn = {
        p: (min(shown), file)
        for (d, p), (_, shown, file) in PARTITIONS.items()
        if d == dataset
    }

    rule:
        name:
            f"pictures_{dataset}"
        input:
            [
                here(PROJECT.partition_manifest(dataset, p, seed))
                for p, (seed, _) in drawn.items()
            ],
        output:
            [
                report(
                    here(PROJECT.partition_picture(dataset, p)),
                    category="Partitions",
                    subcategory=dataset,
                    labels={"partition": file.title, "seed": str(seed)},
                    caption="../report/partition.rst",
                )
                for p, (seed, file) in drawn.items()
            ],
        log:
            f"results/logs/pictures/{dataset}.log",
        localrule: True
        params:
            names=[dataset, *drawn],
            seed=min(seed for seed, _ in drawn.values()),
            code=fingerprint(["heterobench.partition.picture"]),
        shell:
            "{PYTHON} picture {params.names:q} --seed {params.seed:q} > {log:q} 2>&1"
