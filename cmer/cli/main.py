"""The command line: `cmer <verb>`, one verb a stage of the workflow.

Each group of verbs is a file beside this one. They import what is heavy inside the verb, so that help and light
stages start at once.
"""

from __future__ import annotations

import sys

import typer

from cmer.cli import data, evaluate, leaks, models, profile
from cmer.errors import UserError
from cmer.training.failure import is_first_to_fail

HELP = (
    "Memory-efficient text-image retrieval for remote sensing, stage by stage.\n\n"
    "`snakemake --cores all results/table1.csv` calls the stages for you. Each reads files, does one thing, and writes "
    "its outputs whole or not at all. `cmer VERB --help` says what a verb reads and writes."
)
STAGES = (
    "draw",
    "fetch",
    "prepare",
    "split",
    "augment",
    "leaks",
    "exclude",
    "features",
    "train",
    "validation",
    "embed",
    "profile",
    "evaluate",
    "table",
    "figure",
)

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for group in (data, leaks, models, profile, evaluate):
    for command in group.app.registered_commands:
        name = command.callback.__name__ if command.callback else ""
        command.rich_help_panel = "Stages, in the workflow's order" if name in STAGES else "Questions"
        app.registered_commands.append(command)


def main() -> None:
    """Run the command line; a mistake that the user can mend ends with its message and exit status 1."""
    try:
        app()
    except UserError as error:
        sys.exit(f"cmer: {error}" if is_first_to_fail(str(error)) else 1)
