"""Extraction: run the frozen towers once over a dataset and store the features for training and evaluation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cmer.backbones.base import Backbone, Features, Preprocess
from cmer.backbones.build import build, resolve_blocks
from cmer.config.backbones import FeatureOptions
from cmer.data.frames import QUERIES, read_frame
from cmer.data.images import ImageStore, open_images
from cmer.data.pairs import Pairs
from cmer.errors import UserError
from cmer.features import MODULES
from cmer.features.device import autocast, threads
from cmer.features.quantise import encoded
from cmer.features.sink import Sink
from cmer.features.space import Amounts, require_space
from cmer.features.store import FeatureSpec, Manifest, Store
from cmer.features.towers import towers
from cmer.features.views import dihedral
from cmer.features.weights import weights_digest
from cmer.io import digest, locked
from cmer.progress import progress
from cmer.provenance import code_digest, versions

IMAGES_A_BATCH = 64
IMAGES_A_PART = 8
"""Images per forward pass on a CPU: EfficientNet-Lite0 took half as long as with 64 images at once."""
TEXTS_A_BATCH = 128


def extract_dataset(
    spec: FeatureSpec, folder: Path, captions: Path | str, queries: Path | str, cache: Path
) -> Manifest:
    """Extract the features of a prepared dataset into the cache, unless they are already there.

    Args:
        spec: dataset and backbone.
        folder: folder of the prepared dataset.
        captions: file of all captions with their prompts.
        queries: file of the test captions under the label protocols that do not depend on the run.
        cache: folder of all extractions.

    Raises:
        UserError: a file is missing, an image is missing or changed, a block does not exist, or the disk is full.
    """
    pairs = Pairs.read(folder, captions)
    asked = read_frame(queries, QUERIES).drop(columns=["caption_id", "image_id"])
    texts = pairs.texts + pairs.prompts + asked.to_numpy().ravel().tolist()
    return extract(spec, pairs.files, pairs.sha256, open_images(spec.dataset, folder), texts, cache)


def extract(
    spec: FeatureSpec,
    files: Sequence[str],
    hashes: Sequence[str],
    images: ImageStore,
    texts: Sequence[str],
    cache: Path,
) -> Manifest:
    """Extract the features of images and unique texts into the cache, unless they are already there.

    An interrupted extraction resumes with the same batches, and therefore gives the same bytes.

    Args:
        spec: dataset and backbone.
        files: file name of each image, by image id.
        hashes: SHA-256 of each image.
        images: store to read the images from.
        texts: all texts except those with a predicted label, which depend on the run.
        cache: folder of all extractions.

    Raises:
        UserError: an image is missing or changed, a block does not exist, or the disk is too small or full.
    """
    with threads(spec.backbone.threads):
        built = build(spec.backbone)
        weights, backbone = weights_digest(built), towers(built, spec.backbone)
        code = code_digest(*MODULES, spec.backbone.module())
        texts = sorted(set(texts), key=lambda text: (len(text), text))
        shown = images.raster and images.raster.model_dump()  # another conversion gives other pixels
        made_of = [spec.backbone.model_dump(exclude={"printed"}), weights, list(hashes), shown, texts, code]
        name = digest([*made_of, _device(backbone).type])
        with locked(cache / f"{name}.lock"):
            finished = cache / name / "manifest.json"
            known = _intact(finished, cache)
            if known is not None:
                return known
            sink = _filled(cache / name, spec, backbone, files, hashes, images, texts)
            record = {
                "code": code,
                "versions": versions() | {spec.backbone.runtime: version(spec.backbone.runtime)},
                "threads": spec.backbone.threads,
                "device": _device(backbone).type,
            }
            manifest = Manifest(
                digest=name,
                spec=spec,
                images=digest(list(hashes)),
                weights=weights,
                shapes=backbone.shapes,
                texts=texts,
                arrays=sink.describe(),
                record=record,
            )
            manifest.write(finished)
            return Manifest.read(finished)  # as later calls read it, so that writing it again gives the same bytes


def _filled(
    folder: Path,
    spec: FeatureSpec,
    backbone: Backbone,
    files: Sequence[str],
    hashes: Sequence[str],
    images: ImageStore,
    texts: Sequence[str],
) -> Sink:
    """The features of all images and texts: the towers encode those that the folder does not hold yet."""
    options = resolve_blocks(spec.backbone.features, backbone)
    sink = Sink(folder)
    amounts = _amounts(backbone, options, files, texts)
    require_space(spec.title, folder, backbone.shapes, options, amounts, sink.bytes())
    with torch.inference_mode(), autocast(spec.backbone.precision):
        _extract_images(backbone, options, files, hashes, images, sink)
        _extract_texts(backbone, options, texts, sink)
    return sink


def _amounts(backbone: Backbone, options: FeatureOptions, files: Sequence[str], texts: Sequence[str]) -> Amounts:
    """What is extracted; tokens are counted only if a block of the text tower is stored."""
    starts = range(0, len(texts) if options.text_blocks else 0, TEXTS_A_BATCH)
    masks = (backbone.tokenize(texts[start : start + TEXTS_A_BATCH]).mask for start in starts)
    return Amounts(images=len(files), texts=len(texts), tokens=sum(int(mask.sum()) for mask in masks))


def _intact(file: Path, cache: Path) -> Manifest | None:
    """The manifest of a finished extraction, or None if there is none; damaged files are removed."""
    try:
        manifest = Manifest.read(file)
    except UserError as error:
        if file.exists():
            print(f"note: {error}", file=sys.stderr)
        return None
    damaged = manifest.damaged(cache)
    for path in damaged:
        print(f"note: {path} is missing or damaged; extracting again", file=sys.stderr)
        path.unlink(missing_ok=True)
    return None if damaged else manifest


def open_store(manifest: Manifest, cache: Path, rebuild: Callable[[Manifest], Manifest]) -> Store:
    """Open the features of a manifest; arrays that are missing from the cache or damaged are rebuilt, under a lock.

    Raises:
        UserError: the images, texts, code, weights or kind of device differ from those of the manifest.
    """
    if manifest.damaged(cache):
        made = rebuild(manifest)
        if made.digest != manifest.digest:
            raise UserError(
                f"the {manifest.spec.title} were made from other images, texts, code or weights, or on another kind of "
                "device; extract them again (cmer features)"
            )
        if made.arrays != manifest.arrays:  # another processor rounds differently; the features are usable
            print(f"note: the rebuilt {manifest.spec.title} differ by rounding from the manifest's", file=sys.stderr)
    return Store(manifest, cache)


def _extract_images(
    backbone: Backbone,
    options: FeatureOptions,
    files: Sequence[str],
    hashes: Sequence[str],
    images: ImageStore,
    sink: Sink,
) -> None:
    blocks = options.blocks or []
    done = int(sink.state["images"])
    with progress("images", len(files), done) as advance:
        for pixels in _pixels(files[done:], hashes[done:], images, backbone.preprocess):
            outputs = [_encode(backbone, dihedral(pixels, view), blocks) for view in range(options.views)]
            sink.append("pooled_images", torch.stack([output.pooled.float() for output in outputs], dim=1))
            for block in blocks:
                views = torch.stack([output.blocks[block] for output in outputs], dim=1)
                sink.extend(encoded(f"image_block_{block}", views, options.dtype))
            done += len(pixels)
            sink.mark("images", done)
            advance(len(pixels))


def _device(backbone: Backbone) -> torch.device:
    """Where the towers run."""
    return next(backbone.parameters()).device


def _encode(backbone: Backbone, pixels: Tensor, blocks: Sequence[int]) -> Features:
    """Features of uint8 squares, computed in chunks that fit a CPU's caches."""
    place = _device(backbone)
    parts = pixels.to(place).split(IMAGES_A_PART if place.type == "cpu" else IMAGES_A_BATCH)
    outputs = [backbone.encode_images(backbone.preprocess.normalise(part), blocks) for part in parts]
    kept = {block: torch.cat([output.blocks[block] for output in outputs]) for block in blocks}
    return Features(torch.cat([output.pooled for output in outputs]), kept)


