# Raw files belong to DVC, prepared arrays to Snakemake.
def raw(dataset):
    return [
        here(PROJECT.raw(dataset) / file)
        for file in [*DATASET_FILES[dataset].raw_paths, SOURCE]
    ]


def prepared(dataset):
    return here(PROJECT.prepared(dataset) / "manifest.json")


def contents(dataset):
    """What decides the raw files: everything that is said of the forms but where the downloads are."""
    exclude = {"downloads": {"__all__": {"sources"}}}
    return [form.model_dump(exclude=exclude) for form in DATASET_FILES[dataset].forms]


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
            forms=contents(name),
        shell:
            "{PYTHON} obtain {params.dataset:q} > {log:q} 2>&1"

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
                exclude={"title", "licence", "canonical", "description", "forms"}
            ),
            code=fingerprint(
                [
                    "heterobench.data.prepare",
                    reader_module(DATASET_FILES[name].reader),
                ]
            ),
        shell:
            "{PYTHON} prepare {params.dataset:q} > {log:q} 2>&1"


rule data_set_pages:
    input:
        [here(path) for path in sorted((PROJECT.params / "datasets").glob("*.yaml"))],
    output:
        "docs/datasets/README.md",
    log:
        "results/logs/data/pages.log",
    localrule: True
    shell:
        "{PYTHON} document --output docs/datasets > {log:q} 2>&1"
