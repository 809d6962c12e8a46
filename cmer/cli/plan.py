"""The command that says how to train on a machine of a given size: plan."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from cmer.cli.data import Record
from cmer.cli.files import Writes
from cmer.cli.price import WIDTH
from cmer.config.training import Training
from cmer.errors import UserError
from cmer.io import write_text
from cmer.progress import console
from cmer.provenance import recorded

app = typer.Typer(no_args_is_help=True)

UNITS = {"": 1, **{unit: 10 ** (3 * power) for power, unit in enumerate("kMGT", start=1)}}


@app.command()
def plan(
    backbone: Annotated[str, typer.Option(help="open_clip model name, a card (cmer backbones), lite or tiny.")],
    dataset: Annotated[str, typer.Option(help="Published dataset: rsicd, rsitmd, ucm_captions, …")],
    memory: Annotated[str, typer.Option(help="Memory for the process, e.g. 8GB: of the machine, or of its GPU.")],
    disk: Annotated[
        str | None, typer.Option(help="Disk space for stored features, e.g. 40GB. Default: what is free here.")
    ] = None,
    batch: Annotated[int, typer.Option(min=2, max=65_536, help="Pairs of a batch.")] = Training().batch_size,
    tflops: Annotated[
        float | None,
        typer.Option(min=0.001, help="Sustained TFLOP/s. Default: 15, as for `cmer price`; a CPU core has about 0.15."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="YAML file for the config."), Writes()] = None,
    record: Record = None,
) -> None:
    """Say how CMER trains in a given memory and disk space, and write the config: engine, parts, features, blocks.

    Stored features come first, as they cost a fraction of the arithmetic; then frozen towers that run at every step.
    Fewer blocks are proposed only if all do not fit. Bytes and multiply-accumulates follow from shapes: no weights and
    no images are read. `cmer price` takes a config instead, and says what all of its runs cost; both count alike.
    """
    from cmer.config.backbones import named_backbone
    from cmer.profiling.fit import Fit, Machine
    from cmer.profiling.price import TFLOPS
    from cmer.profiling.show_fit import nothing_fits, table

    machine = Machine(size("--memory", memory), size("--disk", disk) if disk else shutil.disk_usage(".").free)
    try:
        towers = named_backbone(backbone)
    except ValueError as error:
        raise UserError(str(error)) from None
    title, terminal = f"cmer on {backbone}, {dataset}", console()
    terminal = terminal if terminal.is_terminal else console(width=WIDTH)
    with recorded(record):
        fit = Fit(towers, dataset, batch)
        ways = []
        for choice in fit.choices(machine):
            ways += choice
            if any(way.fits(machine) for way in choice):
                break
        terminal.print(table(title, ways, machine, batch, TFLOPS if tflops is None else tflops))
        best = next((way for way in ways if way.fits(machine)), None)
        if best is None:
            raise nothing_fits(title, ways, machine)
        if out is not None:
            write_text(out, fit.lines(best))
    typer.echo(fit.lines(best), nl=False)


def size(option: str, text: str) -> int:
    """Bytes of a size such as 8GB or 7.5GiB.

    Raises:
        UserError: it is not a number with a unit.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B", text.strip())
    if found is None:
        raise UserError(f"{option} {text}: give a number and a unit, such as 8GB or 7.5GiB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 ** (" kMGT".index(unit or " ")) if binary else UNITS[unit]))
