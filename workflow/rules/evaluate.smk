# From records and saved models to the tables of a scenario.
rule evaluate:
    input:
        lambda wildcards: runs_of(BENCHMARKS[wildcards.benchmark], wildcards.scenario),
    output:
        evaluation="results/{benchmark}/{preset}/evaluation/{scenario}.parquet",
        curves="results/{benchmark}/{preset}/curves/{scenario}.parquet",
        ledger="results/{benchmark}/{preset}/ledger/{scenario}.parquet",
        outcomes="results/{benchmark}/{preset}/outcomes/{scenario}.parquet",
        evaluated="results/{benchmark}/{preset}/evaluated/{scenario}.json",
    log:
        "results/logs/{benchmark}/{preset}/evaluate/{scenario}.log",
    threads: CONFIG.threads
    params:
        target=lambda wildcards: {
            s.name: s.target for s in BENCHMARKS[wildcards.benchmark].scenarios
        }[wildcards.scenario],
        metrics=lambda wildcards: list(BENCHMARKS[wildcards.benchmark].metrics),
        code=fingerprint(["heterobench.evaluation"]),
    shell:
        "{PYTHON} evaluate --benchmark {wildcards.benchmark:q} --preset {wildcards.preset:q}"
        " --scenario {wildcards.scenario:q} > {log:q} 2>&1"
