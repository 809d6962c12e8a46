# What a training step of runs costs on a backbone, all of them in one job, so that they can be compared.


rule profile:
    output:
        "<results>/efficiency/{backbone}.json",
    params:
        spec=planned(PLAN.profile_spec),
        code=planned(PLAN.profile_code),
    wildcard_constraints:
        backbone=one_of(PLAN.profiled),
    log:
        text="<logs>/efficiency/{backbone}.log",
        record="<logs>/efficiency/{backbone}.record.json",
    # All of a machine that runs jobs beside each other: what is timed is timed alone. A cluster's job is alone.
    threads: workflow.cores
    resources:
        mem_mb=amount(16000),
        runtime=amount(240),
        gpu=planned(RESOURCES.gpus_of_backbone),
        gpu_jobs=uses_gpu(RESOURCES.gpus_of_backbone),
    shell:
        "cmer profile --spec {params.spec:q} --out {output:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
