# Figures, each with a CSV of its points beside it.


rule accuracy_cost:
    input:
        metrics=metrics_of_rows,
        efficiency=efficiency_of_table,
    output:
        figure="<results>/figures/accuracy_cost.png",
        points="<results>/figures/accuracy_cost.csv",
    params:
        spec=figure_spec,
        code=code_digest("cmer.reporting.accuracy_cost"),
        metrics=metrics_options,
        efficiency=efficiency_options,
    log:
        text="<logs>/figures/accuracy_cost.log",
        record="<logs>/figures/accuracy_cost.record.json",
    threads: 1
    resources:
        mem_mb=amount(1000),
        runtime=amount(10),
    localrule: True
    shell:
        "cmer figure --spec {params.spec:q} {params.metrics} {params.efficiency} --out {output.figure:q}"
        " --points {output.points:q} --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
