"""The command line, `cmer <command>`, with one command per stage of the workflow.

Each group of commands is a module beside this one. Commands import heavy libraries in their functions, so that help and
light stages start quickly.
"""

from __future__ import annotations

import io
import os
import re
import sys

import typer

from cmer.cli import archive, backbones, ceiling, data, evaluate, export, leaks, models, plan, price, profile, shards
from cmer.cli.files import checked
from cmer.commands import spelled_out
from cmer.errors import UserError
from cmer.io import REMEDIES
from cmer.progress import visible
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
    "caption",
    "train",
    "validation",
    "embed",
    "bank",
    "heat_maps",
    "profile",
    "evaluate",
    "table",
    "figure",
    "report",
    "list_images",
    "embed_shard",
    "build_archive",
)

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for group in (data, leaks, models, profile, price, plan, evaluate, ceiling, backbones, export, archive, shards):
    for command in group.app.registered_commands:
        assert command.callback is not None
        name = command.callback.__name__
        command.callback = checked(command.callback)
        information = "Use of a trained model" if group in (export, archive) else "Information"
        command.rich_help_panel = "Stages, in the order of the workflow" if name in STAGES else information
        app.registered_commands.append(command)


def main() -> None:
    """Run the command line; errors that the user can resolve end with a message and exit status 1.

    So does a full output; a closed pipe ends without a message. Characters that a terminal lacks are replaced.
    """
    for name in ("COLUMNS", "LINES"):  # rich allocates as many characters as they say, or fails on other digits
        if not re.fullmatch("[0-9]{1,3}", os.environ.get(name, "0")):
            del os.environ[name]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        _run()
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:
        _discard_output()
        remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES and error.filename else ""
        _fail(f"{error.filename or 'the output'}: {error.strerror or error}{remedy}")
    except RecursionError:
        _fail("a value is nested too deeply")
    except UserError as error:
        _fail(str(error))


def _run() -> None:
    try:
        if foreign := [ascii(word) for word in sys.argv if re.search("[\ud800-\udfff]", word)]:  # undecodable bytes
            raise UserError(f"the argument {foreign[0]} is not UTF-8; rename the file")
        sys.argv = spelled_out(sys.argv)
        app()
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


def _discard_output() -> None:
    """Python would otherwise fail again when it flushes the output at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)


def _fail(reason: str) -> None:
    sys.exit(visible(f"cmer: {reason}") if is_first_to_fail(reason) else 1)
