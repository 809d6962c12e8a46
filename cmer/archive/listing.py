"""The list of a folder's images with the shard that each belongs to."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from cmer.archive.files import Found, find
from cmer.errors import UserError
from cmer.io import atomic, digest

SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("file", pa.string()),
        ("label", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
    ]
)
ROWS = 100_000
"""Rows of a row group, of which a reader of one shard skips those without it."""


def shard_of(file: str, shards: int) -> int:
    """The shard of a file, by a digest of its name: a new file moves no other one (chosen here)."""
    return int(digest(file)[:8], 16) % shards


def write_listing(folder: Path, labels: dict[str, str] | None, shards: int, out: Path) -> int:
    """Write a Parquet file with every image of a folder, by shard and name, with its label, size and time of change.

    Args:
        folder: the folder.
        labels: file → label; None: the name of the folder that a file lies in.
        shards: number of shards.
        out: the file.

    Returns:
        the number of images.

    Raises:
        UserError: see `cmer.archive.files.find`.
    """
    rows = [{"shard": shard_of(found.file, shards)} | vars(found) for found in find(folder, labels)]
    rows.sort(key=itemgetter("shard"))
    with atomic(out) as temporary:
        pa.parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), temporary, row_group_size=ROWS)
    return len(rows)


def read_listing(path: Path, shard: int) -> list[Found]:
    """The images of a shard.

    Raises:
        UserError: the list is missing or damaged.
    """
    try:
        rows = pa.parquet.read_table(path, schema=SCHEMA, filters=[("shard", "=", shard)])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {str(error)[:200]}; `cmer list-images` writes it") from None
    return [Found(**row) for row in rows.drop_columns("shard").to_pylist()]
