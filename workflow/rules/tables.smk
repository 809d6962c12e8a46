# The paper's tables: its printed rows, and the measured rows of this config.


rule table:
    input:
        metrics=metrics_of_table,
        efficiency=efficiency_of_table,
    output:
        "<results>/table{number}.csv",
    params:
        spec=table_spec,
        code=code_digest("cmer.reporting.tables"),
        metrics=metrics_options,
        efficiency=efficiency_options,
    log:
        text="<logs>/tables/table{number}.log",
        record="<logs>/tables/table{number}.record.json",
    threads: 1
    resources:
        mem_mb=amount(1000),
        runtime=amount(10),
    localrule: True
    shell:
        "cmer table --spec {params.spec:q} {params.metrics} {params.efficiency} --out {output:q}"
        " --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
