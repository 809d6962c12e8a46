"""Verbs that make a dataset ready: draw, fetch, prepare, split, augment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmer.config.base import Model, validate_json
from cmer.config.datasets import Dataset, DemoDataset, PublishedDataset
from cmer.errors import UserError
from cmer.provenance import recorded

app = typer.Typer(no_args_is_help=True)

Spec = Annotated[str, typer.Option(help="The dataset's settings as JSON: one entry of `datasets` in the config.")]
Folder = Annotated[Path, typer.Option(help="The dataset's folder, e.g. results/data/demo.")]
Record = Annotated[Path | None, typer.Option(help="Where to write the record of this call (time, memory, commit).")]


class _Spec(Model):
    dataset: Dataset


def dataset_of(spec: str) -> Dataset:
    """The dataset that `--spec` describes; `UserError` if it is not JSON or not valid."""
    return validate_json(_Spec, f'{{"dataset": {spec}}}', "--spec").dataset


@app.command()
def draw(spec: Spec, folder: Folder, record: Record = None) -> None:
    """Draw the demo dataset: overhead scenes and captions, in the layout of published sets.

    Writes images.tar and dataset.json into the folder. The same settings give the same bytes.
    """
    from cmer.scenes import draw_dataset

    options = dataset_of(spec)
    if not isinstance(options, DemoDataset):
        raise UserError(f"cmer draw is for datasets of source demo; {options.title} is {options.source}")
    with recorded(record):
        draw_dataset(options, folder)


@app.command()
def fetch(spec: Spec, folder: Folder, record: Record = None) -> None:
    """Fetch a published dataset, from the first of its sources that gives it.

    Sources are folders and archives, the Hugging Face hub, the web, and DVC remotes: those of the settings or, where
    they name none, of the dataset's card. Writes images.tar and dataset.json into the folder; the same images and
    captions give the same bytes, wherever they come from. Downloads are kept in work/downloads, those of the hub in
    its own cache, and go on where they broke off.
    """
    from cmer.data.fetch import fetch_dataset

    options = dataset_of(spec)
    if not isinstance(options, PublishedDataset) or options.root is not None:
        raise UserError(f"cmer fetch is for published datasets without a `root`; {options.title} is none")
    with recorded(record) as facts:
        fetched = fetch_dataset(options, folder)
        facts |= vars(fetched)
    for reason in fetched.skipped:
        typer.echo(f"skipped {reason}", err=True)
    for warning in fetched.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{options.title} comes from {fetched.source}", err=True)


@app.command()
def prepare(spec: Spec, folder: Folder, record: Record = None) -> None:
    """Check a dataset and describe it: writes images.csv, captions.csv and hashes.csv into the folder.

    Decodes every image once. Blank captions, missing or broken images and missing labels stop with a report, or are
    dropped where the dataset's settings say `on_bad: drop`.
    """
    from cmer.data.prepare import prepare as prepare_dataset

    with recorded(record) as facts:
        findings = [str(finding) for finding in prepare_dataset(dataset_of(spec), folder)]
        facts["findings"] = findings
    for finding in findings:
        typer.echo(f"warning: {finding}", err=True)


@app.command()
def split(
    folder: Folder,
    seed: Annotated[int, typer.Option(help="Of the draw, where the dataset has no validation images of its own.")],
    out: Annotated[Path, typer.Option(help="CSV of the validation images' ids.")],
    record: Record = None,
) -> None:
    """Choose the validation images: the dataset's own, or a tenth of the train images drawn with the seed."""
    import pandas as pd

    from cmer.data.frames import read_frame, write_frame
    from cmer.data.splits import validation_ids

    with recorded(record):
        images = read_frame(folder / "images.csv")
        write_frame(out, pd.DataFrame({"image_id": validation_ids(images, seed)}))


@app.command()
def augment(
    spec: Spec,
    folder: Folder,
    out: Annotated[Path, typer.Option(help="CSV of all captions with their scene prompts.")],
    queries: Annotated[Path, typer.Option(help="CSV of the test captions under every label protocol.")],
    record: Record = None,
) -> None:
    """Put scene labels in front of captions: the training prompts, and the test queries of every protocol."""
    from cmer.data.frames import read_frame, write_frame
    from cmer.data.prompts import augment as augment_captions

    with recorded(record):
        images, captions = read_frame(folder / "images.csv"), read_frame(folder / "captions.csv")
        prompted, texts = augment_captions(dataset_of(spec).template, images, captions)
        write_frame(queries, texts)
        write_frame(out, prompted)


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(help="A published dataset, e.g. rsicd.")],
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the copy, as published or as fetched. Default: $CMER_DATA_ROOT/<dataset>."),
    ] = None,
    annotations_only: Annotated[bool, typer.Option(help="Leave the images unopened.")] = False,
) -> None:
    """Print a dataset's card, and whether a copy of it has the images, captions, splits and classes of the real one.

    Exit status 1 where something differs.
    """
    from cmer.config.datasets import published_names
    from cmer.data.check import check_copy, show
    from cmer.data.layout import expand

    if dataset not in published_names():
        raise UserError(f"no published dataset {dataset!r} is known; known are {', '.join(published_names())}")
    place = root or expand(f"${{CMER_DATA_ROOT}}/{dataset}")
    matches = check_copy(dataset, place, annotations_only)
    show(dataset, place, matches, annotations_only)
    if not all(match.same for match in matches):
        raise typer.Exit(1)
