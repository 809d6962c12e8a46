# One training: a method on a backbone's features, for one seed. Unfinished work is kept in work/train/, not in the
# outputs, which Snakemake removes when a job fails: the same command continues where it was killed.


rule train:
    input:
        images="<results>/data/{dataset}/images.csv",
        captions="<results>/captions/{dataset}.csv",
        validation="<results>/data/{dataset}/validation.seed{seed}.csv",
        excluded=excluded_of_run,
        features=features_of_run,
    output:
        checkpoint="<results>/checkpoints/{dataset}/{run}/seed{seed}.safetensors",
        curve="<results>/checkpoints/{dataset}/{run}/seed{seed}.curve.jsonl",
    params:
        spec=run_spec,
        code=training_code,
        cmer=cmer_of_training,
        folder=subpath(input.images, parent=True),
        excluded=excluded_option,
        features=features_option,
    log:
        text="<logs>/train/{dataset}/{run}/seed{seed}.log",
        record="<logs>/train/{dataset}/{run}/seed{seed}.record.json",
    threads: threads_of_training
    resources:
        mem_mb=memory_of_training,
        runtime=minutes_of_training,
        gpu=gpus_of_training,
        nodes=1,  # of a cluster: torchrun's processes are on one
    shell:
        "{params.cmer} train --spec {params.spec:q} --folder {params.folder:q} --captions {input.captions:q}"
        " --validation {input.validation:q} {params.excluded} {params.features} --out {output.checkpoint:q}"
        " --record {log.record:q} 2>&1 | tee {log.text:q} >&2"


# What settings are chosen on: the validation recall of every run of the config.
rule validation:
    input:
        checkpoints_of_all,
    output:
        "<results>/validation.csv",
    params:
        code=code_digest("cmer.reporting.validation"),
        checkpoints=checkpoints_options,
    log:
        text="<logs>/tables/validation.log",
        record="<logs>/tables/validation.record.json",
    threads: 1
    resources:
        mem_mb=amount(1000),
        runtime=amount(10),
    localrule: True
    shell:
        "cmer validation {params.checkpoints} --out {output:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
