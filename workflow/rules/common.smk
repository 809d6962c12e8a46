# Shared by all rules: the config, its plan and resources, and adapters from wildcards to their functions.
import inspect
import re
import shlex
import sys
from pathlib import Path

from cmer.config import experiment
from cmer.errors import UserError
from cmer.plan import Plan
from cmer.provenance import code_digest
from cmer.resources import StepResources

# Read here, as Snakemake's own reader takes `no` for false and keeps the last of repeated keys. Errors have no traceback.
try:
    CONFIG = experiment.read(workflow.overwrite_configfiles or ["config.yaml"], workflow.config_settings.config_args)
except UserError as error:
    sys.exit(str(error))

PLAN = Plan(CONFIG)
RESOURCES = StepResources(CONFIG)

# `cmer` of the environment that runs Snakemake, whether or not that environment is activated.
shell.prefix(f'export PATH="{sys.prefix}/bin:$PATH"; set -euo pipefail; ')


pathvars:
    results=CONFIG.results,
    logs=f"logs/{CONFIG.results}",


def one_of(names):
    """A wildcard constraint to these names; it matches nothing if there are none."""
    return "|".join(map(re.escape, map(str, names))) or "(?!)"


wildcard_constraints:
    dataset=one_of(CONFIG.datasets),
    backbone=one_of([*CONFIG.backbones, *PLAN.profiled]),
    run=one_of(run.name for run in CONFIG.expanded),
    seed=one_of(CONFIG.seeds),
    table=one_of(CONFIG.tables),
    figure=one_of(CONFIG.figures),


def planned(function):
    """Turn a function of the plan into an input or params function, or one of the resources into a resource: its
    parameters are names of wildcards."""

    def of_wildcards(wildcards):
        return function(*(wildcards[name] for name in inspect.signature(function).parameters))

    return of_wildcards


def options(**names):
    """Command-line options for named input files, one per file: `metrics="--metrics"`."""

    def of_inputs(wildcards, input):
        return " ".join(f"{option} {shlex.quote(file)}" for name, option in names.items() for file in input[name])

    return of_inputs


def folders(wildcards, input):
    """The option `--folder` for each dataset."""
    return " ".join(f"--folder {shlex.quote(str(Path(file).parent))}" for file in input.images)
