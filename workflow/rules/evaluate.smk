# A trained run on the test split: embeddings under every label protocol, then recalls and ranks.


rule embed:
    input:
        checkpoint="<results>/checkpoints/{dataset}/{run}/seed{seed}.safetensors",
        images="<results>/data/{dataset}/images.csv",
        captions="<results>/captions/{dataset}.csv",
        queries="<results>/captions/{dataset}.queries.csv",
        validation="<results>/data/{dataset}/validation.seed{seed}.csv",
        excluded=planned(PLAN.excluded_of_run),
        features=planned(PLAN.features_of_run),
        rich=planned(PLAN.rich_of_run),
    output:
        "<results>/embeddings/{dataset}/{run}/seed{seed}.safetensors",
    params:
        spec=planned(PLAN.run_spec),
        code=planned(PLAN.embedding_code),
        template=planned(PLAN.template),
        folder=subpath(input.images, parent=True),
        inputs=options(excluded="--excluded", features="--features", rich="--rich"),
    log:
        text="<logs>/embed/{dataset}/{run}/seed{seed}.log",
        record="<logs>/embed/{dataset}/{run}/seed{seed}.record.json",
    threads: planned(RESOURCES.threads)
    resources:
        mem_mb=amount(planned(RESOURCES.memory), each=200),
        runtime=amount(10, each=3),
        gpu=planned(RESOURCES.gpus),
        gpu_jobs=uses_gpu(RESOURCES.gpus),
    shell:
        "cmer embed --checkpoint {input.checkpoint:q} --spec {params.spec:q} --folder {params.folder:q} --captions {input.captions:q}"
        " --validation {input.validation:q} --queries {input.queries:q} {params.inputs} --template {params.template:q} --out {output:q}"
        " --record {log.record:q} 2>&1 | tee {log.text:q} >&2"


rule evaluate:
    input:
        embeddings="<results>/embeddings/{dataset}/{run}/seed{seed}.safetensors",
        images="<results>/data/{dataset}/images.csv",
        queries="<results>/captions/{dataset}.queries.csv",
    output:
        metrics="<results>/metrics/{dataset}/{run}/seed{seed}.json",
        ranks="<results>/metrics/{dataset}/{run}/seed{seed}.ranks.csv",
        mr="<results>/mr/{dataset}/{run}/seed{seed}.json",
    params:
        code=code_digest("cmer.retrieval.evaluate"),
        folder=subpath(input.images, parent=True),
    log:
        text="<logs>/evaluate/{dataset}/{run}/seed{seed}.log",
        record="<logs>/evaluate/{dataset}/{run}/seed{seed}.record.json",
    threads: 1
    resources:
        mem_mb=amount(1000, each=100),
        runtime=amount(5, each=1),
    shell:
        "cmer evaluate --embeddings {input.embeddings:q} --folder {params.folder:q} --queries {input.queries:q}"
        " --out {output.metrics:q} --ranks {output.ranks:q} --mr {output.mr:q} --record {log.record:q}"
        " 2>&1 | tee {log.text:q} >&2"
