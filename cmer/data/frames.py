"""Reading and writing of the CSV files between steps: the description of a dataset, queries, ranks, and tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cmer.data.rows import csv_lines
from cmer.errors import UserError
from cmer.io import atomic, digest

NUMBER, SHA256 = "[0-9]{1,15}", "[0-9a-f]{64}"
CELLS = {
    **dict.fromkeys(("image_id", "caption_id", "width", "height", "query", "image"), NUMBER),
    **dict.fromkeys(("greater", "tied_negatives", "tied_positives"), NUMBER),
    **dict.fromkeys(("sha256", "hash"), SHA256),
    "file": r"[^\0]+",
    "split": "train|val|test",
    "direction": "i2t|t2i",
}
"""Regular expressions of the cells of some columns; other columns contain any text."""


@dataclass(frozen=True)
class Schema:
    """What one kind of CSV file contains.

    Attributes:
        command: the command that writes it, named in errors.
        columns: columns that it must have; the first one identifies the row.
        ids: the ids in the first column: consecutive from 0, with at least one, or ascending; None if rows have no id.
    """

    command: str
    columns: tuple[str, ...]
    ids: Literal["consecutive", "ascending"] | None = "consecutive"


IMAGES = Schema("cmer prepare", ("image_id", "file", "label", "split", "width", "height", "sha256"))
HASHES = Schema("cmer prepare", ("image_id", "sha256", "hash"))
CAPTIONS = Schema("cmer prepare", ("caption_id", "image_id", "caption"))
PROMPTS = Schema("cmer augment", ("caption_id", "image_id", "caption", "label", "prompt"))
QUERIES = Schema("cmer augment", ("caption_id", "image_id", "none", "oracle", "shuffled"), "ascending")
VALIDATION = Schema("cmer split", ("image_id",), "ascending")
EXCLUDED = Schema("cmer exclude", ("caption_id", "image_id", "reason"), None)
RANKS = Schema(
    "cmer evaluate",
    ("query", "protocol", "direction", "image", "greater", "tied_negatives", "tied_positives"),
    None,
)
TABLE = Schema("cmer table", (), None)


def write_frame(path: Path | str, frame: pd.DataFrame) -> None:
    """Write `frame` as CSV without an index, atomically; the same frame gives the same bytes."""
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")


def read_frame(path: Path | str, schema: Schema) -> pd.DataFrame:
    """Read a CSV written by `write_frame`: ids and counts as int64, everything else as text, empty cells as "".

    Args:
        path: the file.
        schema: what it must contain.

    Raises:
        UserError: the file is missing, is not CSV, or does not fit its schema; the message names the first bad line and
            the command that writes the file.
    """
    remedy = f"run `{schema.command}` again"
    if not Path(path).exists():
        raise UserError(f"{path} does not exist; `{schema.command}` writes it")
    header, rows = _cells(path, remedy)
    missing = [name for name in schema.columns if name not in header]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}; {remedy}")
    # Text stays text: a caption "null", a label "1" or an all-digit hash must not be converted.
    frame = pd.DataFrame(rows, columns=header, dtype=str)
    for name in filter(CELLS.get, schema.columns):
        bad = np.flatnonzero(~frame[name].str.fullmatch(CELLS[name]))
        if len(bad):
            raise UserError(f"{path}, row {bad[0] + 1}: {name} is {frame[name][bad[0]][:80]!r}; {remedy}")
    if not rows and schema.ids == "consecutive":
        raise UserError(f"{path} has no row; {remedy}")
    frame = frame.astype({name: "int64" for name in schema.columns if CELLS.get(name) == NUMBER})
    if schema.ids and not _ordered(frame[schema.columns[0]].to_numpy(), schema.ids):
        raise UserError(f"{path}: the column {schema.columns[0]} is not {schema.ids}; {remedy}")
    return frame


def digest_of_test_split(images: pd.DataFrame, queries: pd.DataFrame) -> str:
    """Digest of a test split: its images' content, and its queries in their order.

    Args:
        images: rows of images.csv.
        queries: the test captions under the label protocols that do not depend on a run.
    """
    return digest([images.loc[images["split"] == "test", "sha256"].tolist(), queries.astype(str).to_dict("list")])


def _cells(path: Path | str, remedy: str) -> tuple[list[str], list[list[str]]]:
    lines = [cells for _, cells in csv_lines(path, remedy)]
    if not lines:
        raise UserError(f"{path} is empty; {remedy}")
    header, *rows = lines
    if len(set(header)) < len(header):
        raise UserError(f"{path} has two columns of one name: {', '.join(header)[:200]}; {remedy}")
    uneven = next((row for row, cells in enumerate(rows, start=1) if len(cells) != len(header)), None)
    if uneven:
        raise UserError(f"{path}, row {uneven} has {len(rows[uneven - 1])} cells, not {len(header)}; {remedy}")
    return header, rows


def _ordered(ids: np.ndarray, order: str) -> bool:
    if order == "consecutive":
        return np.array_equal(ids, np.arange(len(ids)))
    return bool(np.all(np.diff(ids) > 0))
