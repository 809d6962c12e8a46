"""An archive: a LanceDB table with a row per image or tile, its settings, and one writer at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

from cmer.archive.places import COMMAND, SETTINGS, Place, place_of
from cmer.archive.settings import Settings
from cmer.archive.trouble import StoreError, damaged
from cmer.config.base import validate
from cmer.errors import UserError

TABLE = "images"
FILES_PER_STATEMENT = 1000
BATCH_ROWS = 8192
"""Rows that are read at once."""
END = b"LANC"
"""Last bytes of every file of a table's data."""


def schema(dim: int) -> pa.Schema:
    """Columns of the table, for embeddings of width `dim`.

    `id` is unique: a digest of file, tile and content. `file` is relative to the indexed folder. The tile is `box`
    (left, top, right, bottom), in pixels of a scene of `scene_size` (width, height) that has `tiles` tiles. `size` and
    `mtime_ns` (nanoseconds since 1970) show whether a file has changed, `sha256` whether its content has. The footprint
    is in degrees of longitude and latitude (WGS 84) or null; `west` is greater than `east` across the antimeridian.

    Pixels are in lists, because LanceDB 0.40 takes milliseconds to read a few rows of an integer column with the same
    value in a million rows, which `scene_size` has if all images have one size.
    """
    return pa.schema(
        [
            ("id", pa.string()),
            ("file", pa.string()),
            ("label", pa.string()),
            ("box", pa.list_(pa.int32(), 4)),
            ("scene_size", pa.list_(pa.int32(), 2)),
            ("tiles", pa.int32()),
            ("west", pa.float64()),
            ("south", pa.float64()),
            ("east", pa.float64()),
            ("north", pa.float64()),
            ("size", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("sha256", pa.string()),
            ("vector", pa.list_(pa.float32(), dim)),
        ]
    )


def quoted(text: str) -> str:
    """The text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


class Archive:
    """The table of an archive and its settings.

    Attributes:
        place: where the archive is.
        settings: what its embeddings have in common.
        table: the LanceDB table.
    """

    def __init__(self, place: Place, settings: Settings, table: Any) -> None:
        self.place, self.settings, self.table = place, settings, table

    @classmethod
    def create(cls, where: Path | str, settings: Settings) -> Archive:
        """Make an archive without rows, with an id of its own.

        Raises:
            UserError: LanceDB is not installed, or the bucket cannot be written to.
        """
        place, made = place_of(where), settings.model_copy(update={"id": uuid4().hex})
        database = _connect(place)
        place.write_settings(made.model_dump(mode="json"))
        return cls(place, made, place.asked(partial(database.create_table, TABLE, schema=schema(made.dim))))

    @classmethod
    def open(cls, where: Path | str, to_write: bool = False) -> Archive:
        """Open an archive; of one in a bucket the last complete state, unless it is to be written.

        Raises:
            UserError: it does not exist, cannot be reached, is damaged or of another version, or LanceDB is not
                installed.
        """
        place = place_of(where)
        if not place.exists():
            raise UserError(f"{place} is not an archive; `cmer index FOLDER --run RUN --store {place}` makes one")
        settings = validate(Settings, place.read_settings(), f"{place}/{SETTINGS}")
        try:
            table = place.asked(partial(_table, place, settings, 0 if to_write else settings.version))
        except (OSError, ValueError, RuntimeError) as error:
            raise damaged(place, str(error)) from None
        return cls(place, settings, table)

    def change(self, **settings: Any) -> None:
        """Change settings on disk, if their values are other ones; raises `StoreError` if the archive is gone."""
        changed = self.settings.model_copy(update=settings)
        if changed != self.settings:
            self.place.require(self.settings.id)
            self.settings = changed
            self.place.write_settings(changed.model_dump(mode="json"))

    @property
    def cache(self) -> Path:
        """The folder of this machine for the vectors."""
        return self.place.cache(self.settings.id)

    def count(self) -> int:
        """Number of rows."""
        return self.place.asked(lambda: int(self.table.count_rows()))

    def read(self, columns: Sequence[str], where: str | None = None, row_ids: bool = False) -> pa.RecordBatchReader:
        """Columns of the rows that satisfy `where` (SQL), batch by batch; with `_rowid` if `row_ids`.

        Raises:
            StoreError: the archive is gone, damaged or cannot be reached, now or while the batches are read.
        """
        query = self.table.search().select(list(columns))
        query = query if where is None else query.where(where)
        query = query.with_row_id(True) if row_ids else query
        found = self.place.asked(lambda: query.to_batches(batch_size=BATCH_ROWS))
        return pa.RecordBatchReader.from_batches(found.schema, self._batches(found))

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while (batch := self.place.asked(lambda: next(reader, None))) is not None:
            yield batch

    def add(self, rows: pa.Table) -> None:
        """Append rows, all or none."""
        self._commit(partial(self.table.add, rows))

    def replace(self, rows: pa.RecordBatchReader) -> None:
        """Replace all rows, and with them the ANN index, in one commit."""
        self._commit(partial(self.table.add, rows, mode="overwrite"))

    def remove(self, files: Sequence[str]) -> None:
        """Remove all rows of files."""
        for some in _parts(files):
            self._commit(partial(self.table.delete, of_files(some)))

    def update(self, files: dict[str, dict[str, Any]]) -> None:
        """Change columns of all rows of files.

        Args:
            files: file → new values by column; the same columns for every file.
        """
        for some in _parts(list(files)):
            rows = self.read(["id", "file"], of_files(some)).read_all().to_pylist()
            changed = pa.Table.from_pylist([{"id": row["id"]} | files[row["file"]] for row in rows])
            types = self.table.schema
            changed = changed.cast(pa.schema([types.field(name) for name in changed.column_names]))
            merge = self.table.merge_insert("id").when_matched_update_all()
            self._commit(partial(merge.execute, changed))

    def _commit(self, write: Callable[[], object]) -> None:
        """Write to the table; a commit with files that a full disk cut short, which LanceDB may overlook, is undone."""
        self._require_alone()
        version, files = self.table.version, self.place.data_files()
        self.place.asked(write)
        if cut := [path for path in self.place.data_files() - files if not _ends(path)]:
            for path in cut:
                path.unlink()
            self.table.checkout(version)
            self.place.asked(self.table.restore)
            raise StoreError(f"{self.place}: {cut[0].name} was cut short; free disk space, then rerun the same command")

    def _require_alone(self) -> None:
        """Raise `UserError` if the archive is gone, or another machine has written since this process opened it.

        LanceDB would write the rest of the rows into a folder that somebody has removed.
        """
        self.place.require(self.settings.id)
        if self.place.shared and self.place.asked(self._newest) != self.table.version:
            raise UserError(
                f"another `{COMMAND}` is writing to {self.place}; wait until it has ended, then rerun the same command"
            )

    def _newest(self) -> int:
        return int(_connect(self.place).open_table(TABLE).version)

    def index_vectors(self) -> None:
        """Build the ANN index."""
        from lancedb.index import IvfPq

        self._commit(partial(self.table.create_index, "vector", config=IvfPq(distance_type="cosine")))

    def compact(self) -> None:
        """Join small files of the table, and bring an ANN index up to date if there is one."""
        self._commit(self.table.optimize)


def exists(where: Path | str) -> bool:
    """Whether there is an archive, empty or not."""
    return place_of(where).exists()


def writing(where: Path | str) -> AbstractContextManager[None]:
    """Be the only writer of the archive, which need not exist, while the block runs.

    In a bucket, another writer is noticed when it has committed something.

    Raises:
        UserError: another process is writing, or the place is of something else.
    """
    return place_of(where).writing()


def _parts(files: Sequence[str]) -> Iterator[Sequence[str]]:
    """The files in parts: a statement with too many of them is slow to parse."""
    return (files[start : start + FILES_PER_STATEMENT] for start in range(0, len(files), FILES_PER_STATEMENT))


def of_files(files: Sequence[str]) -> str:
    """The condition (SQL) that a row is of one of these files."""
    return f"file IN ({', '.join(map(quoted, files))})"


def _table(place: Place, settings: Settings, version: int) -> Any:
    """The table, in a bucket at a version unless that is 0; made if it is missing."""
    table = _connect(place).create_table(TABLE, schema=schema(settings.dim), exist_ok=True)
    if place.shared and version:
        table.checkout(version)
    return table


def _ends(path: Path) -> bool:
    """Whether a file of a table is complete."""
    with path.open("rb") as file:
        file.seek(-min(len(END), path.stat().st_size), os.SEEK_END)
        return file.read() == END


def _connect(place: Place) -> Any:
    try:
        import lancedb
    except ImportError:
        raise UserError(
            "archives need LanceDB, which is not installed; `pip install 'cmer[archive]'` adds it"
        ) from None
    return lancedb.connect(place.uri, storage_options=place.options or None)
