"""Embedding of a folder's images into an archive: only what has changed, in batches, resumable at any time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from cmer.archive.ann import EXACT_UP_TO, Recall, bring_up_to_date
from cmer.archive.files import Found, Plan, content_digest, find, known, plan
from cmer.archive.scenes import Box, Scene, boxes, open_scene
from cmer.archive.settings import Encoder, Settings, Vectors
from cmer.archive.store import Archive, exists, of_files, schema, writing
from cmer.config.archives import Tiling
from cmer.config.datasets import Raster
from cmer.data.images import FolderImages
from cmer.data.raster import UndecodableError
from cmer.errors import UserError
from cmer.io import cores, digest
from cmer.progress import Advance, progress

T = TypeVar("T")
S = TypeVar("S")

ENCODED_AT_ONCE = 128
"""Tiles that the model is given at once."""
ROWS_PER_COMMIT = 1024
SECONDS_PER_COMMIT = 60.0
"""A kill costs at most the work of one commit, which is due after this many rows or seconds."""
ID_LENGTH = 20
"""Hexadecimal digits of an id: among 10⁹ rows, two equal ones have a probability below 10⁻⁶."""


@dataclass
class Summary:
    """What a run did, in images (files) but for `tiles`.

    Attributes:
        embedded: images embedded.
        tiles: rows added.
        removed: images that are gone from the folder.
        updated: images whose label or time of change was updated.
        unchanged: images that needed no embedding.
        skipped: images that could not be read, with the reason.
        recall: of the ANN index, if there is one.
    """

    embedded: int = 0
    tiles: int = 0
    removed: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    recall: Recall | None = None

    def __str__(self) -> str:
        """A sentence for people."""
        parts = [f"{self.embedded:,} embedded"]
        parts += [f"{self.tiles:,} tiles"] * (self.tiles != self.embedded)
        parts += [f"{self.removed:,} removed", f"{self.unchanged:,} unchanged"]
        parts += [f"{self.updated:,} updated"] * bool(self.updated)
        parts += [f"{len(self.skipped):,} skipped"] * bool(self.skipped)
        return ", ".join(parts)


def index(
    folder: Path,
    where: Path | str,
    model: Encoder,
    source: str,
    tiling: Tiling | None = None,
    raster: Raster | None = None,
    labels: dict[str, str] | None = None,
    exact_up_to: int = EXACT_UP_TO,
) -> Summary:
    """Bring an archive up to date with a folder, which makes the archive if it does not exist.

    Rows are appended in batches, each completely or not at all. A run that was killed is resumed by the next one.

    Args:
        folder: the folder.
        where: folder or URL of the archive.
        model: what embeds.
        source: what the model was loaded from.
        tiling: how large scenes are cut; None: as the archive has them, or the default.
        raster: conversion of images that do not have three 8-bit bands; None: as the archive has it.
        labels: file → label; None: the name of the folder that a file lies in.
        exact_up_to: number of rows above which an ANN index is built.

    Raises:
        UserError: the folder has no image; the archive is of another model, folder, tiling or conversion, or cannot be
            reached; or another process is writing to it.
    """
    images = FolderImages(folder.resolve(), raster, "--bands")
    with writing(where):
        archive = opened(where, images.root, model, source, tiling, raster)
        images.raster = archive.settings.raster
        summary = embed(archive, model, images, find(images.root, labels))
        summary.recall = bring_up_to_date(archive, model, exact_up_to)
    return summary


def opened(
    where: Path | str, folder: Path, model: Encoder, source: str, tiling: Tiling | None, raster: Raster | None
) -> Archive:
    """The archive to write to, made if it does not exist; see `index`."""
    if not exists(where):
        made = Settings(
            folder=str(folder), source=source, model=model.name, digest=model.digest, dim=model.dim,
            tiling=tiling or Tiling(), raster=raster,
        )  # fmt: skip
        return Archive.create(where, made)
    archive = Archive.open(where, to_write=True)
    old = archive.settings
    require_model(archive, model)
    for what, given, had in (("--tile and --overlap", tiling, old.tiling), ("--bands", raster, old.raster)):
        if given is not None and given != had:
            raise UserError(f"{where} was made with other values of {what}; omit them, or choose another --store")
    require_folder(archive, folder)
    archive.change(folder=str(folder), source=source)
    return archive


def require_folder(archive: Archive, folder: Path) -> None:
    """Raise `UserError` if the archive is of another folder, which still exists."""
    old = archive.settings.folder
    if Path(old) != folder and Path(old).is_dir():
        raise UserError(f"{archive.place} is an archive of {old}, not of {folder}; choose another --store for it")


def require_model(archive: Archive, model: Encoder) -> None:
    """Raise `UserError` if the archive's embeddings are of another model."""
    made = archive.settings
    if model.digest != made.digest:
        raise UserError(
            f"{archive.place} was made with {made.model} ({made.digest[:12]}), this is {model.name} "
            f"({model.digest[:12]}); give --run {made.source}, or index the folder into another --store"
        )


