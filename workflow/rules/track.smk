# Runs appear in MLflow as they finish: a follower beside the workflow imports them, and this rule what is left.
# Training knows nothing of the tracker; where the tracker is dead, this rule alone fails and all results are there.
from heterobench.tracking.follow import start as start_follower


onstart:
    start_follower(PROJECT, os.getpid())


rule track:
    input:
        lambda wildcards: [
            file
            for scenario in BENCHMARKS[wildcards.benchmark].scenarios
            for file in runs_of(BENCHMARKS[wildcards.benchmark], scenario.name)
        ],
        lambda wildcards: reported(BENCHMARKS[wildcards.benchmark]),
    output:
        "results/{benchmark}/{preset}/tracked.json",
    log:
        "results/logs/{benchmark}/{preset}/track.log",
    localrule: True
    shell:
        "{PYTHON} track --output {output:q} > {log:q} 2>&1"
