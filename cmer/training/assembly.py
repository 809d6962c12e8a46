"""A run assembled from its spec: the dataset as it sees it, its method, and its inputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cmer.backbones.base import Backbone, Preprocess
from cmer.backbones.build import build as build_backbone
from cmer.captioning.rich import RichQueries, RichTexts
from cmer.config.backbones import FeatureOptions
from cmer.config.runs import RunSpec
from cmer.data.images import open_images
from cmer.data.pairs import Ints, Pairs
from cmer.errors import UserError
from cmer.features.device import device
from cmer.features.extract import extract, open_store
from cmer.features.inputs import (
    Inputs,
    OnlineImages,
    Pixels,
    caption_images,
    online_images,
    online_texts,
    stored_images,
    stored_texts,
    token_texts,
)
from cmer.features.store import Manifest, Store
from cmer.features.weights import require_weights
from cmer.io import digest, sha256
from cmer.methods.base import Context, Method
from cmer.methods.build import build, context_of

FEATURES = Path("work/features")


@dataclass(frozen=True)
class RunFiles:
    """Input files of a run.

    Attributes:
        folder: folder of the prepared dataset.
        captions: all captions with their prompts (`cmer augment`).
        validation: ids of the validation images (`cmer split`).
        excluded: train captions to exclude (`cmer exclude`).
        features: manifest of the stored features; None for an online run.
        rich: rich texts of the images (`cmer caption`), for a run that reads them in place of images.
    """

    folder: Path
    captions: Path
    validation: Path
    excluded: Path | None = None
    features: Path | None = None
    rich: Path | None = None

    def pairs(self, spec: RunSpec) -> Pairs:
        """The dataset with the validation split, exclusions and subsample of the run."""
        pairs = Pairs.read(self.folder, self.captions, self.validation, self.excluded)
        return pairs.subsample(spec.training.train_images)

    def hashes(self) -> list[str]:
        """SHA-256 of all files except the features, whose digest is in the record."""
        files = (self.folder / "images.csv", self.captions, self.validation, self.excluded, self.rich)
        return [sha256(file) for file in files if file is not None]


@dataclass(frozen=True)
class Assembled:
    """A run that is ready to train or embed.

    Attributes:
        method: the method on the training device.
        inputs: its inputs.
        digest: digest of the inputs and of the user's weight files.
        queries: queries in place of the test captions, if the run has them.
    """

    method: Method
    inputs: Inputs
    digest: str
    queries: RichQueries | None = None


def assemble(
    spec: RunSpec,
    pairs: Pairs,
    folder: Path,
    manifest: Path | None,
    unstored: Collection[str] = (),
    rich: Path | None = None,
    gallery: Ints | None = None,
) -> Assembled:
    """Build the method of a run and its inputs.

    A run on stored features loads the backbone only if the method runs a tower itself, or for texts that are not
    stored; features that are missing from the cache are rebuilt first. An online run opens the images and needs no
    features.

    Args:
        spec: spec of the run.
        pairs: the dataset.
        folder: folder of the prepared dataset.
        manifest: manifest of the stored features; None for an online run.
        unstored: texts that need not be among the stored ones.
        rich: rich texts of the images, for a method that reads them in place of images.
        gallery: ids of the images that are ranked by their rich texts; None: the test images.

    Raises:
        UserError: the method needs pixels and the run has stored features, the features do not fit the images or the
            backbone's weights, the method needs rich texts and has none, or the run does not read a file that is given.
    """
    _require_read(spec, manifest, rich)
    train_captions = [pairs.texts[caption] for caption in pairs.captions_of(pairs.train_images)]
    if spec.options.rich is not None:
        if rich is None:
            raise UserError(f"run {spec.run} reads rich texts; give the file that `cmer caption` wrote as --rich")
        shown = pairs.test_images if gallery is None else gallery
        texts = RichTexts.read(rich, pairs.files, pairs.sha256)
        return _with_weights(spec, _captioned(spec, texts, shown, train_captions))
    if spec.training.inputs == "online":
        return _with_weights(spec, _online(spec, pairs, folder, train_captions))
    if spec.options.image_input == "pixels":
        raise UserError(f"method {spec.method} reads pixels: set training.inputs: online for run {spec.run}")
    if manifest is None:
        raise UserError(f"run {spec.run} reads stored features; give their manifest, or set training.inputs: online")
    return _stored(spec, _open(spec, pairs, folder, manifest), train_captions, unstored)


def _require_read(spec: RunSpec, manifest: Path | None, rich: Path | None) -> None:
    reads = "rich texts" if spec.options.rich else "pixels" if spec.training.inputs == "online" else "stored features"
    if manifest is not None and reads != "stored features":
        raise UserError(f"run {spec.run} reads {reads} and no stored features; omit --features")
    if rich is not None and reads != "rich texts":
        raise UserError(f"run {spec.run} reads {reads} and no rich texts; omit --rich")


def _with_weights(spec: RunSpec, ready: Assembled) -> Assembled:
    """The run with the weight files of the user in its digest."""
    hashes = [sha256(file) for file in spec.weight_files()]
    return replace(ready, digest=digest([ready.digest, hashes])) if hashes else ready


def _open(spec: RunSpec, pairs: Pairs, folder: Path, file: Path) -> Store:
    """The features of a run; they are compared with the run before anything is rebuilt."""

    def rebuild(old: Manifest) -> Manifest:
        images = open_images(old.spec.dataset, folder)
        return extract(old.spec, pairs.files, pairs.sha256, images, old.texts, FEATURES)

    assert spec.backbone is not None
    manifest = Manifest.read(file)
    manifest.require(spec.backbone, pairs.sha256, file)
    return open_store(manifest, FEATURES, rebuild)


def _stored(spec: RunSpec, store: Store, captions: Sequence[str], unstored: Collection[str]) -> Assembled:
    options = spec.backbone
    assert options is not None
    backbone = build_backbone(options).to(device()) if spec.options.runs_backbone else None
    if backbone is not None:
        require_weights(backbone, store.manifest)
    features = options.features.model_copy(update=store.manifest.blocks())
    context = Context(store.manifest.shapes, features, backbone, captions, spec.seed)
    method = build(spec.method, spec.options, context).to(device())
    tokens = spec.options.text_input == "tokens"
    texts = token_texts(method.tokenize) if tokens else stored_texts(store, method.text_blocks, unstored)
    return Assembled(
        method, Inputs(stored_images(store, method.image_blocks), texts, stored=True), store.manifest.digest
    )


def _captioned(spec: RunSpec, rich: RichTexts, images: Ints, captions: Sequence[str]) -> Assembled:
    """A run whose images are represented by their rich texts; it opens no image."""
    assert spec.options.rich is not None
    entries, queries = rich.split(images, spec.options.rich.query)
    gallery = sorted({text for texts in entries for text in texts}, key=lambda text: (len(text), text))
    numbers = {text: number for number, text in enumerate(gallery)}
    method = built(spec, towers_of(spec), captions, gallery)
    texts = {image: [numbers[text] for text in entry] for image, entry in zip(images.tolist(), entries, strict=True)}
    return Assembled(method, Inputs(caption_images(texts), token_texts(method.tokenize)), rich.digest, queries)


def _online(spec: RunSpec, pairs: Pairs, folder: Path, captions: Sequence[str]) -> Assembled:
    assert spec.source is not None
    backbone = towers_of(spec)
    method = built(spec, backbone, captions)
    images = open_images(spec.source, folder)
    crop = spec.training.augmentation == "crop_flip"
    pixels = OnlineImages(preprocess_of(method, backbone), images, pairs.files, pairs.sha256, crop)
    return Assembled(method, online_inputs(spec, method, backbone, pixels), digest(pairs.sha256))


def towers_of(spec: RunSpec) -> Backbone | None:
    """The frozen backbone of a run on the training device; None for a method with its own towers."""
    return None if spec.backbone is None else build_backbone(spec.backbone).to(device())


def built(spec: RunSpec, backbone: Backbone | None, captions: Sequence[str], gallery: Sequence[str] = ()) -> Method:
    """The method of a run that computes its features, with its initial weights, on the training device.

    Args:
        spec: spec of the run.
        backbone: its frozen backbone, which the method may adapt in place.
        captions: captions of the train images, for vocabularies.
        gallery: distinct rich texts of the images, for a method that reads them in place of images.

    Raises:
        UserError: the method does not support the backbone, or a feature block does not exist.
    """
    features = FeatureOptions() if spec.backbone is None else spec.backbone.features
    context = context_of(spec.options, backbone, features, captions, spec.seed, gallery)
    return build(spec.method, spec.options, context).to(device())


def preprocess_of(method: Method, backbone: Backbone | None) -> Preprocess:
    """Preprocessing of a method's pixels: that of the backbone, unless the method has its own towers."""
    return method.preprocess if backbone is None else backbone.preprocess


def online_inputs(spec: RunSpec, method: Method, backbone: Backbone | None, pixels: Pixels) -> Inputs:
    """Inputs of a run that are computed at every call: pixels and tokens, or features of the frozen towers.

    Args:
        spec: spec of the run.
        method: the method that reads them.
        backbone: the frozen towers; None for a method with its own.
        pixels: normalised pixels of the images.
    """
    inputs, options = Inputs(pixels, token_texts(method.tokenize)), spec.backbone
    if backbone is not None and options is not None:
        if spec.options.image_input == "features":
            inputs = replace(inputs, images=online_images(pixels, backbone, options, method.image_blocks))
        if spec.options.text_input == "features":
            inputs = replace(inputs, texts=online_texts(backbone, options, method.text_blocks))
    return inputs
