"""The store of frozen features: raw arrays in a cache folder, described by a manifest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from mmap import ACCESS_COPY, MADV_DONTNEED, mmap
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor

from cmer.backbones.base import Features, Shapes
from cmer.config.backbones import Backbone
from cmer.config.base import Model, changes, validate
from cmer.config.datasets import Dataset
from cmer.errors import UserError
from cmer.features.quantise import DTYPES, decoded, scales_of
from cmer.io import digest, read_json, read_sealed, sha256, write_json, write_sealed

COMMAND = "cmer features"
CHECKED = "checked.json"
"""File beside the arrays with the state that each file had when its content was last compared."""


class FeatureSpec(Model):
    """Settings that the features of a dataset depend on, in addition to its images and texts."""

    dataset: Dataset
    backbone: Backbone

    @property
    def title(self) -> str:
        """What is extracted, for messages."""
        return f"features of {self.dataset.title} from {self.backbone.printed}"


class Array(Model):
    """One array of the cache; the file `{name}.bin` contains its elements in row-major order."""

    shape: list[NonNegativeInt]
    dtype: Literal["float32", "bfloat16", "int8", "int64"]
    sha256: str

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def matches(self, path: Path) -> bool:
        """Whether the file has the size and content of this array."""
        return path.is_file() and path.stat().st_size == self.bytes and sha256(path) == self.sha256


class Manifest(Model):
    """Description of extracted features, with the digest that names their folder in the cache.

    Attributes:
        digest: digest of the images' hashes, the texts, the spec and the backbone's weights.
        spec: settings of the extraction.
        images: digest of the images' hashes, in the order of their ids.
        weights: digest of the backbone's weights.
        shapes: shapes of the backbone, so that a run on stored features need not load it.
        texts: the unique texts, in the order of their rows.
        arrays: arrays by name: `pooled_images` [N, views, dim], `image_block_{b}` [N, views, tokens, width],
            `pooled_texts` [U, dim], `text_block_{b}` [real tokens of all texts, width], `text_starts` [U + 1], and
            for every int8 block `scales_{name}`, which lacks its last dimension.
        record: code digest, versions and threads.
    """

    digest: str
    spec: FeatureSpec
    images: str
    weights: str
    shapes: Shapes
    texts: list[str]
    arrays: dict[str, Array]
    record: dict[str, Any] = Field(default={})

    @classmethod
    def read(cls, path: Path | str) -> Manifest:
        """Read the manifest in `path`; raises `UserError` if it is missing or malformed."""
        return validate(cls, read_sealed(path, COMMAND), str(path))

    def write(self, path: Path | str) -> None:
        """Write the manifest atomically, with a checksum; raises `UserError` if it cannot be written."""
        write_sealed(path, self.model_dump(), COMMAND)

    def blocks(self) -> dict[str, list[int]]:
        """The stored blocks, under their names in `FeatureOptions`."""

        def numbers(prefix: str) -> list[int]:
            return sorted(int(name.removeprefix(prefix)) for name in self.arrays if name.startswith(prefix))

        return {"blocks": numbers("image_block_"), "text_blocks": numbers("text_block_")}

    def require(self, backbone: Backbone, hashes: Sequence[str], path: Path) -> None:
        """Check that the features are those of a run's backbone, with its settings, and images.

        Args:
            backbone: the run's backbone.
            hashes: SHA-256 of each image of the run's dataset, by id.
            path: the manifest's file, named in errors.

        Raises:
            UserError: they are not; the message lists the settings that differ.
        """
        remedy = "give the manifest of the run's dataset and backbone, or extract the features again (cmer features)"
        other = changes(self.spec.backbone, backbone, exclude={"printed"})
        if other:
            raise UserError(f"{path} was extracted with another backbone: its {', '.join(other)}; {remedy}")
        if self.images != digest(list(hashes)):
            raise UserError(f"{path} was extracted from other images; {remedy}")

    def damaged(self, cache: Path) -> list[Path]:
        """Files of arrays that are missing from the cache, or have another content than the manifest says.

        A file is hashed again only if its size, time of change or inode is not that of the last successful check.
        """
        folder = cache / self.digest
        checked = _read_checked(folder / CHECKED)
        found = {name: _state(folder / f"{name}.bin", array.sha256) for name, array in self.arrays.items()}
        bad = [
            folder / f"{name}.bin"
            for name, array in self.arrays.items()
            if found[name] != checked.get(name) and not array.matches(folder / f"{name}.bin")
        ]
        if not bad and found != checked:
            with suppress(UserError):  # a cache that this user cannot write is hashed every time
                write_json(folder / CHECKED, found)
        return bad


def _state(path: Path, content: str) -> list[Any]:
    """What tells whether a file has changed since it had this content; empty for a missing file."""
    if not path.is_file():
        return []
    stat = path.stat()
    return [content, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _read_checked(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except UserError:  # not checked yet, or damaged: everything is hashed
        return {}
    return found if isinstance(found, dict) else {}


class Store:
    """Read access to the features that a manifest describes.

    Arrays are memory-mapped, not loaded: a process holds the rows of a batch; the system's page cache may keep the
    rest.

    Args:
        manifest: description of the features.
        cache: folder with one folder per digest.
    """

    def __init__(self, manifest: Manifest, cache: Path) -> None:
        self.manifest = manifest
        self._folder = cache / manifest.digest
        self._rows = {text: row for row, text in enumerate(manifest.texts)}
        self._open: dict[str, Tensor] = {}
        self._maps: list[mmap] = []

    def array(self, name: str) -> Tensor:
        """The whole array with this name, mapped from its file.

        Raises:
            UserError: the features do not include the array.
        """
        if name not in self._open:
            if name not in self.manifest.arrays:
                held = ", ".join(self.manifest.arrays)
                raise UserError(f"the stored features have no {name}, only {held}; add its block to the config")
            array = self.manifest.arrays[name]
            with (self._folder / f"{name}.bin").open("rb") as file:
                mapped = mmap(file.fileno(), array.bytes, access=ACCESS_COPY)
            self._maps.append(mapped)
            self._open[name] = torch.frombuffer(mapped, dtype=DTYPES[array.dtype]).view(array.shape)
        return self._open[name]

    def _release(self) -> None:
        """Unmap the pages that were read, which would otherwise count as memory of this process for good."""
        for mapped in self._maps:
            mapped.madvise(MADV_DONTNEED)

    def __contains__(self, text: str) -> bool:
        """Whether the features of this text are stored."""
        return text in self._rows

    def images(self, images: np.ndarray, views: np.ndarray, blocks: Sequence[int]) -> Features:
        """Features of the given view of each image: pooled [B, dim], blocks [B, tokens, width]."""
        index, view = torch.from_numpy(images), torch.from_numpy(views)
        kept = {block: self._rows_of(f"image_block_{block}", (index, view)) for block in blocks}
        pooled = self.array("pooled_images")[index, view]
        self._release()
        return Features(pooled, kept)

    def texts(self, texts: Sequence[str], blocks: Sequence[int]) -> Features:
        """Features of texts: pooled [B, dim], blocks [B, L, width] padded with zeros to the longest.

        Raises:
            UserError: a text is not among the stored ones.
        """
        try:
            rows = torch.tensor([self._rows[text] for text in texts])
        except KeyError as error:
            raise UserError(f"no stored features for the text {error}; extract the features again") from None
        pooled = self.array("pooled_texts")[rows]
        kept, mask = self._text_blocks(rows, blocks) if blocks else ({}, None)
        self._release()
        return Features(pooled, kept, mask)

    def _text_blocks(self, rows: Tensor, blocks: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
        starts = self.array("text_starts")
        lengths = starts[rows + 1] - starts[rows]
        steps = torch.arange(int(lengths.max()))
        mask = steps < lengths[:, None]
        where = (starts[rows, None] + steps).where(mask, starts[rows, None])
        return {b: self._rows_of(f"text_block_{b}", (where,)) * mask[..., None] for b in blocks}, mask

    def _rows_of(self, name: str, index: tuple[Tensor, ...]) -> Tensor:
        """Rows of a block: as they are stored, in float32 if that is int8."""
        rows = self.array(name)[index]
        return decoded(rows, self.array(scales_of(name))[index]) if rows.dtype == torch.int8 else rows
