"""An archive on disk: a LanceDB table with a row per image or tile, its settings, and one writer at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from cmer.archive.settings import Settings
from cmer.config.base import validate
from cmer.errors import UserError
from cmer.io import locked, read_sealed, write_sealed

TABLE = "images"
COMMAND = "cmer index"
LOCK = "write.lock"
FILES_PER_STATEMENT = 1000
BATCH_ROWS = 8192
"""Rows that are read at once."""


def schema(dim: int) -> pa.Schema:
    """Columns of the table, for embeddings of width `dim`.

    `id` is unique: a digest of file, tile and content. `file` is relative to the indexed folder. The tile is `left` to
    `right` and `top` to `bottom`, in pixels of a scene of `width` x `height` that has `tiles` tiles. `size` and
    `mtime_ns` (nanoseconds since 1970) show whether a file has changed, `sha256` whether its content has. The footprint
    is in degrees of longitude and latitude (WGS 84) or null; `west` is greater than `east` across the antimeridian.
    """
    integers = ("left", "top", "right", "bottom", "width", "height", "tiles")
    return pa.schema(
        [
            ("id", pa.string()),
            ("file", pa.string()),
            ("label", pa.string()),
            *((name, pa.int32()) for name in integers),
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
        path: folder of the archive.
        settings: what its embeddings have in common.
        table: the LanceDB table.
    """

    def __init__(self, path: Path, settings: Settings, table: Any) -> None:
        self.path, self.settings, self.table = path, settings, table

    @classmethod
    def create(cls, path: Path, settings: Settings) -> Archive:
        """Make an archive without rows.

        Raises:
            UserError: LanceDB is not installed.
        """
        database = _connect(path)
        write_sealed(path / "archive.json", settings.model_dump(mode="json"), COMMAND)
        return cls(path, settings, database.create_table(TABLE, schema=schema(settings.dim)))

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Open an archive.

        Raises:
            UserError: it does not exist or is damaged, or LanceDB is not installed.
        """
        if not exists(path):
            raise UserError(f"{path} is not an archive; `cmer index FOLDER --run RUN --store {path}` makes one")
        settings = validate(Settings, read_sealed(path / "archive.json", COMMAND), f"{path / 'archive.json'}")
        try:
            table = _connect(path).create_table(TABLE, schema=schema(settings.dim), exist_ok=True)
            if table.schema.field("vector").type != schema(settings.dim).field("vector").type:
                raise ValueError("its vectors have another width than archive.json says")
            return cls(path, settings, table)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0][:200]
            raise UserError(f"{path} is damaged: {reason}; remove it and run `{COMMAND}` again") from None

    def change(self, **settings: Any) -> None:
        """Change settings on disk, if their values are other ones."""
        changed = self.settings.model_copy(update=settings)
        if changed != self.settings:
            self.settings = changed
            write_sealed(self.path / "archive.json", changed.model_dump(mode="json"), COMMAND)

    def count(self) -> int:
        """Number of rows."""
        return int(self.table.count_rows())

    def read(self, columns: Sequence[str], where: str | None = None, row_ids: bool = False) -> pa.RecordBatchReader:
        """Columns of the rows that satisfy `where` (SQL), batch by batch; with `_rowid` if `row_ids`."""
        query = self.table.search().select(list(columns))
        query = query if where is None else query.where(where)
        query = query.with_row_id(True) if row_ids else query
        return query.to_batches(batch_size=BATCH_ROWS)

    def add(self, rows: pa.Table) -> None:
        """Append rows, all or none."""
        self.table.add(rows)

    def remove(self, files: Sequence[str]) -> None:
        """Remove all rows of files."""
        for some in _parts(files):
            self.table.delete(of_files(some))

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
            self.table.merge_insert("id").when_matched_update_all().execute(changed)

    def index_vectors(self) -> None:
        """Build the ANN index."""
        from lancedb.index import IvfPq

        self.table.create_index("vector", config=IvfPq(distance_type="cosine"))

    def compact(self) -> None:
        """Join small files of the table, and bring an ANN index up to date if there is one."""
        self.table.optimize()


def exists(path: Path) -> bool:
    """Whether there is an archive, empty or not."""
    return (path / "archive.json").is_file()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Be the only writer of the archive at `path`, which need not exist, while the block runs.

    Raises:
        UserError: another process is writing, or the path is of something else.
    """
    names = {each.name for each in path.iterdir()} if path.is_dir() else {"a file"} if path.exists() else set()
    if not exists(path) and (others := sorted(name for name in names - {LOCK} if name[:1] != ".")):
        raise UserError(f"{path} is not an archive, but holds {others[0]}; choose another --store")
    with locked(path / LOCK, f"another `{COMMAND}` is writing to {path}; wait until it has ended"):
        yield


def _parts(files: Sequence[str]) -> Iterator[Sequence[str]]:
    """The files in parts: a statement with too many of them is slow to parse."""
    return (files[start : start + FILES_PER_STATEMENT] for start in range(0, len(files), FILES_PER_STATEMENT))


def of_files(files: Sequence[str]) -> str:
    """The condition (SQL) that a row is of one of these files."""
    return f"file IN ({', '.join(map(quoted, files))})"


def _connect(path: Path) -> Any:
    try:
        import lancedb
    except ImportError:
        raise UserError(
            "archives need LanceDB, which is not installed; `pip install 'cmer[archive]'` adds it"
        ) from None
    return lancedb.connect(path)
