"""Commands for models: features, caption, train, validation, embed, bank, params; and for configs: config, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cmer.cli.data import Folder, Record
from cmer.cli.files import Reads, Writes
from cmer.config.base import validate_json
from cmer.config.runs import RunSpec
from cmer.io import write_json, write_sealed
from cmer.provenance import recorded
from cmer.registry import METHOD_OPTIONS

app = typer.Typer(no_args_is_help=True)

PARAM_BACKBONES = ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14")
"""The paper's backbones, the default of `cmer params`."""

Captions = Annotated[Path, typer.Option(help="CSV of all captions with their prompts (cmer augment)."), Reads()]
Queries = Annotated[Path, typer.Option(help="CSV of the queries of none, oracle and shuffled (cmer augment)."), Reads()]
Manifest = Annotated[
    Path | None,
    typer.Option("--features", help="Manifest of the stored features (cmer features); omit for online runs."),
    Reads(),
]


Rich = Annotated[
    Path | None,
    typer.Option(help="JSONL of the images' rich texts (cmer caption), for runs that read them in place of images."),
    Reads(("", ".json")),
]
Validation = Annotated[Path, typer.Option(help="CSV of the validation images (cmer split)."), Reads()]
Excluded = Annotated[Path | None, typer.Option(help="CSV of train captions to exclude (cmer exclude)."), Reads()]
Wanted = Annotated[str | None, typer.Option(help="The run as JSON; a checkpoint of another run is refused.")]


def _wanted(spec: str | None) -> RunSpec | None:
    return None if spec is None else validate_json(RunSpec, spec, "--spec")


@app.command()
def features(
    spec: Annotated[str, typer.Option(help='JSON: {"dataset": …, "backbone": …}, with their entries in the config.')],
    folder: Folder,
    captions: Captions,
    queries: Queries,
    out: Annotated[Path, typer.Option(help="JSON file for the manifest of the features."), Writes()],
    record: Record = None,
) -> None:
    """Run the frozen towers once over a dataset and store the features for training and evaluation.

    The arrays are stored in work/features, under the digest in the manifest; all runs on this dataset and backbone
    share them. Rerun the same command to resume an interrupted extraction.
    """
    from cmer.features.extract import extract_dataset
    from cmer.features.store import FeatureSpec
    from cmer.training.assembly import FEATURES

    options = validate_json(FeatureSpec, spec, "--spec")
    with recorded(record):
        manifest = extract_dataset(options, folder, captions, queries, FEATURES)
        manifest.write(out)


@app.command()
def caption(
    spec: Annotated[str, typer.Option(help='JSON: {"dataset": …, "captioner": …}, with their entries in the config.')],
    folder: Folder,
    out: Annotated[
        Path, typer.Option(help="JSONL file for the texts; their record goes beside it."), Writes(("", ".json"))
    ],
    record: Record = None,
) -> None:
    """Write rich texts of all images of a prepared dataset: one JSON line per image, with captions by granularity.

    For a folder of images, run `cmer prepare` first; class folders need no annotations. Rerun the same command to
    resume an interrupted captioning: finished batches are kept in work/captions.
    """
    from cmer.captioning.write import CaptionSpec, caption_dataset

    options = validate_json(CaptionSpec, spec, "--spec")
    with recorded(record) as facts:
        facts |= caption_dataset(options, folder, out) | {"captioner": options.captioner.model_dump()}


