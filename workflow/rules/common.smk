# Shared by all rules: the config, its plan and resources, and adapters from wildcards to their functions.
import inspect
import re
import shlex
from pathlib import Path

from cmer.commands import check_project, shell_prefix, spec_argument
from cmer.config import experiment
from cmer.errors import UserError
from cmer.plan_report import ReportPlan
from cmer.provenance import code_digest
from cmer.resources import StepResources

# Read here, as Snakemake's own reader takes `no` for false and keeps the last of repeated keys. Errors have no traceback.
try:
    check_project(Path.cwd())
    default = [] if workflow.config_settings.replace_workflow_config else ["config.yaml"]
    CONFIG = experiment.read(workflow.overwrite_configfiles or default, workflow.config_settings.config_args)
except UserError as error:
    raise SystemExit(str(error))

PLAN = ReportPlan(CONFIG)
RESOURCES = StepResources(CONFIG)
shell.prefix(shell_prefix())


pathvars:
    results=CONFIG.results,
    logs=f"logs/{CONFIG.results.lstrip('/')}",


def one_of(names):
    """A wildcard constraint to these names; it matches nothing if there are none."""
    return "|".join(map(re.escape, map(str, names))) or "(?!)"


wildcard_constraints:
    dataset=one_of(CONFIG.datasets),
    backbone=one_of([*CONFIG.backbones, *PLAN.profiled]),
    captioner=one_of(CONFIG.captioners),
    run=one_of(run.name for run in CONFIG.expanded),
    seed=one_of(CONFIG.seeds),
    reranker=one_of(CONFIG.rerankers),
    table=one_of(CONFIG.tables),
    figure=one_of(CONFIG.figures),
    archive=one_of(CONFIG.archives),


def planned(function):
    """A function of the plan or the resources, whose parameters are wildcards, as one that Snakemake can call."""

    def of_wildcards(wildcards):
        value = function(*(wildcards[name] for name in inspect.signature(function).parameters))
        return spec_argument(value) if isinstance(value, str) else value

    return of_wildcards


def options(**names):
    """Command-line options for named input files, one per file: `metrics="--metrics"`."""

    def of_inputs(wildcards, input):
        return " ".join(f"{option} {shlex.quote(file)}" for name, option in names.items() for file in input[name])

    return of_inputs


def folders(wildcards, input):
    """The option `--folder` for each dataset."""
    return " ".join(f"--folder {shlex.quote(str(Path(file).parent))}" for file in input.images)
