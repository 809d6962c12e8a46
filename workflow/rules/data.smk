# A dataset: drawn, fetched or found, then described in two CSV files; a validation split for every seed.


rule draw_demo:
    output:
        images="<results>/data/{dataset}/images.tar",
        annotations="<results>/data/{dataset}/dataset.json",
    params:
        spec=data_spec,
        code=code_digest("cmer.scenes"),
        folder=subpath(output.images, parent=True),
    wildcard_constraints:
        dataset="|".join(map(re.escape, DRAWN)) or "(?!)",
    log:
        text="<logs>/data/{dataset}/draw.log",
        record="<logs>/data/{dataset}/draw.record.json",
    threads: 1
    resources:
        mem_mb=amount(1000, each=50),
        runtime=amount(10, each=3),
    shell:
        "cmer draw --spec {params.spec:q} --folder {params.folder:q} --record {log.record:q}"
        " 2>&1 | tee {log.text:q} >&2"


# Nodes of a cluster seldom reach the web.
rule fetch_data:
    output:
        images="<results>/data/{dataset}/images.tar",
        annotations="<results>/data/{dataset}/dataset.json",
    params:
        spec=source_spec,
        card=card_digest,
        code=code_digest("cmer.data.fetch"),
        folder=subpath(output.images, parent=True),
    wildcard_constraints:
        dataset="|".join(map(re.escape, FETCHED)) or "(?!)",
    log:
        text="<logs>/data/{dataset}/fetch.log",
        record="<logs>/data/{dataset}/fetch.record.json",
    threads: 1
    resources:
        mem_mb=amount(1000),
        runtime=amount(600),
    localrule: True
    shell:
        "cmer fetch --spec {params.spec:q} --folder {params.folder:q} --record {log.record:q}"
        " 2>&1 | tee {log.text:q} >&2"


rule prepare_data:
    input:
        drawn_or_fetched,
    output:
        images="<results>/data/{dataset}/images.csv",
        captions="<results>/data/{dataset}/captions.csv",
        hashes="<results>/data/{dataset}/hashes.csv",
    params:
        spec=data_spec,
        card=card_digest,
        code=code_digest("cmer.data.prepare"),
        folder=subpath(output.images, parent=True),
    log:
        text="<logs>/data/{dataset}/prepare.log",
        record="<logs>/data/{dataset}/prepare.record.json",
    threads: 2
    resources:
        mem_mb=amount(1000, each=50),
        runtime=amount(10, each=5),
    shell:
        "cmer prepare --spec {params.spec:q} --folder {params.folder:q} --record {log.record:q}"
        " 2>&1 | tee {log.text:q} >&2"


rule split_validation:
    input:
        images="<results>/data/{dataset}/images.csv",
    output:
        "<results>/data/{dataset}/validation.seed{seed}.csv",
    params:
        code=code_digest("cmer.data.splits"),
        folder=subpath(input.images, parent=True),
    log:
        text="<logs>/data/{dataset}/split.seed{seed}.log",
        record="<logs>/data/{dataset}/split.seed{seed}.record.json",
    threads: 1
    resources:
        mem_mb=amount(500, each=50),
        runtime=amount(5),
    localrule: True
    shell:
        "cmer split --folder {params.folder:q} --seed {wildcards.seed} --out {output:q} --record {log.record:q}"
        " 2>&1 | tee {log.text:q} >&2"
