"""Export of an archive to Parquet: every row with its embedding."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from cmer.archive.store import Archive
from cmer.io import atomic


def export(archive: Archive, out: Path) -> int:
    """Write all rows of an archive to a Parquet file, whose schema's metadata has the archive's settings.

    Returns:
        the number of rows.
    """
    schema = archive.table.schema.with_metadata({"cmer.archive": archive.settings.model_dump_json()})
    rows = 0
    with atomic(out) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as file:
        for batch in archive.read(schema.names):
            file.write_table(pa.Table.from_batches([batch]).cast(schema))
            rows += batch.num_rows
    return rows
