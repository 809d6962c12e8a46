"""Annotation files, and the entries read from them."""

import json
from pathlib import Path
from typing import Any

from cmer.config.datasets import ColumnLabels, SplitFractions
from cmer.data.annotations import Entry, read_entries
from cmer.data.layout import Layout

COLUMN = ColumnLabels()


def read(path: Path, labels: ColumnLabels = COLUMN) -> list[Entry]:
    return read_entries(Layout(path.parent, path, path.parent / "images", labels, split=SplitFractions()))


def csv_of(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "captions.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def jsonl_of(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def json_of(tmp_path: Path, data: Any) -> Path:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(data))
    return path