def _pixels(
    files: Sequence[str], hashes: Sequence[str], images: ImageStore, preprocess: Preprocess
) -> Iterator[Tensor]:
    """Batches of decoded squares, uint8 [n, 3, size, size].

    As many threads as the towers have decode the next batch while the towers run.
    """

    def load(file: str, sha256: str) -> Tensor:
        return preprocess.square(images.load(file, sha256))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        starts = range(0, len(files), IMAGES_A_BATCH)
        batches = (pool.map(load, files[i : i + IMAGES_A_BATCH], hashes[i : i + IMAGES_A_BATCH]) for i in starts)
        waiting = next(batches, None)
        while waiting is not None:
            following = next(batches, None)  # pool.map starts at once
            yield torch.stack(list(waiting))
            waiting = following


def _extract_texts(backbone: Backbone, options: FeatureOptions, texts: Sequence[str], sink: Sink) -> None:
    blocks = options.text_blocks or []
    done = int(sink.state["texts"])
    if not done:
        sink.append("text_starts", torch.zeros(1, dtype=torch.int64))
    end = int(np.fromfile(sink.folder / "text_starts.bin", dtype=np.int64)[-1])
    with progress("texts", len(texts), done) as advance:
        while done < len(texts):
            tokens = backbone.tokenize(texts[done : done + TEXTS_A_BATCH]).to(_device(backbone))
            output = backbone.encode_texts(tokens, blocks)
            starts = end + tokens.mask.sum(dim=1).cumsum(dim=0)
            end = int(starts[-1])
            sink.append("text_starts", starts)
            sink.append("pooled_texts", output.pooled.float())
            for block in blocks:
                sink.extend(encoded(f"text_block_{block}", output.blocks[block][tokens.mask], options.dtype))
            done += len(tokens.ids)
            sink.mark("texts", done)
            advance(len(tokens.ids))
