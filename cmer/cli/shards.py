"""Commands that embed an archive in shards, which the workflow runs: list-images, embed-shard, build-archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmer.cli.data import Record
from cmer.cli.files import Reads, Writes
from cmer.config.base import validate_json
from cmer.io import expand, write_sealed
from cmer.provenance import recorded

app = typer.Typer(no_args_is_help=True)

SHARD = "The archive's folder, number of shards, tiling, raster and threads as JSON."
Run = Annotated[str, typer.Option(help="Checkpoint of a trained run, or name of a model.")]


@app.command("list-images")
def list_images(
    spec: Annotated[str, typer.Option(help="The archive's folder, labels and number of shards as JSON.")],
    out: Annotated[Path, typer.Option(help="Parquet file for the list."), Writes()],
    record: Record = None,
) -> None:
    """List the images of a folder, each with its shard, for `cmer embed-shard`."""
    from cmer.archive.files import read_labels
    from cmer.archive.listing import write_listing
    from cmer.config.archives import Listing

    wanted = validate_json(Listing, spec, "--spec")
    with recorded(record):
        labels = None if wanted.labels is None else read_labels(expand(wanted.labels))
        typer.echo(f"{write_listing(expand(wanted.folder), labels, wanted.shards, out):,} images")


@app.command("embed-shard")
def embed_shard(
    spec: Annotated[str, typer.Option(help=SHARD)],
    files: Annotated[Path, typer.Option(help="List of the images (cmer list-images)."), Reads()],
    shard: Annotated[int, typer.Option(min=0, help="Number of the shard.")],
    run: Run,
    out: Annotated[Path, typer.Option(help="Parquet file for the shard's rows."), Writes()],
    record: Record = None,
) -> None:
    """Embed the images of a shard. Images that cannot be read are listed and skipped.

    Rerun the same command to resume an interrupted embedding: finished batches are kept in work/archives.
    """
    from cmer.archive.listing import read_listing
    from cmer.archive.shards import embed_shard as embed
    from cmer.config.archives import ShardSpec
    from cmer.features.device import threads
    from cmer.inference.model import load

    wanted = validate_json(ShardSpec, spec, "--spec")
    with recorded(record), threads(wanted.threads):
        summary = embed(read_listing(files, shard), shard, wanted, load(run, wanted.runtime), run, out)
    for file, reason in summary.skipped:
        typer.echo(f"skipped {file}: {reason}", err=True)
    typer.echo(f"{out}: {summary}")


@app.command("build-archive")
def build_archive(
    spec: Annotated[str, typer.Option(help=SHARD)],
    shards: Annotated[Path, typer.Option(help="Folder of all shards, {number}.parquet (cmer embed-shard)."), Reads(())],
    run: Run,
    store: Annotated[str, typer.Option(help="Folder or URL of the archive."), Writes(("archive.json",))],
    out: Annotated[Path, typer.Option(help="JSON file for what the archive holds."), Writes()],
    record: Record = None,
) -> None:
    """Join shards into an archive for `cmer search` and `cmer serve`, whose rows they replace in one commit."""
    from cmer.archive.shards import build
    from cmer.config.archives import ShardSpec
    from cmer.inference.model import load

    wanted = validate_json(ShardSpec, spec, "--spec")
    with recorded(record):
        built = build([shards / f"{number}.parquet" for number in range(wanted.shards)], store, load(run))
        found = {"store": store, "rows": built.rows, "skipped": built.skipped, "recall": built.recall}
        write_sealed(out, found | {"archive": built.settings.model_dump(mode="json")}, "cmer build-archive")
    typer.echo(f"{store}: {built.rows:,} rows, {len(built.skipped):,} images skipped")
    if built.recall is not None:
        typer.echo(str(built.recall))
