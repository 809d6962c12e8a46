# A dataset: drawn, fetched or found, then described in two CSV files; a validation split for every seed.


rule draw_demo:
    output:
        images="<results>/data/{dataset}/images.tar",
        annotations="<results>/data/{dataset}/dataset.json",
    params:
        spec=planned(PLAN.data_spec),
        code=code_digest("cmer.scenes"),
        folder=subpath(output.images, parent=True),
    wildcard_constraints:
        dataset=one_of(PLAN.drawn),
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
        spec=planned(PLAN.fetch_spec),
        card=planned(PLAN.card_digest),
        code=code_digest("cmer.data.fetch"),
        folder=subpath(output.images, parent=True),
    wildcard_constraints:
        dataset=one_of(PLAN.fetched),
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
        planned(PLAN.dataset_files),
    output:
        images="<results>/data/{dataset}/images.csv",
        captions="<results>/data/{dataset}/captions.csv",
        hashes="<results>/data/{dataset}/hashes.csv",
    params:
        spec=planned(PLAN.data_spec),
        card=planned(PLAN.card_digest),
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
        captions="<results>/data/{dataset}/captions.csv",
        hashes="<results>/data/{dataset}/hashes.csv",
    output:
        "<results>/data/{dataset}/validation.seed{seed}.csv",
    params:
        code=code_digest("cmer.data.validation"),
        folder=subpath(input.images, parent=True),
    log:
        text="<logs>/data/{dataset}/split.seed{seed}.log",
        record="<logs>/data/{dataset}/split.seed{seed}.record.json",
    threads: 1
    resources:
        mem_mb=amount(1000, each=100),
        runtime=amount(5),
    localrule: True
    shell:
        "cmer split --folder {params.folder:q} --seed {wildcards.seed:q} --out {output:q} --record {log.record:q}"
        " 2>&1 | tee {log.text:q} >&2"


# What of val and test is given away elsewhere, in all datasets that runs are on: a table on demand, and the captions
# that a dataset with `exclude` does not train on.
rule leaks:
    input:
        images=expand("<results>/data/{dataset}/images.csv", dataset=PLAN.used),
        captions=expand("<results>/data/{dataset}/captions.csv", dataset=PLAN.used),
        hashes=expand("<results>/data/{dataset}/hashes.csv", dataset=PLAN.used),
    output:
        pairs="<results>/data/leaks.csv",
        summary="<results>/data/leaks.summary.csv",
    params:
        code=code_digest("cmer.data.leaks"),
        folders=folders,
    log:
        text="<logs>/data/leaks.log",
        record="<logs>/data/leaks.record.json",
    threads: 1
    resources:
        mem_mb=amount(2000, each=100),
        runtime=amount(10, each=5),
    shell:
        "cmer leaks {params.folders} --out {output.pairs:q} --summary {output.summary:q} --record {log.record:q}"
        " 2>&1 | tee {log.text:q} >&2"


rule exclude_leaks:
    input:
        images=rules.leaks.input.images,
        captions=rules.leaks.input.captions,
        hashes=rules.leaks.input.hashes,
        validation="<results>/data/{dataset}/validation.seed{seed}.csv",
    output:
        "<results>/data/{dataset}/excluded.seed{seed}.csv",
    params:
        spec=planned(PLAN.exclusion_spec),
        code=code_digest("cmer.data.leaks"),
        folders=folders,
    log:
        text="<logs>/data/{dataset}/exclude.seed{seed}.log",
        record="<logs>/data/{dataset}/exclude.seed{seed}.record.json",
    threads: 1
    resources:
        mem_mb=amount(2000, each=100),
        runtime=amount(10, each=5),
    shell:
        "cmer exclude --spec {params.spec:q} {params.folders} --validation {input.validation:q} --out {output:q}"
        " --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
