# Captions with their scene labels: prompts for training, and the test queries that do not depend on the run. Rich
# texts of images, which captioners write.


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


# Unfinished work is kept in work/captions/: rerun the same command to resume.
rule caption_images:
    input:
        planned(PLAN.captioner_files),
        images="<results>/data/{dataset}/images.csv",
    output:
        texts="<results>/rich/{dataset}/{captioner}.jsonl",
        record="<results>/rich/{dataset}/{captioner}.json",
    params:
        spec=planned(PLAN.caption_spec),
        code=planned(PLAN.captioning_code),
        folder=subpath(input.images, parent=True),
    log:
        text="<logs>/rich/{dataset}/{captioner}.log",
        record="<logs>/rich/{dataset}/{captioner}.record.json",
    threads: planned(RESOURCES.captioner_threads)
    resources:
        mem_mb=amount(planned(RESOURCES.memory_of_captioner), each=200),
        runtime=amount(30, each=120),
        gpu=planned(RESOURCES.gpus_of_captioner),
        gpu_jobs=uses_gpu(RESOURCES.gpus_of_captioner),
    shell:
        "cmer caption --spec {params.spec:q} --folder {params.folder:q} --out {output.texts:q} --record {log.record:q}"
        " 2>&1 | tee {log.text:q} >&2"
