# What rules share: the config and its plan, and functions of the plan as functions of wildcards.
import inspect
import re
import shlex
import sys
from pathlib import Path

from cmer.config import experiment
from cmer.errors import UserError
from cmer.plan import Plan
from cmer.provenance import code_digest

# A mistake in the config: its sentences alone, without the position in this file.
try:
    CONFIG = experiment.parse(config)
except UserError as error:
    sys.exit(str(error))

PLAN = Plan(CONFIG)

# `cmer` of the environment that runs Snakemake, whether or not that environment is activated.
shell.prefix(f'export PATH="{sys.prefix}/bin:$PATH"; set -euo pipefail; ')


pathvars:
    results=CONFIG.results,
    logs=f"logs/{CONFIG.results}",


def one_of(names):
    """A constraint to these names; to nothing, where there is none."""
    return "|".join(map(re.escape, map(str, names))) or "(?!)"


wildcard_constraints:
    dataset=one_of(CONFIG.datasets),
    backbone=one_of([*CONFIG.backbones, *PLAN.profiled]),
    run=one_of(run.name for run in CONFIG.expanded),
    seed=one_of(CONFIG.seeds),
    table=one_of(CONFIG.tables),
    figure=one_of(CONFIG.figures),


def planned(function):
    """A function of the plan, called with the wildcards of its parameters' names."""

    def of_wildcards(wildcards):
        return function(*(wildcards[name] for name in inspect.signature(function).parameters))

    return of_wildcards


def options(**names):
    """Command-line options, one for every input file: an input's name to an option, as `metrics="--metrics"`."""

    def of_inputs(wildcards, input):
        return " ".join(f"{option} {shlex.quote(file)}" for name, option in names.items() for file in input[name])

    return of_inputs


def folders(wildcards, input):
    """`--folder` for the folder of every dataset."""
    return " ".join(f"--folder {shlex.quote(str(Path(file).parent))}" for file in input.images)


def launcher(wildcards):
    """The command line, started once for each process of the training."""
    n = PLAN.processes(wildcards.run)
    return f"torchrun --standalone --nproc-per-node {n} -m cmer" if n > 1 else "cmer"
