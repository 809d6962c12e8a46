# What of val and test is given away elsewhere, in all datasets that runs are on: a table on demand, and the captions that
# a dataset with `exclude` does not train on.


rule leaks:
    input:
        images=expand("<results>/data/{dataset}/images.csv", dataset=USED),
        captions=expand("<results>/data/{dataset}/captions.csv", dataset=USED),
        hashes=expand("<results>/data/{dataset}/hashes.csv", dataset=USED),
    output:
        pairs="<results>/data/leaks.csv",
        summary="<results>/data/leaks.summary.csv",
    params:
        code=code_digest("cmer.data.leaks"),
        folders=folders_option,
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
        spec=exclusion_spec,
        code=code_digest("cmer.data.leaks"),
        folders=folders_option,
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
