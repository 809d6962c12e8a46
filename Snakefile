# From a dataset to the tables of a config. The default experiment is config.yaml; `--configfile X` reads X instead.
# What a rule runs is a command of `cmer`; see workflow/rules/, one phase per file.
from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "workflow/rules/resources.smk"


rule all:
    input:
        expand("<results>/{table}.csv", table=CONFIG.tables),
        expand("<results>/figures/{figure}.png", figure=CONFIG.figures),
        ["<results>/report.html"] * bool(CONFIG.runs),
        expand("<results>/archives/{archive}/archive.json", archive=CONFIG.archives),


include: "workflow/rules/data.smk"
include: "workflow/rules/captions.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/profile.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/heat_maps.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/archives.smk"
