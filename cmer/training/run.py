"""One run: assembled from its spec, trained, and embedded. Called by the commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from cmer.backbones.base import Backbone
from cmer.backbones.build import build as build_backbone
from cmer.config.backbones import FeatureOptions
from cmer.config.base import validate
from cmer.config.runs import RunSpec
from cmer.data.frames import read_frame
from cmer.data.images import open_images
from cmer.data.pairs import Pairs
from cmer.data.prompts import predicted_queries
from cmer.errors import UserError
from cmer.features.device import device
from cmer.features.extract import extract, open_store
from cmer.features.inputs import (
    Inputs,
    OnlineImages,
    online_images,
    online_texts,
    stored_images,
    stored_texts,
    token_texts,
)
from cmer.features.store import Manifest
from cmer.io import digest, sha256, write_text
from cmer.methods.base import Context, Method
from cmer.methods.build import build, context_of
from cmer.provenance import code_digest, versions
from cmer.retrieval import MODULES as EMBEDDING
from cmer.retrieval.embed import embeddings
from cmer.training import MODULES as TRAINING
from cmer.training.checkpoint import load, save
from cmer.training.distributed import rank
from cmer.training.loop import Trainer, load_tensors

FEATURES = Path("work/features")
STATES = Path("work/train")


@dataclass(frozen=True)
class RunFiles:
    """Input files of a run.

    Attributes:
        folder: folder of the prepared dataset.
        captions: all captions with their prompts (`cmer augment`).
        validation: ids of the validation images (`cmer split`).
        excluded: train captions to exclude (`cmer exclude`).
        features: manifest of the stored features; None for an online run.
    """

    folder: Path
    captions: Path
    validation: Path
    excluded: Path | None = None
    features: Path | None = None

    def pairs(self, spec: RunSpec) -> Pairs:
        """The dataset with the validation split, exclusions and subsample of the run."""
        pairs = Pairs.read(self.folder, self.captions, self.validation, self.excluded)
        return pairs.subsample(spec.training.train_images)

    def hashes(self) -> list[str]:
        """SHA-256 of all files except the features, whose digest is in the record."""
        return [sha256(file) for file in (self.captions, self.validation, self.excluded) if file is not None]


@dataclass(frozen=True)
class Assembled:
    """A run that is ready to train or embed: `method` on the training device, and its inputs."""

    method: Method
    inputs: Inputs
    digest: str


def assemble(spec: RunSpec, pairs: Pairs, folder: Path, manifest: Path | None) -> Assembled:
    """Build the method of a run and its inputs.

    A run on stored features loads the backbone only if the method runs a tower itself; features that are missing from
    the cache are rebuilt first. An online run opens the images and needs no features.

    Args:
        spec: spec of the run.
        pairs: the dataset.
        folder: folder of the prepared dataset.
        manifest: manifest of the stored features; None for an online run.

    Raises:
        UserError: the method needs pixels and the run has stored features, or the features do not fit the images.
    """
    train_captions = [pairs.texts[caption] for caption in pairs.captions_of(pairs.train_images)]
    if spec.training.inputs == "online":
        return _online(spec, pairs, folder, train_captions)
    if spec.options.image_input == "pixels":
        raise UserError(f"method {spec.method} reads pixels: set training.inputs: online for run {spec.run}")
    if manifest is None:
        raise UserError(f"run {spec.run} reads stored features; give their manifest, or set training.inputs: online")
    return _stored(spec, pairs, folder, manifest, train_captions)


def _stored(spec: RunSpec, pairs: Pairs, folder: Path, manifest: Path, captions: Sequence[str]) -> Assembled:
    def rebuild(old: Manifest) -> Manifest:
        images = open_images(old.spec.dataset, folder)
        return extract(old.spec, pairs.files, pairs.sha256, images, old.texts, FEATURES)

    options = spec.backbone
    assert options is not None
    store = open_store(manifest, FEATURES, rebuild)
    store.manifest.require(options, pairs.sha256, manifest)

    @cache
    def load() -> Backbone:
        return build_backbone(options).to(device())

    backbone = load() if spec.options.runs_backbone else None
    features = options.features.model_copy(update=store.manifest.blocks())
    context = Context(store.manifest.shapes, features, backbone, captions, spec.seed)
    method = build(spec.method, spec.options, context).to(device())
    tokens = spec.options.text_input == "tokens"
    texts = token_texts(method.tokenize) if tokens else stored_texts(store, method.text_blocks, load)
    return Assembled(method, Inputs(stored_images(store, method.image_blocks), texts), store.manifest.digest)


def _online(spec: RunSpec, pairs: Pairs, folder: Path, captions: Sequence[str]) -> Assembled:
    assert spec.source is not None
    options = spec.backbone
    backbone = None if options is None else build_backbone(options).to(device())
    features = FeatureOptions() if options is None else options.features
    context = context_of(spec.options, backbone, features, captions, spec.seed)
    method = build(spec.method, spec.options, context).to(device())
    images = open_images(spec.source, folder)
    preprocess = method.preprocess if backbone is None else backbone.preprocess
    crop = spec.training.augmentation == "crop_flip"
    pixels = OnlineImages(preprocess, images, pairs.files, pairs.sha256, crop)
    inputs = Inputs(pixels, token_texts(method.tokenize))
    if backbone is not None and options is not None:
        if spec.options.image_input == "features":
            inputs = Inputs(online_images(pixels, backbone, options, method.image_blocks), inputs.texts)
        if spec.options.text_input == "features":
            inputs = Inputs(inputs.images, online_texts(backbone, options, method.text_blocks))
    return Assembled(method, inputs, digest(pairs.sha256))


def train_run(spec: RunSpec, files: RunFiles, out: Path) -> dict[str, Any]:
    """Train a run, or resume it, and write its checkpoint with its curve beside it.

    Returns:
        number of images seen and validation mR, for the run-time record.

    Raises:
        UserError: an input does not match the run, the loss is not finite, or the disk is full.
    """
    pairs = files.pairs(spec)
    ready = assemble(spec, pairs, files.folder, files.features)
    record = _record(spec, ready)
    state_file = STATES / _state_digest(spec, record, files) / "state.pt"
    state = Trainer(ready.method, ready.inputs, pairs, spec, state_file).run() if ready.method.trained() else None
    trained = {
        "images_seen": state.images_seen if state else 0,
        "epochs": len(state.curve) if state else 0,
        "best_epoch": state.best_epoch if state else 0,
        "val_mr": round(state.best_mr, 4) if state else None,
    }
    if rank() == 0:  # only the first process writes
        images, captions = len(pairs.train_images), len(pairs.captions_of(pairs.train_images))
        record |= {"train_images": images, "train_captions": captions, **trained}
        curve = state.curve if state else []
        write_text(out.with_suffix(".curve.jsonl"), "".join(json.dumps(entry) + "\n" for entry in curve))
        save(out, state.best if state else {}, record)
        state_file.unlink(missing_ok=True)
    return {name: trained[name] for name in ("images_seen", "val_mr")}


def _record(spec: RunSpec, ready: Assembled) -> dict[str, Any]:
    return {
        "spec": spec.model_dump(),
        "trainable_parameters": ready.method.count(),
        "features": ready.digest,
        "code": code_digest(*TRAINING, *spec.modules()),
        "versions": versions(),
        "threads": spec.training.threads,
        "device": device().type,
    }


def _state_digest(spec: RunSpec, record: dict[str, Any], files: RunFiles) -> str:
    """Digest that names the state's folder: a training resumes on the same kind of device or starts anew.

    The number of processes is left out, because resuming with another number is an error, not a new training.
    """
    same = record | {"spec": spec.model_dump(exclude={"training": {"processes"}})}
    return digest([same, *files.hashes()])


def embed_run(checkpoint: Path, files: RunFiles, queries: Path, template: str, out: Path) -> None:
    """Encode the test images and the test captions under every label protocol, and write the embeddings.

    Args:
        checkpoint: checkpoint of the trained run.
        files: the files that the run was trained on.
        queries: the test captions under the label protocols that do not depend on the run.
        template: prompt template of the dataset, for protocol `predicted`.
        out: file for the embeddings.

    Raises:
        UserError: the checkpoint is missing or damaged, or belongs to another run.
    """
    tensors, record = load(checkpoint)
    spec = validate(RunSpec, record["spec"], str(checkpoint))
    torch.set_num_threads(spec.training.threads)
    pairs = files.pairs(spec)
    ready = assemble(spec, pairs, files.folder, files.features)
    load_tensors(ready.method.trained(), tensors)
    frame = read_frame(queries)
    texts = {name: frame[name].tolist() for name in frame.columns.drop(["caption_id", "image_id"])}
    texts["predicted"] = predicted_queries(template, pairs, texts["none"])
    record |= {"embedding": {"code": code_digest(*EMBEDDING, *spec.modules()), "versions": versions()}}
    precision = spec.training.precision
    save(out, embeddings(ready.method, ready.inputs, pairs.test_images, spec.views, texts, precision), record)
