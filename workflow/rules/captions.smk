# Captions with their scene labels: prompts for training, and the test queries that do not depend on the run.


rule augment_captions:
    input:
        images="<results>/data/{dataset}/images.csv",
        captions="<results>/data/{dataset}/captions.csv",
    output:
        prompts="<results>/captions/{dataset}.csv",
        queries="<results>/captions/{dataset}.queries.csv",
    params:
        spec=planned(PLAN.prompt_spec),
        code=code_digest("cmer.data.prompts"),
        folder=subpath(input.images, parent=True),
    log:
        text="<logs>/captions/{dataset}.log",
        record="<logs>/captions/{dataset}.record.json",
    threads: 1
    resources:
        mem_mb=amount(1000, each=50),
        runtime=amount(5, each=1),
    shell:
        "cmer augment --spec {params.spec:q} --folder {params.folder:q} --out {output.prompts:q}"
        " --queries {output.queries:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
