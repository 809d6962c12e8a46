# The report: one page with all tables and figures, and a page per run.
from cmer.plan_report import ReportPlan

REPORT = ReportPlan(CONFIG)


rule report:
    input:
        files=planned(REPORT.report_files),
        datasets=planned(REPORT.report_datasets),
    output:
        "<results>/report.html",
    params:
        spec=planned(REPORT.report_spec),
        code=planned(REPORT.report_code),
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
