"""The command line, `cmer <command>`, with one command per stage of the workflow.

Each group of commands is a module beside this one. Commands import heavy libraries in their functions, so that help and
light stages start quickly.
"""

from __future__ import annotations

import sys

import typer

from cmer.cli import data, evaluate, leaks, models, profile
from cmer.errors import UserError
from cmer.training.failure import is_first_to_fail

HELP = (
    "Memory-efficient text-image retrieval for remote sensing, stage by stage.\n\n"
    "`snakemake --cores all results/table1.csv` runs the stages for you. Each reads files, does one thing, and writes "
    "its outputs atomically. `cmer COMMAND --help` describes what a command reads and writes."
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
        command.rich_help_panel = "Stages, in the order of the workflow" if name in STAGES else "Information"
        app.registered_commands.append(command)


def main() -> None:
    """Run the command line; errors that the user can resolve end with a message and exit status 1."""
    try:
        app()
    except UserError as error:
        sys.exit(f"cmer: {error}" if is_first_to_fail(str(error)) else 1)
