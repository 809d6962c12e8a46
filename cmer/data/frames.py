"""Reading and writing of the CSV files that describe a dataset."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cmer.errors import UserError
from cmer.io import atomic

NUMBERS = ("image_id", "caption_id", "width", "height")


def write_frame(path: Path | str, frame: pd.DataFrame) -> None:
    """Write `frame` as CSV without an index, atomically; the same frame gives the same bytes."""
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")


def read_frame(path: Path | str) -> pd.DataFrame:
    """Read a CSV written by `write_frame`: ids and sizes as int64, everything else as text, empty cells as "".

    Raises:
        UserError: the file is missing.
    """
    try:
        # Text stays text: a caption "null", a label "1" or an all-digit hash must not be converted.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; an earlier step writes it (cmer prepare, cmer augment)") from None
    return frame.astype({name: "int64" for name in NUMBERS if name in frame})
