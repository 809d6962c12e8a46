"""Commands that prepare a dataset: draw, fetch, prepare, split, augment, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmer.cli.files import FETCHED, PREPARED, Reads, Writes
from cmer.config.base import Model, validate_json
from cmer.config.datasets import Dataset, DemoDataset, PublishedDataset
from cmer.errors import UserError
from cmer.io import expand
from cmer.provenance import recorded

app = typer.Typer(no_args_is_help=True)

Spec = Annotated[str, typer.Option(help="The dataset's settings as JSON: one entry of `datasets` in the config.")]
FOLDER = typer.Option(help="The dataset's folder, e.g. results/data/demo.")
Folder = Annotated[Path, FOLDER, Reads((*PREPARED, *FETCHED))]
Record = Annotated[
    Path | None, typer.Option(help="JSON file for the record of this call (time, memory, commit)."), Writes()
]


class _Spec(Model):
    dataset: Dataset


def dataset_of(spec: str) -> Dataset:
    """The dataset described by `--spec`; raises `UserError` if the JSON is invalid."""
    return validate_json(_Spec, f'{{"dataset": {spec}}}', "--spec").dataset


@app.command()
def draw(spec: Spec, folder: Annotated[Path, FOLDER, Writes(FETCHED)], record: Record = None) -> None:
    """Draw the demo dataset: overhead scenes with captions, in the layout of published datasets.

    Writes images.tar and dataset.json into the folder. The same settings give the same bytes.
    """
    from cmer.scenes import draw_dataset

    options = dataset_of(spec)
    if not isinstance(options, DemoDataset):
        raise UserError(f"cmer draw needs a dataset with source demo; that of {options.title} is {options.source}")
    with recorded(record):
        draw_dataset(options, folder)


@app.command()
def fetch(spec: Spec, folder: Annotated[Path, FOLDER, Writes(FETCHED)], record: Record = None) -> None:
    """Fetch a published dataset from the first of its sources that provides it.

    Sources are folders and archives, the Hugging Face hub, the web, and DVC remotes, as listed in the settings or, by
    default, on the dataset's card. Writes images.tar and dataset.json into the folder; the same images and captions
    give the same bytes, whatever the source. Downloads are kept in work/downloads, those from the hub in its own cache.
    Rerun the same command to resume an interrupted download.
    """
    from cmer.data.fetch import fetch_dataset

    options = dataset_of(spec)
    if not isinstance(options, PublishedDataset) or options.root is not None:
        raise UserError(f"cmer fetch is for published datasets without a `root`; {options.title} is not one")
    with recorded(record) as facts:
        fetched = fetch_dataset(options, folder)
        facts |= vars(fetched)
    for reason in fetched.skipped:
        typer.echo(f"skipped {reason}", err=True)
    for warning in fetched.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{options.title} comes from {fetched.source}", err=True)


@app.command()
def prepare(
    spec: Spec, folder: Annotated[Path, FOLDER, Reads(FETCHED), Writes(PREPARED)], record: Record = None
) -> None:
    """Check a dataset and write its description, images.csv, captions.csv and hashes.csv, into the folder.

    Decodes every image once. Stops with a report if captions are blank, images are missing or broken, or labels are
    missing; with `on_bad: drop` in the dataset's settings, drops bad captions and images instead. Prints how much of
    val and test repeats train: captions, sets of captions and near-duplicate images.
    """
    from cmer.data.leaks import read_parts
    from cmer.data.prepare import prepare as prepare_dataset
    from cmer.data.repeats import repeats

    with recorded(record) as facts:
        findings = [str(finding) for finding in prepare_dataset(dataset_of(spec), folder)]
        found = repeats(read_parts(folder))
        facts |= {"findings": findings, "repeats": [vars(each) for each in found]}
    for finding in findings:
        typer.echo(f"warning: {finding}", err=True)
    for each in found:
        typer.echo(str(each), err=True)


@app.command()
def split(
    folder: Folder,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**32 - 1, help="Seed of the random validation split, if the dataset has no val split."
        ),
    ],
    out: Annotated[Path, typer.Option(help="CSV file for the ids of the validation images."), Writes()],
    record: Record = None,
) -> None:
    """Choose the validation images: the dataset's val split, or a random tenth of the train images if it has none.

    The tenth has the classes' proportions, and keeps near-duplicates and images with the same captions on one side.
    Prints how much of it repeats the remaining train images.
    """
    from cmer.data.validation import choose_validation

    with recorded(record) as facts:
        together, found = choose_validation(folder, seed, out)
        facts["repeats"] = [vars(each) for each in found]
    for sentence in filter(None, (together, *map(str, found))):
        typer.echo(sentence, err=True)


@app.command()
def augment(
    spec: Spec,
    folder: Folder,
    out: Annotated[Path, typer.Option(help="CSV file for all captions with their scene prompts."), Writes()],
    queries: Annotated[Path, typer.Option(help="CSV file for the queries of none, oracle and shuffled."), Writes()],
    record: Record = None,
) -> None:
    """Prepend scene labels to captions: prompts for training, and the test queries that do not depend on the run.

    Queries of `predicted` depend on what a run trains on: `cmer embed` makes them.
    """
    from cmer.data.frames import CAPTIONS, IMAGES, read_frame, write_frame
    from cmer.data.prompts import augment as augment_captions

    with recorded(record):
        images = read_frame(folder / "images.csv", IMAGES)
        captions = read_frame(folder / "captions.csv", CAPTIONS)
        prompted, texts = augment_captions(dataset_of(spec).template, images, captions)
        write_frame(queries, texts)
        write_frame(out, prompted)


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(help="A published dataset, e.g. rsicd.")],
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the copy, published or fetched layout. Default: $CMER_DATA_ROOT/<dataset>."),
        Reads(FETCHED),
    ] = None,
    annotations_only: Annotated[bool, typer.Option(help="Do not open the images.")] = False,
) -> None:
    """Print a published dataset's card, and compare a copy's images, captions, splits and classes with the original.

    Exits with status 1 if anything differs.
    """
    from cmer.config.datasets import published_names
    from cmer.data.check import check_copy, show

    if dataset not in published_names():
        raise UserError(f"no published dataset {dataset!r} is known; known are {', '.join(published_names())}")
    place = root or expand(f"${{CMER_DATA_ROOT}}/{dataset}")
    matches = check_copy(dataset, place, annotations_only)
    show(dataset, place, matches, annotations_only)
    if not all(match.same for match in matches):
        raise typer.Exit(1)
