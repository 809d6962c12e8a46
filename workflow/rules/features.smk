# Outputs of the frozen towers, computed once per dataset and backbone. The output is a manifest; the arrays are a
# cache that any later step rebuilds where it is missing.


rule extract_features:
    input:
        images="<results>/data/{dataset}/images.csv",
        captions="<results>/captions/{dataset}.csv",
        queries="<results>/captions/{dataset}.queries.csv",
        weights=planned(PLAN.weights_of_backbone),
    output:
        "<results>/features/{dataset}/{backbone}.json",
    params:
        spec=planned(PLAN.features_spec),
        code=planned(PLAN.extraction_code),
        folder=subpath(input.images, parent=True),
    log:
        text="<logs>/features/{dataset}/{backbone}.log",
        record="<logs>/features/{dataset}/{backbone}.record.json",
    threads: planned(RESOURCES.backbone_threads)
    resources:
        mem_mb=amount(planned(RESOURCES.memory_of_backbone), each=200),
        runtime=amount(15, each=15),
        gpu=planned(RESOURCES.gpus_of_backbone),
        gpu_jobs=uses_gpu(RESOURCES.gpus_of_backbone),
    shell:
        "cmer features --spec {params.spec:q} --folder {params.folder:q} --captions {input.captions:q}"
        " --queries {input.queries:q} --out {output:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
