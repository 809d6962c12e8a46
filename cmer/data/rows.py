"""Captions of one's own as rows: a .csv with a header, or a .jsonl with an object a line."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from cmer.errors import UserError
from cmer.io import parse_json, read_text

EXPECTED = "file (or filename), caption and, where you have them, split and label; a .jsonl may have a list captions"


def csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row of a .csv stands, and the row: cells by column.

    Cells are separated by commas; a cell that holds one, or a double quote (doubled), stands in double quotes. Space
    after a comma does not count, and blank lines are no rows.

    Raises:
        UserError: the file is missing, not UTF-8, not CSV with commas, or lacks a column; a row has a cell too many or
            too few.
    """
    csv.field_size_limit(sys.maxsize)  # else a caption of more than 131,072 characters is no CSV
    reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        for cells in filter(None, reader):
            where = f"{path}: line {reader.line_num}"
            if len(cells) != len(header):
                raise UserError(
                    f"{where} has {len(cells)} cells, the header has {len(header)}; put a caption that holds a comma "
                    "in double quotes"
                )
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is not CSV: {error}; check its double quotes") from None


def jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row of a .jsonl stands, and the row. Blank lines are no rows.

    Raises:
        UserError: the file is missing or not UTF-8; a line is not a JSON object, or lacks a key.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}: line {number}"
            row = parse_json(line, where)
            if not isinstance(row, dict):
                raise UserError(f"{where} is not an object; expected the keys {EXPECTED}")
            _check_keys(where, row)
            yield where, row


def _check_header(path: Path, header: list[str]) -> None:
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and sign in header[0]:
            raise UserError(f"{path} is separated by {name}; save it with commas")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"{path} has more than one column {', '.join(map(repr, twice))}; give each a name of its own")
    _check_keys(f"{path}: the header", header)


def _check_keys(where: str, keys: Collection[str]) -> None:
    if len({"file", "filename"}.intersection(keys)) != 1 or len({"caption", "captions"}.intersection(keys)) != 1:
        found = ", ".join(repr(key[:40]) for key in list(keys)[:20]) or "nothing"
        raise UserError(f"{where} has {found}; expected {EXPECTED}")
