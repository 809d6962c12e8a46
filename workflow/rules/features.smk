# Outputs of the frozen towers, computed once per dataset and backbone. The output is a manifest; the arrays are a
# cache that any later step rebuilds where it is missing.


rule extract_features:
    input:
        images="<results>/data/{dataset}/images.csv",
        captions="<results>/captions/{dataset}.csv",
        queries="<results>/captions/{dataset}.queries.csv",
    output:
        "<results>/features/{dataset}/{backbone}.json",
    params:
        spec=features_spec,
        code=extraction_code,
        folder=subpath(input.images, parent=True),
    log:
        text="<logs>/features/{dataset}/{backbone}.log",
        record="<logs>/features/{dataset}/{backbone}.record.json",
    threads: threads_of_backbone
    resources:
        mem_mb=memory_of_towers,
        runtime=amount(15, each=15),
        gpu=gpus,
    shell:
        "cmer features --spec {params.spec:q} --folder {params.folder:q} --captions {input.captions:q}"
        " --queries {input.queries:q} --out {output:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
