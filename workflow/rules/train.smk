# One training: a method on a backbone's features, for one seed. Unfinished work is kept in work/train/, not in the
# outputs, which Snakemake removes when a job fails: rerun the same command to resume.


def launcher(wildcards):
    """The command that starts a training, through torchrun if it has several processes."""
    n = RESOURCES.processes(wildcards.run)
    return f"torchrun --standalone --nproc-per-node {n} -m cmer" if n > 1 else "cmer"


rule train:
    input:
        images="<results>/data/{dataset}/images.csv",
        captions="<results>/captions/{dataset}.csv",
        validation="<results>/data/{dataset}/validation.seed{seed}.csv",
        excluded=planned(PLAN.excluded_of_run),
        features=planned(PLAN.features_of_run),
        rich=planned(PLAN.rich_of_run),
        weights=planned(PLAN.weights_of_run),
    output:
        checkpoint="<results>/checkpoints/{dataset}/{run}/seed{seed}.safetensors",
        curve="<results>/curves/{dataset}/{run}/seed{seed}.jsonl",
    params:
        spec=planned(PLAN.run_spec),
        code=planned(PLAN.training_code),
        cmer=launcher,
        folder=subpath(input.images, parent=True),
        inputs=options(excluded="--excluded", features="--features", rich="--rich"),
    log:
        text="<logs>/train/{dataset}/{run}/seed{seed}.log",
        record="<logs>/train/{dataset}/{run}/seed{seed}.record.json",
    threads: training_threads
    resources:
        mem_mb=training_memory,
        runtime=amount(planned(RESOURCES.minutes_of_training)),
        gpu=planned(RESOURCES.gpus_of_training),
        gpu_jobs=uses_gpu(RESOURCES.gpus_of_training),
        nodes=1,  # of a cluster: torchrun's processes are on one
    shell:
        "{params.cmer} train --spec {params.spec:q} --folder {params.folder:q} --captions {input.captions:q}"
        " --validation {input.validation:q} {params.inputs} --out {output.checkpoint:q}"
        " --curve {output.curve:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"


# What settings are chosen on: the validation recall of every run of the config.
rule validation:
    input:
        checkpoints=PLAN.checkpoints(),
    output:
        "<results>/validation.csv",
    params:
        code=code_digest("cmer.reporting.validation"),
        checkpoints=options(checkpoints="--checkpoint"),
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
