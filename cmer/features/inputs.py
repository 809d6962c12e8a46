"""Inputs of a method: stored features, frozen features computed at every step, pixels, or tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cmer.backbones.base import Backbone, Features, Preprocess, Tokens
from cmer.backbones.build import build
from cmer.config.backbones import BackboneOptions, FeatureDtype
from cmer.data.images import ImageStore
from cmer.features.device import autocast, device, threads
from cmer.features.quantise import rounded
from cmer.features.store import Manifest, Store
from cmer.features.towers import towers
from cmer.features.views import dihedral_each
from cmer.features.weights import require_weights
from cmer.io import cores

Pixels = Callable[[np.ndarray, np.ndarray, bool], Tensor]
"""(Image ids [B], dihedral views [B], whether this is training) → normalised pixels [B, 3, H, W] on the device."""


@dataclass(frozen=True)
class Inputs:
    """Functions that turn the images and texts of a batch into a method's inputs, on the training device.

    Attributes:
        images: (image ids [B], dihedral views [B], whether this is training) → frozen features, pixels, or numbers of
            rich texts.
        texts: (B texts) → frozen features or tokens.
        stored: whether all inputs are read or tokenised, so that asking again is cheaper than keeping them.
    """

    images: Callable[[np.ndarray, np.ndarray, bool], Features | Tensor]
    texts: Callable[[Sequence[str]], Features | Tokens]
    stored: bool = False


def caption_images(texts: Mapping[int, Sequence[int]]) -> Callable[[np.ndarray, np.ndarray, bool], Tensor]:
    """Numbers [B, K] of the images' rich texts, -1 where an image has fewer; `texts` has them by image id."""

    def images(images: np.ndarray, _views: np.ndarray, _training: bool) -> Tensor:
        rows = [torch.tensor(texts[image]) for image in images.tolist()]
        return pad_sequence(rows, batch_first=True, padding_value=-1).to(device())

    return images


def stored_images(store: Store, blocks: Sequence[int]) -> Callable[[np.ndarray, np.ndarray, bool], Features]:
    """Image features from the store; opens no image file."""
    return lambda images, views, _training: store.images(images, views, blocks).to(device())


def stored_texts(
    store: Store, blocks: Sequence[int], unstored: Collection[str] = ()
) -> Callable[[Sequence[str]], Features]:
    """Text features from the store, and computed ones of the texts that need not be stored.

    Args:
        store: the stored features.
        blocks: blocks of the text tower.
        unstored: texts to compute where they are not stored, as extraction would. These are queries with a predicted
            label, which depends on the captions that a run sees.
    """
    missing = {text for text in unstored if text not in store}
    backbone = cache(lambda: _backbone_of(store.manifest))

    def texts(texts: Sequence[str]) -> Features:
        if missing.isdisjoint(texts):
            return store.texts(texts, blocks).to(device())
        known = sorted(set(texts) - missing)
        asked = sorted(missing.intersection(texts))
        parts = [store.texts(known, blocks)] if known else []
        rows = {text: row for row, text in enumerate([*known, *asked])}
        return _rows([*parts, _computed(store, backbone(), asked, blocks)], [rows[text] for text in texts])

    return texts


def _backbone_of(manifest: Manifest) -> Backbone:
    backbone = build(manifest.spec.backbone)
    require_weights(backbone, manifest)
    return towers(backbone, manifest.spec.backbone)


def _computed(store: Store, backbone: Backbone, texts: Sequence[str], blocks: Sequence[int]) -> Features:
    """Features of texts, computed and rounded like the stored ones."""
    options = store.manifest.spec.backbone
    with threads(options.threads):
        return as_stored(online_texts(backbone, options, blocks)(texts), options.features.dtype)


def as_stored(found: Features, dtype: FeatureDtype) -> Features:
    """Computed features with their blocks rounded as the store does."""
    return Features(found.pooled, {block: rounded(rows, dtype) for block, rows in found.blocks.items()}, found.mask)


def _rows(parts: Sequence[Features], rows: Sequence[int]) -> Features:
    """The given rows of all parts' texts, padded with zeros to the longest text."""

    def taken(tensors: Iterable[Tensor]) -> Tensor:
        each = [row for tensor in tensors for row in tensor]
        return pad_sequence([each[row] for row in rows], batch_first=True)

    parts = [part.to(device()) for part in parts]
    blocks = {block: taken(part.blocks[block] for part in parts) for block in parts[0].blocks}
    mask = taken(part.mask for part in parts if part.mask is not None) if blocks else None
    return Features(taken(part.pooled for part in parts), blocks, mask)


def token_texts(tokenize: Callable[[Sequence[str]], Tokens]) -> Callable[[Sequence[str]], Tokens]:
    """Tokens of texts, for a method that runs a text tower itself."""
    return lambda texts: tokenize(texts).to(device())


def online_texts(
    backbone: Backbone, options: BackboneOptions, blocks: Sequence[int]
) -> Callable[[Sequence[str]], Features]:
    """Text features, computed with the frozen tower at every call."""

    def texts(texts: Sequence[str]) -> Features:
        with torch.no_grad(), autocast(options.precision):
            return backbone.encode_texts(backbone.tokenize(texts).to(device()), blocks).to(device())

    return texts


class OnlineImages:
    """Normalised pixels of images, which are opened and decoded at every call.

    Args:
        preprocess: preprocessing of the towers.
        store: store to read the images from.
        files: file name of each image, by id.
        hashes: SHA-256 of each image's bytes, by id.
        crop: whether to use random crops and horizontal flips in training.
    """

    def __init__(
        self, preprocess: Preprocess, store: ImageStore, files: Sequence[str], hashes: Sequence[str], crop: bool
    ) -> None:
        self.preprocess, self.store, self.files, self.hashes = preprocess, store, files, hashes
        self.augment = _random_crops(preprocess) if crop else None
        self.pool = ThreadPoolExecutor(cores())  # decoding releases the global interpreter lock

    def _square(self, image: int) -> Tensor:
        return self.preprocess.square(self.store.load(self.files[image], self.hashes[image]))

    def __call__(self, images: np.ndarray, views: np.ndarray, training: bool) -> Tensor:
        """See `Inputs.images`."""
        squares = list(self.pool.map(self._square, images))
        if training and self.augment:
            squares = [self.augment(square) for square in squares]
        return self.preprocess.normalise(dihedral_each(torch.stack(squares), views).to(device()))


def online_images(
    pixels: Pixels, backbone: Backbone, options: BackboneOptions, blocks: Sequence[int]
) -> Callable[[np.ndarray, np.ndarray, bool], Features]:
    """Image features, computed with the frozen tower at every call."""

    def images(images: np.ndarray, views: np.ndarray, training: bool) -> Features:
        with torch.no_grad(), autocast(options.precision):
            return backbone.encode_images(pixels(images, views, training), blocks).to(device())

    return images


def _random_crops(preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    """RandomResizedCrop(0.8-1) and horizontal flip of a square."""
    from torchvision.transforms import v2  # 1.5 s, which a training on stored features need not wait for

    interpolation = v2.InterpolationMode(preprocess.interpolation)
    crop = v2.RandomResizedCrop(preprocess.size, scale=(0.8, 1.0), interpolation=interpolation)
    return v2.Compose([crop, v2.RandomHorizontalFlip()])  # type: ignore[no-any-return]
