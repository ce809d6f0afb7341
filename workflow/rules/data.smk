# Raw files belong to DVC, prepared arrays to Snakemake.
def raw(dataset):
    return [
        here(PROJECT.raw(dataset) / file)
        for file in [*DATASET_FILES[dataset].raw_paths, SOURCE]
    ]


def prepared(dataset):
    return here(PROJECT.prepared(dataset) / "manifest.json")


for name in DATASETS:

    rule:
        name:
            f"raw_{name}"
        output:
            raw(name),
        log:
            f"results/logs/data/raw-{name}.log",
        localrule: True
        params:
            dataset=name,
        shell:
            "{PYTHON} obtain {params.dataset} > {log} 2>&1"

    rule:
        name:
            f"prepare_{name}"
        input:
            raw(name),
        output:
            prepared(name),
        log:
            f"results/logs/data/prepare-{name}.log",
        localrule: True
        params:
            dataset=name,
            description=DATASET_FILES[name].model_dump(
                exclude={"title", "licence", "canonical", "description"}
            ),
            code=fingerprint(["heterobench.data.prepare"]),
        shell:
            "{PYTHON} prepare {params.dataset} > {log} 2>&1"
