# From a dataset to the tables of a config. The default experiment is config.yaml; `--configfile config/X.yaml`
# lays an overlay on it. What a rule runs is a verb of `cmer`; see workflow/rules/, one phase a file.
import re
import sys

import cmer.config
from cmer.errors import UserError
from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


# A mistake in the config is the user's to mend: its sentences alone, without the position in this file.
try:
    CONFIG = cmer.config.parse(config)
except UserError as error:
    sys.exit(str(error))


pathvars:
    results=CONFIG.results,
    logs=f"logs/{CONFIG.results}",


wildcard_constraints:
    dataset="|".join(map(re.escape, CONFIG.datasets)),
    backbone="|".join(map(re.escape, CONFIG.backbones)),
    run="|".join(re.escape(run.name) for run in CONFIG.runs),
    seed="|".join(map(str, CONFIG.seeds)),
    number="|".join(str(table.number) for table in CONFIG.tables),


rule all:
    input:
        expand("<results>/table{number}.csv", number=[table.number for table in CONFIG.tables]),
        expand("<results>/figures/{figure}.png", figure=CONFIG.figures),


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/leaks.smk"
include: "workflow/rules/captions.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/profile.smk"
include: "workflow/rules/tables.smk"


if CONFIG.figures:

    include: "workflow/rules/figures.smk"
