"""An archive that is embedded in shards, each by a job of its own, and then joined: the rows are those of one run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from cmer.archive.ann import EXACT_UP_TO, Recall, bring_up_to_date
from cmer.archive.export import SETTINGS_KEY, export
from cmer.archive.files import Found
from cmer.archive.index import Summary, embed, opened, require_folder
from cmer.archive.settings import Encoder, Settings
from cmer.archive.store import BATCH_ROWS, Archive, exists, schema, writing
from cmer.config.archives import ShardSpec
from cmer.data.images import FolderImages
from cmer.errors import UserError
from cmer.io import digest, expand

STATE = Path("work/archives")
"""Unfinished shards; may be deleted at any time."""
SKIPPED_KEY = "cmer.skipped"
"""Key of a shard's metadata that has the files that could not be read, with the reasons, as JSON."""


@dataclass(frozen=True)
class Built:
    """An archive that was joined.

    Attributes:
        settings: its settings.
        rows: images and tiles.
        skipped: images that could not be read, with the reason.
        recall: of the ANN index, if there is one.
    """

    settings: Settings
    rows: int
    skipped: list[tuple[str, str]]
    recall: Recall | None


def embed_shard(found: list[Found], shard: int, spec: ShardSpec, model: Encoder, source: str, out: Path) -> Summary:
    """Embed the images of a shard into a Parquet file, with the columns of an archive.

    The shard is first an archive of its own in `STATE`, so an interrupted job is resumed, and only new and changed
    images are embedded again.

    Args:
        found: the images of the shard.
        shard: its number.
        spec: what the embedding depends on.
        model: what embeds.
        source: what the model was loaded from.
        out: the file.
    """
    images = FolderImages(expand(spec.folder).resolve(), spec.raster, "archives.*.raster")
    store = STATE / digest([spec.model_dump(), model.digest]) / f"{shard}.lance"
    with writing(store):
        archive = opened(store, images.root, model, source, spec.tiling, spec.raster)
        summary = embed(archive, model, images, found)
        export(archive, out, {SKIPPED_KEY: json.dumps(summary.skipped)})
    return summary


def build(shards: Sequence[Path], where: Path | str, model: Encoder, exact_up_to: int = EXACT_UP_TO) -> Built:
    """Make an archive of shards, or replace the rows of an archive of the same folder, in one commit.

    Args:
        shards: files that `embed_shard` wrote.
        where: folder or URL of the archive.
        model: what embedded them.
        exact_up_to: number of rows above which an ANN index is built.

    Raises:
        UserError: a shard is missing or damaged, or of another model, folder or tiling than the others; the archive is
            of another folder; or another process is writing to it.
    """
    settings = _common([_settings(path) for path in shards], model)
    with writing(where):
        archive = Archive.open(where, to_write=True) if exists(where) else Archive.create(where, settings)
        require_folder(archive, Path(settings.folder))
        archive.replace(pa.RecordBatchReader.from_batches(schema(settings.dim), _batches(shards)))
        archive.compact()
        kept = archive.settings.model_dump(include={"id", "probes", "version"})
        archive.settings = settings.model_copy(update=kept)  # written together with the new version
        recall = bring_up_to_date(archive, model, exact_up_to)
    skipped = [each for path in shards for each in json.loads(_metadata(path)[SKIPPED_KEY.encode()])]
    return Built(archive.settings, archive.count(), sorted(map(tuple, skipped)), recall)


def _metadata(path: Path) -> dict[bytes, bytes]:
    try:
        found: dict[bytes, bytes] = pa.parquet.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {str(error)[:200]}; `cmer embed-shard` writes it") from None
    if not {SETTINGS_KEY.encode(), SKIPPED_KEY.encode()} <= set(found):
        raise UserError(f"{path} is not a shard of an archive; `cmer embed-shard` writes it")
    return found


def _settings(path: Path) -> Settings:
    """The settings of a shard, without the id that is its own."""
    return Settings.model_validate_json(_metadata(path)[SETTINGS_KEY.encode()]).model_copy(update={"id": ""})


def _common(settings: list[Settings], model: Encoder) -> Settings:
    first = settings[0]
    for shard, other in enumerate(settings):
        if other != first or other.digest != model.digest:
            raise UserError(f"shard {shard} is of another model, folder or tiling than the archive; embed it again")
    return first


def _batches(shards: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for path in shards:
        with pa.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                yield batch.replace_schema_metadata(None)
