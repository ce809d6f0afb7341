# One process trains one algorithm in one scenario, for all seeds. Its runs and their checkpoints live beside the
# manifest and survive a killed job, which goes on from them; the manifest holds digests only.
COMPUTE = [
    CONFIG.device,
    CONFIG.threads,
    CONFIG.executor == "vmap",
    CONFIG.precision,
]


def manifests(wildcards, seeds):
    scenario = job_of(wildcards).scenario
    return [
        here(PROJECT.partition_manifest(scenario.dataset, scenario.partition, seed))
        for seed in seeds
    ]


def code_of(wildcards):
    job = job_of(wildcards)
    return training_code(job.arm.algorithm, job.scenario.model_file.architecture)


rule tune:
    input:
        data=lambda wildcards: prepared(job_of(wildcards).scenario.dataset),
        partitions=lambda wildcards: manifests(
            wildcards, BENCHMARKS[wildcards.benchmark].tuning.seeds
        ),
    output:
        "results/{benchmark}/{preset}/tuning/{scenario}/{arm}/chosen.json",
    log:
        "results/logs/{benchmark}/{preset}/tune/{scenario}/{arm}.log",
    threads: CONFIG.threads * CONFIG.workers * CONFIG.ranks
    resources:
        gpu=1 if GPUS else 0,
    params:
        protocol=lambda wildcards: protocol(
            BENCHMARKS[wildcards.benchmark], wildcards.scenario, wildcards.arm
        ),
        compute=COMPUTE,
        code=lambda wildcards: [code_of(wildcards), fingerprint(["heterobench.tuning"])],
    shell:
        "{TRAIN} tune --benchmark {wildcards.benchmark:q} --preset {wildcards.preset:q}"
        " --scenario {wildcards.scenario:q} --algorithm {wildcards.arm:q} > {log:q} 2>&1"


def tuned(wildcards):
    """What tuning has chosen; nothing in a table without tuning."""
    benchmark = BENCHMARKS[wildcards.benchmark]
    return (
        [here(chosen_file(benchmark, wildcards.scenario, wildcards.arm))]
        if benchmark.tuning
        else []
    )


rule train:
    input:
        data=lambda wildcards: prepared(job_of(wildcards).scenario.dataset),
        partitions=lambda wildcards: manifests(
            wildcards, BENCHMARKS[wildcards.benchmark].seeds
        ),
        tuned=tuned,
    output:
        "results/{benchmark}/{preset}/runs/{scenario}/{arm}/runs.json",
    log:
        "results/logs/{benchmark}/{preset}/train/{scenario}/{arm}.log",
    threads: CONFIG.threads * CONFIG.workers * CONFIG.ranks
    resources:
        gpu=1 if GPUS else 0,
    params:
        configuration=lambda wildcards: job_of(wildcards).configuration(),
        compute=COMPUTE,
        seeds=lambda wildcards: BENCHMARKS[wildcards.benchmark].seeds,
        code=code_of,
    shell:
        "{TRAIN} train --benchmark {wildcards.benchmark:q} --preset {wildcards.preset:q}"
        " --scenario {wildcards.scenario:q} --algorithm {wildcards.arm:q} --seeds {params.seeds:q} > {log:q} 2>&1"
