"""Verbs around models: features, train, embed, params."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmer.cli.data import Folder, Record
from cmer.config import METHOD_OPTIONS, MethodOptions, OpenClipBackbone, RunSpec, validate, validate_json
from cmer.errors import UserError
from cmer.io import digest, sha256, write_text
from cmer.provenance import code_digest, recorded, versions
from cmer.registry import METHODS
from cmer.retrieval import MODULES as EMBEDDING
from cmer.training import MODULES as TRAINING

if TYPE_CHECKING:
    from cmer.methods.base import Method

app = typer.Typer(no_args_is_help=True)

STATES = Path("work/train")
PARAM_BACKBONES = ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14")
"""The paper's backbones, which `cmer params` counts without being told."""

Captions = Annotated[Path, typer.Option(help="CSV of all captions with their prompts (cmer augment).")]
Queries = Annotated[Path, typer.Option(help="CSV of the test captions under every label protocol (cmer augment).")]
Manifest = Annotated[
    Path | None,
    typer.Option("--features", help="Manifest of the stored features (cmer features); none for online runs."),
]


@app.command()
def features(
    spec: Annotated[str, typer.Option(help='JSON: {"dataset": …, "backbone": …}, an entry of each in the config.')],
    folder: Folder,
    captions: Captions,
    queries: Queries,
    out: Annotated[Path, typer.Option(help="Manifest of the features, JSON.")],
    record: Record = None,
) -> None:
    """Run the frozen towers once over a dataset and store what training and evaluation read.

    The arrays go to work/features, under the digest that the manifest names; every run on this dataset and backbone
    shares them. An interrupted extraction goes on where it stopped.
    """
    from cmer.data.frames import read_frame
    from cmer.data.images import open_images
    from cmer.data.pairs import Pairs
    from cmer.features.extract import extract
    from cmer.features.store import FeatureSpec
    from cmer.training.assemble import CACHE

    options = validate_json(FeatureSpec, spec, "--spec")
    with recorded(record):
        pairs = Pairs.read(folder, captions)
        asked = read_frame(queries).drop(columns=["caption_id", "image_id"])
        texts = pairs.texts + pairs.prompts + asked.to_numpy().ravel().tolist()
        images = open_images(options.dataset, folder)
        manifest = extract(options, pairs.files, pairs.sha256, images, texts, CACHE)
        write_text(out, manifest.model_dump_json(indent=1) + "\n")