@dataclass
class _Tile:
    image: Image.Image
    row: dict[str, Any]


def embed(archive: Archive, model: Encoder, images: FolderImages, found: list[Found]) -> Summary:
    """Bring the rows of an archive up to date with these files.

    Args:
        archive: the archive, open to be written.
        model: the archive's model.
        images: the folder.
        found: the files in it that the archive is to have.
    """
    steps = plan(found, known(archive), content_digest(images.root))
    archive.remove(steps.remove)
    archive.update(steps.update)
    summary = Summary(removed=steps.gone, updated=len(steps.update), unchanged=steps.unchanged)
    _embed(archive, model, images, steps, summary)
    if steps.remove or steps.update or summary.tiles:
        archive.compact()
    return summary


def _embed(archive: Archive, model: Encoder, images: FolderImages, steps: Plan, summary: Summary) -> None:
    done = set()
    if steps.partial:
        done = set(archive.read(["id"], of_files(steps.partial)).read_all()["id"].to_pylist())
    writer = _Writer(archive)
    with progress("Embedding images", len(steps.embed) + steps.unchanged, steps.unchanged) as advance:
        tiles = _tiles(images, steps.embed, archive.settings.tiling, summary, advance)
        new = (tile for tile in tiles if tile.row["id"] not in done)
        try:
            while batch := list(islice(new, ENCODED_AT_ONCE)):
                writer.add([tile.row for tile in batch], model.encode_images([tile.image for tile in batch]))
                summary.tiles += len(batch)
        finally:  # also if it is interrupted or fails
            writer.commit()


def _tiles(
    images: FolderImages, files: list[Found], tiling: Tiling, summary: Summary, advance: Advance
) -> Iterator[_Tile]:
    """Tiles of all files that can be decoded; notes the others in `summary`."""

    def opened(found: Found) -> Scene | str:
        try:
            return open_scene(images, found.file)
        except OSError as error:
            return error.strerror or str(error)
        except UndecodableError as error:
            return str(error)

    for found, scene in _ahead(opened, files):
        if isinstance(scene, str):
            summary.skipped.append((found.file, scene))
        else:
            summary.embedded += 1
            cut = boxes(*scene.image.size, tiling)
            yield from (_Tile(scene.image.crop(box), _row(found, scene, box, len(cut))) for box in cut)
        advance(1, f"{len(summary.skipped)} skipped" if summary.skipped else "")


def _ahead(function: Callable[[T], S], items: Iterable[T]) -> Iterator[tuple[T, S]]:
    """Results of a function, in order, with as many items begun ahead as there are cores."""
    with ThreadPoolExecutor(cores()) as pool:
        begun: list[tuple[T, Future[S]]] = []
        for item in items:
            begun.append((item, pool.submit(function, item)))
            if len(begun) > cores():
                first, result = begun.pop(0)
                yield first, result.result()
        for first, result in begun:
            yield first, result.result()


def _row(found: Found, scene: Scene, box: Box, tiles: int) -> dict[str, Any]:
    west, south, east, north = scene.footprint(box) or (None, None, None, None)
    return {
        "id": digest([found.file, *box, scene.sha256])[:ID_LENGTH],
        **vars(found), "box": box, "scene_size": scene.image.size, "tiles": tiles, "sha256": scene.sha256,
        "west": west, "south": south, "east": east, "north": north,
    }  # fmt: skip


class _Writer:
    """Collects rows, and appends them to the table when a commit is due."""

    def __init__(self, archive: Archive) -> None:
        self.archive, self.last = archive, time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self.vectors: list[Vectors] = []

    def add(self, rows: list[dict[str, Any]], vectors: Vectors) -> None:
        self.rows += rows
        self.vectors.append(vectors)
        if len(self.rows) >= ROWS_PER_COMMIT or time.monotonic() - self.last > SECONDS_PER_COMMIT:
            self.commit()

    def commit(self) -> None:
        if self.rows:
            columns = schema(self.archive.settings.dim)
            rows = pa.Table.from_pylist(self.rows, schema=columns.remove(len(columns) - 1))
            numbers = pa.array(np.concatenate(self.vectors).ravel())
            vectors = pa.FixedSizeListArray.from_arrays(numbers, self.archive.settings.dim)
            self.rows, self.vectors = [], []  # a commit that fails is not tried again: it may have arrived
            self.archive.add(rows.append_column(columns[-1], vectors))
        self.last = time.monotonic()
