"""Commands that detect and exclude leaks of val and test images: leaks, exclude."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmer.cli.data import Record
from cmer.cli.files import FETCHED, PREPARED, Reads, Writes
from cmer.config.base import Model, Name, Several, validate_json
from cmer.config.datasets import Leak
from cmer.progress import console
from cmer.provenance import recorded

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

app = typer.Typer(no_args_is_help=True)

Folders = Annotated[
    list[Path],
    typer.Option(help="Folder of a prepared dataset, e.g. results/data/demo; repeat for several."),
    Reads((*PREPARED, *FETCHED)),
]


@app.command()
def leaks(
    folder: Folders,
    out: Annotated[Path, typer.Option(help="CSV file for the pairs of images."), Writes()],
    summary: Annotated[Path, typer.Option(help="CSV file for the counts and rules."), Writes()],
    record: Record = None,
) -> None:
    """Detect leaks of val and test: similar images, cross-dataset duplicates (`twins`) and shared captions.

    Compares the images of all splits of all given datasets, and the captions of test and val with the other splits of
    their dataset and the train splits of the other datasets. Prints a summary.
    """
    from cmer.data.frames import write_frame
    from cmer.data.leaks import find_leaks

    with recorded(record):
        pairs, counts = find_leaks(folder)
        write_frame(summary, counts)
        write_frame(out, pairs)
    console().print(_view(counts))


def _view(counts: pd.DataFrame) -> Table:
    from rich import box
    from rich.table import Table

    found = counts[counts["found"] > 0]
    rules = [f"{kind}: {rule}." for kind, rule in counts[["kind", "rule"]].drop_duplicates().to_numpy()]
    caption = f"found: images or captions in a. {len(counts) - len(found)} other comparisons found nothing."
    view = Table(title="Leaks", caption="\n".join([caption, *rules]), caption_justify="left", box=box.SIMPLE_HEAD)
    for name in ("kind", "a", "b"):
        view.add_column(name, no_wrap=True)
    for name in ("found", "of", "pairs"):
        view.add_column(name, justify="right", no_wrap=True)
    for row in found.itertuples():
        a, b = f"{row.dataset_a} {row.split_a}", f"{row.dataset_b} {row.split_b}"
        pairs = "" if row.kind == "shared_captions" else f"{row.pairs:,}"
        view.add_row(str(row.kind), a, b, f"{row.found:,}", f"{row.of:,}", pairs)
    return view


class _Spec(Model):
    dataset: Name
    exclude: Several[Leak]


@app.command()
def exclude(
    spec: Annotated[str, typer.Option(help='JSON: {"dataset": <name>, "exclude": [<kind of leak>, …]}.')],
    folder: Folders,
    validation: Annotated[Path, typer.Option(help="CSV of the dataset's validation images (cmer split)."), Reads()],
    out: Annotated[Path, typer.Option(help="CSV file for the train captions to exclude, with reasons."), Writes()],
    record: Record = None,
) -> None:
    """List the train captions of a dataset that leak val or test images of this or other datasets."""
    from cmer.data.frames import write_frame
    from cmer.data.leaks import excluded

    asked = validate_json(_Spec, spec, "--spec")
    with recorded(record) as facts:
        found = excluded(asked.dataset, folder, validation, asked.exclude)
        write_frame(out, found)
        facts["excluded"] = found.drop_duplicates("caption_id").groupby("reason").size().to_dict()
    for leak in asked.exclude:
        if not found["reason"].str.startswith(f"{leak}:").any():
            typer.echo(f"warning: datasets.{asked.dataset}.exclude: {leak} excluded nothing", err=True)
    captions, images = found["caption_id"].nunique(), found["image_id"].nunique()
    typer.echo(f"{asked.dataset}: {captions:,} train captions of {images:,} images are excluded", err=True)
