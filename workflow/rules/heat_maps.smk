# Where in test images the scores of their captions come from: what figures of heat maps show of a run.


rule heat_maps:
    input:
        checkpoint="<results>/checkpoints/{dataset}/{run}/seed{seed}.safetensors",
        files=planned(PLAN.dataset_files),
        images="<results>/data/{dataset}/images.csv",
        captions="<results>/captions/{dataset}.csv",
        validation="<results>/data/{dataset}/validation.seed{seed}.csv",
        excluded=planned(PLAN.excluded_of_run),
        features=planned(PLAN.features_of_run),
        weights=planned(PLAN.weights_of_run),
    output:
        "<results>/heat_maps/{dataset}/{run}/seed{seed}.json",
    params:
        spec=planned(PLAN.heat_map_spec),
        code=planned(PLAN.heat_map_code),
        folder=subpath(input.images, parent=True),
        inputs=options(excluded="--excluded", features="--features"),
    log:
        text="<logs>/heat_maps/{dataset}/{run}/seed{seed}.log",
        record="<logs>/heat_maps/{dataset}/{run}/seed{seed}.record.json",
    threads: planned(RESOURCES.threads)
    resources:
        mem_mb=amount(planned(RESOURCES.memory)),
        runtime=amount(10),
        gpu=planned(RESOURCES.gpus),
        gpu_jobs=uses_gpu(RESOURCES.gpus),
    shell:
        "cmer heat-maps --checkpoint {input.checkpoint:q} --spec {params.spec:q} --folder {params.folder:q}"
        " --captions {input.captions:q} --validation {input.validation:q} {params.inputs} --out {output:q}"
        " --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
