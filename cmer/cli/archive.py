"""Commands that search a user's own images: index, search, export-archive, serve."""

from __future__ import annotations

import json as to_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmer.cli.files import Reads, Writes
from cmer.config.backbones import Runtime
from cmer.errors import UserError
from cmer.io import write_text

if TYPE_CHECKING:
    from cmer.archive.search import Hit
    from cmer.archive.settings import Encoder
    from cmer.archive.store import Archive
    from cmer.config.datasets import Raster

app = typer.Typer(no_args_is_help=True)
SHOWN = 20
"""Skipped images that are listed."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LEAST_TOKEN = 16
"""Characters of a token."""

Store = Annotated[
    str,
    typer.Argument(metavar="ARCHIVE", help="Folder of the archive (cmer index), or its URL, s3://bucket/name."),
    Reads(("archive.json",)),
]
Run = Annotated[
    str, typer.Option(help="Checkpoint of the archive's run, or name of its model. Default: where it was last.")
]


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Folder of images; they stay where they are."), Reads(())],
    run: Annotated[
        str, typer.Option(help="Checkpoint of a trained run, or name of a pretrained model or an aligned backbone.")
    ],
    store: Annotated[
        str,
        typer.Option(help="Folder of the archive, e.g. archive.lance, or a URL, e.g. s3://bucket/archive.lance."),
        Writes(("archive.json",)),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns file and label. Default: the name of the folder of each image."),
        Reads(),
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Longest side of a tile, pixels. Default: 640.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Overlap of neighbouring tiles, pixels. Default: 64.")] = None,
    bands: Annotated[
        str, typer.Option(help="Red, green and blue band of images that do not have three 8-bit bands, e.g. 4,3,2.")
    ] = "",
    exact_up_to: Annotated[
        int, typer.Option(min=256, help="Number of images and tiles above which an approximate index is built.")
    ] = 1_000_000,
    runtime: Annotated[
        Runtime | None,
        typer.Option(help="What runs the frozen towers; openvino is faster on a CPU. Default: as in the run."),
    ] = None,
) -> None:
    """Embed the images of a folder into an archive for `cmer search` and `cmer serve`, or bring the archive up to date.

    Images with a side above `--tile` are cut into overlapping tiles; footprints of GeoTIFFs are kept. Images that
    cannot be read are listed and skipped. Only new and changed images are embedded; rerun the same command to resume
    an interrupted run.
    """
    from cmer.archive.files import read_labels
    from cmer.archive.index import index as index_folder
    from cmer.config.archives import Tiling
    from cmer.config.base import validate
    from cmer.inference.model import load

    named = None if labels is None else read_labels(labels)
    sides = {name: side for name, side in (("tile", tile), ("overlap", overlap)) if side is not None}
    tiling = validate(Tiling, sides, "--tile and --overlap") if sides else None
    raster = _raster(bands)
    summary = index_folder(folder, store, load(run, runtime), _located(run), tiling, raster, named, exact_up_to)
    for file, reason in summary.skipped[:SHOWN]:
        typer.echo(f"skipped {file}: {reason}", err=True)
    if len(summary.skipped) > SHOWN:
        typer.echo(f"skipped {len(summary.skipped) - SHOWN:,} more", err=True)
    typer.echo(f"{store}: {summary}")
    if summary.recall is not None:
        typer.echo(str(summary.recall))


@app.command()
def search(
    store: Store,
    text: Annotated[str, typer.Argument(help="What the images should show; omit it to search by --image alone.")] = "",
    image: Annotated[Path | None, typer.Option(help="Image to search with, alone or beside the text."), Reads()] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Number of results.")] = 20,
    label: Annotated[list[str] | None, typer.Option(help="Only images with this label; repeatable.")] = None,
    bbox: Annotated[str, typer.Option(help="Only images that touch west,south,east,north, in degrees.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="HTML file for the results with their pictures."), Writes()] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare all vectors, even if there is an index.")] = False,
    run: Run = "",
) -> None:
    """Find images of an archive by a sentence, by an image, or by both.

    The score is the cosine of the embeddings. With text and image, the query is the mean of their two unit vectors.
    """
    from cmer.archive.page import render
    from cmer.archive.search import Filters, Searcher, embed_query, parse_bbox
    from cmer.archive.store import Archive

    archive = Archive.open(store)
    filters = Filters(tuple(label or ()), parse_bbox(bbox) if bbox else None)
    searcher = Searcher(archive, exact)
    hits = searcher.search(embed_query(_model(archive, run), text, image), top, filters)
    query = " + ".join([*filter(None, [text.strip()]), *([image.name] if image else [])])
    if html is not None:
        write_text(html, render(archive.settings, query, hits))
    if json:
        found = {"query": query, "model": archive.settings.model, "folder": archive.settings.folder}
        typer.echo(to_json.dumps(found | {"hits": [hit.as_json() for hit in hits]}, indent=2, ensure_ascii=False))
    elif html is None:
        _print(hits)


@app.command("export-archive")
def export_archive(
    store: Store, out: Annotated[Path, typer.Option(help="Parquet file for the rows."), Writes()]
) -> None:
    """Write the embeddings of an archive with everything known about their images to a Parquet file."""
    from cmer.archive.export import export
    from cmer.archive.store import Archive

    typer.echo(f"{out}: {export(Archive.open(store), out):,} rows")


@app.command()
def serve(
    store: Store,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the server.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address of this machine to serve on; other than loopback only with --token.")
    ] = "127.0.0.1",
    token: Annotated[
        str, typer.Option(help="Secret of at least 16 characters that every request must know.", envvar="CMER_TOKEN")
    ] = "",
    run: Run = "",
) -> None:
    """Serve a page on which an archive is searched by a sentence or a dropped image, until it is interrupted.

    Only this machine can open it unless both --host and --token are given.
    """
    from cmer.archive.store import Archive

    if token and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise UserError(
            f"--token needs at least {LEAST_TOKEN} ASCII characters without spaces, so that nobody guesses it"
        )
    if host not in LOOPBACK and not token:
        raise UserError(f"--host {host} would let other machines read the archive; give --token as well")
    archive = Archive.open(store)
    try:
        import uvicorn

        from cmer.archive.serve.app import create_app
    except ImportError:
        raise UserError("the server needs FastAPI and uvicorn; `pip install 'cmer[archive]'` adds them") from None
    served = create_app(archive, _model(archive, run), token)
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"http://{shown}:{port}/{f'?token={token}' if token else ''}")
    uvicorn.run(served, host=host, port=port, log_level="warning", server_header=False)


def _located(run: str) -> str:
    """The source of a model, as it is found from any folder."""
    return str(Path(run).absolute()) if Path(run).is_file() else run


def _raster(bands: str) -> Raster | None:
    from cmer.config.base import validate
    from cmer.config.datasets import Raster

    if not bands:
        return None
    if not all(number.strip().isdecimal() for number in bands.split(",")):
        raise UserError(f"--bands {bands[:40]!r} is not three numbers of bands, e.g. 4,3,2")
    return validate(Raster, {"bands": [int(number) for number in bands.split(",")]}, "--bands")


def _model(archive: Archive, run: str) -> Encoder:
    """The archive's model; raises `UserError` if `run` is another one."""
    from cmer.archive.index import require_model
    from cmer.inference.model import load

    try:
        model = load(run or archive.settings.source)
    except UserError as error:
        if run:
            raise
        raise UserError(f"{error}; say with --run where the archive's model is now") from None
    require_model(archive, model)
    return model


def _print(hits: list[Hit]) -> None:
    from rich.table import Table

    from cmer.progress import console

    table = Table("", "score", "label", "file", "tile", "footprint", box=None)
    for rank, hit in enumerate(hits, start=1):
        whole = (0, 0, hit.width, hit.height) == hit.box
        place = " ".join(f"{degrees:.4f}" for degrees in hit.footprint or ())
        table.add_row(f"{rank}", f"{hit.score:.3f}", hit.label, hit.file, "" if whole else f"{tuple(hit.box)}", place)
    terminal = console()
    (terminal if terminal.is_terminal else console(width=160)).print(table if hits else "nothing matches these filters")