@app.command()
def train(
    spec: Annotated[str, typer.Option(help="The run as JSON: backbone, method, options, training, seed.")],
    folder: Folder,
    captions: Captions,
    validation: Validation,
    out: Annotated[Path, typer.Option(help="Safetensors file for the trained tensors."), Writes()],
    curve: Annotated[Path, typer.Option(help="JSONL file for losses and validation mR, one line per epoch."), Writes()],
    excluded: Excluded = None,
    features: Manifest = None,
    rich: Rich = None,
    record: Record = None,
) -> None:
    """Train one run, with selection on validation mR. Rerun the same command to resume an interrupted training.

    Start a run with several processes as `torchrun --standalone --nproc-per-node N -m cmer train ...`.
    """
    import torch

    from cmer.training.assembly import RunFiles
    from cmer.training.distributed import joined, rank
    from cmer.training.run import train_run

    run = validate_json(RunSpec, spec, "--spec")
    torch.set_num_threads(run.training.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    with joined(run.training.processes), recorded(record if rank() == 0 else None) as facts:
        facts |= train_run(run, RunFiles(folder, captions, validation, excluded, features, rich), out, curve)


@app.command()
def validation(
    checkpoint: Annotated[list[Path], typer.Option(help="Checkpoint of a trained run; repeat for several."), Reads()],
    out: Annotated[Path, typer.Option(help="CSV file for the list."), Writes()],
    record: Record = None,
) -> None:
    """List validation mR and learning rate of trained runs, as a basis for choosing settings."""
    from cmer.data.frames import write_frame
    from cmer.reporting.validation import validation_table

    with recorded(record):
        write_frame(out, validation_table(checkpoint))


@app.command()
def embed(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint of the trained run (cmer train)."), Reads()],
    folder: Folder,
    captions: Captions,
    validation: Validation,
    queries: Queries,
    template: Annotated[str, typer.Option(help="Prompt template of the dataset, e.g. '{label}. {caption}'.")],
    out: Annotated[Path, typer.Option(help="Safetensors file for the embeddings of the test split."), Writes()],
    excluded: Excluded = None,
    features: Manifest = None,
    rich: Rich = None,
    spec: Wanted = None,
    record: Record = None,
) -> None:
    """Encode the test images, and the test captions under every label protocol, or the run's own queries.

    Needs the same captions as the training: vocabularies, and the labels of protocol `predicted`, are learned from
    them.
    """
    from cmer.training.assembly import RunFiles
    from cmer.training.embedding import embed_run

    run = _wanted(spec)
    with recorded(record):
        files = RunFiles(folder, captions, validation, excluded, features, rich)
        embed_run(checkpoint, files, queries, template, out, run)


@app.command()
def bank(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint of the trained run (cmer train)."), Reads()],
    folder: Folder,
    captions: Captions,
    validation: Validation,
    out: Annotated[Path, typer.Option(help="Safetensors file for the embeddings."), Writes()],
    excluded: Excluded = None,
    features: Manifest = None,
    rich: Rich = None,
    spec: Wanted = None,
    record: Record = None,
) -> None:
    """Encode the validation split, on which rerankers are chosen, and the train split, their bank of known queries."""
    from cmer.training.assembly import RunFiles
    from cmer.training.embedding import bank_run

    run = _wanted(spec)
    with recorded(record):
        bank_run(checkpoint, RunFiles(folder, captions, validation, excluded, features, rich), out, run)


@app.command()
def heat_maps(
    spec: Annotated[str, typer.Option(help='JSON: {"run": …, "dataset": …, "queries": […]}, the run as trained.')],
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint of the trained run (cmer train)."), Reads()],
    folder: Folder,
    captions: Captions,
    validation: Validation,
    out: Annotated[Path, typer.Option(help="JSON file for the maps."), Writes()],
    excluded: Excluded = None,
    features: Manifest = None,
    record: Record = None,
) -> None:
    """Show where in test images the scores of their captions come from: Grad-CAM of the image tower and side branch.

    Without queries, the captions are those that name the smallest things. Each map has its correlation with maps of
    shuffled weights: where that is high, the map shows the image rather than what was learned.
    """
    from cmer.training.assembly import RunFiles
    from cmer.training.heat_maps import HeatMapSpec
    from cmer.training.heat_maps import heat_maps as maps_of

    wanted = validate_json(HeatMapSpec, spec, "--spec")
    with recorded(record):
        files = RunFiles(folder, captions, validation, excluded, features)
        write_sealed(out, maps_of(wanted, checkpoint, files), "cmer heat-maps")


@app.command()
def params(
    backbone: Annotated[list[str] | None, typer.Option(help="open_clip model name; repeat for several.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Method name; repeat for several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of {backbone, method, params}.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="List the available backbones and methods.")] = False,
) -> None:
    """Count the trainable parameters of methods on backbones, without allocating their weights.

    Defaults: all backbones of the paper, all methods.
    """
    from cmer.profiling.parameters import count_parameters

    if show_list:
        typer.echo("backbones: " + ", ".join(PARAM_BACKBONES) + ", any ViT of open_clip, or a card (cmer backbones)")
        typer.echo("methods:   " + ", ".join(METHOD_OPTIONS.names()))
        return
    rows = [
        {"backbone": tower, "method": name, "params": count_parameters(tower, name)}
        for tower in backbone or PARAM_BACKBONES
        for name in method or METHOD_OPTIONS.names()
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['backbone']:10} {row['method']:20} {row['params']:>12,}")


@app.command()
def config(
    files: Annotated[list[Path], typer.Argument(help="Config files; later ones override earlier ones."), Reads()],
) -> None:
    """Check config files as the workflow does, and list their runs.

    Errors name the line of a file that is not YAML, which Snakemake's own message does not.
    """
    from cmer.config.experiment import read

    for run in read(files).expanded:
        typer.echo(f"{run.name}: {run.method} on {', '.join(run.datasets) or 'no dataset'}")


@app.command()
def schema(
    out: Annotated[Path, typer.Option(help="JSON file for the schema."), Writes()] = Path("config/schema.json"),
) -> None:
    """Write the JSON schema of a config, with all installed methods and backbones."""
    from cmer.config.schema import config_schema

    write_json(out, config_schema())
