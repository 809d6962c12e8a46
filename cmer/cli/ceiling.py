"""The command that measures how far retrieval by captions of the images can go: t2t-ceiling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmer.cli.data import Record
from cmer.cli.files import Reads, Writes
from cmer.io import sha256
from cmer.progress import console
from cmer.provenance import recorded

app = typer.Typer(no_args_is_help=True)


@app.command(name="t2t-ceiling")
def t2t_ceiling(
    dataset_json: Annotated[
        Path, typer.Option(help="Annotation file in the published layout, dataset*.json."), Reads()
    ],
    out: Annotated[Path, typer.Option(help="CSV file for the recalls."), Writes()],
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="`bm25`, or a backbone whose text tower encodes: `lite` (MiniLM), `ViT-B-32`. With two, their"
            " fusion is measured too. Default: lite and bm25."
        ),
    ] = None,
    record: Record = None,
) -> None:
    """Measure how good a perfect captioner could make retrieval by captions: human captions stand in for its output.

    Each test image is represented by all its captions but one, which is the query, in turn for each of them. Queries
    whose text is also another caption of the image are counted, and the recalls without them are given too.
    """
    from cmer.data.frames import write_frame
    from cmer.reporting.ceiling import ceiling_table, view

    with recorded(record) as facts:
        facts["annotations_sha256"] = sha256(dataset_json)
        found = ceiling_table(dataset_json, encoder or ["lite", "bm25"])
        write_frame(out, found)
    console().print(view(found, dataset_json.stem))
