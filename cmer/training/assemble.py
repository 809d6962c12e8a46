"""Put a run together from its spec: features or pixels, backbone, method. Training and embedding start here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cmer.backbones import build as build_backbone
from cmer.config import RunSpec
from cmer.data.images import open_images
from cmer.data.pairs import Pairs
from cmer.errors import UserError
from cmer.features.extract import device, extract, open_store, resolve_blocks
from cmer.features.inputs import Inputs, OnlineImages, online_texts, stored_images, stored_texts, token_texts
from cmer.features.store import Manifest
from cmer.io import digest
from cmer.methods import build as build_method
from cmer.methods.base import Method
from cmer.registry import METHODS

CACHE = Path("work/features")


@dataclass(frozen=True)
class Assembled:
    """A run ready to train or embed: `method` on the training device, and what it reads."""

    method: Method
    inputs: Inputs
    digest: str


def assemble(spec: RunSpec, pairs: Pairs, folder: Path, manifest: Path | None) -> Assembled:
    """Build the method of a run and its inputs.

    A run on stored features loads the backbone only where the method runs a tower itself; features that the cache
    lacks are rebuilt first. An online run opens the images and needs no features.

    Args:
        spec: of the run.
        pairs: the dataset.
        folder: holds the prepared dataset.
        manifest: of the stored features; None for an online run.

    Raises:
        UserError: the method needs pixels and the run has stored features, or the features do not fit the images.
    """
    kind: type[Method] = METHODS.get(spec.method)
    if spec.training.inputs == "online":
        return _online(spec, kind, pairs, folder)
    if kind.reads == "pixels":
        raise UserError(f"method {spec.method} reads pixels: set training.inputs: online for run {spec.run}")
    if manifest is None:
        raise UserError(f"run {spec.run} reads stored features; give their manifest, or set training.inputs: online")
    return _stored(spec, kind, pairs, folder, manifest)


def _stored(spec: RunSpec, kind: type[Method], pairs: Pairs, folder: Path, manifest: Path) -> Assembled:
    def rebuild(old: Manifest) -> Manifest:
        images = open_images(old.spec.dataset, folder)
        return extract(old.spec, pairs.files, pairs.sha256, images, old.texts, CACHE)

    store = open_store(manifest, CACHE, rebuild)
    backbone = build_backbone(spec.backbone).to(device()) if kind.needs_backbone(spec.options) else None
    features = spec.backbone.features.model_copy(update=store.manifest.blocks())
    method = build_method(spec.method, spec.options, store.manifest.shapes, features, backbone, spec.seed).to(device())
    texts = (
        token_texts(backbone)
        if backbone is not None and method.text_reads == "tokens"
        else stored_texts(store, method.text_blocks)
    )
    return Assembled(method, Inputs(stored_images(store, method.image_blocks), texts), store.manifest.digest)


def _online(spec: RunSpec, kind: type[Method], pairs: Pairs, folder: Path) -> Assembled:
    assert spec.source is not None
    backbone = build_backbone(spec.backbone).to(device())
    features = resolve_blocks(spec.backbone.features, backbone)
    runs_tower = kind.reads == "pixels" or kind.needs_backbone(spec.options)
    given = backbone if runs_tower else None
    method = build_method(spec.method, spec.options, backbone.shapes, features, given, spec.seed).to(device())
    images = OnlineImages(
        backbone,
        spec.backbone,
        open_images(spec.source, folder),
        pairs.files,
        pairs.sha256,
        None if method.reads == "pixels" else method.image_blocks,
        crop=spec.training.augmentation == "crop_flip",
    )
    texts = (
        token_texts(backbone)
        if method.text_reads == "tokens"
        else online_texts(backbone, spec.backbone, method.text_blocks)
    )
    return Assembled(method, Inputs(images, texts), digest(pairs.sha256))