@app.command()
def train(
    spec: Annotated[str, typer.Option(help="JSON of the run: backbone, method, options, training, seed.")],
    folder: Folder,
    captions: Captions,
    validation: Annotated[Path, typer.Option(help="CSV of the validation images (cmer split).")],
    out: Annotated[Path, typer.Option(help="Checkpoint: the trained tensors, safetensors. The curve lies beside it.")],
    excluded: Annotated[Path | None, typer.Option(help="CSV of train captions to leave out (cmer exclude).")] = None,
    features: Manifest = None,
    record: Record = None,
) -> None:
    """Train one run, selecting on validation mR; a training that was killed goes on where it stopped.

    A run of several processes is started as `torchrun --standalone --nproc-per-node N -m cmer train ...`.
    """
    import torch

    from cmer.data.pairs import Pairs
    from cmer.training.assemble import assemble
    from cmer.training.checkpoint import save
    from cmer.training.distributed import joined, rank
    from cmer.training.loop import Trainer

    run = validate_json(RunSpec, spec, "--spec")
    torch.set_num_threads(run.training.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    with joined(run.training.processes), recorded(record if rank() == 0 else None) as facts:
        pairs = Pairs.read(folder, captions, validation, excluded).few(run.training.train_images)
        ready = assemble(run, pairs, folder, features)
        made = {
            "spec": run.model_dump(),
            "trainable_parameters": ready.method.count(),
            "features": ready.digest,
            "code": code_digest(*TRAINING, *_sources(ready.method, run)),
            "versions": versions(),
            "threads": run.training.threads,
        }
        read = [captions, validation, *([excluded] if excluded else [])]
        # One state whatever the number of processes, so that another number is refused and not a start from nothing.
        same = made | {"spec": run.model_dump(exclude={"training": {"processes"}})}
        state_file = STATES / digest([same, *map(sha256, read)]) / "state.pt"
        if ready.method.trained():
            state = Trainer(ready.method, ready.inputs, pairs, run, state_file).run()
            best, curve, seen = state.best, state.curve, state.images_seen
        else:
            best, curve, seen = {}, [], 0
        if rank():
            return  # the first process writes
        top = max(curve, key=lambda entry: entry["val_mr"], default={"epoch": 0, "val_mr": None})
        made |= {"train_images": len(pairs.train_images), "images_seen": seen}
        made |= {"train_captions": len(pairs.captions_of(pairs.train_images))}
        made |= {"epochs": len(curve), "best_epoch": top["epoch"], "val_mr": top["val_mr"]}
        write_text(out.with_suffix(".curve.jsonl"), "".join(json.dumps(entry) + "\n" for entry in curve))
        save(out, best, made)
        state_file.unlink(missing_ok=True)
        facts |= {"images_seen": seen, "val_mr": top["val_mr"]}


@app.command()
def validation(
    checkpoint: Annotated[list[Path], typer.Option(help="Of a trained run; repeat for several.")],
    out: Annotated[Path, typer.Option(help="CSV to write.")],
    record: Record = None,
) -> None:
    """List the validation mR of trained runs with their learning rate: what settings are chosen on."""
    from cmer.data.frames import write_frame
    from cmer.reporting.validation import validation_table

    with recorded(record):
        write_frame(out, validation_table(checkpoint))


@app.command()
def embed(
    checkpoint: Annotated[Path, typer.Option(help="Of the trained run (cmer train).")],
    folder: Folder,
    captions: Captions,
    queries: Queries,
    out: Annotated[Path, typer.Option(help="Embeddings of the test split, safetensors.")],
    features: Manifest = None,
    record: Record = None,
) -> None:
    """Encode the test images, and the test captions under every label protocol."""
    import torch

    from cmer.data.frames import read_frame
    from cmer.data.pairs import Pairs
    from cmer.retrieval.embed import embeddings
    from cmer.training.assemble import assemble
    from cmer.training.checkpoint import load, save
    from cmer.training.loop import put

    tensors, made = load(checkpoint)
    run = validate(RunSpec, made["spec"], str(checkpoint))
    torch.set_num_threads(run.training.threads)
    with recorded(record):
        pairs = Pairs.read(folder, captions)
        ready = assemble(run, pairs, folder, features)
        put(ready.method.trained(), tensors)
        frame = read_frame(queries)
        asked = {name: frame[name].tolist() for name in frame.columns.drop(["caption_id", "image_id"])}
        views = run.backbone.features.views
        code = code_digest(*EMBEDDING, *_sources(ready.method, run))
        made |= {"embedding": {"code": code, "versions": versions()}}
        save(out, embeddings(ready.method, ready.inputs, pairs.test_images, views, asked), made)


def _sources(method: Method, run: RunSpec) -> tuple[str, str]:
    """The modules that a registry finds by name, so that no import leads to them."""
    return type(method).__module__, f"cmer.backbones.{run.backbone.kind}"


@app.command()
def params(
    backbone: Annotated[list[str] | None, typer.Option(help="open_clip model name; repeat for several.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Method name; repeat for several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of {backbone, method, params}.")] = False,
    show_list: Annotated[
        bool, typer.Option("--list", help="List the backbones and methods that can be named.")
    ] = False,
) -> None:
    """Count the trainable parameters of methods on backbones, without memory for their weights.

    Without --backbone or --method, all of the paper's backbones or all methods.
    """
    if show_list:
        typer.echo("backbones: " + ", ".join(PARAM_BACKBONES) + ", or any ViT of open_clip")
        typer.echo("methods:   " + ", ".join(METHODS.names()))
        return
    rows = [
        {"backbone": tower, "method": name, "params": _count(tower, name)}
        for tower in backbone or PARAM_BACKBONES
        for name in method or METHODS.names()
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['backbone']:10} {row['method']:20} {row['params']:>12,}")


def _count(tower: str, name: str) -> int:
    import torch

    from cmer.backbones import build as build_backbone
    from cmer.features.extract import resolve_blocks
    from cmer.methods import build as build_method

    if name not in METHODS.names():
        raise UserError(f"unknown method {name!r}; known are {', '.join(METHODS.names())}")
    with torch.device("meta"):
        backbone = build_backbone(OpenClipBackbone(kind="open_clip", model=tower, printed=tower))
        features = resolve_blocks(OpenClipBackbone(kind="open_clip", model=tower, printed=tower).features, backbone)
        options = METHOD_OPTIONS.get(name, MethodOptions)()
        method = build_method(name, options, backbone.shapes, features, backbone, 0)
    return method.count()
