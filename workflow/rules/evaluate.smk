# A trained run on the test split: embeddings under every label protocol, then recalls and ranks. A reranked run has the
# embeddings of the run itself, and a setting that is chosen on validation.


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
        weights=planned(PLAN.weights_of_run),
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
        shown="<results>/metrics/{dataset}/{run}/seed{seed}.queries.json",
        mr="<results>/mr/{dataset}/{run}/seed{seed}.json",
    params:
        code=planned(PLAN.evaluation_code),
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
        " --out {output.metrics:q} --ranks {output.ranks:q} --shown {output.shown:q} --mr {output.mr:q}"
        " --record {log.record:q} 2>&1 | tee {log.text:q} >&2"


rule bank:
    input:
        checkpoint="<results>/checkpoints/{dataset}/{run}/seed{seed}.safetensors",
        images="<results>/data/{dataset}/images.csv",
        captions="<results>/captions/{dataset}.csv",
        validation="<results>/data/{dataset}/validation.seed{seed}.csv",
        excluded=planned(PLAN.excluded_of_run),
        features=planned(PLAN.features_of_run),
        rich=planned(PLAN.rich_of_run),
        weights=planned(PLAN.weights_of_run),
    output:
        "<results>/banks/{dataset}/{run}/seed{seed}.safetensors",
    params:
        spec=planned(PLAN.run_spec),
        code=planned(PLAN.embedding_code),
        folder=subpath(input.images, parent=True),
        inputs=options(excluded="--excluded", features="--features", rich="--rich"),
    log:
        text="<logs>/banks/{dataset}/{run}/seed{seed}.log",
        record="<logs>/banks/{dataset}/{run}/seed{seed}.record.json",
    threads: planned(RESOURCES.threads)
    resources:
        mem_mb=amount(planned(RESOURCES.memory), each=200),
        runtime=amount(10, each=10),
        gpu=planned(RESOURCES.gpus),
        gpu_jobs=uses_gpu(RESOURCES.gpus),
    shell:
        "cmer bank --checkpoint {input.checkpoint:q} --spec {params.spec:q} --folder {params.folder:q} --captions {input.captions:q}"
        " --validation {input.validation:q} {params.inputs} --out {output:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"


rule rerank:
    input:
        embeddings="<results>/embeddings/{dataset}/{run}/seed{seed}.safetensors",
        bank="<results>/banks/{dataset}/{run}/seed{seed}.safetensors",
        partner=planned(PLAN.partner_embeddings),
        partner_bank=planned(PLAN.partner_bank),
        images="<results>/data/{dataset}/images.csv",
        queries="<results>/captions/{dataset}.queries.csv",
    output:
        metrics="<results>/metrics/{dataset}/{run}.{reranker}/seed{seed}.json",
        ranks="<results>/metrics/{dataset}/{run}.{reranker}/seed{seed}.ranks.csv",
        shown="<results>/metrics/{dataset}/{run}.{reranker}/seed{seed}.queries.json",
        grid="<results>/metrics/{dataset}/{run}.{reranker}/seed{seed}.grid.csv",
        mr="<results>/mr/{dataset}/{run}.{reranker}/seed{seed}.json",
    params:
        spec=planned(PLAN.rerank_spec),
        code=planned(PLAN.reranking_code),
        folder=subpath(input.images, parent=True),
        inputs=options(partner="--partner", partner_bank="--partner-bank"),
    log:
        text="<logs>/evaluate/{dataset}/{run}.{reranker}/seed{seed}.log",
        record="<logs>/evaluate/{dataset}/{run}.{reranker}/seed{seed}.record.json",
    threads: 1
    resources:
        mem_mb=amount(2000, each=500),
        runtime=amount(5, each=10),
    shell:
        "cmer evaluate --embeddings {input.embeddings:q} --rerank {params.spec:q} --bank {input.bank:q} {params.inputs}"
        " --folder {params.folder:q} --queries {input.queries:q} --out {output.metrics:q} --ranks {output.ranks:q}"
        " --shown {output.shown:q} --grid {output.grid:q} --mr {output.mr:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
