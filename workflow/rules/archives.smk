# Archives for `cmer search` and `cmer serve`: a folder of images, embedded in shards by jobs of their own, then joined.
# Unfinished shards are kept in work/archives/: rerun the same command to resume. After changes in the folder, list it
# again (`--forcerun list_images`).


rule list_images:
    output:
        "<results>/archives/{archive}/files.parquet",
    params:
        spec=planned(PLAN.listing_spec),
        code=code_digest("cmer.archive.listing"),
    log:
        text="<logs>/archives/{archive}/list.log",
        record="<logs>/archives/{archive}/list.record.json",
    threads: 1
    resources:
        mem_mb=amount(4000),
        runtime=amount(240),
    localrule: True
    shell:
        "cmer list-images --spec {params.spec:q} --out {output:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"


rule embed_shard:
    input:
        model=planned(PLAN.archive_model),
        files="<results>/archives/{archive}/files.parquet",
    output:
        "<results>/archives/{archive}/shards/{shard}.parquet",
    params:
        spec=planned(PLAN.shard_spec),
        code=planned(PLAN.archive_code),
        run=planned(PLAN.archive_run),
    wildcard_constraints:
        shard="[0-9]+",
    log:
        text="<logs>/archives/{archive}/shards/{shard}.log",
        record="<logs>/archives/{archive}/shards/{shard}.record.json",
    threads: planned(RESOURCES.threads_of_archive)
    resources:
        mem_mb=amount(planned(RESOURCES.memory_of_archive)),
        runtime=amount(480),
        gpu=planned(RESOURCES.gpus_of_archive),
        gpu_jobs=uses_gpu(RESOURCES.gpus_of_archive),
    shell:
        "cmer embed-shard --spec {params.spec:q} --files {input.files:q} --shard {wildcards.shard:q} --run {params.run:q}"
        " --out {output:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"


rule build_archive:
    input:
        model=planned(PLAN.archive_model),
        shards=planned(PLAN.archive_shards),
    output:
        "<results>/archives/{archive}/archive.json",
    params:
        spec=planned(PLAN.shard_spec),
        code=planned(PLAN.archive_code),
        run=planned(PLAN.archive_run),
        store=planned(PLAN.archive_store),
        shards=subpath(output[0], parent=True),
    log:
        text="<logs>/archives/{archive}/build.log",
        record="<logs>/archives/{archive}/build.record.json",
    threads: planned(RESOURCES.threads_of_archive)
    resources:
        mem_mb=amount(planned(RESOURCES.memory_of_archive)),
        runtime=amount(480),
    shell:
        "cmer build-archive --spec {params.spec:q} --shards {params.shards:q}/shards --run {params.run:q}"
        " --store {params.store:q} --out {output:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
