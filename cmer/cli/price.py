"""The command that says what an experiment costs before it runs: price."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmer.cli.data import Record
from cmer.cli.files import Reads, Writes
from cmer.errors import UserError
from cmer.io import write_json
from cmer.progress import console
from cmer.provenance import recorded

app = typer.Typer(no_args_is_help=True)

SUFFIXES = (".csv", ".json")
WIDTH = 160
"""Columns that the table needs, also used if the output is not a terminal."""


@app.command()
def price(
    files: Annotated[list[Path], typer.Argument(help="Config files; later ones override earlier ones."), Reads()],
    tflops: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Sustained TFLOP/s of the GPU. Default: 15, about what two V100 reach in the paper's Table 3.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the rows, .csv or .json."), Writes()] = None,
    record: Record = None,
) -> None:
    """Estimate what the runs of a config cost: multiply-accumulates and GPU hours, before anything runs.

    `cmer plan` finds the settings for a machine instead, by the same counts.

    Nothing is fetched or trained: large towers have shapes and no weights. A published dataset counts as published
    until it is prepared. Not counted: captioning and runs that read its texts, reranking, profiles, and the decoding of
    images, which is the bottleneck of small towers.
    """
    import pandas as pd

    from cmer.config.experiment import read
    from cmer.data.frames import write_frame
    from cmer.profiling import price as pricing

    if out is not None and out.suffix not in SUFFIXES:
        raise UserError(f"--out {out}: the name must end in {' or '.join(SUFFIXES)}")
    config, assumed = read(files), pricing.TFLOPS if tflops is None else tflops
    with recorded(record):
        rows = pricing.prices(config)
        cells = [row.cells(assumed) for row in rows]
        if out is not None and out.suffix == ".json":
            write_json(out, cells)
        elif out is not None:
            write_frame(out, pd.DataFrame(cells))
    terminal = console()
    (terminal if terminal.is_terminal else console(width=WIDTH)).print(pricing.table(rows, assumed))
