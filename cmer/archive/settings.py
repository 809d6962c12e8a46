"""What an archive is made with, and what it needs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from cmer.config.archives import Tiling
from cmer.config.base import Model, Text, Width
from cmer.config.datasets import Raster

Vectors = npt.NDArray[np.float32]


class Encoder(Protocol):
    """A model that embeds images and texts in one space, such as `cmer.inference.model.RetrievalModel`.

    Attributes:
        name: name that people read.
        digest: says which model made an embedding.
        dim: width of the embeddings.
    """

    name: str
    digest: str

    @property
    def dim(self) -> int:
        """See above."""

    def encode_images(self, images: Sequence[Path | str | Image.Image]) -> Vectors:
        """Unit embeddings [n, dim]."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit embeddings [n, dim]."""


class Settings(Model):
    """What every embedding of an archive has in common.

    Attributes:
        folder: absolute path of the indexed folder.
        source: what the model is loaded from: the path of a checkpoint, or the name of a backbone.
        model: the model's name.
        digest: the model's digest.
        dim: width of the embeddings.
        tiling: how large scenes are cut.
        raster: conversion to RGB of images that do not have three 8-bit bands.
        probes: partitions of the ANN index that a query reads; 0: there is no index.
        id: random, so that an archive that is made anew at the same URL is another one.
        version: version of the table that the last complete run left, which is searched in a bucket; 0: the newest.
    """

    folder: Text
    source: Text
    model: Text
    digest: Text
    dim: Width
    tiling: Tiling = Tiling()
    raster: Raster | None = None
    probes: Annotated[int, Field(ge=0)] = 0
    id: str = ""
    version: Annotated[int, Field(ge=0)] = 0
