"""A store of random features, for the profile of a step that reads stored ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch

from cmer.backbones.base import Backbone, Features
from cmer.config.backbones import BackboneOptions
from cmer.config.datasets import DemoDataset
from cmer.features.device import device
from cmer.features.quantise import encoded
from cmer.features.sink import Sink
from cmer.features.store import FeatureSpec, Manifest, Store
from cmer.methods.base import Method

IMAGES = 32
"""Images in the store: with all blocks of ViT-B-16 in bfloat16 116 MB, more than a processor's caches hold."""
READS = 5
"""Batches whose median time is the speed of reading."""


class StoredFeatures:
    """Features of random numbers that are stored and read as those of a dataset, for as long as this object lives.

    No cost depends on their values. They are in the system's page cache, as after the first epoch over a dataset that
    fits into memory.

    Args:
        backbone: backbone whose features they stand for.
        options: its settings, of which the type of the blocks is used.
        method: method that reads them.
        texts: texts of the batch, one per pair.
        tokens: number of tokens of every text.
    """

    def __init__(
        self, backbone: Backbone, options: BackboneOptions, method: Method, texts: Sequence[str], tokens: int
    ) -> None:
        self.method, self.batch_texts, self.first = method, list(texts), 0
        self.images_held = max(IMAGES, len(texts))
        self._folder = TemporaryDirectory(prefix="cmer-profile-")
        cache, self._dtype = Path(self._folder.name), options.features.dtype
        sink, shapes = Sink(cache / "features"), backbone.shapes
        for _ in range(self.images_held):  # one by one, because the peak of memory is measured later
            sink.append("pooled_images", torch.randn(1, 1, shapes.image_dim))
            for block in method.image_blocks:
                shape = shapes.blocks[block].tokens, shapes.blocks[block].width
                self._append(sink, f"image_block_{block}", (1, 1, *shape))
        if method.options.text_input == "features":
            sink.append("pooled_texts", torch.randn(len(texts), shapes.text_dim))
            sink.append("text_starts", torch.arange(len(texts) + 1) * tokens)
            for block in method.text_blocks:
                self._append(sink, f"text_block_{block}", (len(texts) * tokens, shapes.text_blocks[block].width))
        arrays = sink.describe()
        self.bytes_per_pair = round(
            sum(array.bytes / (self.images_held if "image" in name else len(texts)) for name, array in arrays.items())
        )
        manifest = Manifest(
            digest="features",
            spec=FeatureSpec(dataset=DemoDataset(source="demo"), backbone=options),
            images="",
            weights="",
            shapes=shapes,
            texts=self.batch_texts,
            arrays=arrays,
        )
        self._store = Store(manifest, cache)

    def _append(self, sink: Sink, name: str, shape: tuple[int, ...]) -> None:
        sink.extend(encoded(name, torch.randn(shape), self._dtype))

    def turn(self) -> None:
        """Let the next step read other images."""
        self.first = (self.first + len(self.batch_texts)) % self.images_held

    def images(self, images: np.ndarray) -> Features:
        """Features of the images with these numbers in the batch."""
        rows = (images + self.first) % self.images_held
        return self._store.images(rows, np.zeros_like(rows), self.method.image_blocks).to(device())

    def texts(self, texts: Sequence[str]) -> Features:
        """Features of texts of the batch."""
        return self._store.texts(texts, self.method.text_blocks).to(device())

    def pairs_per_second(self) -> float:
        """Speed at which the store alone is read, on the threads of this process."""
        images, found = np.arange(len(self.batch_texts)), []
        for _ in range(READS):
            self.turn()
            start = time.perf_counter()
            self.images(images)
            if self.method.options.text_input == "features":
                self.texts(self.batch_texts)
            found.append(time.perf_counter() - start)
        return len(images) / median(found)
