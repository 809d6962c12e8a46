# Figures as pixels and as vectors, each with a CSV of what it shows beside it.


rule figure:
    input:
        metrics=planned(PLAN.figure_metrics),
        efficiency=planned(PLAN.figure_profiles),
        embeddings=planned(PLAN.figure_embeddings),
        images=planned(PLAN.figure_images),
        queries=planned(PLAN.figure_queries),
        heat_maps=planned(PLAN.figure_heat_maps),
        pictures=planned(PLAN.figure_pictures),
    output:
        figure=report("<results>/figures/{figure}.png", caption="../report/figure.rst", category="Figures"),
        vector="<results>/figures/{figure}.svg",
        points="<results>/figures/{figure}.csv",
    params:
        spec=planned(PLAN.figure_spec),
        code=planned(PLAN.figure_code),
        inputs=options(
            metrics="--metrics",
            efficiency="--efficiency",
            embeddings="--embeddings",
            images="--images",
            queries="--queries",
            heat_maps="--heat-maps",
        ),
    log:
        text="<logs>/figures/{figure}.log",
        record="<logs>/figures/{figure}.record.json",
    threads: 1
    resources:
        mem_mb=amount(1000),
        runtime=amount(10),
    localrule: True
    shell:
        "cmer figure --spec {params.spec:q} {params.inputs} --out {output.figure:q} --vector {output.vector:q} --points {output.points:q}"
        " --record {log.record:q} 2>&1 | tee {log.text:q} >&2"
