# Tables: the paper's printed rows, and the measured rows of this config.


rule table:
    input:
        metrics=planned(PLAN.table_metrics),
        ranks=planned(PLAN.table_ranks),  # read beside the metrics
        efficiency=planned(PLAN.table_profiles),
    output:
        report("<results>/{table}.csv", caption="../report/table.rst", category="Tables"),
    params:
        spec=planned(PLAN.table_spec),
        code=planned(PLAN.table_code),
        inputs=options(metrics="--metrics", efficiency="--efficiency"),
    log:
        text="<logs>/tables/{table}.log",
        record="<logs>/tables/{table}.record.json",
    threads: 1
    resources:
        mem_mb=amount(1000),
        runtime=amount(10),
    localrule: True
    shell:
        "cmer table --spec {params.spec:q} {params.inputs} --out {output:q} --record {log.record:q}"
        " 2>&1 | tee {log.text:q} >&2"
