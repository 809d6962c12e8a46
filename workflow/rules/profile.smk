# What a training step of Table 3's runs costs on a backbone, all of them in one job, so that they can be compared.


rule profile:
    output:
        "<results>/efficiency/{backbone}.json",
    params:
        spec=profile_spec,
        code=profile_code,
    wildcard_constraints:
        backbone="|".join(re.escape(name) for name in CONFIG.backbones if profiled_runs(name)) or "(?!)",
    log:
        text="<logs>/efficiency/{backbone}.log",
        record="<logs>/efficiency/{backbone}.record.json",
    threads: threads_of_profile
    resources:
        mem_mb=amount(16000),
        runtime=amount(240),
        gpu=gpus,
    shell:
        "cmer profile --spec {params.spec:q} --out {output:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
