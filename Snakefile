# Reproduces every benchmark that params/config.yaml names: data -> partition -> train -> evaluate -> report, tracked.
from snakemake.utils import min_version

min_version("9.16")


configfile: "params/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/partition.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/track.smk"


rule all:
    default_target: True
    input:
        final_files(),
