# One process trains one algorithm in one scenario, for all seeds. Its runs and their checkpoints live beside the
# manifest and survive a killed job, which goes on from them; the manifest holds digests only.
def manifests(wildcards):
    benchmark, scenario = BENCHMARKS[wildcards.benchmark], job_of(wildcards).scenario
    return [
        here(PROJECT.partition_manifest(scenario.dataset, scenario.partition, seed))
        for seed in benchmark.seeds
    ]


def code_of(wildcards):
    job = job_of(wildcards)
    return training_code(job.arm.algorithm, job.scenario.model_file.architecture)


rule train:
    input:
        data=lambda wildcards: prepared(job_of(wildcards).scenario.dataset),
        partitions=manifests,
    output:
        "results/{benchmark}/{preset}/runs/{scenario}/{arm}/runs.json",
    log:
        "results/logs/{benchmark}/{preset}/train/{scenario}/{arm}.log",
    threads: CONFIG.threads * CONFIG.workers * CONFIG.ranks
    resources:
        gpu=1 if GPUS else 0,
    params:
        configuration=lambda wildcards: job_of(wildcards).configuration(),
        compute=[
            CONFIG.device,
            CONFIG.threads,
            CONFIG.executor == "vmap",
            CONFIG.precision,
        ],
        seeds=lambda wildcards: BENCHMARKS[wildcards.benchmark].seeds,
        code=code_of,
    shell:
        "{TRAIN} train --benchmark {wildcards.benchmark} --preset {wildcards.preset}"
        " --scenario {wildcards.scenario} --algorithm {wildcards.arm} --seeds {params.seeds} > {log} 2>&1"
