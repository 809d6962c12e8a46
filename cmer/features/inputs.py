"""Inputs of a method: stored features, frozen features computed at every step, pixels, or tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from cmer.backbones.base import Backbone, Features, Preprocess, Tokens
from cmer.config.backbones import BackboneOptions
from cmer.data.images import ImageStore
from cmer.features.device import autocast, device
from cmer.features.store import Store
from cmer.features.views import dihedral_each
from cmer.io import cores


@dataclass(frozen=True)
class Inputs:
    """Functions that turn the images and texts of a batch into a method's inputs, on the training device.

    Attributes:
        images: (image ids [B], dihedral views [B], whether this is training) → frozen features or pixels.
        texts: (B texts) → frozen features or tokens.
    """

    images: Callable[[np.ndarray, np.ndarray, bool], Features | Tensor]
    texts: Callable[[Sequence[str]], Features | Tokens]


def stored_images(store: Store, blocks: Sequence[int]) -> Callable[[np.ndarray, np.ndarray, bool], Features]:
    """Image features from the store; opens no image file."""
    return lambda images, views, _training: store.images(images, views, blocks).to(device())


def stored_texts(
    store: Store, blocks: Sequence[int], load: Callable[[], Backbone]
) -> Callable[[Sequence[str]], Features]:
    """Text features from the store; batches with a text that is not stored are computed, as if online.

    Not stored are queries with a predicted label, which depends on the captions that a run may see.

    Args:
        store: the stored features.
        blocks: blocks of the text tower.
        load: loads the backbone; called only if a text is not stored.
    """
    load = cache(load)

    def texts(texts: Sequence[str]) -> Features:
        if store.has_texts(texts):
            return store.texts(texts, blocks).to(device())
        return online_texts(load(), store.manifest.spec.backbone, blocks)(texts)

    return texts


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
        size, interpolation = preprocess.size, v2.InterpolationMode(preprocess.interpolation)
        augment = [v2.RandomResizedCrop(size, scale=(0.8, 1.0), interpolation=interpolation), v2.RandomHorizontalFlip()]
        self.augment = v2.Compose(augment) if crop else None
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
    pixels: OnlineImages, backbone: Backbone, options: BackboneOptions, blocks: Sequence[int]
) -> Callable[[np.ndarray, np.ndarray, bool], Features]:
    """Image features, computed with the frozen tower at every call."""

    def images(images: np.ndarray, views: np.ndarray, training: bool) -> Features:
        with torch.no_grad(), autocast(options.precision):
            return backbone.encode_images(pixels(images, views, training), blocks).to(device())

    return images
