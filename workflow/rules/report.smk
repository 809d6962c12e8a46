# The report: one page with all tables and figures, and a page per run. It reads neither checkpoints nor embeddings,
# which pulled results may lack.


rule report:
    input:
        files=planned(PLAN.report_files),
        datasets=planned(PLAN.report_datasets),
    output:
        report("<results>/report.html", caption="../report/report.rst", category="Report"),
    params:
        spec=planned(PLAN.report_spec),
        code=planned(PLAN.report_code),
        results=subpath(output[0], parent=True),
    log:
        text="<logs>/report/report.log",
        record="<logs>/report/report.record.json",
    threads: 1
    resources:
        mem_mb=amount(2000),
        runtime=amount(15),
    localrule: True
    shell:
        'cmer report --spec {params.spec:q} --results {params.results:q} --logs "$(dirname "$(dirname {log.record:q})")"'
        " --out {output:q} --record {log.record:q}"
        " 2>&1 | tee {log.text:q} >&2"
