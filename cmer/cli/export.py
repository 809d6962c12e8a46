"""Command that writes a trained run in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmer.cli.files import Reads, Writes
from cmer.inference.export import Format

app = typer.Typer(no_args_is_help=True)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Checkpoint of a run, or a name that cmer.load takes."), Reads()],
    to: Annotated[Format, typer.Option(help="Format: two graphs, a state dict, or a checkpoint of half the size.")],
    out: Annotated[
        Path,
        typer.Option(help="File to write; for onnx, files of this name with other suffixes."),
        Writes(("", ".image.onnx", ".text.onnx", ".tokenizer.json", ".json")),
    ],
) -> None:
    """Write a trained run for other programs, and compare what was written with the run.

    onnx: F.image.onnx, F.text.onnx and their description, F.json; with views and normalisation in the graph.
    open_clip: a state dict, with LoRA merged into the weights; of methods that train nothing outside the towers.
    safetensors: the checkpoint with its matrices in float16, for `cmer.load`.
    """
    from cmer.inference.export import export as write

    for name, value in write(str(run), to, out).items():
        typer.echo(f"{name}: {value}")
