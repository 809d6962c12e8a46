"""Export of an archive to Parquet: every row with its embedding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet

from cmer.archive.store import Archive
from cmer.io import atomic

SETTINGS_KEY = "cmer.archive"
"""Key of the metadata that has the archive's settings."""


def export(archive: Archive, out: Path, facts: Mapping[str, str] = MappingProxyType({})) -> int:
    """Write all rows of an archive to a Parquet file, whose schema's metadata has the archive's settings.

    Args:
        archive: the archive.
        out: the file.
        facts: more metadata.

    Returns:
        the number of rows.
    """
    schema = archive.table.schema.with_metadata({SETTINGS_KEY: archive.settings.model_dump_json(), **facts})
    rows = 0
    with atomic(out) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as file:
        for batch in archive.read(schema.names):
            file.write_table(pa.Table.from_batches([batch]).cast(schema))
            rows += batch.num_rows
    return rows
