# Raw files belong to DVC, prepared arrays to Snakemake.
def prepared(dataset):
    return here(PROJECT.prepared(dataset) / "manifest.json")


for name in DATASETS:

    rule:
        name:
            f"raw_{name}"
        output:
            [here(PROJECT.raw(name) / file) for file in DATASET_FILES[name].outputs],
        log:
            f"results/logs/data/raw-{name}.log",
        params:
            dataset=name,
        shell:
            "{PYTHON} obtain {params.dataset} > {log} 2>&1"

    rule:
        name:
            f"prepare_{name}"
        input:
            rules.__dict__[f"raw_{name}"].output,
        output:
            prepared(name),
        log:
            f"results/logs/data/prepare-{name}.log",
        params:
            dataset=name,
            description=DATASET_FILES[name].model_dump(exclude={"title", "licence", "canonical", "description"}),
            code=fingerprint(["heterobench.data.prepare"]),
        shell:
            "{PYTHON} prepare {params.dataset} > {log} 2>&1"
